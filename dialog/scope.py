"""Who is in a call, and goes with it.

The gateway runs a call's ``on_voip`` inside the call's :class:`CallScope`. Every participant that is
created meanwhile, or later by a task of the call, registers itself there. When the call has ended
the scope disposes whatever the agent's code forgot, so nothing outlives its call.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from dialog.participant import Participant

__all__ = ["CallScope"]

T = TypeVar("T")

logger = logging.getLogger(__name__)
_current: ContextVar[CallScope | None] = ContextVar("dialog_call_scope", default=None)


class Entered:
    """The block of :meth:`CallScope.entered`; on the path of every frame, so it is no generator."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: CallScope) -> None:
        self._scope = scope

    def __enter__(self) -> CallScope:
        self._token = _current.set(self._scope)
        return self._scope

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


class CallScope:
    """All participants of one call, in the order of their creation."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._members: dict[Participant, None] = {}
        self._lingering: dict[Participant, float] = {}
        self._changed = asyncio.Event()

    current = staticmethod(_current.get)
    """The scope of the call that the running task belongs to, if any. On the path of every frame, so it is bare."""

    @staticmethod
    def adopt(scope: CallScope | None) -> None:
        """Let the running context belong to ``scope`` for good; for the context of a new task."""
        _current.set(scope)

    def entered(self) -> Entered:
        """Run a block, and the tasks started in it, inside this scope: ``with scope.entered(): …``."""
        return Entered(self)

    def run(self, act: Callable[[T], object], argument: T) -> None:
        """Do something inside this scope: what :meth:`entered` is, for one call on the path of every message."""
        token = _current.set(self)
        try:
            act(argument)
        finally:
            _current.reset(token)

    @property
    def members(self) -> tuple[Participant, ...]:
        """The participants that are not disposed yet, oldest first."""
        return tuple(self._members)

    def register(self, participant: Participant) -> None:
        """Called by every participant's constructor."""
        self._members[participant] = None

    def forget(self, participant: Participant) -> None:
        """Called by a participant that was disposed."""
        self._members.pop(participant, None)
        self._lingering.pop(participant, None)
        self._changed.set()

    def linger(self, participant: Participant, bound_s: float) -> None:
        """Let ``participant`` outlive the end of the call by at most ``bound_s`` (late recordings)."""
        if participant in self._members:
            self._lingering[participant] = bound_s

    async def settled(self, *, but: Participant, timeout_s: float) -> None:
        """Wait until all participants are gone by themselves, except ``but`` and those that linger."""
        try:
            async with asyncio.timeout(timeout_s):
                while any(each is not but and each not in self._lingering for each in self._members):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return  # close() disposes of the rest, and tells

    async def close(self, *, last: tuple[Participant, ...] = (), timeout_s: float = 2.0) -> tuple[str, ...]:
        """Dispose what is left, newest first, and return the names of what had to be cleaned.

        Participants that :meth:`linger` are waited for, up to their bound, and then disposed too.
        Those in ``last`` (the VoIP, which late callbacks need) go after all others.
        """
        kept = {*last, *self._lingering}
        forgotten = await self._dispose([p for p in self._members if p not in kept], timeout_s)
        if self._lingering:
            bound = max(self._lingering.values())
            try:
                async with asyncio.timeout(bound):
                    while self._lingering:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                logger.info("call %s: wrap-up ended by its bound of %g s", self.name, bound)
        await self._dispose(list(self._members), timeout_s)
        return forgotten

    async def _dispose(self, participants: list[Participant], timeout_s: float) -> tuple[str, ...]:
        names = tuple(type(participant).__name__ for participant in reversed(participants))
        for participant in reversed(participants):
            try:
                participant.dispose()
            except Exception:  # foreign code: the others have to go all the same
                logger.exception("call %s: %s.dispose raised", self.name, type(participant).__name__)
                self.forget(participant)
        await asyncio.gather(*(participant.wait_disposed(timeout_s) for participant in participants))
        return names
