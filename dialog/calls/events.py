"""The events of a call, in one typed and numbered stream.

Everything that reports on a call (the session report, metrics, the call log, webhooks, checkpoints) is made from
these. In JSON each is an object with its ``type``, ``seq``, ``at_s`` and fields; ``docs/events.json`` has the schema.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args
from uuid import UUID

from msgspec import Struct, field

from dialog.calls.metrics import SessionMetrics
from dialog.calls.timeline import TurnTimeline
from dialog.usage import Usage

__all__ = [
    "CALL_EVENTS",
    "AgentSaid",
    "AgentSpeaks",
    "AgentTold",
    "CallAnsweredBy",
    "CallEnded",
    "CallEvent",
    "CallMeasured",
    "CallProgressed",
    "CallResumed",
    "CallStarted",
    "CallerSaid",
    "CallerSpoke",
    "CallerUnheard",
    "DigitPressed",
    "ErrorRaised",
    "EventBase",
    "HandedOff",
    "IdlePrompted",
    "Interrupted",
    "PausedForCaller",
    "ProviderSwitched",
    "RecordingReady",
    "ReplyDropped",
    "ResumedAfterPause",
    "SpeculationEnded",
    "StreamChanged",
    "ToolEnded",
    "ToolStarted",
    "TransferChanged",
    "TurnMeasured",
    "UsageReported",
    "Warned",
]


class EventBase(Struct, frozen=True, kw_only=True, gc=False, tag_field="type"):
    """What all events have."""

    seq: int
    """Its number in the call, from 0. It grows from event to event; a number may be missing, none comes twice."""
    at_s: float
    """Seconds since an agent took the call, on the call's clock."""


class CallStarted(EventBase, frozen=True, kw_only=True, gc=False, tag="call.started"):
    """An agent took the call."""

    call_id: UUID
    carrier: str
    carrier_call_id: str
    from_: str = field(name="from")
    to: str
    direction: str
    started_at: str
    """Wall clock, ISO 8601 with zone."""
    agent: str = ""
    """The agent, named as its class is; empty: the call has ended without one."""
    trace: str = ""
    """W3C ``traceparent`` of the call's span, if the call is traced."""


class CallResumed(EventBase, frozen=True, kw_only=True, gc=False, tag="call.resumed"):
    """The process that had the call is gone, and an agent in another one goes on with it."""

    agent: str
    """Who goes on, named as its class is."""
    lost_s: float
    """Seconds since the last event of the one before."""
    unanswered: int = 0
    """So many utterances of the caller waited for an answer."""
    in_doubt: tuple[str, ...] = ()
    """Tools that had started and have not told what became of them."""


class CallProgressed(EventBase, frozen=True, kw_only=True, gc=False, tag="call.progress"):
    """A call that was placed has come further."""

    state: Literal["dialling", "ringing", "answered"]
    """``dialling``: the carrier has it."""
    carrier_call_id: str = ""


class CallAnsweredBy(EventBase, frozen=True, kw_only=True, gc=False, tag="call.answered_by"):
    """Who has taken a call that was placed."""

    who: Literal["human", "machine", "fax", "unknown"]
    assumed: bool = False
    """No verdict came in time."""
    late: bool = False
    """The verdict, after something else was assumed."""
    then: Literal["go_on", "hang_up", "leave_message"] = "go_on"
    """What is done about it."""


class StreamChanged(EventBase, frozen=True, kw_only=True, gc=False, tag="stream"):
    """Media started or stopped."""

    state: Literal["live", "moving", "lost", "ended"]
    generation: int


class TransferChanged(EventBase, frozen=True, kw_only=True, gc=False, tag="call.transfer"):
    """The caller is being connected to somebody else: that was ordered, or what has become of it."""

    to: str
    state: Literal["started", "refused", "returned", "answered"]
    """``refused`` by the carrier; ``returned``: nobody answered, and the caller is back."""
    detail: str = ""


class RecordingReady(EventBase, frozen=True, kw_only=True, gc=False, tag="call.recording"):
    """The carrier's recording can be fetched. It may come minutes after :class:`CallEnded`."""

    url: str


class CallerSpoke(EventBase, frozen=True, kw_only=True, gc=False, tag="caller.speech"):
    """The caller's voice started or stopped."""

    state: Literal["started", "stopped"]
    at_ms: float


class CallerSaid(EventBase, frozen=True, kw_only=True, gc=False, tag="caller.transcript"):
    """What the caller said; ``final`` once it will not change."""

    turn: UUID
    text: str
    final: bool
    start_ms: float = 0.0
    end_ms: float = 0.0
    speaker: str = ""
    """Who said it, if the STT tells several people apart: ``0``, or ``0, 1`` of two in one utterance."""


class CallerUnheard(EventBase, frozen=True, kw_only=True, gc=False, tag="caller.unheard"):
    """The caller's voice was heard, and no words of it came in time: the turn was closed without them."""

    waited_s: float
    """How long the transcript was waited for."""


