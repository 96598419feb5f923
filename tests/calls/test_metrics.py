"""The numbers of a call: counted, timed, with their sources, and nothing guessed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog import Agent, AgentSettings, Clock, Message
from dialog.calls import events as ev
from dialog.calls.meter import CallMeter, measure
from dialog.calls.metrics import LATENCY_STAGES, SessionMetrics
from dialog.calls.report import make_report
from dialog.calls.timeline import TurnTimeline
from dialog.testing import HummingTTS, ToldSTT, run_virtual
from dialog.usage import Usage
from dialog.voip.memory import memory_call

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


class Log:
    """Events of a call, written one by one."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def add(self, cls: Any, at_s: float, **fields: Any) -> None:
        self.events.append(cls(seq=len(self.events), at_s=at_s, **fields))

    def start(self) -> None:
        self.add(
            ev.CallStarted,
            0.0,
            call_id=UUID(int=9),
            carrier="memory",
            carrier_call_id="",
            from_="",
            to="",
            direction="inbound",
            started_at="2026-01-02T03:04:05.678+00:00",
        )

    def said(self, at_s: float, turn: UUID, heard_ms: float, **fields: Any) -> None:
        values = {"part": 0, "text": "Words.", "heard": "Words.", "state": "played", **fields}
        self.add(ev.AgentSaid, at_s, turn=turn, heard_ms=heard_ms, **values)

    def asked(self, at_s: float, turn: UUID) -> None:
        self.add(ev.CallerSaid, at_s, turn=turn, text="words", final=True)

    def voice(self, start: float, stop: float) -> None:
        self.add(ev.CallerSpoke, start, state="started", at_ms=start * 1000)
        self.add(ev.CallerSpoke, stop, state="stopped", at_ms=stop * 1000)

    def measured(self, at_s: float, turn: UUID, source: Any = "stt_words", **times: float) -> None:
        self.add(ev.TurnMeasured, at_s, timeline=TurnTimeline(turn=turn, speech_source=source, **times))


def answer(log: Log, turn: UUID, end: float, sound: float, until: float, source: Any = "stt_words") -> None:
    """One whole turn: the caller stops at ``end``, the agent sounds from ``sound`` to ``until``."""
    log.asked(end + 0.1, turn)
    log.said(until, turn, (until - sound) * 1000)
    log.measured(
        until,
        turn,
        source,
        end_of_speech=end,
        final=end + 0.1,
        inference=end + 0.1,
        first_token=end + 0.2,
        first_text=end + 0.2,
        first_audio=sound - 0.02,
        first_frame=sound,
        played=until,
    )


# Counting.


def test_a_call_without_anything_has_no_numbers():
    assert measure([]) == SessionMetrics(latencies=measure([]).latencies)
    for latency in measure([]).latencies:
        assert (latency.turns, latency.p50_ms, latency.p95_ms, latency.max_ms) == (0, None, None, None)


