"""Numbers and times the events of a call, and hands them to its journal, if it has one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from dialog.agent.draft import Draft
from dialog.agent.history import History
from dialog.agent.scribe import JournalScribe, Scribe
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.journal import JournalEvent
from dialog.errors import DialogError, LimitError, UserCodeError
from dialog.voip.voip import VoIP

__all__ = ["Ledger"]

J = TypeVar("J", bound=JournalEvent)

_KEPT_S = 2.0
"""How long a tool waits for the journal to keep that it starts."""
_MAX_STATE = 4_000_000
"""Bytes of the user's state: it goes to another process whenever it changes, and to the next one with all the rest."""
_SILENT = "the line was not heard of"

_next: WeakKeyDictionary[VoIP, int] = WeakKeyDictionary()
"""Of calls that an agent has let go of: the number of the next event, if it is taken again."""


class Ledger:
    """Counts on where another process has left the call, or begins anew.

    Args:
        voip: The call.
        checkpoint: Where another process left it.
        history: What the call begins with.
    """

    def __init__(self, voip: VoIP, checkpoint: Checkpoint | None, history: History) -> None:
        self._voip = voip
        self._clock = voip.clock
        self._journal = voip.journal
        self.kept: bool = self._journal is not None
        """Somebody writes down what happens, in the order in which it is noted."""
        self.since: float = self._clock.now() - _elapsed_s(voip, checkpoint)
        """When an agent took the call, on the call's clock."""
        self._seq = _next.get(voip, 0) if checkpoint is None else checkpoint.seq
        self._careless = False
        self.scribe: Scribe = Scribe()
        """Writes down what is for the journal alone."""
        if self._journal is not None:
            drafts = (block.number for block in history.blocks() if isinstance(block, Draft))
            self.scribe = JournalScribe(
                self.note,
                block=checkpoint.blocks if checkpoint is not None else max(drafts, default=0),
                state=checkpoint.state if checkpoint is not None else b"",
            )

    @property
    def elapsed_s(self) -> float:
        """Seconds since an agent took the call."""
        return self._clock.now() - self.since

    def note(self, event: Callable[..., J], /, *, now: float | None = None, **fields: Any) -> J:
        """Make an event, or an entry for the journal alone, with its number and time: ``now``, on the call's clock."""
        at_s = round((self._clock.now() if now is None else now) - self.since, 4)
        made = event(seq=self._seq, at_s=at_s, **fields)
        self._seq += 1
        if self._journal is not None:
            self._journal.append(made)
        return made

    async def may_act(self, seq: int, failed: Callable[[DialogError], None]) -> str:
        """Wait until the journal keeps the event of that number.

        Returns:
            Why a tool must not start all the same; empty: it may.
        """
        if not self._voip.may_act():
            return _SILENT
        if self._journal is None or seq < 0:
            return ""
        try:
            async with asyncio.timeout(_KEPT_S):
                await self._journal.acknowledged(seq)
        except DialogError as exc:
            failed(exc)
            return "it could not be written down"
        except TimeoutError:
            failed(LimitError(f"call {self._voip.metadata.call_id}: event {seq} was not kept within {_KEPT_S:g} s"))
            return "it could not be written down"
        return "" if self._voip.may_act() else _SILENT

    def save(self, owner: str, state: Callable[[], object], failed: Callable[[DialogError], None]) -> None:
        """Write down the user's state, if it has changed."""
        if self._journal is None or self._careless:
            return
        try:
            found = state()
            encoded = b"" if found is None else msgspec.msgpack.encode(found)
            if len(encoded) > _MAX_STATE:
                raise LimitError(f"it takes {len(encoded)} bytes, at most {_MAX_STATE} are kept")  # noqa: TRY301
        except Exception as exc:  # the user's code, or what msgpack cannot encode, or too much
            self._careless = True  # told once, not after every turn
            error = UserCodeError(f"state() of {owner} cannot be kept, and is not asked for again: {exc!r}")
            error.__cause__ = exc
            failed(error)
            return
        self.scribe.state(encoded)

    def close(self) -> None:
        """The agent lets go of the call."""
        _next[self._voip] = self._seq


def _elapsed_s(voip: VoIP, checkpoint: Checkpoint | None) -> float:
    """How long the call has lasted already; the line's clock knows of the time when there was no agent."""
    if checkpoint is None:
        return 0.0
    if checkpoint.live_s is None:
        return checkpoint.elapsed_s
    return max(checkpoint.elapsed_s, checkpoint.live_s + voip.snapshot.at_ms / 1000.0)
