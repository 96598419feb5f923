"""Counting and timing a call while it goes on, from its events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from uuid import UUID

from msgspec import Struct

from dialog.calls import events as ev
from dialog.calls.metrics import LATENCY_STAGES, DeadAir, Latency, SessionMetrics, SpeechSources
from dialog.calls.prices import PRICES, Price, cost_usd
from dialog.calls.timeline import TurnTimeline
from dialog.usage import Usage

__all__ = ["DEAD_AIR_S", "METERED", "CallMeter", "MeterState", "measure"]

DEAD_AIR_S = 2.0
"""A silence of more than this after the caller has spoken is dead air."""

_COUNTED: dict[type, str] = {
    ev.Interrupted: "interruptions",
    ev.ResumedAfterPause: "false_interruptions",
    ev.ReplyDropped: "replies_dropped",
    ev.IdlePrompted: "idle_prompts",
    ev.CallerUnheard: "unheard",
    ev.ErrorRaised: "errors",
    ev.Warned: "warnings",
    ev.CallResumed: "resumed",
}
METERED: tuple[type, ...] = (
    *_COUNTED,
    ev.CallerSaid,
    ev.CallerSpoke,
    ev.AgentSaid,
    ev.SpeculationEnded,
    ev.ToolEnded,
    ev.UsageReported,
    ev.TurnMeasured,
)
"""The events of which more is counted than their time."""
_MAX_TURNS = 20_000
_KEPT_TURNS = 256
"""What a meter's state holds of turns and voices: the newest."""
_SUMS = (
    "speculations_saved",
    "speculations_wasted",
    "fillers",
    "tools",
    "tools_failed",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
)
_MAX_MODELS = 64
_SAME_VOICE_S = 1.0
"""A voice is noticed after it started: an end of speech this long before still belongs to it."""


class MeterState(Struct, frozen=True, kw_only=True):
    """What a meter has counted, to go on from. Of turns and voices it holds the newest few hundred."""

    counts: dict[str, int] = {}
    usage: dict[str, Usage] = {}
    """By model."""
    saved_ms: float = 0.0
    at_s: float = 0.0
    asked: tuple[int, tuple[UUID, ...]] = (0, ())
    """Turns that the caller began: how many, and the newest."""
    heard: tuple[int, tuple[UUID, ...]] = (0, ())
    """Turns of which the caller has heard something."""
    timelines: tuple[TurnTimeline, ...] = ()
    sounds: tuple[tuple[float, float, UUID], ...] = ()
    voices: tuple[tuple[float, float | None], ...] = ()


