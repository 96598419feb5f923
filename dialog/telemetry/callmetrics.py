"""Prometheus metrics that are made of the events of calls: nothing is done per frame of audio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast
from uuid import UUID

from dialog.calls import events as ev
from dialog.calls.metrics import LATENCY_STAGES
from dialog.calls.publish import Notice
from dialog.message import CallMetadata
from dialog.telemetry.labels import Few
from dialog.telemetry.prometheus import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["CallMetrics"]

_LATENCY_S: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_SILENCE_S: Final = (2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0)
_TOOL_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_CALL_S: Final = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
_TOKENS: Final = (
    ("input", "input_tokens"),
    ("cached", "cached_tokens"),
    ("output", "output_tokens"),
)
_SECONDS: Final = (("input", "input_audio_s"), ("output", "output_audio_s"), ("session", "session_s"))


class CallMetrics:
    """Counts what happens in all calls; give :meth:`take` every notice.

    Args:
        registry: Where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._live: set[UUID] = set()
        live = Gauge("dialog_live_calls", "Calls that have started and not ended.", registry=registry)
        live.set_function(lambda: len(self._live))
        self._metrics = _Metrics(registry)
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.TurnMeasured: self._turn,
            ev.CallMeasured: self._measured,
            ev.UsageReported: self._used,
            ev.ToolEnded: self._tool,
            ev.ErrorRaised: lambda event: self._count("errors", event.source, event.code, _flag(event.fatal)),
            ev.Warned: lambda event: self._count("warnings", event.code),
            ev.Interrupted: lambda _: self._count("interruptions", "cut"),
            ev.ResumedAfterPause: lambda _: self._count("interruptions", "false"),
            ev.ReplyDropped: lambda _: self._count("interruptions", "dropped"),
            ev.SpeculationEnded: lambda event: self._count("speculations", event.outcome),
            ev.CallerUnheard: lambda _: self._count("unheard"),
            ev.IdlePrompted: lambda _: self._count("idle_prompts"),
            ev.StreamChanged: lambda event: self._count("streams", event.state),
            ev.TransferChanged: lambda event: self._count("transfers", event.state),
            ev.HandedOff: lambda _: self._count("hand_offs"),
            ev.ProviderSwitched: lambda event: self._count("switches", event.kind, event.instead_of, event.provider),
            ev.CallAnsweredBy: self._answered,
        }

    def take(self, notice: Notice) -> None:
        """Count an event."""
        event = notice.event
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        elif isinstance(event, ev.CallEnded):
            self._ended(notice.call, event)
        elif isinstance(event, ev.CallStarted):
            self._live.add(notice.call.call_id)
            self._count("started", notice.call.direction)
        elif isinstance(event, ev.CallResumed):
            self._live.add(notice.call.call_id)  # another gateway may have had it until now
            self._count("resumed")

    def _ended(self, call: CallMetadata, event: ev.CallEnded) -> None:
        self._live.discard(call.call_id)
        self._count("ended", call.direction, event.reason)
        if event.reason != "declined":  # it was none
            self._metrics.observe("duration", event.at_s, call.direction)

    def _answered(self, event: ev.CallAnsweredBy) -> None:
        if not event.late:  # the call was counted when something was assumed
            self._count("answered", event.who, _flag(event.assumed))

    def _turn(self, event: ev.TurnMeasured) -> None:
        timeline = event.timeline
        if timeline.final is None:
            return  # the agent spoke by itself: nobody waited
        self._count("turns")
        for stage, begin, end in LATENCY_STAGES:
            took_s = timeline.between_s(begin, end)
            if took_s is not None:
                # Ends of speech of different sources must not be compared.
                source = timeline.speech_source if begin == "end_of_speech" else ""
                self._metrics.observe("latency", took_s, stage, source)

    def _measured(self, event: ev.CallMeasured) -> None:
        for silence in event.metrics.dead_air:
            self._metrics.observe("dead_air", silence.seconds)

    def _tool(self, event: ev.ToolEnded) -> None:
        self._count("tools", event.name, event.state)
        self._metrics.observe("tool", event.took_s, event.name)

    def _used(self, event: ev.UsageReported) -> None:
        usage = event.usage
        for kind, name in _TOKENS:
            self._add("tokens", getattr(usage, name), usage.model, kind)
        for kind, name in _SECONDS:
            self._add("seconds", getattr(usage, name), usage.model, kind)
        self._add("characters", usage.characters, usage.model)
        self._add("cost", event.cost_usd or 0.0, usage.model)

    def _count(self, name: str, *labels: str) -> None:
        self._metrics.add(name, 1.0, labels)

    def _add(self, name: str, amount: float, *labels: str) -> None:
        if amount:
            self._metrics.add(name, amount, labels)


