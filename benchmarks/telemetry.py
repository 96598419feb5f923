"""What figures and traces cost: those of 200 calls, in shares of a core.

    python benchmarks/telemetry.py

One call is held in virtual time, a turn every five seconds with interim words, a tool and usage in each; its events
are then published as 200 calls would, with metrics that listen and without. The same call is held with a trace and
without, all spans sampled and none sent anywhere. Each figure is the best of several runs, in process time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.publish import CallEvents, Notice
from dialog.llm.llm import LLM, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult
from dialog.telemetry import Metrics, Tracing
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.usage import Usage
from dialog.voip.memory import memory_call
from dialog.voip.refusals import Refusals

CALLS = 200
TURNS = 24
TURN_S = 5.0


class Model(LLM):
    """Uses a tool, then answers."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        if isinstance(request.items[-1], ToolResult):
            for word in ["We", "are", "open", "until", "ten"]:
                yield TextDelta(text=f"{word} ")
            yield Usage(model="gpt-4.1-mini", input_tokens=900, output_tokens=12)
            yield Finish(reason="stop")
        else:
            yield ToolCall(id="1", name="hours", arguments="{}")
            yield Usage(model="gpt-4.1-mini", input_tokens=800, output_tokens=9)
            yield Finish(reason="tool_calls")


class Desk(Agent):
    """Has one tool."""

    @tool(safe=True)
    def hours(self) -> str:
        """When the shop is open."""
        return "nine to ten"


class House:
    """What a gateway shows of itself."""

    def __init__(self) -> None:
        self.events = CallEvents()
        self.calls = ()
        self.refusals = Refusals()
        self.workers = None


def a_conversation(tracing: Tracing | None = None) -> list[Notice]:
    """The events of one call, as they are published; ``tracing`` follows it."""
    house, notices = House(), []
    house.events.on(notices.append)

    async def scenario(clock) -> None:
        stt = ToldSTT()

        def on_voip(voip) -> None:
            if tracing is not None:
                tracing.follow(voip)
            Desk(voip=voip, stt=stt, tts=HummingTTS(), llm=Model(), settings=AgentSettings()).activate()

        call, line = memory_call(on_voip, clock=clock, events=house.events)
        for _ in range(TURNS):
            stt.speech_starts()
            for words in ("when", "when do", "when do you", "when do you close"):
                await clock.sleep(0.3)
                stt.hears(words)
            stt.speech_stops()
            stt.heard("when do you close today")
            await clock.sleep(TURN_S - 1.2)
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()

    run_virtual(scenario)
    return notices


def best_s(work: Callable[[], object], runs: int = 7) -> float:
    """The shortest of several runs."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    notices = a_conversation()
    length_s = notices[-1].event.at_s
    calls = [replace(notices[0].call, call_id=uuid4()) for _ in range(CALLS)]

    def publish(events: CallEvents) -> Callable[[], None]:
        def work() -> None:
            for notice in notices:
                for call in calls:
                    events.publish(call, notice.event)

        return work

    alone, watched = House(), House()
    alone.events.on(lambda _: None)
    metrics = Metrics()
    metrics.watch(watched)
    idle = best_s(publish(alone.events))
    busy = best_s(publish(watched.events))
    count = len(notices) * CALLS
    print(f"{len(notices)} events in a call of {length_s:.0f} s: {len(notices) / length_s:.1f} a second")
    print(f"an event: {idle / count * 1e6:.2f} µs to publish, {(busy - idle) / count * 1e6:.2f} µs to count")
    print(f"{CALLS} calls: {(busy - idle) / length_s * 100:.2f} % of a core for the metrics (target: < 1 %)")
    scrape = best_s(metrics.exposition)
    print(f"a scrape: {scrape * 1000:.1f} ms, {len(metrics.exposition()[0]) / 1000:.0f} kB")
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider)
    bare = best_s(a_conversation)
    traced = best_s(lambda: a_conversation(tracing))
    spans = len(exporter.get_finished_spans()) / 7
    print(f"a trace: {spans:.0f} spans in a call, {(traced - bare) / spans * 1e6:.0f} µs each")
    print(f"{CALLS} calls: {(traced - bare) / length_s * CALLS * 100:.1f} % of a core for traces of all of them")


if __name__ == "__main__":
    main()
