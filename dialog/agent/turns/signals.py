"""What turn taking is told, and what it decides."""

from __future__ import annotations

from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.agent.turns.decisions import (
    Backchannel,
    Cut,
    Decision,
    Drop,
    End,
    EndWithdrawn,
    Finalize,
    GoOn,
    Idle,
    Infer,
    NearEnd,
    NoTranscript,
    Overflow,
    Pause,
    Promote,
    Resume,
    Speak,
    TurnModelFailed,
    Unanswered,
)
from dialog.agent.turns.settings import BargeIn, Endpointing
from dialog.message import Playback, Utterance

__all__ = [
    "Aborted",
    "Backchannel",
    "Claimed",
    "Close",
    "Cut",
    "Decision",
    "Digit",
    "Discarded",
    "Drop",
    "Eager",
    "EagerWithdrawn",
    "End",
    "EndCancelled",
    "EndRequested",
    "EndWithdrawn",
    "EndpointingResolved",
    "Final",
    "Finalize",
    "GoOn",
    "Idle",
    "Infer",
    "Interim",
    "LineDown",
    "LineUp",
    "NearEnd",
    "NoTranscript",
    "Overflow",
    "PartOpened",
    "Pause",
    "Played",
    "Promote",
    "ReplyEnded",
    "Resume",
    "Resumed",
    "SayRequested",
    "Signal",
    "Speak",
    "SpeechStarted",
    "SpeechStopped",
    "Tick",
    "ToolEnded",
    "ToolStarted",
    "TurnJudged",
    "TurnModelFailed",
    "Unanswered",
]


class SpeechStarted(Struct, frozen=True, gc=False):
    """The caller's voice started, ``age_s`` ago on the audio clock."""

    age_s: float = 0.0


class SpeechStopped(Struct, frozen=True, gc=False):
    """The caller's voice stopped, ``age_s`` ago on the audio clock: a detector waits before it is sure."""

    age_s: float = 0.0


class Interim(Struct, frozen=True, gc=False):
    """The caller is saying this."""

    utterance: Utterance


class Eager(Struct, frozen=True, gc=False):
    """The caller has probably said this and no more."""

    utterance: Utterance


class EagerWithdrawn(Struct, frozen=True, gc=False):
    """The caller went on after all."""

    uuid: UUID


class TurnJudged(Struct, frozen=True, gc=False):
    """A model that listens to the caller's audio judged, at the end of speech, whether they have finished.

    ``uuid`` is the utterance it judged, ``None`` what the caller is saying now. It counts until the voice
    starts again.
    """

    probability: float
    uuid: UUID | None = None


class EndpointingResolved(Struct, frozen=True, gc=False):
    """What the endpointing mode ``auto`` means from now on; ``provider`` until this is told."""

    mode: Literal["provider", "local"]
    tells_stops: bool = True
    """Somebody hears when the caller's voice stops; else only its words tell that it has."""
    tells_words: bool = True
    """Words are known while they are said; else only when the voice has stopped."""


class Final(Struct, frozen=True, gc=False):
    """The caller has said this. ``complete``: there is nothing to add, for it was typed and not spoken.

    A complete one may be without words: those who hear them know them, and they are told later. One that is
    neither was no utterance. ``claims``: it interrupts; else it waits for its turn, for it stands for nothing that the
    caller said, but for a model that speaks unasked.
    """

    utterance: Utterance
    complete: bool = False
    claims: bool = True


class Claimed(Struct, frozen=True, gc=False):
    """Whoever hears the caller says that they interrupt, and has stopped speaking."""


class Digit(Struct, frozen=True, gc=False):
    """The caller pressed a key."""

    key: str


class SayRequested(Struct, frozen=True, gc=False):
    """The agent wants to speak by itself: a greeting, a notice, a late result."""

    turn: UUID
    allow_interrupt: bool = True


class PartOpened(Struct, frozen=True, gc=False):
    """A turn begins a stretch of speech.

    ``barge_in``: what the caller's speech does to it. ``endpointing``: how the end of the answer to it is
    found; it counts until that answer has ended, or another turn speaks.
    """

    turn: UUID
    part: int
    allow_interrupt: bool = True
    barge_in: BargeIn | None = None
    endpointing: Endpointing | None = None
    greeting: bool = False


class ReplyEnded(Struct, frozen=True, gc=False):
    """No further part of the turn will come."""

    turn: UUID


class Played(Struct, frozen=True, gc=False):
    """News of a part on the line; ``words``: the caller heard at least one whole word of it."""

    playback: Playback
    words: bool


class ToolStarted(Struct, frozen=True, gc=False):
    """A tool works, perhaps longer than its turn: the caller is not idle but waiting."""

    call_id: str


class ToolEnded(Struct, frozen=True, gc=False):
    """The tool has ended, however."""

    call_id: str


class EndRequested(Struct, frozen=True, gc=False):
    """The agent wants to end the call when ``turn`` was heard; ``None``, or one that is over: when all was."""

    reason: str
    turn: UUID | None = None


class EndCancelled(Struct, frozen=True, gc=False):
    """What :class:`End` ordered is not going to happen (a transfer that failed): the call goes on."""


class Aborted(Struct, frozen=True, gc=False):
    """The agent's own code gives up everything that may be interrupted."""


class Discarded(Struct, frozen=True, gc=False):
    """What the caller has said until now, and was not answered yet, is no answer to what comes."""


class LineDown(Struct, frozen=True, gc=False):
    """Media stopped; the call may come back."""


class LineUp(Struct, frozen=True, gc=False):
    """Media flows, for the first time or again.

    ``goes_on``: what was being said when it stopped is still worth saying.
    """

    goes_on: bool = True


class Resumed(Struct, frozen=True, gc=False):
    """An agent in another process had the call: it has been live for ``live_s``, and these were not answered."""

    live_s: float | None = None
    """``None``: no media has flowed yet."""
    waiting: tuple[Utterance, ...] = ()
    warned: bool = False
    """The caller was told that the call comes near its longest duration."""


class Close(Struct, frozen=True, gc=False):
    """The call is over."""


class Tick(Struct, frozen=True, gc=False):
    """The deadline has come."""


Signal: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | Interim
    | Eager
    | EagerWithdrawn
    | TurnJudged
    | EndpointingResolved
    | Final
    | Claimed
    | Digit
    | SayRequested
    | PartOpened
    | ReplyEnded
    | Played
    | ToolStarted
    | ToolEnded
    | EndRequested
    | EndCancelled
    | Aborted
    | Discarded
    | LineDown
    | LineUp
    | Resumed
    | Close
    | Tick
)
