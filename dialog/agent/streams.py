"""Closing what streams text, in the task that reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Generic, TypeVar

__all__ = ["closing"]

T = TypeVar("T")


class closing(Generic[T]):  # noqa: N801  # reads as contextlib.aclosing does
    """Like :func:`contextlib.aclosing`, also for iterators that have nothing to close.

    A generator that is left in mid-iteration would run its ``finally`` later, in a foreign task.
    """

    def __init__(self, stream: AsyncIterator[T]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterator[T]:
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()