class CallMeter:
    """Give it every event of a call, in order; :attr:`metrics` are its numbers so far.

    An end of speech is a turn's own, where it was measured; the end of a voice that was never answered
    counts for dead air only, from when the VAD told of it.

    Args:
        state: Of the meter that has counted the call's events before.
        prices: What models cost.
    """

    def __init__(self, state: MeterState | None = None, *, prices: Mapping[str, Price] = PRICES) -> None:
        state = state or MeterState()
        self._prices = prices
        self._usage = dict(state.usage)
        self._counts: dict[str, int] = dict.fromkeys((*_COUNTED.values(), *_SUMS), 0) | state.counts
        self._saved_ms = state.saved_ms
        self._at_s = state.at_s
        self._asked = _Turns(*state.asked)
        self._heard = _Turns(*state.heard)
        self._timelines: list[TurnTimeline] = list(state.timelines)
        self._sounds: list[tuple[float, float, UUID]] = list(state.sounds)
        """When the agent sounded: begin, end, turn."""
        self._voices: list[tuple[float, float | None]] = list(state.voices)
        """When the caller's voice was noticed to start and to stop."""

    @property
    def state(self) -> MeterState:
        """What it has counted."""
        return MeterState(
            counts=dict(self._counts),
            saved_ms=self._saved_ms,
            usage=dict(self._usage),
            at_s=self._at_s,
            asked=self._asked.state,
            heard=self._heard.state,
            timelines=tuple(self._timelines[-_KEPT_TURNS:]),
            sounds=tuple(self._sounds[-_KEPT_TURNS:]),
            voices=tuple(self._voices[-_KEPT_TURNS:]),
        )

    def feed(self, event: ev.CallEvent) -> None:
        """Take in the next event."""
        self._at_s = max(self._at_s, event.at_s)
        counted = _COUNTED.get(type(event))
        if counted is not None:
            self._counts[counted] += 1
        elif isinstance(event, ev.CallerSaid):
            if event.final and event.text.strip():
                self._asked.add(event.turn)
        elif isinstance(event, ev.CallerSpoke):
            self._voice(event)
        elif isinstance(event, ev.AgentSaid):
            self._said(event)
        elif isinstance(event, ev.SpeculationEnded):
            self._counts[f"speculations_{event.outcome}"] += 1
            self._saved_ms += event.saved_ms if event.outcome == "saved" else 0.0
        elif isinstance(event, ev.ToolEnded):
            self._counts["tools"] += 1
            self._counts["tools_failed"] += event.state in ("failed", "timed_out")
        elif isinstance(event, ev.UsageReported):
            for name in ("input_tokens", "cached_tokens", "output_tokens"):
                self._counts[name] += getattr(event.usage, name)
            self._used(event.usage)
        elif isinstance(event, ev.TurnMeasured):
            self._measured(event.timeline)

    @property
    def metrics(self) -> SessionMetrics:
        """The numbers until the last event."""
        return self.metrics_at(self._at_s)

    def metrics_at(self, at_s: float) -> SessionMetrics:
        """The numbers until ``at_s`` seconds after the call's start, if that is later than the last event."""
        self._at_s = max(self._at_s, at_s)
        silences = self._silences()
        answers = [timeline for timeline in self._timelines if timeline.final is not None]
        return SessionMetrics(
            duration_s=self._at_s,
            caller_turns=len(self._asked),
            agent_turns=len(self._heard),
            speculation_saved_ms=round(self._saved_ms, 3),
            latencies=tuple(_latency(stage, answers) for stage in LATENCY_STAGES),
            speech_sources=_sources(answers),
            longest_silence=max(silences, key=attrgetter("seconds"), default=None),
            dead_air=tuple(silence for silence in silences if silence.seconds > DEAD_AIR_S),
            usage=tuple(self._usage.values()),
            cost_usd=self._cost_usd,
            **self._counts,
        )

    def _used(self, usage: Usage) -> None:
        before = self._usage.get(usage.model)
        if before is not None or len(self._usage) < _MAX_MODELS:
            self._usage[usage.model] = usage if before is None else before.plus(usage)

    @property
    def _cost_usd(self) -> float | None:
        costs = [cost_usd(usage, self._prices) for usage in self._usage.values()]
        known = [cost for cost in costs if cost is not None]
        return round(sum(known), 6) if known and len(known) == len(costs) else None

    def _voice(self, event: ev.CallerSpoke) -> None:
        if event.state == "started":
            if len(self._voices) < _MAX_TURNS:
                self._voices.append((event.at_s, None))
        elif self._voices and self._voices[-1][1] is None:
            self._voices[-1] = (self._voices[-1][0], event.at_s)

    def _said(self, event: ev.AgentSaid) -> None:
        self._counts["fillers"] += event.filler
        if event.heard.strip():
            self._heard.add(event.turn)
        if event.heard_ms > 0 and len(self._sounds) < _MAX_TURNS:
            self._sounds.append((event.at_s - event.heard_ms / 1000.0, event.at_s, event.turn))

    def _measured(self, timeline: TurnTimeline) -> None:
        if len(self._timelines) < _MAX_TURNS:
            self._timelines.append(timeline)
        if timeline.first_frame is not None and len(self._sounds) < _MAX_TURNS:
            # Its parts may have been paused: the first frame is when it began for the caller.
            begin = timeline.first_frame
            first = min((since for since, _, turn in self._sounds if turn == timeline.turn), default=begin)
            self._sounds.append((begin, max(begin, first), timeline.turn))

    def _silences(self) -> list[DeadAir]:
        """Every silence between an end of the caller's speech and the next sound, in order."""
        ends = self._ends_of_speech()
        if not ends:
            return []
        sounds = _joined(self._sounds)
        begins = [begin for begin, _, _ in sounds]
        starts = [begin for begin, _ in self._voices]
        silences: list[DeadAir] = []
        for end in ends:
            begin = end
            index = bisect_right(begins, end)
            if index and sounds[index - 1][1] > end:
                begin = sounds[index - 1][1]  # the agent was speaking over it: it is quiet from there on
            turn: UUID | None = None
            until = self._at_s
            if index < len(sounds):
                until, turn = sounds[index][0], sounds[index][2]
            start = bisect_right(starts, begin)
            if start < len(starts) and starts[start] < until:
                until, turn = starts[start], None
            if until > begin:
                silences.append(DeadAir(begin_s=round(begin, 4), seconds=round(until - begin, 4), turn=turn))
        return silences

    def _ends_of_speech(self) -> list[float]:
        ends = sorted(timeline.end_of_speech for timeline in self._timelines if timeline.end_of_speech is not None)
        unanswered: list[float] = []
        for number, (start, stop) in enumerate(self._voices):
            if stop is None:
                continue
            after = self._voices[number + 1][0] if number + 1 < len(self._voices) else float("inf")
            index = bisect_right(ends, start - _SAME_VOICE_S)
            covered = any(begin <= stop < end for begin, end, _ in self._sounds)
            if not covered and (index == len(ends) or ends[index] >= after):
                unanswered.append(stop)
        return sorted([*ends, *unanswered])