def test_everything_that_happens_is_counted():
    log = Log()
    log.start()
    log.add(ev.CallerSaid, 1, turn=A, text="one", final=False)
    log.asked(1, A)
    log.asked(2, A)  # the same utterance, joined
    log.asked(3, B)
    log.add(ev.CallerSaid, 3, turn=C, text="  ", final=True)
    log.said(4, A, 500)
    log.said(4, A, 500, part=1, filler=True)
    log.said(5, B, 0, heard="", state="cut")
    log.add(ev.Interrupted, 5, turn=A, reason="caller spoke")
    log.add(ev.ResumedAfterPause, 5, turn=A)
    log.add(ev.ResumedAfterPause, 5, turn=A)
    log.add(ev.ReplyDropped, 5, turn=B, reason="caller spoke")
    log.add(ev.SpeculationEnded, 6, turn=A, outcome="saved", saved_ms=300)
    log.add(ev.SpeculationEnded, 6, turn=A, outcome="saved", saved_ms=200)
    log.add(ev.SpeculationEnded, 6, turn=B, outcome="wasted")
    log.add(ev.IdlePrompted, 6, count=1)
    log.add(ev.CallerUnheard, 6, waited_s=5)
    for state in ("done", "failed", "timed_out", "cancelled"):
        log.add(ev.ToolEnded, 7, turn=A, call_id=state, name="t", result="", state=state, took_s=1)
    for _ in range(2):
        usage = Usage(model="m", input_tokens=100, cached_tokens=60, output_tokens=7)
        log.add(ev.UsageReported, 7, turn=A, usage=usage)
    log.add(ev.ErrorRaised, 8, source="x", code="y", text="z", fatal=False)
    log.add(ev.Warned, 8, code="vad_fallback", text="z")
    log.add(ev.CallEnded, 9.5, reason="caller_hangup")
    numbers = measure(log.events)
    assert (numbers.duration_s, numbers.caller_turns, numbers.agent_turns) == (9.5, 2, 1)
    assert (numbers.interruptions, numbers.false_interruptions, numbers.replies_dropped) == (1, 2, 1)
    assert (numbers.speculations_saved, numbers.speculations_wasted, numbers.speculation_saved_ms) == (2, 1, 500)
    assert (numbers.fillers, numbers.idle_prompts, numbers.unheard) == (1, 1, 1)
    assert (numbers.tools, numbers.tools_failed) == (4, 2)
    assert (numbers.input_tokens, numbers.cached_tokens, numbers.output_tokens) == (200, 120, 14)
    assert (numbers.errors, numbers.warnings) == (1, 1)


# Latencies.


def test_every_stage_of_every_turn_is_in_the_percentiles():
    log = Log()
    for number in range(11):
        answer(log, UUID(int=number + 1), 10.0 * number, 10.0 * number + 0.5 + number / 10, 10.0 * number + 3)
    numbers = measure(log.events)
    assert [latency.stage for latency in numbers.latencies] == [name for name, _, _ in LATENCY_STAGES]
    whole = numbers.latency("answer")
    assert (whole.turns, whole.p50_ms, whole.p95_ms, whole.max_ms) == (11, 1000, 1450, 1500)
    assert numbers.latency("recognition").p50_ms == pytest.approx(100)
    assert numbers.latency("decision").p95_ms == 0
    assert numbers.latency("first_token").p95_ms == pytest.approx(100)
    assert numbers.latency("synthesis").p50_ms == pytest.approx(1000 - 200 - 20)
    assert numbers.latency("sending").p50_ms == pytest.approx(20)
    with pytest.raises(KeyError, match=r"no stage 'thinking': there are recognition, decision"):
        numbers.latency("thinking")


def test_of_one_turn_every_percentile_is_its_own():
    log = Log()
    answer(log, A, 1.0, 1.7, 3.0)
    whole = measure(log.events).latency("answer")
    assert whole.p50_ms == whole.p95_ms == whole.max_ms == 700


def test_what_was_not_measured_is_left_out_and_never_guessed():
    log = Log()
    log.measured(3, A, "", final=1.0, inference=1.1, first_token=1.4)
    log.measured(5, B, "", first_text=4.0, first_audio=4.1, first_frame=4.2)  # a greeting: nobody waited for it
    # A filler's words went to the voice before the model's first.
    log.measured(9, C, "vad", end_of_speech=6, final=6.5, inference=6.5, first_token=8, first_text=7, first_frame=7.2)
    numbers = measure(log.events)
    assert numbers.latency("first_token").turns == 2
    assert numbers.latency("shaping").turns == 0
    assert numbers.latency("synthesis").turns == 0
    assert (numbers.latency("answer").turns, numbers.latency("answer").p50_ms) == (1, pytest.approx(1200))


def test_the_sources_of_the_ends_of_speech_are_told():
    log = Log()
    for number, source in enumerate(("stt_words", "vad", "vad", "provider_event")):
        answer(log, UUID(int=number + 1), 10.0 * number, 10.0 * number + 1, 10.0 * number + 3, source)
    log.measured(50, UUID(int=50), "", final=49.0)
    sources = measure(log.events).speech_sources
    assert (sources.stt_words, sources.vad, sources.provider_event, sources.unknown) == (1, 2, 1, 1)


