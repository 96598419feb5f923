"""Bounds for hosts: one at a time per key, and a body that cannot grow without end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from dialog.errors import LimitError, StateError

__all__ = ["BodyBuffer", "KeyedMutex"]

ResultT = TypeVar("ResultT")


class KeyedMutex:
    """Lets one holder per key in; the others of that key wait in order, and other keys are not touched.

    ::

        mutex = KeyedMutex(queue_limit=10)
        await mutex.call(call_id, lambda: say("One moment."))

    A key that nobody holds costs nothing. Like all of asyncio, it belongs to one event loop.
    """

    def __init__(self, *, queue_limit: int = 100) -> None:
        """Make one.

        Args:
            queue_limit: How many may wait for one key, not counting its holder.

        Raises:
            ValueError: ``queue_limit`` is negative.
        """
        if queue_limit < 0:
            raise ValueError(f"queue_limit must not be negative, got {queue_limit}")
        self.queue_limit = queue_limit
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Every held key, with those that wait for it."""

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._waiting)

    def held(self, key: Hashable) -> bool:
        """Whether somebody holds ``key``."""
        return key in self._waiting

    async def call(self, key: Hashable, work: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Run ``work`` while holding ``key`` and return its result; ``key`` is released whatever happens.

        Raises:
            LimitError: Too many wait for ``key``; ``work`` was not called.
        """
        await self.acquire(key)
        try:
            return await work()
        finally:
            self.release(key)

    async def acquire(self, key: Hashable) -> None:
        """Wait until ``key`` is ours. Who is cancelled meanwhile leaves the queue and holds nothing.

        Raises:
            LimitError: Too many wait for ``key``.
        """
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
            return
        if len(queue) >= self.queue_limit:
            raise LimitError(f"{len(queue)} wait for key {key!r} already, which is the queue limit")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(key)  # it became ours in the moment of the cancellation
            elif turn in queue:
                queue.remove(turn)
            raise

    def release(self, key: Hashable) -> None:
        """Let the next one in.

        Raises:
            StateError: Nobody holds ``key``.
        """
        queue = self._waiting.get(key)
        if queue is None:
            raise StateError(f"key {key!r} was released without being acquired")
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[key]


class BodyBuffer:
    """Collects the pieces of a body up to ``limit`` bytes."""

    __slots__ = ("_pieces", "limit", "size")

    def __init__(self, limit: int) -> None:
        """Make an empty one.

        Raises:
            ValueError: ``limit`` is negative.
        """
        if limit < 0:
            raise ValueError(f"limit must not be negative, got {limit}")
        self.limit: int = limit
        self.size: int = 0
        """Bytes collected so far."""
        self._pieces: list[bytes] = []

    def __repr__(self) -> str:
        return f"<BodyBuffer {self.size} of {self.limit} bytes>"

    def add(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            LimitError: The body would exceed the limit. What was collected is dropped, and every
                further piece is refused as well.
        """
        self.size += len(piece)
        if self.size > self.limit:
            self._pieces.clear()
            raise LimitError(f"the body is larger than {self.limit} bytes")
        self._pieces.append(piece)

    def bytes(self) -> bytes:
        """The whole body.

        Raises:
            LimitError: It exceeded the limit.
        """
        if self.size > self.limit:
            raise LimitError(f"the body is larger than {self.limit} bytes")
        return b"".join(self._pieces)
