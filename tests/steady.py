"""Time of the tests: what other programs took of the machine is not counted.

Tests share two cores with each other. Where a call runs several times as fast, a process that did not run for 50 ms has
missed 400 ms of a call, and whoever measures pauses has measured the machine. On this loop time passes while it waits,
at most until the next timer, and while it works, as much as it worked: without what the garbage collector took, which
has the objects of all tests before to look at. What waits for other processes waits as ever.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import time

from dialog.clock import Clock

__all__ = ["SteadyLoop", "burn", "steady_clock", "steady_time"]

_LATE_S = 0.001
"""A timer may come so much late on an idle machine as well."""


class _Work:
    """The processor time of this process, without that of its collections."""

    def __init__(self) -> None:
        self._collected = 0.0
        self._since: float | None = None
        gc.callbacks.append(self._collects)

    def __call__(self) -> float:
        return (time.process_time() if self._since is None else self._since) - self._collected

    def _collects(self, phase: str, _: object) -> None:
        if phase == "start":
            self._since = time.process_time()
        elif self._since is not None:
            self._collected += time.process_time() - self._since
            self._since = None


_worked_s = _Work()


class _SteadySelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self._stretch = _working(time.monotonic())

    def time(self) -> float:
        """The loop's time; other threads may ask too."""
        begun, longest_s, since, cpu = self._stretch
        passed = time.monotonic() - since
        return begun + max(0.0, min(passed, _worked_s() - cpu if cpu is not None else longest_s))

    def select(self, timeout=None):
        late_s = _LATE_S if timeout else 0.0
        longest_s = float("inf") if timeout is None else max(timeout, 0.0) + late_s
        self._stretch = (self.time(), longest_s, time.monotonic(), None)
        try:
            return super().select(timeout)
        finally:
            self._stretch = _working(self.time())


def _working(begun: float) -> tuple[float, float, float, float | None]:
    return begun, 0.0, time.monotonic(), _worked_s()


class SteadyLoop(asyncio.SelectorEventLoop):
    """Every test's loop, see ``conftest.py``."""

    newest: SteadyLoop | None = None

    def __init__(self) -> None:
        self._steady = _SteadySelector()
        super().__init__(self._steady)
        SteadyLoop.newest = self

    def time(self) -> float:
        """Seconds since an arbitrary start."""
        return self._steady.time()


def steady_time() -> float:
    """The time of the test's loop."""
    loop = asyncio._get_running_loop()
    if not isinstance(loop, SteadyLoop):
        loop = SteadyLoop.newest  # in a thread, or on a loop that a test runs beside its own
    return loop.time() if loop is not None and loop.is_running() else time.monotonic()


def steady_clock(scale: float = 1.0) -> Clock:
    """A clock that runs ``scale`` times as fast as the time of the test's loop."""
    return Clock(scale, steady_time)


def burn(seconds: float) -> None:
    """Hold the loop up with work, which counts."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass
