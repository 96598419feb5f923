"""Where events wait for the database: bounded, and handed over without waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from uuid import UUID

from dialog.calls.events import CallEnded, CallStarted
from dialog.calls.publish import Notice

__all__ = ["Buffer"]

_FRAME = (CallStarted, CallEnded)
_MAX_CALLS = 10_000


class Buffer:
    """Takes events until it is full; then it drops and counts them, but keeps room for starts and ends of calls.

    Args:
        limit: Events that may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: int = 0
        """Events handed over so far, those that were dropped not among them."""
        self.lost: int = 0
        """Events that were dropped."""
        self._lost_of: dict[UUID, int] = {}
        self._waiting: deque[Notice] = deque()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether events are dropped now."""
        return len(self._waiting) >= self.limit

    def put(self, notice: Notice) -> bool:
        """Take an event and return at once; whether there was room for it."""
        size = len(self._waiting)
        if size >= self.limit and (size >= 2 * self.limit or not isinstance(notice.event, _FRAME)):
            self.lost += 1
            call_id = notice.call.call_id
            if call_id in self._lost_of or len(self._lost_of) < _MAX_CALLS:
                self._lost_of[call_id] = self._lost_of.get(call_id, 0) + 1
            return False
        self._waiting.append(notice)
        self.taken += 1
        if not size:
            self._changed.set()
        return True

    def take(self, most: int) -> list[Notice]:
        """The oldest events, at most so many; they are the taker's now."""
        batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        if not self._waiting:
            self._changed.clear()
        return batch

    def lost_of(self, call_id: UUID) -> int:
        """How many events of a call were dropped; asked once, when it has ended."""
        return self._lost_of.pop(call_id, 0)

    async def wait(self) -> None:
        """Wait until there is something."""
        await self._changed.wait()