# Dead air.


def silences(log: Log, until: float = 60.0) -> list[tuple[float, float]]:
    log.add(ev.CallEnded, until, reason="caller_hangup")
    numbers = measure(log.events)
    return [(silence.begin_s, silence.seconds) for silence in numbers.dead_air]


def test_dead_air_is_what_the_caller_waits_for_the_next_sound():
    log = Log()
    answer(log, A, 1.0, 2.9, 5.0)
    answer(log, B, 10.0, 14.5, 16.0)
    assert silences(log) == [(10.0, 4.5)]
    numbers = measure(log.events)
    assert numbers.longest_silence is not None
    assert (numbers.longest_silence.seconds, numbers.longest_silence.turn) == (4.5, B)


def test_the_longest_silence_is_told_also_when_it_is_short():
    log = Log()
    answer(log, A, 1.0, 1.5, 5.0)
    answer(log, B, 10.0, 10.7, 16.0)
    assert silences(log) == []
    longest = measure(log.events).longest_silence
    assert longest is not None
    assert (longest.begin_s, longest.seconds, longest.turn) == (10.0, 0.7, B)


def test_two_seconds_sharp_are_not_dead_air():
    log = Log()
    answer(log, A, 1.0, 3.0, 5.0)
    assert silences(log) == []


def test_a_filler_ends_the_silence():
    log = Log()
    log.asked(1.2, A)
    log.said(2.9, A, 900, filler=True)
    log.said(9.0, A, 2000, part=1)
    log.measured(9.0, A, end_of_speech=1.0, final=1.2, first_frame=2.0, played=9.0)
    assert silences(log) == []


def test_the_next_words_of_the_caller_end_it_too():
    log = Log()
    log.voice(0.5, 1.0)
    log.voice(4.0, 4.5)
    answer(log, A, 4.4, 5.0, 6.0)
    assert silences(log) == [(1.0, 3.0)]
    assert measure(log.events).dead_air[0].turn is None


def test_an_agent_that_never_answers_is_silent_to_the_end():
    log = Log()
    log.voice(1.0, 2.0)
    assert silences(log, 30.0) == [(2.0, 28.0)]


def test_one_voice_is_not_counted_twice():
    log = Log()
    log.voice(0.5, 1.3)  # the VAD tells of the end later than the words
    answer(log, A, 1.0, 4.0, 5.0)
    assert silences(log) == [(1.0, 3.0)]


def test_who_speaks_over_the_agent_waits_from_its_last_sound_on():
    log = Log()
    log.said(8.0, A, 6000)
    log.measured(8.0, A, "", first_frame=2.0, played=8.0)
    answer(log, B, 4.0, 11.0, 12.0)  # asked during a notice that may not be interrupted
    assert silences(log) == [(8.0, 3.0)]


def test_a_backchannel_under_the_agents_words_is_no_question():
    log = Log()
    log.said(8.0, A, 6000)
    log.measured(8.0, A, "", first_frame=2.0, played=8.0)
    log.voice(4.0, 4.5)
    assert silences(log) == []


def test_silence_after_the_agent_is_the_callers():
    log = Log()
    answer(log, A, 1.0, 1.5, 3.0)
    log.voice(40.0, 41.0)
    answer(log, B, 40.9, 41.4, 43.0)
    assert silences(log) == []


# Whatever happens.


@st.composite
def _calls(draw: Any) -> list[Any]:
    log, at = Log(), 0.0
    log.start()
    for number in range(draw(st.integers(0, 12))):
        at += draw(st.floats(0, 5))
        turn = UUID(int=number % 4 + 1)
        kind = draw(st.integers(0, 3))
        if kind == 0:
            log.voice(at, at := at + draw(st.floats(0, 3)))
        elif kind == 1:
            log.said(at, turn, draw(st.floats(0, 4000)))
        elif kind == 2:
            end = draw(st.none() | st.floats(0, at))
            frame = draw(st.none() | st.floats(0, at))
            timeline = TurnTimeline(
                turn=turn, end_of_speech=end, final=draw(st.none() | st.just(at)), first_frame=frame
            )
            log.add(ev.TurnMeasured, at, timeline=timeline)
        else:
            log.asked(at, turn)
    return log.events


