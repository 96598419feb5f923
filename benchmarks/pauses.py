"""Tells when the whole machine stood still: a host that gives its virtual machines less than they ask for stops them.

Then every program is late, whatever it does, and percentiles of milliseconds mean nothing. A process on each core
asks for little and goes before everything else; when even that is woken late, nobody was woken.
"""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress

_EVERY_S = 0.005
_LATE_S = 0.02


class Pauses:
    """Watches all cores from :meth:`start` to :meth:`stop`; without the right to go first it sees nothing.

    Making one takes a tenth of a second, for two processes are begun: do that before what is measured.
    """

    def __init__(self) -> None:
        self._watchers: list[subprocess.Popen[str]] = []
        for core in range(os.cpu_count() or 1):
            watcher = subprocess.Popen(
                [sys.executable, __file__, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            self._watchers.append(watcher)

    def start(self) -> None:
        """Begin to watch."""
        for watcher in self._watchers:
            assert watcher.stdin is not None
            watcher.stdin.write("\n")
            watcher.stdin.flush()

    def stop(self) -> list[float]:
        """How long each pause was, in milliseconds."""
        told = []
        for watcher in self._watchers:
            out, _ = watcher.communicate("\n", timeout=10)
            told += [float(line) for line in out.split()]
        self._watchers.clear()
        return told


def main(core: int) -> None:
    with suppress(OSError):
        os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(30))
    except OSError:
        return  # it would measure what the other programs do
    sys.stdin.readline()
    last = time.monotonic()
    while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
        now = time.monotonic()
        if now - last > _LATE_S:
            print((now - last) * 1000, flush=True)
        last = now


if __name__ == "__main__":
    main(int(sys.argv[1]))
