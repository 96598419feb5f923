"""The trace of one call: its spans, at the times at which things happened."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final
from uuid import UUID

from dialog.agent.streams import closing
from dialog.calls import events as ev
from dialog.llm.llm import LLM, Finish, LLMEvent, ModelSwitched, ToolCall, Usage
from dialog.message import CallEnd
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.telemetry.otel import (
    Context,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    links_to,
    set_span_in_context,
    traceparent,
)
from dialog.telemetry.spans import Inside, note_failure, note_timeline, note_usage
from dialog.voip.voip import VoIP

__all__ = ["CallTrace"]

_LAST_WORDS_S: Final = 15.0
"""How long after the call's end its agent's last events are waited for."""
_STAGES: Final = (
    ("stt", "end_of_speech", "final"),
    ("turn_taking", "final", "inference"),
    ("tts", "first_text", "first_audio"),
    ("playout", "first_frame", "played"),
)
"""Spans of a turn beside its inference, and the stages of its timeline that they lie between."""
_ORDER: Final = ("end_of_speech", "final", "inference", "first_token", "first_text", "first_audio", "first_frame")
_BAD_ENDS: Final = frozenset({"error", "lost_worker", "no_worker", "lost", "revoked", "shutdown", "never_connected"})
_CALL_EVENTS: Final[Mapping[type, tuple[str, tuple[str, ...]]]] = {
    ev.StreamChanged: ("stream", ("state", "generation")),
    ev.CallProgressed: ("progress", ("state",)),
    ev.CallAnsweredBy: ("answered_by", ("who", "assumed", "late", "then")),
    ev.TransferChanged: ("transfer", ("state",)),
    ev.HandedOff: ("handed_off", ("from_", "to")),
    ev.CallResumed: ("resumed", ("agent", "lost_s")),
    ev.ProviderSwitched: ("provider_switched", ("kind", "provider", "instead_of")),
    ev.CallerUnheard: ("caller_unheard", ("waited_s",)),
    ev.IdlePrompted: ("idle_prompt", ("count",)),
    ev.Warned: ("warning", ("code",)),
    ev.ErrorRaised: ("error", ("source", "code", "fatal")),
}
"""What becomes an event of the call's span, and which of its fields: none that holds words or numbers of people."""