class _Turns:
    """Counts turns, each once."""

    def __init__(self, count: int, newest: Iterable[UUID]) -> None:
        self._known = dict.fromkeys(newest)
        self._before = count - len(self._known)

    def __len__(self) -> int:
        return self._before + len(self._known)

    def add(self, turn: UUID) -> None:
        self._known[turn] = None

    @property
    def state(self) -> tuple[int, tuple[UUID, ...]]:
        return len(self), tuple(self._known)[-_KEPT_TURNS:]


def measure(events: Iterable[ev.CallEvent]) -> SessionMetrics:
    """The numbers of a call from all its events, in their order."""
    meter = CallMeter()
    for event in events:
        meter.feed(event)
    return meter.metrics


def _latency(stage: tuple[str, str, str], timelines: Sequence[TurnTimeline]) -> Latency:
    name, begin, end = stage
    lengths = (timeline.between_s(begin, end) for timeline in timelines)
    took = [length * 1000.0 for length in lengths if length is not None]
    if not took:
        return Latency(stage=name, turns=0)
    took.sort()
    return Latency(
        stage=name,
        turns=len(took),
        p50_ms=_percentile(took, 0.5),
        p95_ms=_percentile(took, 0.95),
        max_ms=round(took[-1], 3),
    )


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Interpolated between the two turns it lies between."""
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return round(ordered[below] + (ordered[above] - ordered[below]) * (position - below), 3)


def _sources(timelines: Iterable[TurnTimeline]) -> SpeechSources:
    counts = {"stt_words": 0, "vad": 0, "provider_event": 0, "unknown": 0}
    for timeline in timelines:
        known = timeline.end_of_speech is not None and timeline.speech_source
        counts[timeline.speech_source if known else "unknown"] += 1
    return SpeechSources(**counts)


def _joined(sounds: Iterable[tuple[float, float, UUID]]) -> list[tuple[float, float, UUID]]:
    """Overlapping sounds as one, in order."""
    joined: list[tuple[float, float, UUID]] = []
    for begin, end, turn in sorted(sounds, key=lambda sound: sound[:2]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end), joined[-1][2])
        else:
            joined.append((begin, end, turn))
    return joined
