"""The trace of a call: which spans there are, when, and what lies beneath what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import contextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from dialog.agent.agent import Agent
from dialog.agent.tools import tool
from dialog.calls import events as ev
from dialog.errors import ProviderError
from dialog.llm.llm import LLM, Finish, LLMRequest, ModelSwitched, TextDelta, ToolCall
from dialog.message import Message
from dialog.telemetry import Tracing
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.usage import Usage
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP


class Traced:
    """A tracing, and the spans that came of it."""

    def __init__(self, **options) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource({"service.name": "test"}), **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider)
        self.own = self.provider.get_tracer("own")

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def all(self, name: str):
        return [span for span in self.spans if span.name == name]

    def one(self, name: str):
        (span,) = self.all(name)
        return span


def beneath(span, parent) -> bool:
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def took_s(span) -> float:
    return (span.end_time - span.start_time) / 1e9


class Model(LLM):
    """Answers with the scripted steps, one a request; a number is a pause in seconds."""

    model = "gpt-4.1-mini"
    provider = "openai"

    def __init__(self, *steps) -> None:
        self.steps = list(steps)

    async def stream(self, request: LLMRequest):
        for event in self.steps.pop(0):
            if isinstance(event, int | float):
                await asyncio.sleep(event)
            elif isinstance(event, BaseException):
                raise event
            else:
                yield TextDelta(event) if isinstance(event, str) else event
        yield Finish(reason="stop")


USAGE = Usage(model="gpt-4.1-mini-2025-04-14", input_tokens=100, cached_tokens=60, output_tokens=7)


class Desk(Agent):
    """Tools that are traced by themselves, too."""

    own: trace.Tracer

    @tool
    async def look_up(self) -> str:
        """Look something up."""
        with self.own.start_as_current_span("select"):
            await asyncio.sleep(0.5)
        return "room 7"

    @tool
    def book(self) -> str:
        """Book it, in a thread."""
        with self.own.start_as_current_span("insert"):
            raise ValueError("no room for Mary")


@contextmanager
def a_call(traced: Traced, clock, *, agent=Desk, llm=None, follow=True, **options):
    """A call with an agent, and the STT that tells it what the caller says."""
    stt = ToldSTT()

    def on_voip(voip: VoIP) -> None:
        if follow:
            traced.tracing.follow(voip)
        made = agent(voip=voip, stt=stt, tts=HummingTTS(), llm=llm)
        made.own = traced.own
        made.activate()

    call, line = memory_call(on_voip, clock=clock, **options)
    yield call, line, stt


async def over(call, line) -> None:
    line.hang_up()
    await call.wait_closed()
    await line.wait_closed()


def test_a_turn_with_a_tool_has_all_its_stages_in_their_places_and_at_their_times():
    traced = Traced()
    measured: list[ev.TurnMeasured] = []

    async def scenario(clock):
        asked = ToolCall(id="c1", name="look_up", arguments="{}")
        model = Model([0.3, asked, USAGE], [0.2, "You are in room 7.", USAGE])
        with a_call(traced, clock, llm=model) as (call, line, stt):
            call.voip.on(VoIP.EVENT, lambda event: isinstance(event, ev.TurnMeasured) and measured.append(event))
            await clock.sleep(1)
            stt.heard("my name is Mary, where do I stay")
            await clock.sleep(20)
            await over(call, line)

    before = time.time()
    run_virtual(scenario)
    root, turn, inference = traced.one("call"), traced.one("turn"), traced.one("inference")
    assert root.parent is None
    assert root.kind == SpanKind.SERVER
    assert abs(root.start_time / 1e9 - before) < 60
    assert took_s(root) == pytest.approx(21, abs=0.5)
    assert beneath(turn, root)
    assert beneath(inference, turn)
    first, second = traced.all("chat gpt-4.1-mini")
    work, select = traced.one("execute_tool look_up"), traced.one("select")
    for span in (first, second, work):
        assert beneath(span, inference)
    assert beneath(select, work)
    for name in ("tts", "playout"):
        assert beneath(traced.one(name), turn), name
    assert took_s(first) == pytest.approx(0.3, abs=0.01)
    assert took_s(second) == pytest.approx(0.2, abs=0.01)
    assert took_s(work) == pytest.approx(0.5, abs=0.01)
    assert work.start_time >= first.end_time
    assert second.start_time >= work.end_time
    (timeline,) = [event.timeline for event in measured]
    playout = traced.one("playout")
    assert (playout.start_time - root.start_time) / 1e9 == pytest.approx(timeline.first_frame, abs=0.002)
    assert (playout.end_time - root.start_time) / 1e9 == pytest.approx(timeline.played, abs=0.002)
    assert turn.end_time == playout.end_time
    assert turn.start_time <= inference.start_time
    assert len({span.context.trace_id for span in traced.spans}) == 1


def test_requests_and_tools_follow_the_conventions_for_generative_models():
    traced = Traced()

    async def scenario(clock):
        asked = ToolCall(id="c1", name="look_up", arguments="{}")
        model = Model([asked, USAGE], [0.4, "Room 7.", USAGE])
        with a_call(traced, clock, llm=model) as (call, line, stt):
            stt.heard("hello")
            await clock.sleep(10)
            await over(call, line)
            root = traced.one("call")
            assert root.attributes["gen_ai.conversation.id"] == str(call.metadata.call_id)

    run_virtual(scenario)
    chat = traced.all("chat gpt-4.1-mini")[1]
    assert chat.kind == SpanKind.CLIENT
    assert {name: value for name, value in chat.attributes.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.agent.name": "Desk",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.response.model": "gpt-4.1-mini-2025-04-14",
        "gen_ai.response.time_to_first_chunk": pytest.approx(0.4, abs=0.01),
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 60,
    }
    work = traced.one("execute_tool look_up")
    assert {name: value for name, value in work.attributes.items() if name.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look_up",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.type": "function",
    }


def test_no_words_of_anybody_are_in_a_trace():
    traced = Traced()

    async def scenario(clock):
        asked = ToolCall(id="c1", name="book", arguments='{"name": "Mary"}')
        model = Model([asked], ["Sorry, Mary."])
        options = {"from_": "+15550001", "to": "+15550002"}
        with a_call(traced, clock, llm=model, **options) as (call, line, stt):
            stt.heard("I am Mary")
            await clock.sleep(10)
            await over(call, line)

    run_virtual(scenario)
    ours = [span.to_json() for span in traced.spans if span.name != "insert"]
    assert len(ours) >= 6
    assert not any("Mary" in text or "1555" in text for text in ours)


def test_a_tool_in_a_thread_runs_inside_its_span_and_its_failure_shows():
    traced = Traced()

    async def scenario(clock):
        model = Model([ToolCall(id="c1", name="book", arguments="{}")], ["Sorry."])
        with a_call(traced, clock, llm=model) as (call, line, stt):
            stt.heard("book it")
            await clock.sleep(10)
            await over(call, line)

    run_virtual(scenario)
    work = traced.one("execute_tool book")
    assert beneath(traced.one("insert"), work)
    assert work.status.status_code == StatusCode.ERROR
    assert work.attributes["dialog.tool.state"] == "failed"


def test_spans_of_ones_own_in_inference_and_in_a_dispatched_stream_are_beneath_the_turn():
    traced = Traced()

    class Own(Desk):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            with self.own.start_as_current_span("thinking"):
                yield "Hello."

    async def streamed() -> AsyncIterator[str]:
        with traced.own.start_as_current_span("reading"):
            yield "There is news."

    async def scenario(clock):
        with a_call(traced, clock, agent=Own) as (call, line, stt):
            stt.heard("hello")
            await clock.sleep(5)
            (agent,) = [each for each in call.scope.members if isinstance(each, Own)]
            with call.scope.entered():
                agent.dispatch_stream(streamed())
            await clock.sleep(5)
            await over(call, line)

    run_virtual(scenario)
    assert beneath(traced.one("thinking"), traced.one("inference"))
    assert beneath(traced.one("reading"), traced.one("stream"))
    answered, told = sorted(traced.all("turn"), key=lambda span: span.start_time)
    assert beneath(traced.one("inference"), answered)
    assert beneath(traced.one("stream"), told)


def test_a_failing_model_is_an_error_of_its_request_and_of_its_turns_code():
    traced = Traced()

    async def scenario(clock):
        failure = ProviderError("openai", "no answer about Mary", retryable=False)
        with a_call(traced, clock, llm=Model([0.1, failure])) as (call, line, stt):
            stt.heard("hello")
            await clock.sleep(10)
            await over(call, line)

    run_virtual(scenario)
    for name in ("chat gpt-4.1-mini", "inference"):
        span = traced.one(name)
        assert span.status.status_code == StatusCode.ERROR, name
        assert span.attributes["error.type"] == ProviderError.code
    assert "Mary" not in traced.one("call").to_json()
    assert any(event.name == "error" for event in traced.one("call").events)


def test_an_interrupted_turn_and_a_switched_model_are_noted():
    traced = Traced()

    async def scenario(clock):
        switched = ModelSwitched(model="backup", instead_of="gpt-4.1-mini", reason="late")
        model = Model([switched, "A long answer that goes on and on for quite some time. " * 3], ["Yes?"])
        with a_call(traced, clock, llm=model) as (call, line, stt):
            stt.heard("tell me")
            await clock.sleep(4)
            stt.speech_starts()
            stt.heard("stop that please")
            stt.speech_stops()
            await clock.sleep(10)
            await over(call, line)

    run_virtual(scenario)
    cut, answer = sorted(traced.all("turn"), key=lambda span: span.start_time)
    assert cut.attributes["dialog.interrupted"] is True
    assert answer.attributes["dialog.interrupted"] is False
    assert [event.name for event in cut.events] == ["interrupted"]
    assert [event.name for event in traced.all("chat gpt-4.1-mini")[0].events] == ["model_switched"]
    assert any(event.name == "provider_switched" for event in traced.one("call").events)


def test_every_span_ends_with_the_call_whatever_was_under_way():
    traced = Traced()

    async def scenario(clock):
        started = []
        provider = traced.provider
        provider.add_span_processor(Counting(started))
        asked = ToolCall(id="c1", name="look_up", arguments="{}")
        with a_call(traced, clock, llm=Model([asked], [60.0, "Late."])) as (call, line, stt):
            stt.heard("hello")
            await clock.sleep(2)
            await over(call, line)
        assert len(started) == len(traced.spans)

    run_virtual(scenario)
    root = traced.one("call")
    assert root.attributes["dialog.end_reason"] == "caller_hangup"
    assert root.attributes["dialog.tools"] == 1
    assert root.status.status_code == StatusCode.UNSET
    assert traced.all("chat gpt-4.1-mini")[1].attributes["dialog.cancelled"] is True


class Counting(SimpleSpanProcessor):
    """Notes what was started."""

    def __init__(self, started: list) -> None:
        super().__init__(InMemorySpanExporter())
        self.started = started

    def on_start(self, span, parent_context=None) -> None:
        self.started.append(span)


def test_a_call_without_an_agent_is_a_span_and_does_not_hold_the_call_up():
    traced = Traced()

    async def scenario(clock):
        call, line = memory_call(traced.tracing.follow, clock=clock)
        await clock.sleep(3)
        began = clock.now()
        await over(call, line)
        assert clock.now() - began < 0.5

    run_virtual(scenario)
    root = traced.one("call")
    assert took_s(root) == pytest.approx(3, abs=0.1)
    assert root.attributes["dialog.end_reason"] == "caller_hangup"


def test_a_call_lies_beneath_the_span_in_which_it_came():
    traced = Traced()

    async def scenario(clock):
        with (
            traced.own.start_as_current_span("POST /twilio"),
            a_call(traced, clock, agent=Desk, llm=Model(["Hello."])) as (call, line, stt),
        ):
            pass
        stt.heard("hello")
        await clock.sleep(10)
        await over(call, line)

    run_virtual(scenario)
    assert beneath(traced.one("call"), traced.one("POST /twilio"))
    assert beneath(traced.one("turn"), traced.one("call"))


def test_the_events_of_a_traced_call_name_its_trace_and_others_none():
    traced = Traced()
    started: list[ev.CallStarted] = []

    async def scenario(clock):
        for follow in (True, False):
            stt = ToldSTT()

            def on_voip(voip: VoIP, stt=stt, follow=follow) -> None:
                voip.on(VoIP.EVENT, lambda event: isinstance(event, ev.CallStarted) and started.append(event))
                if follow:
                    traced.tracing.follow(voip)
                    traced.tracing.follow(voip)
                Desk(voip=voip, stt=stt, tts=HummingTTS(), llm=Model()).activate()

            call, line = memory_call(on_voip, clock=clock)
            await clock.sleep(1)
            await over(call, line)

    run_virtual(scenario)
    root = traced.one("call")
    assert started[0].trace.startswith(f"00-{root.context.trace_id:032x}-{root.context.span_id:016x}-")
    assert started[1].trace == ""


def test_a_call_that_is_not_sampled_costs_no_spans():
    traced = Traced(sampler=ALWAYS_OFF)

    async def scenario(clock):
        with a_call(traced, clock, llm=Model(["Hello."])) as (call, line, stt):
            turn = stt.heard("hello")
            await clock.sleep(5)
            assert turn
            await over(call, line)

    run_virtual(scenario)
    assert traced.spans == ()
