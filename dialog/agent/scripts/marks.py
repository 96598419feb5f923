"""Points of what is said, and waiting until they were really heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from dialog.errors import StateError
from dialog.recent import Recent

__all__ = ["Mark", "Marks"]

_REMEMBERED = 256


class Mark:
    """A point of what is said; made by :meth:`~dialog.agent.scripts.call.ScriptCall.mark`."""

    __slots__ = ("_settled", "name", "played")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.played: bool | None = None
        """Whether everything before it was heard; ``None``: it may still be."""
        self._settled = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Mark {self.name!r} played={self.played}>"

    def settle(self, *, played: bool) -> None:
        """Everything before it was heard, or some of it never will be."""
        if self.played is None:
            self.played = played
            self._settled.set()

    async def settled(self) -> bool:
        """Wait until it is known; whether everything before it was heard."""
        await self._settled.wait()
        return bool(self.played)


class Marks:
    """The marks of one script, found by their names. A name may be used again: then it means the newest mark."""

    def __init__(self) -> None:
        self._newest: Recent[str, Mark] = Recent(_REMEMBERED)

    def add(self, mark: Mark) -> None:
        """It is the newest of its name."""
        self._newest[mark.name] = mark

    def find(self, name: str) -> Mark:
        """The newest mark of that name.

        Raises:
            StateError: There is none.
        """
        mark = self._newest.get(name)
        if mark is None:
            raise StateError(f"there is no mark {name!r}: set it with mark({name!r}) before it is waited for")
        return mark

    async def follow(self, mark: Mark, heard: Awaitable[bool]) -> None:
        """Settle ``mark`` as ``heard`` tells; cancelled, it is not heard."""
        played = False
        try:
            played = await heard
        finally:
            mark.settle(played=played)
