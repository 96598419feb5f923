"""Workers are killed with -9 under load: does a call get lost, and how long is a caller left in silence?

``python benchmarks/survival.py [--kills 100] [--calls 20]``. All callers are being told a long story, word by word,
while every second one of the worker processes is killed, always one that has calls. What a caller hears is read from
the line as it was played.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import time
from pathlib import Path

from dialog.loop import calm_collector, new_event_loop
from dialog.voip.memory import MemoryLine, memory_call
from dialog.workers.hosting import HostingSettings
from dialog.workers.pool import WorkerPool

APP = Path(__file__).with_name("survival_app.py")
GAP_S = 0.05
PATIENT = HostingSettings(max_losses=1000)  # by default a call is given up that loses one worker after the other


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class Caller:
    """Somebody who is told a story."""

    def __init__(self, pool: WorkerPool) -> None:
        taken: list[asyncio.Future[None]] = []
        self.call, self.line = memory_call(lambda voip: taken.append(pool.take(voip)), line=MemoryLine())
        self.taken = taken[0]
        self.hosted = pool.host.calls[-1]

    def silences(self, since: float, until: float) -> list[tuple[float, float]]:
        """Where nothing sounded between two moments: start and length."""
        found, at = [], since
        for heard in self.line.heard_until(until):
            end = heard.at_s + len(heard.data) / 8000
            if end <= since:
                continue
            if heard.at_s - at > GAP_S:
                found.append((at, heard.at_s - at))
            at = max(at, end)
        if until - at > GAP_S:
            found.append((at, until - at))
        return found


async def measure(kills: int, calls: int, processes: int) -> None:
    pool = WorkerPool(f"{APP}:on_voip", processes=processes, calls_per_process=calls, hosting=PATIENT)
    await pool.start()
    calm_collector()
    chance = random.Random(5)
    try:
        while len(pool.host.directory) < processes:
            await asyncio.sleep(0.05)
        callers = [Caller(pool) for _ in range(calls)]
        await asyncio.gather(*(asyncio.wait_for(asyncio.shield(each.taken), 10) for each in callers))
        for each in callers:
            each.line.press("1")
        await asyncio.sleep(2.0)
        hit: list[tuple[float, list[Caller]]] = []
        for count in range(kills):
            async with asyncio.timeout(30):  # on a busy machine processes take longer to come up than to be killed
                while not (busy := [node for node in pool.pids if any(each.hosted.worker == node for each in callers)]):
                    await asyncio.sleep(0.05)
            node = chance.choice(busy)
            hit.append((time.monotonic(), [each for each in callers if each.hosted.worker == node]))
            os.kill(pool.pids[node], signal.SIGKILL)
            print(f"\rkill {count + 1} of {kills}, {len(hit[-1][1])} calls hit", end="", flush=True)
            await asyncio.sleep(chance.uniform(2.5, 3.5))
        print()
        gaps = [
            max((length for start, length in each.silences(when, when + 2.5) if start < when + 2.0), default=0.0)
            for when, struck in hit
            for each in struck
        ]
        lost = sum(each.call.voip.state != "live" for each in callers)
        print(f"  kills {kills}, calls {calls}, hand-overs {sum(each.hosted.handed_over for each in callers)}")
        print(f"  calls lost                              {lost}")
        print(f"  longest silence after a kill, p50       {percentile(gaps, 0.5):.2f} s")
        print(f"  … p99                                   {percentile(gaps, 0.99):.2f} s")
        print(f"  … worst                                 {max(gaps, default=float('nan')):.2f} s")
        for each in callers:
            each.line.hang_up()
            await each.call.wait_closed()
    finally:
        await pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--processes", type=int, default=3)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(measure(options.kills, options.calls, options.processes))


if __name__ == "__main__":
    main()