class CallTrace(Participant):
    """Follows a call's events, and lets the user's code run inside the spans that it is run for."""

    def __init__(self, voip: VoIP, tracer: Tracer) -> None:
        super().__init__()
        self._tracer = tracer
        self._clock = voip.clock
        self._since = voip.clock.now()
        """When the call's events began to be counted, on its clock."""
        self._epoch_ns = time.time_ns() - _ns(self._since)
        self._heard = False
        """An agent tells of the call."""
        self._agent = ""
        self._turns: dict[UUID, Span] = {}
        self._tools: dict[tuple[UUID, str], Span] = {}
        call, checkpoint = voip.metadata, voip.checkpoint
        before = checkpoint.started.trace if checkpoint is not None and checkpoint.started is not None else ""
        self._span = tracer.start_span(
            "call",
            kind=SpanKind.CLIENT if call.direction == "outbound" else SpanKind.SERVER,
            start_time=self._ns(self._since),
            links=links_to(before),
            attributes={
                "dialog.call_id": str(call.call_id),
                "dialog.carrier": call.carrier,
                "dialog.carrier_call_id": call.carrier_call_id,
                "dialog.direction": call.direction,
                "gen_ai.conversation.id": str(call.call_id),
            },
        )
        self.trace: str = traceparent(self._span)
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.CallStarted: self._started,
            ev.CallResumed: self._resumed,
            ev.HandedOff: self._handed_off,
            ev.ToolEnded: self._tool_ended,
            ev.TurnMeasured: self._measured,
            ev.ReplyDropped: self._dropped,
            ev.SpeculationEnded: self._speculated,
            ev.Interrupted: partial(self._in_turn, "interrupted"),
            ev.ResumedAfterPause: partial(self._in_turn, "false_interruption"),
            ev.ErrorRaised: self._error,
            ev.CallMeasured: self._summed_up,
            ev.CallEnded: self._ended,
        }
        voip.on(VoIP.EVENT, self._on_event)
        voip.on(VoIP.ENDED, self._on_ended)

    # The user's code.

    def work(self, turn: UUID, what: str, times: Mapping[str, float]) -> AbstractContextManager[None]:
        """See :class:`~dialog.calls.tracer.CallTracer`."""
        now = self._clock.now()
        parent = self._turn(turn, min(times.values(), default=now))
        span = self._tracer.start_span(
            what,
            context=set_span_in_context(parent),
            start_time=self._ns(times.get(what, now)),
            attributes=self._whose(),
        )
        return Inside(span, self._end_now)

    def tool(self, turn: UUID, call: ToolCall) -> AbstractContextManager[None]:
        """See :class:`~dialog.calls.tracer.CallTracer`."""
        span = self._tracer.start_span(
            f"execute_tool {call.name}",
            context=self._beneath(turn),
            start_time=self._ns(self._clock.now()),
            attributes={
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": call.name,
                "gen_ai.tool.call.id": call.id,
                "gen_ai.tool.type": "function",
            },
        )
        self._tools[turn, call.id] = span
        return Inside(span, lambda _: None)  # what became of it, and when, the event tells

    async def request(self, turn: UUID, llm: LLM, stream: AsyncIterator[LLMEvent]) -> AsyncIterator[LLMEvent]:
        """See :class:`~dialog.calls.tracer.CallTracer`."""
        model: str = getattr(llm, "model", "")
        began = self._clock.now()
        known = {"gen_ai.request.model": model, "gen_ai.provider.name": getattr(llm, "provider", "")}
        attributes: dict[str, str] = {"gen_ai.operation.name": "chat", "dialog.llm": llm.name, **self._whose()}
        attributes |= {name: value for name, value in known.items() if value}
        span = self._tracer.start_span(
            f"chat {model}" if model else "chat",
            context=self._beneath(turn),
            kind=SpanKind.CLIENT,
            start_time=self._ns(began),
            attributes=attributes,
        )
        first = True
        try:
            async with closing(stream) as events:
                async for event in events:
                    if first:
                        first = False
                        span.set_attribute("gen_ai.response.time_to_first_chunk", round(self._clock.now() - began, 4))
                    if isinstance(event, Usage):
                        note_usage(span, event)
                    elif isinstance(event, Finish):
                        span.set_attribute("gen_ai.response.finish_reasons", [event.reason])
                    elif isinstance(event, ModelSwitched):
                        fields = {"model": event.model, "instead_of": event.instead_of}
                        span.add_event("model_switched", fields, timestamp=self._ns(self._clock.now()))
                    yield event
        except BaseException as exc:
            note_failure(span, exc)
            raise
        finally:
            self._end_now(span)

    # The call's events.

    def dispose(self) -> None:
        """End what is open: nobody is going to tell how it ends."""
        if self._disposed:
            return
        super().dispose()
        self._end_all(self._ns(self._clock.now()))

    def _on_event(self, event: ev.CallEvent) -> None:
        if not self._heard:
            self._heard = True
            self._since = self._clock.now() - event.at_s
        kind = type(event)
        noted = _CALL_EVENTS.get(kind)
        if noted is not None:
            name, fields = noted
            attributes = {field.rstrip("_"): getattr(event, field) for field in fields}
            self._span.add_event(name, attributes, timestamp=self._at(event.at_s))
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(event)

    def _on_ended(self, end: CallEnd) -> None:
        if not self._heard:
            self._over(end.reason, self._clock.now() - self._since)
            return
        scope = CallScope.current()
        if scope is not None:
            scope.linger(self, _LAST_WORDS_S)

    def _started(self, event: ev.CallStarted) -> None:
        self._takes_over(event.agent)

    def _resumed(self, event: ev.CallResumed) -> None:
        self._takes_over(event.agent)

    def _handed_off(self, event: ev.HandedOff) -> None:
        self._takes_over(event.to)

    def _takes_over(self, agent: str) -> None:
        self._agent = agent
        self._span.set_attribute("gen_ai.agent.name", agent)

    def _tool_ended(self, event: ev.ToolEnded) -> None:
        span = self._tools.pop((event.turn, event.call_id), None)
        if span is None:
            return
        span.set_attribute("dialog.tool.state", event.state)
        if event.state in ("failed", "timed_out"):
            span.set_attribute("error.type", event.state)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._at(event.at_s))

    def _measured(self, event: ev.TurnMeasured) -> None:
        timeline = event.timeline
        begin = min((at for stage in _ORDER if (at := getattr(timeline, stage)) is not None), default=event.at_s)
        span = self._turn(timeline.turn, self._since + begin)
        for name, since, until in _STAGES:
            if timeline.between_s(since, until) is not None:
                stage = self._tracer.start_span(
                    name, context=set_span_in_context(span), start_time=self._at(getattr(timeline, since))
                )
                stage.end(self._at(getattr(timeline, until)))
        note_timeline(span, timeline)
        self._end_turn(timeline.turn, timeline.played if timeline.played is not None else event.at_s)

    def _dropped(self, event: ev.ReplyDropped) -> None:
        span = self._turns.get(event.turn)
        if span is not None:
            span.set_attribute("dialog.dropped", event.reason)
            self._end_turn(event.turn, event.at_s)

    def _speculated(self, event: ev.SpeculationEnded) -> None:
        span = self._turns.get(event.turn)
        if span is not None:
            span.set_attribute("dialog.speculation", event.outcome)
            if event.outcome == "wasted":
                self._end_turn(event.turn, event.at_s)

    def _in_turn(self, name: str, event: ev.Interrupted | ev.ResumedAfterPause) -> None:
        self._turns.get(event.turn, self._span).add_event(name, timestamp=self._at(event.at_s))

    def _error(self, event: ev.ErrorRaised) -> None:
        if event.fatal:
            self._span.set_attribute("error.type", event.code)
            self._span.set_status(Status(StatusCode.ERROR, f"{event.source}: {event.code}"))

    def _summed_up(self, event: ev.CallMeasured) -> None:
        metrics, answer = event.metrics, event.metrics.latency("answer")
        figures = {
            "dialog.caller_turns": metrics.caller_turns,
            "dialog.agent_turns": metrics.agent_turns,
            "dialog.interruptions": metrics.interruptions,
            "dialog.tools": metrics.tools,
            "dialog.errors": metrics.errors,
            "dialog.dead_air": len(metrics.dead_air),
            "dialog.cost_usd": metrics.cost_usd,
            "dialog.answer_p50_ms": answer.p50_ms,
            "dialog.answer_p95_ms": answer.p95_ms,
        }
        self._span.set_attributes({name: value for name, value in figures.items() if value is not None})

    def _ended(self, event: ev.CallEnded) -> None:
        self._over(event.reason, event.at_s)

    def _over(self, reason: str, at_s: float) -> None:
        self._span.set_attribute("dialog.end_reason", reason)
        if reason in _BAD_ENDS:
            self._span.set_attribute("error.type", reason)
            self._span.set_status(Status(StatusCode.ERROR, reason))
        self._end_all(self._at(at_s))
        self.dispose()

    # Spans and times.

    def _turn(self, turn: UUID, begin: float) -> Span:
        """The span of a turn; a new one begins at ``begin`` of the call's clock."""
        span = self._turns.get(turn)
        if span is None:
            span = self._turns[turn] = self._tracer.start_span(
                "turn",
                context=set_span_in_context(self._span),
                start_time=self._ns(begin),
                attributes={"dialog.turn_id": str(turn), **self._whose()},
            )
        return span

    def _end_turn(self, turn: UUID, at_s: float) -> None:
        self._turns.pop(turn).end(self._at(at_s))

    def _beneath(self, turn: UUID) -> Context | None:
        """What lies in a turn: beneath the current span, if that is of this call."""
        if get_current_span().get_span_context().trace_id == self._span.get_span_context().trace_id:
            return None
        return set_span_in_context(self._turns.get(turn, self._span))

    def _whose(self) -> dict[str, str]:
        return {"gen_ai.agent.name": self._agent} if self._agent else {}

    def _end_all(self, when_ns: int) -> None:
        for span in (*self._tools.values(), *self._turns.values(), self._span):
            if span.is_recording():
                span.end(when_ns)
        self._tools.clear()
        self._turns.clear()

    def _end_now(self, span: Span) -> None:
        span.end(self._ns(self._clock.now()))

    def _at(self, at_s: float) -> int:
        """Seconds of the call as the nanoseconds of a span."""
        return self._ns(self._since + at_s)

    def _ns(self, when: float) -> int:
        return self._epoch_ns + _ns(when)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
