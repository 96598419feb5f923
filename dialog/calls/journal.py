"""What a call writes down so that another process can go on with it: its events, and what they do not tell.

Where a call has a :class:`Journal`, it is given every event of the call, and between them the entries of
this module, numbered with them. They are for :func:`dialog.calls.checkpoint.fold` only: nobody else is told
of them, and a call without a journal makes none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias, cast
from uuid import UUID

from msgspec import Struct

from dialog.calls.events import CALL_EVENTS, CallEvent, EventBase
from dialog.llm.llm import Item
from dialog.message import Piece, Word

__all__ = [
    "DurationWarned",
    "EndPlanned",
    "EndWithdrawn",
    "HistoryBlock",
    "HistoryRewritten",
    "HistoryWritten",
    "Journal",
    "JournalEvent",
    "PartPlanned",
    "Question",
    "QuestionClosed",
    "SpeechWritten",
    "StateSaved",
    "TurnBegun",
    "TurnCut",
    "TurnWritten",
    "call_events",
]


class Question(Struct, frozen=True, kw_only=True, gc=False):
    """An utterance of the caller that is to be answered."""

    turn: UUID
    text: str
    """Empty: the model that hears the caller has not told yet."""
    start_ms: float = 0.0
    end_ms: float = 0.0
    speaker: str = ""
    """Who said it, where several are told apart."""
    parts: int = 0
    """So many parts were spoken for it before, in a reply that was given up."""

    def __repr__(self) -> str:
        return f"<Question {self.turn} {len(self.text)} chars>"


class HistoryBlock(Struct, frozen=True, kw_only=True, gc=False):
    """A turn in the history, or what was written between two turns."""

    number: int = 0
    """Of a turn; 0 of all others."""
    items: tuple[Item, ...] = ()
    """Empty while the turn is under way."""


class TurnBegun(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.turn_begun"):
    """A turn has the floor, or is prepared for it (``speculative``); told again when that is certain."""

    turn: UUID
    block: int
    """Its number in the history."""
    questions: tuple[Question, ...] = ()
    """What it answers; nothing where the agent began it."""
    user_text: str = ""
    """Words of the caller that it adds to the history …"""
    told: str = ""
    """… to these, which stand before it, for a tool had started."""
    speculative: bool = False
    asks: bool = False
    """The agent's own: the model is asked what to say."""


class PartPlanned(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.part_planned"):
    """A turn is to say something more; ``text`` as far as it is known by then."""

    turn: UUID
    part: int
    text: str = ""
    allow_interrupt: bool = True
    filler: bool = False
    greeting: bool = False
    goes_on: UUID | None = None
    """It is what the caller has not heard of this other turn …"""
    repeats: int = 0
    """… but so many characters at its start, which the history has there."""


class SpeechWritten(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.speech_written"):
    """More of a part is on its way to the line; it comes before its audio does."""

    turn: UUID
    part: int
    text: str = ""
    """What was added to the part's text."""
    pieces: tuple[Piece, ...] = ()
    """Text that the voice was given."""
    words: tuple[Word, ...] = ()
    """When the voice says its words."""
    audio_ms: float = 0.0
    """So long is its audio now …"""
    done: bool = False
    """… and that is all of it."""
    chars_per_s: float = 15.0
    """How fast the voice speaks, as far as is known."""


class TurnWritten(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.turn_written"):
    """All that a turn says is known."""

    turn: UUID


class TurnCut(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.turn_cut"):
    """A turn is given up; what of it was not heard is not wanted any more."""

    turn: UUID


class HistoryWritten(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.history_written"):
    """Something is in the history for good, or has changed there."""

    block: int = 0
    """Which turn; 0: the items stand for themselves."""
    turn: UUID | None = None
    state: Literal["kept", "dropped", "discarded"] = "kept"
    """``dropped``: what it answered is answered again. ``discarded``: it was begun too early."""
    items: tuple[Item, ...] = ()
    owed: bool = False
    """The caller was told half of it, and the model has to say the rest."""


class HistoryRewritten(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.history_rewritten"):
    """The whole history, where more has changed than one turn: instructions, a summary, another agent's."""

    blocks: tuple[HistoryBlock, ...] = ()


class QuestionClosed(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.question_closed"):
    """Something that the caller said is not to be answered: a "mhm", a goodbye in turn."""

    turn: UUID


class EndPlanned(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.end_planned"):
    """The call is to end once the caller has heard what is said, or to be transferred to ``tel``."""

    reason: str
    tel: str = ""
    back_within_s: float | None = None
    summary: str | None = None
    """What is told to whoever takes the call before they get it; ``None``: they are not asked."""


class EndWithdrawn(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.end_withdrawn"):
    """The call is not to end after all."""


class DurationWarned(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.duration_warned"):
    """The caller was told that the call comes near its longest duration."""


class StateSaved(EventBase, frozen=True, kw_only=True, gc=False, tag="journal.state_saved"):
    """The user's own state has changed; see :meth:`dialog.agent.agent.Agent.state`."""

    state: bytes
    """msgpack."""


JournalEvent: TypeAlias = (
    CallEvent
    | TurnBegun
    | PartPlanned
    | SpeechWritten
    | TurnWritten
    | TurnCut
    | HistoryWritten
    | HistoryRewritten
    | QuestionClosed
    | EndPlanned
    | EndWithdrawn
    | DurationWarned
    | StateSaved
)
"""What a journal is given. It encodes to msgpack and JSON as it is."""


def call_events(journal: Iterable[JournalEvent]) -> tuple[CallEvent, ...]:
    """The events of a call that its journal holds, without the entries that are for the journal alone.

    They are what :func:`dialog.calls.report.make_report` makes the report of a whole call from, however many
    processes had it.
    """
    return tuple(cast("CallEvent", event) for event in journal if type(event) in CALL_EVENTS)


class Journal(Protocol):
    """Keeps the events of one call where the death of this process does not reach them."""

    def append(self, event: JournalEvent) -> None:
        """Take the next event and return at once; they come in their order, without a gap in ``seq``."""

    async def acknowledged(self, seq: int) -> None:
        """Wait until the events up to ``seq`` are kept. Only tools wait for it, before they start.

        Raises:
            DialogError: They cannot be kept now; the tool is not started.
        """