class AgentSpeaks(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.speaking"):
    """A part of a reply is being heard; all of its text so far. Only in calls whose caller can read, from a browser."""

    turn: UUID
    part: int
    text: str


class AgentSaid(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.transcript"):
    """A part of a reply has ended: what of it was heard."""

    turn: UUID
    part: int
    text: str
    """All that was to be said."""
    heard: str
    """What the caller heard of it."""
    state: Literal["played", "cut", "lost"]
    heard_ms: float
    filler: bool = False
    """Said to bridge a wait; it is in the transcript, not in history."""


class AgentTold(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.told"):
    """Somebody outside the call has told the agent something that the caller does not hear."""

    text: str


class PausedForCaller(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.paused"):
    """The agent fell silent because the caller made a sound."""

    turn: UUID


class ResumedAfterPause(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.resumed"):
    """No words came: the agent went on (a false interruption)."""

    turn: UUID


class Interrupted(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.interrupted"):
    """The caller's words cut a reply off."""

    turn: UUID
    reason: str


class ReplyDropped(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.dropped"):
    """A reply of which nothing was heard was given up; what it answered is answered again."""

    turn: UUID
    reason: str


class SpeculationEnded(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.speculation"):
    """A reply that was begun before the caller's turn had ended was used, or thrown away."""

    turn: UUID
    outcome: Literal["saved", "wasted"]
    saved_ms: float = 0.0
    """How much earlier its inference started than without; 0 when it was wasted."""


class IdlePrompted(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.idle_prompt"):
    """Nobody had spoken for a while, and the agent asked whether the caller is still there."""

    count: int
    """The how manieth time in this silence, from 1."""


class ToolStarted(EventBase, frozen=True, kw_only=True, gc=False, tag="tool.started"):
    """A tool began to run."""

    turn: UUID
    call_id: str
    name: str
    arguments: str
    key: str = ""
    """The same when it is run again after a crash; see :func:`dialog.agent.tools.tool_key`."""


class ToolEnded(EventBase, frozen=True, kw_only=True, gc=False, tag="tool.ended"):
    """A tool has answered, failed or timed out."""

    turn: UUID
    call_id: str
    name: str
    result: str
    state: str
    took_s: float
    late: bool = False
    """The model had been told that it still runs: it is told of the result by itself."""


class UsageReported(EventBase, frozen=True, kw_only=True, gc=False, tag="usage"):
    """What one request to a model, or one reply of it, used."""

    turn: UUID | None
    """``None``: no turn in particular did."""
    usage: Usage
    cost_usd: float | None = None
    """What that costs by the prices known; ``None``: the model has none."""


class HandedOff(EventBase, frozen=True, kw_only=True, gc=False, tag="agent.handed_off"):
    """Another agent answers from now on; both are named as their classes are."""

    from_: str = field(name="from")
    to: str


class ProviderSwitched(EventBase, frozen=True, kw_only=True, gc=False, tag="provider.switched"):
    """A provider failed, or works again, and another takes its place within the call."""

    kind: Literal["stt", "tts", "llm"]
    provider: str
    """Who is asked from here on."""
    instead_of: str
    reason: str
    turn: UUID | None = None
    """The turn in which it happened, if in one."""


class DigitPressed(EventBase, frozen=True, kw_only=True, gc=False, tag="dtmf"):
    """The caller pressed a key."""

    digit: str


class TurnMeasured(EventBase, frozen=True, kw_only=True, gc=False, tag="turn.measured"):
    """A turn is over: when each of its stages happened."""

    timeline: TurnTimeline


class CallMeasured(EventBase, frozen=True, kw_only=True, gc=False, tag="call.measured"):
    """The call is over: its numbers. It comes right before :class:`CallEnded`."""

    metrics: SessionMetrics


class Warned(EventBase, frozen=True, kw_only=True, gc=False, tag="warning"):
    """Something is not as it was asked for, and the call goes on with less.

    ``vad_fallback``: the VAD that the settings ask for cannot be had, another one decides.
    """

    code: str
    text: str


class ErrorRaised(EventBase, frozen=True, kw_only=True, gc=False, tag="error"):
    """Something went wrong; the call goes on unless ``fatal``."""

    source: str
    code: str
    text: str
    fatal: bool


class CallEnded(EventBase, frozen=True, kw_only=True, gc=False, tag="call.ended"):
    """The end of every call; of all events only :class:`RecordingReady` may come after it."""

    reason: str
    detail: str = ""


CallEvent: TypeAlias = (
    CallStarted
    | CallResumed
    | CallProgressed
    | CallAnsweredBy
    | StreamChanged
    | TransferChanged
    | RecordingReady
    | CallerSpoke
    | CallerSaid
    | CallerUnheard
    | AgentSpeaks
    | AgentSaid
    | AgentTold
    | PausedForCaller
    | ResumedAfterPause
    | Interrupted
    | ReplyDropped
    | SpeculationEnded
    | IdlePrompted
    | ToolStarted
    | ToolEnded
    | UsageReported
    | ProviderSwitched
    | DigitPressed
    | HandedOff
    | TurnMeasured
    | CallMeasured
    | Warned
    | ErrorRaised
    | CallEnded
)

CALL_EVENTS: frozenset[type[EventBase]] = frozenset(get_args(CallEvent))
"""Their classes; what else a journal holds is for :func:`dialog.calls.checkpoint.fold` alone."""
