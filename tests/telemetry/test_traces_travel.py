"""Traces leave the process: over OTLP, and from a worker to the one that goes on with its call."""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import web
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from test_tracing import USAGE, Desk, Model, Traced

from dialog.llm.llm import ToolCall
from dialog.net.listening import unlisten
from dialog.telemetry import Tracing
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))
from bridges import bridge, until


class Collector:
    """An OTLP/HTTP receiver on loopback."""

    def __init__(self) -> None:
        self.spans: list = []
        self.services: set[str] = set()
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/traces"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await unlisten(self._runner)

    async def _take(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        told = ExportTraceServiceRequest.FromString(await request.read())
        for resource in told.resource_spans:
            self.services |= {each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


async def test_a_call_arrives_over_otlp_as_one_trace():
    async with Collector() as collector:
        provider = TracerProvider(resource=Resource({"service.name": "front desk"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(collector.url), schedule_delay_millis=50))
        traced = Traced()
        stt = ToldSTT()
        model = Model([ToolCall(id="c1", name="look_up", arguments="{}")], ["Room 7.", USAGE])

        def on_voip(voip: VoIP) -> None:
            Tracing(provider).follow(voip)
            agent = Desk(voip=voip, stt=stt, tts=HummingTTS(), llm=model)
            agent.own = traced.own
            agent.activate()

        call, line = memory_call(on_voip)
        stt.heard("where do I stay")
        await until(lambda: any(span.name == "turn" for span in collector.spans))
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
        await until(lambda: any(span.name == "call" for span in collector.spans))
        spans = {span.name: span for span in collector.spans}
        assert {"call", "turn", "inference", "execute_tool look_up", "chat gpt-4.1-mini", "playout"} <= set(spans)
        assert "front desk" in collector.services
        assert len({span.trace_id for span in collector.spans}) == 1
        assert spans["turn"].parent_span_id == spans["call"].span_id
        assert spans["inference"].parent_span_id == spans["turn"].span_id
        assert spans["call"].start_time_unix_nano < spans["turn"].start_time_unix_nano
        provider.shutdown()


async def test_a_call_that_another_worker_goes_on_with_is_linked_to_what_it_was():
    first, second = Traced(), Traced()

    def answering(traced: Traced):
        def on_voip(voip: VoIP) -> None:
            traced.tracing.follow(voip)
            Desk(voip=voip, stt=ToldSTT(), tts=HummingTTS(), llm=Model()).activate()

        return on_voip

    async with bridge() as made:
        await made.worker("a", answering(first))
        call, line, voip = await made.ring()
        assert voip.tracer is not None
        before = voip.tracer.trace
        await until(lambda: made.hosted(call).checkpoint is not None and made.hosted(call).checkpoint.started)
        await made.worker("b", answering(second))
        await made.kill("a")
        await until(lambda: len(made.voips) == 2 and made.hosted(call).worker == "b")
        line.hang_up()
        await until(lambda: second.all("call"))
        root = second.one("call")
        (link,) = root.links
        assert f"-{link.context.trace_id:032x}-{link.context.span_id:016x}-"[1:] in before
        assert root.attributes["dialog.call_id"] == str(call.metadata.call_id)
        assert any(event.name == "resumed" for event in root.events)
        await call.wait_closed()
        await line.wait_closed()
