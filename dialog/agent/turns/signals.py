"""What turn taking is told, and what it decides."""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.message import Playback, Utterance

__all__ = [
    "Aborted",
    "Close",
    "Cut",
    "Decision",
    "Drop",
    "Final",
    "Finalize",
    "Infer",
    "Interim",
    "LineDown",
    "LineUp",
    "Overflow",
    "PartOpened",
    "Pause",
    "Played",
    "ReplyEnded",
    "Resume",
    "SayRequested",
    "Signal",
    "Speak",
    "SpeechStarted",
    "SpeechStopped",
    "Tick",
    "Unanswered",
]


class SpeechStarted(Struct, frozen=True, gc=False):
    """The caller's voice started, ``age_s`` ago on the audio clock."""

    age_s: float = 0.0


class SpeechStopped(Struct, frozen=True, gc=False):
    """The caller's voice stopped."""


class Interim(Struct, frozen=True, gc=False):
    """The caller is saying this."""

    utterance: Utterance


class Final(Struct, frozen=True, gc=False):
    """The caller has said this."""

    utterance: Utterance


class SayRequested(Struct, frozen=True, gc=False):
    """The agent wants to speak by itself: a greeting, a notice, a late result."""

    turn: UUID
    allow_interrupt: bool = True


class PartOpened(Struct, frozen=True, gc=False):
    """A turn begins a stretch of speech."""

    turn: UUID
    part: int
    allow_interrupt: bool = True


class ReplyEnded(Struct, frozen=True, gc=False):
    """No further part of the turn will come."""

    turn: UUID


class Played(Struct, frozen=True, gc=False):
    """News of a part on the line; ``words``: the caller heard at least one whole word of it."""

    playback: Playback
    words: bool


class Aborted(Struct, frozen=True, gc=False):
    """The agent's own code gives up everything that may be interrupted."""


class LineDown(Struct, frozen=True, gc=False):
    """Media stopped; the call may come back."""


class LineUp(Struct, frozen=True, gc=False):
    """Media flows, for the first time or again."""


class Close(Struct, frozen=True, gc=False):
    """The call is over."""


class Tick(Struct, frozen=True, gc=False):
    """The deadline has come."""


Signal: TypeAlias = (
    SpeechStarted
    | SpeechStopped
    | Interim
    | Final
    | SayRequested
    | PartOpened
    | ReplyEnded
    | Played
    | Aborted
    | LineDown
    | LineUp
    | Close
    | Tick
)


class Infer(Struct, frozen=True, gc=False):
    """Start a reply to ``utterances``; ``turn`` is the newest one's uuid."""

    turn: UUID
    utterances: tuple[Utterance, ...]


class Speak(Struct, frozen=True, gc=False):
    """The floor is free for this agent-initiated turn."""

    turn: UUID


class Drop(Struct, frozen=True, gc=False):
    """Give up a turn of which nothing was heard."""

    turn: UUID
    reason: str


class Cut(Struct, frozen=True, gc=False):
    """Stop a turn that was being heard; its uninterruptible parts stay."""

    turn: UUID
    reason: str


class Pause(Struct, frozen=True, gc=False):
    """Silence the line, keep what was not heard."""

    turn: UUID
    reason: str


class Resume(Struct, frozen=True, gc=False):
    """Let the line speak again. ``false_alarm``: the turn goes on where it was paused."""

    turn: UUID
    false_alarm: bool


class Finalize(Struct, frozen=True, gc=False):
    """Ask the STT for what it has."""

    reason: str


class Unanswered(Struct, frozen=True, gc=False):
    """The call has ended before ``utterances`` could be answered."""

    utterances: tuple[Utterance, ...]


class Overflow(Struct, frozen=True, gc=False):
    """More than ``limit`` characters wait for an answer: the oldest ``chars`` were forgotten."""

    chars: int
    limit: int


Decision: TypeAlias = Infer | Speak | Drop | Cut | Pause | Resume | Finalize | Unanswered | Overflow