class _Metrics:
    """The metrics by their short names, with few values for each label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self._counters = {
            "started": counter("dialog_calls_started", "Calls that were taken or declined.", "direction"),
            "ended": counter("dialog_calls", "Calls that have ended, by how.", "direction", "outcome"),
            "resumed": counter("dialog_calls_resumed", "Times another process went on with a call whose own was lost."),
            "answered": counter("dialog_answered_by", "Placed calls, by who has taken them.", "who", "assumed"),
            "streams": counter("dialog_streams", "Media started, moved, was lost, or ended.", "state"),
            "turns": counter("dialog_turns", "Turns in which the agent answered the caller."),
            "interruptions": counter(
                "dialog_interruptions",
                "Replies that were cut by words, paused by a sound without words (false), or dropped unheard.",
                "kind",
            ),
            "unheard": counter("dialog_unheard", "Times the caller's voice was heard and no words came of it."),
            "idle_prompts": counter("dialog_idle_prompts", "Times the agent asked whether the caller is still there."),
            "speculations": counter("dialog_speculations", "Replies that were begun early: used, or not.", "outcome"),
            "tools": counter("dialog_tools", "Tools that have ended, by how.", "tool", "state"),
            "errors": counter("dialog_errors", "Errors, by who failed and how.", "source", "code", "fatal"),
            "warnings": counter("dialog_warnings", "Calls that go on with less than was asked for.", "code"),
            "switches": counter(
                "dialog_provider_switches", "Times one provider took another's place.", "kind", "instead_of", "provider"
            ),
            "hand_offs": counter("dialog_hand_offs", "Times one agent handed a call to another."),
            "transfers": counter("dialog_transfers", "Transfers of callers, by what became of them.", "state"),
            "tokens": counter("dialog_tokens", "Tokens; cached ones are among the input.", "model", "kind"),
            "seconds": counter("dialog_usage_seconds", "Audio heard and made, and sessions.", "model", "kind"),
            "characters": counter("dialog_usage_characters", "Characters that voices have spoken.", "model"),
            "cost": counter("dialog_cost_usd", "What models cost, where a price is known.", "model"),
        }
        self._histograms = {
            "duration": histogram("dialog_call_duration_seconds", "How long calls lasted.", _CALL_S, "direction"),
            "latency": histogram(
                "dialog_turn_latency_seconds",
                "How long the stages of an answer took; source: who told the end of speech.",
                _LATENCY_S,
                "stage",
                "source",
            ),
            "dead_air": histogram(
                "dialog_dead_air_seconds", "Silences of more than two seconds after the caller has spoken.", _SILENCE_S
            ),
            "tool": histogram("dialog_tool_duration_seconds", "How long tools ran.", _TOOL_S, "tool"),
        }
        self._few = {name: Few() for name in (*self._counters, *self._histograms)}
        self._children: dict[tuple[str, ...], Counter | Histogram] = {}

    def add(self, name: str, amount: float, labels: tuple[str, ...]) -> None:
        """Add to a counter."""
        child = self._children.get((name, *labels)) or self._child(self._counters[name], name, labels)
        cast("Counter", child).inc(amount)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Observe a value of a histogram."""
        child = self._children.get((name, *labels)) or self._child(self._histograms[name], name, labels)
        cast("Histogram", child).observe(value)

    def _child(self, metric: Counter | Histogram, name: str, labels: tuple[str, ...]) -> Counter | Histogram:
        few = self._few[name]
        shown = tuple(few(label) for label in labels)
        child = metric.labels(*shown) if shown else metric
        if shown == labels:
            self._children[(name, *labels)] = child
        return child


def _flag(value: bool) -> str:
    return "true" if value else "false"