@settings(max_examples=300)
@given(_calls())
def test_no_silence_is_negative_outside_the_call_or_in_two_places(events: list[Any]):
    numbers = measure(events)
    meter = CallMeter()
    for event in events:
        meter.feed(event)
        meter.metrics  # noqa: B018  # asking in between changes nothing
    assert meter.metrics == numbers
    longest = numbers.longest_silence
    for silence in numbers.dead_air:
        assert 0 <= silence.begin_s <= silence.begin_s + silence.seconds <= numbers.duration_s + 1e-3
        assert longest is not None
        assert silence.seconds <= longest.seconds
    for latency in numbers.latencies:
        if latency.turns:
            assert latency.p50_ms is not None
            assert latency.p95_ms is not None
            assert latency.max_ms is not None
            assert 0 <= latency.p50_ms <= latency.p95_ms <= latency.max_ms


# In a call.


class Echo(Agent):
    async def inference(self, message: Message[str]):
        yield f"You said: {message.data}"


def call(scenario) -> Agent:
    async def run(clock: Clock) -> Agent:
        made: list[Agent] = []

        def on_voip(voip) -> None:
            made.append(Echo(voip=voip, stt=ToldSTT(), tts=HummingTTS(), settings=AgentSettings()))
            made[0].events_seen = []  # type: ignore[attr-defined]
            made[0].on(Agent.EVENT, made[0].events_seen.append)  # type: ignore[attr-defined]
            made[0].on(Agent.REPORT, lambda report: setattr(made[0], "reported", report))
            made[0].activate()

        phone, line = memory_call(on_voip, clock=clock)
        await scenario(made[0], clock)
        line.hang_up()
        await phone.wait_closed()
        return made[0]

    return run_virtual(run)


def test_the_numbers_are_an_event_and_in_the_report():
    async def scenario(agent, clock):
        agent.stt.speech_starts()
        await clock.sleep(1)
        agent.stt.speech_stops()
        agent.stt.heard("a table for two")
        await clock.sleep(6)
        agent.stt.heard("tell me a story please")
        await clock.sleep(0.7)
        agent.stt.speech_starts()
        agent.stt.hears("stop")
        agent.stt.heard("stop it")
        await clock.sleep(5)

    agent = call(scenario)
    seen = agent.events_seen
    assert isinstance(seen[-1], ev.CallEnded)
    assert isinstance(seen[-2], ev.CallMeasured)
    report = agent.reported
    assert report.metrics == seen[-2].metrics
    assert report.metrics.interruptions == report.interruptions == 1
    assert (report.metrics.caller_turns, report.metrics.agent_turns) == (3, 3)
    assert report.metrics.duration_s == pytest.approx(report.duration_s, abs=0.01)
    assert report.metrics.latency("first_token").turns == 3
    # From the events alone the same numbers come out.
    assert make_report([event for event in report.events if not isinstance(event, ev.CallMeasured)]).metrics == (
        report.metrics
    )
    assert msgspec.json.decode(report.to_json(), type=type(report)).metrics == report.metrics


@pytest.mark.parametrize(
    "event",
    [
        ev.Warned(seq=1, at_s=2.0, code="vad_fallback", text="no VAD"),
        ev.SpeculationEnded(seq=1, at_s=2.0, turn=A, outcome="saved", saved_ms=250),
        ev.IdlePrompted(seq=1, at_s=2.0, count=2),
        ev.CallerUnheard(seq=1, at_s=2.0, waited_s=5),
        ev.CallMeasured(seq=1, at_s=2.0, metrics=measure([])),
    ],
)
def test_the_events_go_over_a_wire_and_back(event: Any):
    assert msgspec.json.decode(msgspec.json.encode(event), type=ev.CallEvent) == event
