"""The events of a call, in one typed and numbered stream.

Everything that reports on a call (the session report, logs, metrics, later webhooks and checkpoints)
is made from these. ``at_s`` counts on the call's clock from the moment the agent took the call.
"""

from __future__ import annotations

from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.calls.timeline import TurnTimeline

__all__ = [
    "AgentSaid",
    "CallEnded",
    "CallEvent",
    "CallStarted",
    "CallerSaid",
    "CallerSpoke",
    "DigitPressed",
    "ErrorRaised",
    "Interrupted",
    "PausedForCaller",
    "ReplyDropped",
    "ResumedAfterPause",
    "StreamChanged",
    "ToolEnded",
    "ToolStarted",
    "TurnMeasured",
    "UsageReported",
]


class _Event(Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    seq: int
    at_s: float


class CallStarted(_Event, frozen=True, kw_only=True, gc=False, tag="call.started"):
    """An agent took the call."""

    call_id: UUID
    carrier: str
    carrier_call_id: str
    from_: str
    to: str
    direction: str
    started_at: str
    """Wall clock, ISO 8601 with zone."""


class StreamChanged(_Event, frozen=True, kw_only=True, gc=False, tag="stream"):
    """Media started or stopped."""

    state: Literal["live", "moving", "lost", "ended"]
    generation: int


class CallerSpoke(_Event, frozen=True, kw_only=True, gc=False, tag="caller.speech"):
    """The caller's voice started or stopped."""

    state: Literal["started", "stopped"]
    at_ms: float


class CallerSaid(_Event, frozen=True, kw_only=True, gc=False, tag="caller.transcript"):
    """What the caller said; ``final`` once it will not change."""

    turn: UUID
    text: str
    final: bool
    start_ms: float = 0.0
    end_ms: float = 0.0


class AgentSaid(_Event, frozen=True, kw_only=True, gc=False, tag="agent.transcript"):
    """A part of a reply has ended: what of it was heard."""

    turn: UUID
    part: int
    text: str
    """All that was to be said."""
    heard: str
    """What the caller heard of it."""
    state: Literal["played", "cut", "lost"]
    heard_ms: float


class PausedForCaller(_Event, frozen=True, kw_only=True, gc=False, tag="agent.paused"):
    """The agent fell silent because the caller made a sound."""

    turn: UUID


class ResumedAfterPause(_Event, frozen=True, kw_only=True, gc=False, tag="agent.resumed"):
    """No words came: the agent went on (a false interruption)."""

    turn: UUID


class Interrupted(_Event, frozen=True, kw_only=True, gc=False, tag="agent.interrupted"):
    """The caller's words cut a reply off."""

    turn: UUID
    reason: str


class ReplyDropped(_Event, frozen=True, kw_only=True, gc=False, tag="agent.dropped"):
    """A reply of which nothing was heard was given up; what it answered is answered again."""

    turn: UUID
    reason: str


class ToolStarted(_Event, frozen=True, kw_only=True, gc=False, tag="tool.started"):
    """A tool began to run."""

    turn: UUID
    call_id: str
    name: str
    arguments: str


class ToolEnded(_Event, frozen=True, kw_only=True, gc=False, tag="tool.ended"):
    """A tool has answered, failed or timed out."""

    turn: UUID
    call_id: str
    name: str
    result: str
    state: str
    took_s: float


class UsageReported(_Event, frozen=True, kw_only=True, gc=False, tag="usage"):
    """What one request to a model cost, in tokens."""

    turn: UUID
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class DigitPressed(_Event, frozen=True, kw_only=True, gc=False, tag="dtmf"):
    """The caller pressed a key."""

    digit: str


class TurnMeasured(_Event, frozen=True, kw_only=True, gc=False, tag="turn.measured"):
    """A turn is over: when each of its stages happened."""

    timeline: TurnTimeline


class ErrorRaised(_Event, frozen=True, kw_only=True, gc=False, tag="error"):
    """Something went wrong; the call goes on unless ``fatal``."""

    source: str
    code: str
    text: str
    fatal: bool


class CallEnded(_Event, frozen=True, kw_only=True, gc=False, tag="call.ended"):
    """The last event of every call."""

    reason: str
    detail: str = ""


CallEvent: TypeAlias = (
    CallStarted
    | StreamChanged
    | CallerSpoke
    | CallerSaid
    | AgentSaid
    | PausedForCaller
    | ResumedAfterPause
    | Interrupted
    | ReplyDropped
    | ToolStarted
    | ToolEnded
    | UsageReported
    | DigitPressed
    | TurnMeasured
    | ErrorRaised
    | CallEnded
)
