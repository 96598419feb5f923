"""Waiting until a point of what was posted has really been played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from msgspec.structs import replace

from dialog.clock import Clock
from dialog.message import Playback

__all__ = ["PlayedPoints"]

_EARLY_MS = 0.5
"""What is due within this is there: clocks and frames are rounded."""


class _Waiter:
    __slots__ = ("future", "key", "ms", "timer")

    def __init__(self, key: tuple[UUID, int], ms: float | None, future: asyncio.Future[Playback]) -> None:
        self.key = key
        self.ms = ms
        self.future = future
        self.timer: asyncio.TimerHandle | None = None


class PlayedPoints:
    """Those who wait for points of parts, each for a point of its own; fed with every playback report.

    Reports of a part that plays come four times a second. A point between two of them is told by the
    clock, if all audio before it was handed over to the line and no other report comes first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiters: list[_Waiter] = []

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, uuid: UUID, part: int, ms: float | None, last: Playback | None) -> Playback:
        """The report that settles it: the point was heard, or it never will be. ``last``: the newest report."""
        waiter = _Waiter((uuid, part), ms, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            if last is not None:
                self._look(waiter, last)
            return await waiter.future
        finally:
            self._waiters.remove(waiter)
            self._disarm(waiter)

    def feed(self, playback: Playback) -> None:
        """Take a report."""
        key = (playback.uuid, playback.part)
        for waiter in self._waiters:
            if waiter.key == key:
                self._disarm(waiter)
                self._look(waiter, playback)

    def close(self, error: Callable[[UUID, int], Exception]) -> None:
        """No report comes any more: everybody who still waits gets an ``error`` about the part they wait for."""
        for waiter in self._waiters:
            self._disarm(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(error(*waiter.key))

    def _look(self, waiter: _Waiter, playback: Playback) -> None:
        if waiter.future.done():
            return
        if playback.final or (waiter.ms is not None and playback.heard_ms >= waiter.ms - _EARLY_MS):
            waiter.future.set_result(playback)
            return
        missing = 0.0 if waiter.ms is None else waiter.ms - playback.heard_ms
        if missing and playback.state == "playing" and missing <= playback.queued_ms:
            waiter.timer = self._clock.call_at(
                self._clock.now() + missing / 1000.0, lambda: self._due(waiter, playback, missing)
            )

    def _due(self, waiter: _Waiter, playback: Playback, missing: float) -> None:
        waiter.timer = None
        if not waiter.future.done():
            heard = replace(
                playback,
                heard_ms=playback.heard_ms + missing,
                queued_ms=playback.queued_ms - missing,
                confirmed=False,
            )
            waiter.future.set_result(heard)

    def _disarm(self, waiter: _Waiter) -> None:
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
