"""Time of a call: real, faster for tests, or virtual.

Playout, turn taking and the simulated caller read this clock, so that a test can run a whole call
five times as fast, or on a virtual event loop. Network time-outs stay in real seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["OUTSIDE", "SYSTEM_CLOCK", "Clock", "Outside"]


class Clock:
    """A monotonic clock that runs ``scale`` times as fast as ``time``."""

    __slots__ = ("now", "scale")

    def __init__(self, scale: float = 1.0, time: Callable[[], float] = time.monotonic) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.scale: float = scale
        self.now: Callable[[], float] = time if scale == 1.0 else lambda: time() * scale
        """Seconds since an arbitrary start. It is asked many times a turn, so nothing stands before a real clock."""

    def real(self, seconds: float) -> float:
        """How many real seconds ``seconds`` of this clock take, for :func:`asyncio.timeout`."""
        return seconds / self.scale

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Run ``callback`` on the running loop when the clock reads ``when``, or at once if it is past."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.now()) / self.scale, callback)

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` of this clock."""
        await asyncio.sleep(seconds / self.scale)


class Outside:
    """Counts what is waited for outside of this process and takes real time; virtual time is real meanwhile."""

    def __init__(self) -> None:
        self.busy: int = 0

    @contextmanager
    def work(self) -> Generator[None]:
        """Something outside works while the block runs."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1


OUTSIDE = Outside()
SYSTEM_CLOCK = Clock()
