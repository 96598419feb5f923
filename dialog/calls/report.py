"""The session report: what happened in a call, folded from its events."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallMeasured,
    CallProgressed,
    CallStarted,
    ErrorRaised,
    HandedOff,
    Interrupted,
    ResumedAfterPause,
    ToolEnded,
    TurnMeasured,
    UsageReported,
)
from dialog.calls.meter import measure
from dialog.calls.metrics import SessionMetrics
from dialog.calls.timeline import TurnTimeline

__all__ = ["SessionReport", "ToolUse", "TurnReport", "make_report"]


class ToolUse(Struct, frozen=True, kw_only=True):
    """A tool that ran in a turn."""

    name: str
    result: str
    state: str
    took_s: float


class TurnReport(Struct, frozen=True, kw_only=True):
    """One turn: what the caller said, what the agent said, and when."""

    turn: UUID
    caller: str
    """Empty when the agent began the turn."""
    speaker: str = ""
    """Who of several people said it, if the STT tells them apart; see :class:`~dialog.calls.events.CallerSaid`."""
    agent: str
    heard: str
    """What of it the caller heard."""
    interrupted: bool
    tools: tuple[ToolUse, ...]
    timeline: TurnTimeline | None
    latency_ms: float | None
    """End of the caller's speech to the first audio on the line."""
    by: str = ""
    """Who answered, named as its class is: calls may be handed over."""


class SessionReport(Struct, frozen=True, kw_only=True):
    """A whole call. Times are seconds since ``started_at``."""

    call_id: UUID
    carrier: str
    carrier_call_id: str
    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    started_at: str
    duration_s: float
    end_reason: str
    turns: tuple[TurnReport, ...]
    interruptions: int
    false_interruptions: int
    errors: int
    input_tokens: int
    output_tokens: int
    metrics: SessionMetrics
    """The numbers of the call: as the call itself counted them, else from ``events``."""
    events: tuple[CallEvent, ...]

    def to_json(self) -> bytes:
        """The report as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2)


class _Turn:
    def __init__(self, by: str) -> None:
        self.by = by
        self.caller = ""
        self.speaker = ""
        self.agent: list[str] = []
        self.heard: list[str] = []
        self.interrupted = False
        self.tools: list[ToolUse] = []
        self.timeline: TurnTimeline | None = None


def make_report(events: Iterable[CallEvent]) -> SessionReport:
    """Fold the events of one call, in their order, into its report.

    Raises:
        ValueError: The first event is not :class:`~dialog.calls.events.CallStarted`.
    """
    events = tuple(events)
    if not events or not isinstance(events[0], CallStarted):
        raise ValueError("the events of a call begin with CallStarted")
    start = events[0]
    turns: dict[UUID, _Turn] = {}
    by, carrier_call_id = start.agent, start.carrier_call_id
    end_reason = ""
    metrics: SessionMetrics | None = None
    for event in events:
        if isinstance(event, CallerSaid) and event.final:
            turn = turns.setdefault(event.turn, _Turn(by))
            turn.caller, turn.speaker = event.text, event.speaker
        elif isinstance(event, AgentSaid):
            turn = turns.setdefault(event.turn, _Turn(by))
            turn.agent.append(event.text)
            turn.heard.append(event.heard)
        elif isinstance(event, CallProgressed):
            carrier_call_id = event.carrier_call_id or carrier_call_id  # of a call that was placed the carrier has told
        elif isinstance(event, HandedOff):
            by = event.to
        elif isinstance(event, Interrupted):
            turns.setdefault(event.turn, _Turn(by)).interrupted = True
        elif isinstance(event, ToolEnded):
            use = ToolUse(name=event.name, result=event.result, state=event.state, took_s=event.took_s)
            turns.setdefault(event.turn, _Turn(by)).tools.append(use)
        elif isinstance(event, TurnMeasured):
            turns.setdefault(event.timeline.turn, _Turn(by)).timeline = event.timeline
        elif isinstance(event, CallMeasured):
            metrics = event.metrics
        elif isinstance(event, CallEnded):
            end_reason = event.reason
    return SessionReport(
        call_id=start.call_id,
        carrier=start.carrier,
        carrier_call_id=carrier_call_id,
        from_=start.from_,
        to=start.to,
        direction=start.direction,
        started_at=start.started_at,
        duration_s=events[-1].at_s,
        end_reason=end_reason,
        turns=tuple(_turn_report(uuid, turn) for uuid, turn in turns.items()),
        interruptions=sum(isinstance(event, Interrupted) for event in events),
        false_interruptions=sum(isinstance(event, ResumedAfterPause) for event in events),
        errors=sum(isinstance(event, ErrorRaised) for event in events),
        input_tokens=sum(event.usage.input_tokens for event in events if isinstance(event, UsageReported)),
        output_tokens=sum(event.usage.output_tokens for event in events if isinstance(event, UsageReported)),
        metrics=metrics if metrics is not None else measure(events),
        events=events,
    )


def _turn_report(uuid: UUID, turn: _Turn) -> TurnReport:
    return TurnReport(
        turn=uuid,
        caller=turn.caller,
        speaker=turn.speaker,
        agent=" ".join(text.strip() for text in turn.agent if text.strip()),
        heard=" ".join(text.strip() for text in turn.heard if text.strip()),
        interrupted=turn.interrupted,
        tools=tuple(turn.tools),
        timeline=turn.timeline,
        latency_ms=turn.timeline.latency_ms() if turn.timeline else None,
        by=turn.by,
    )
