"""What turn taking decides."""

from __future__ import annotations

from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.message import Utterance

__all__ = [
    "Backchannel",
    "Cut",
    "Decision",
    "Drop",
    "End",
    "EndWithdrawn",
    "Finalize",
    "GoOn",
    "Idle",
    "Infer",
    "NearEnd",
    "NoTranscript",
    "Overflow",
    "Pause",
    "Promote",
    "Resume",
    "Speak",
    "TurnModelFailed",
    "Unanswered",
]


class Infer(Struct, frozen=True, gc=False):
    """Start a reply to ``utterances``; ``turn`` is the newest one's uuid.

    ``speculative``: the caller has perhaps not finished. Nothing of the reply may be heard and no tool may
    start before :class:`Promote`; the turn does not hold the floor until then.
    """

    turn: UUID
    utterances: tuple[Utterance, ...]
    speculative: bool = False


class Promote(Struct, frozen=True, gc=False):
    """A speculative turn has the floor: the caller said what it answers. ``utterances`` are the final ones."""

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
    """Stop a turn that was being heard; its uninterruptible parts stay.

    ``at``: ``now``, or at the end of the ``sentence`` that is being heard; a ``now`` may follow a ``sentence``.
    ``goes_on``: the line went down, and what was not heard is still wanted; :class:`GoOn` follows, or a ``Cut``
    without it once it is not.
    """

    turn: UUID
    reason: str
    at: Literal["now", "sentence"] = "now"
    goes_on: bool = False


class GoOn(Struct, frozen=True, gc=False):
    """The line is back, and the caller has said nothing: say what was not heard of this turn in one of its own."""

    turn: UUID


class Pause(Struct, frozen=True, gc=False):
    """Silence the line, keep what was not heard."""

    turn: UUID
    reason: str


class Resume(Struct, frozen=True, gc=False):
    """Let the line speak again. ``false_alarm``: the turn goes on where it was paused."""

    turn: UUID
    false_alarm: bool
    reason: str = ""


class Finalize(Struct, frozen=True, gc=False):
    """Ask the STT for what it has."""

    reason: str


class NoTranscript(Struct, frozen=True, gc=False):
    """The caller's voice was heard and the STT, although asked, made no utterance of it: the agent listens again.

    ``words``: there had been an interim, which the STT does not stand by.
    """

    words: bool


class Backchannel(Struct, frozen=True, gc=False):
    """The caller showed that they listen, or said goodbye in turn: this is noted and not answered."""

    utterance: Utterance
    reason: str


class Idle(Struct, frozen=True, gc=False):
    """Nobody has said anything for a while, for the ``count``-th time: prompt the caller."""

    count: int


class NearEnd(Struct, frozen=True, gc=False):
    """The call reaches its maximum duration in ``seconds``: say so."""

    seconds: float


class End(Struct, frozen=True, gc=False):
    """End the call: ``idle``, ``max_duration``, or the reason given by :class:`EndRequested`.

    What the caller still says waits; what the agent still wants to say is granted.
    """

    reason: str


class EndWithdrawn(Struct, frozen=True, gc=False):
    """The caller spoke over the goodbye: the call, which was to end for ``reason``, goes on."""

    reason: str


class TurnModelFailed(Struct, frozen=True, gc=False):
    """The user's turn model raised; the built-in judgement was taken."""

    error: Exception


class Unanswered(Struct, frozen=True, gc=False):
    """The call has ended before ``utterances`` could be answered."""

    utterances: tuple[Utterance, ...]


class Overflow(Struct, frozen=True, gc=False):
    """More than ``limit`` characters wait for an answer: the oldest ``chars`` were forgotten."""

    chars: int
    limit: int


Decision: TypeAlias = (
    Infer
    | Promote
    | Speak
    | Drop
    | Cut
    | GoOn
    | Pause
    | Resume
    | Finalize
    | NoTranscript
    | Backchannel
    | Idle
    | NearEnd
    | End
    | EndWithdrawn
    | TurnModelFailed
    | Unanswered
    | Overflow
)
