"""What /metrics tells of calls: from their events, and from what is looked up when it is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from figures import Figures, House, scraped
from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry

from dialog.agent.agent import Agent
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.calls import events as ev
from dialog.calls.feed import declined
from dialog.calls.metrics import DeadAir, SessionMetrics
from dialog.calls.timeline import TurnTimeline
from dialog.message import CallMetadata, Message
from dialog.server.serving import serve
from dialog.telemetry import Metrics
from dialog.telemetry.labels import OTHER, Few
from dialog.testing.caller import Caller
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.usage import Usage
from dialog.voip.memory import memory_call
from dialog.voip.twilio import TwilioGateway

ACCOUNT = "AC" + "0" * 32
TOKEN = "secret-token"


class Told:
    """Metrics that are told events one by one."""

    def __init__(self) -> None:
        self.house = House()
        self.metrics = Metrics()
        self.metrics.watch(self.house)
        self.seq = 0

    def tell(self, call: CallMetadata, event, **fields) -> None:
        self.house.events.publish(call, event(seq=self.seq, at_s=fields.pop("at_s", 0.0), **fields))
        self.seq += 1

    @property
    def figures(self) -> Figures:
        return scraped(self.metrics)


def a_call(**more) -> CallMetadata:
    return CallMetadata(call_id=uuid4(), carrier="memory", from_="+15550001", to="+15550002", **more)


def started(told: Told, call: CallMetadata) -> None:
    told.tell(
        call,
        ev.CallStarted,
        call_id=call.call_id,
        carrier=call.carrier,
        carrier_call_id="",
        from_=call.from_,
        to=call.to,
        direction=call.direction,
        started_at="",
    )


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"You said: {message.data}"


def test_a_conversation_shows_in_the_figures_while_it_goes_on_and_after_it():
    async def scenario(clock):
        house, stt = House(), ToldSTT()
        metrics = Metrics()
        metrics.watch(house)

        def on_voip(voip):
            Echo(voip=voip, stt=stt, tts=HummingTTS()).activate()

        call, line = memory_call(on_voip, clock=clock, events=house.events)
        house.calls = (call,)
        await clock.sleep(1)
        assert scraped(metrics).get("dialog_live_calls") == 1
        stt.heard("hello")
        await clock.sleep(20)
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
        figures = scraped(metrics)
        assert figures.get("dialog_live_calls") == 0
        assert figures.get("dialog_calls_started_total", direction="inbound") == 1
        assert figures.get("dialog_calls_total", direction="inbound", outcome="caller_hangup") == 1
        assert figures.get("dialog_call_duration_seconds_sum", direction="inbound") == pytest.approx(21, abs=0.5)
        assert figures.get("dialog_turns_total") == 1
        assert figures.get("dialog_streams_total", state="live") == 1
        for stage in ("decision", "first_token", "sending"):
            assert figures.get("dialog_turn_latency_seconds_count", stage=stage, source="") == 1, stage

    run_virtual(scenario)


def test_latencies_of_different_sources_are_apart_and_what_was_not_measured_does_not_count():
    told, call = Told(), a_call()
    stages = {"final": 1.3, "inference": 1.4, "first_token": 1.9, "first_frame": 2.2}
    told.tell(
        call, ev.TurnMeasured, timeline=TurnTimeline(turn=uuid4(), end_of_speech=1.0, speech_source="vad", **stages)
    )
    told.tell(
        call,
        ev.TurnMeasured,
        timeline=TurnTimeline(turn=uuid4(), end_of_speech=0.2, speech_source="stt_words", **stages),
    )
    told.tell(call, ev.TurnMeasured, timeline=TurnTimeline(turn=uuid4(), first_frame=9.0))
    figures = told.figures
    name = "dialog_turn_latency_seconds"
    assert figures.get(f"{name}_sum", stage="answer", source="vad") == pytest.approx(1.2)
    assert figures.get(f"{name}_sum", stage="answer", source="stt_words") == pytest.approx(2.0)
    assert figures.get(f"{name}_bucket", stage="answer", source="vad", le="1.25") == 1
    assert figures.get(f"{name}_bucket", stage="answer", source="vad", le="1.0") == 0
    assert figures.get(f"{name}_count", stage="first_token", source="") == 2
    assert figures.get(f"{name}_count", stage="synthesis", source="") == 0
    assert figures.get("dialog_turns_total") == 2


def test_every_kind_of_trouble_work_and_usage_is_counted():
    told, call, turn = Told(), a_call(), uuid4()
    told.tell(call, ev.Interrupted, turn=turn, reason="caller spoke")
    told.tell(call, ev.ResumedAfterPause, turn=turn)
    told.tell(call, ev.ReplyDropped, turn=turn, reason="caller spoke")
    told.tell(call, ev.CallerUnheard, waited_s=3.0)
    told.tell(call, ev.IdlePrompted, count=1)
    told.tell(call, ev.SpeculationEnded, turn=turn, outcome="saved", saved_ms=200.0)
    told.tell(call, ev.ErrorRaised, source="DeepgramSTT", code="provider", text="secret", fatal=True)
    told.tell(call, ev.Warned, code="vad_fallback", text="")
    told.tell(call, ev.CallAnsweredBy, who="human", assumed=True)
    told.tell(call, ev.CallAnsweredBy, who="machine", late=True)
    told.tell(call, ev.HandedOff, from_="A", to="B")
    told.tell(call, ev.CallResumed, agent="A", lost_s=1.0)
    told.tell(call, ev.TransferChanged, to="+15550003", state="answered")
    told.tell(call, ev.StreamChanged, state="lost", generation=1)
    told.tell(
        call, ev.ProviderSwitched, kind="llm", provider="B", instead_of="A", reason="timed out after 3 s", turn=turn
    )
    told.tell(call, ev.ToolEnded, turn=turn, call_id="c", name="book", result="", state="failed", took_s=0.3)
    usage = Usage(model="m", input_tokens=100, cached_tokens=40, output_tokens=20, input_audio_s=2.5, characters=70)
    told.tell(call, ev.UsageReported, turn=turn, usage=usage, cost_usd=0.004)
    silences = (DeadAir(begin_s=1.0, seconds=2.2), DeadAir(begin_s=9.0, seconds=6.0))
    told.tell(call, ev.CallMeasured, metrics=SessionMetrics(dead_air=silences))
    figures = told.figures
    for kind in ("cut", "false", "dropped"):
        assert figures.get("dialog_interruptions_total", kind=kind) == 1
    for name in ("unheard", "idle_prompts", "hand_offs", "calls_resumed"):
        assert figures.get(f"dialog_{name}_total") == 1, name
    assert figures.get("dialog_speculations_total", outcome="saved") == 1
    assert figures.get("dialog_errors_total", source="DeepgramSTT", code="provider", fatal="true") == 1
    assert figures.get("dialog_answered_by_total", who="human", assumed="true") == 1
    assert figures.get("dialog_answered_by_total", who="machine", assumed="false") == 0
    assert figures.get("dialog_warnings_total", code="vad_fallback") == 1
    assert figures.get("dialog_transfers_total", state="answered") == 1
    assert figures.get("dialog_streams_total", state="lost") == 1
    assert figures.get("dialog_provider_switches_total", kind="llm", instead_of="A", provider="B") == 1
    assert figures.get("dialog_tools_total", tool="book", state="failed") == 1
    assert figures.get("dialog_tool_duration_seconds_bucket", tool="book", le="0.5") == 1
    for kind, tokens in (("input", 100), ("cached", 40), ("output", 20)):
        assert figures.get("dialog_tokens_total", model="m", kind=kind) == tokens
    assert figures.get("dialog_usage_seconds_total", model="m", kind="input") == 2.5
    assert figures.get("dialog_usage_characters_total", model="m") == 70
    assert figures.get("dialog_cost_usd_total", model="m") == 0.004
    assert figures.get("dialog_dead_air_seconds_count") == 2
    assert figures.get("dialog_dead_air_seconds_bucket", le="2.5") == 1


def test_no_caller_is_in_the_figures():
    told, call = Told(), a_call(carrier_call_id="CA123")
    started(told, call)
    told.tell(call, ev.CallerSaid, turn=uuid4(), text="my name is Mary", final=True)
    told.tell(call, ev.TransferChanged, to="+15550003", state="refused", detail="no route to +15550003")
    told.tell(call, ev.CallEnded, reason="error", detail="of +15550001", at_s=3.0)
    assert not re.search(rf"1555|CA123|Mary|{call.call_id}", told.figures.text)


def test_a_call_that_comes_from_another_gateway_is_live_here_until_its_end():
    told, call = Told(), a_call()
    told.tell(call, ev.CallResumed, agent="A", lost_s=1.0)
    assert told.figures.get("dialog_live_calls") == 1
    told.tell(call, ev.CallEnded, reason="caller_hangup")
    told.tell(call, ev.RecordingReady, url="https://recordings.example/1")
    assert told.figures.get("dialog_live_calls") == 0


def test_a_call_that_was_declined_has_an_outcome_and_no_duration():
    told, call = Told(), a_call()
    declined(told.house.events, call, "reject")
    figures = told.figures
    assert figures.get("dialog_calls_total", direction="inbound", outcome="declined") == 1
    assert figures.get("dialog_call_duration_seconds_count", direction="inbound") == 0
    assert figures.get("dialog_live_calls") == 0


def test_values_that_a_program_makes_up_do_not_fill_the_store():
    told, call = Told(), a_call()
    for number in range(300):
        told.tell(call, ev.CallEnded, reason=f"ticket {number}")
    figures = told.figures
    series = [name for name in figures.samples if name[0] == "dialog_calls_total"]
    assert len(series) <= 101
    assert figures.get("dialog_calls_total", direction="inbound", outcome=OTHER) > 190
    assert sum(value for name, value in figures.samples.items() if name[0] == "dialog_calls_total") == 300


def test_a_label_has_few_values_and_known_ones_stay():
    few = Few(2)
    assert [few("a"), few("b"), few("c"), few("a")] == ["a", "b", OTHER, "a"]


def test_gateways_that_share_their_events_are_counted_once():
    told, call = Told(), a_call()
    other = House()
    other.events = told.house.events
    told.metrics.watch(other)
    told.metrics.watch(told.house)
    started(told, call)
    other.refusals.webhooks[403] += 2
    told.house.refusals.webhooks[403] += 1
    assert told.figures.get("dialog_calls_started_total", direction="inbound") == 1
    assert told.figures.get("dialog_webhook_refusals_total", status="403") == 3


def test_queues_and_metrics_of_ones_own_are_in_the_same_answer():
    registry = CollectorRegistry()
    orders = Counter("orders", "Orders that callers gave.", registry=registry)
    metrics = Metrics(registry=registry)
    waiting = [1, 2, 3]
    metrics.queue("outbox", lambda: len(waiting))
    house = House()
    house.events.queues["call_log"] = lambda: 2 * len(waiting)
    house.events.losses["call_log"] = lambda: 7
    metrics.watch(house)
    orders.inc()
    figures = scraped(metrics)
    assert figures.get("dialog_queue_depth", queue="call_log") == 6
    assert figures.get("dialog_events_lost_total", queue="call_log") == 7
    assert figures.get("orders_total") == 1
    assert figures.get("dialog_queue_depth", queue="outbox") == 3
    waiting.clear()
    assert scraped(metrics).get("dialog_queue_depth", queue="outbox") == 0


def test_audio_that_waits_to_be_played_is_seen():
    async def scenario(clock):
        house = House()
        metrics = Metrics()
        metrics.watch(house)
        calls = [memory_call(lambda _: None, clock=clock, join=False, events=house.events) for _ in range(2)]
        house.calls = tuple(call for call, _ in calls)
        for call, ms in zip(house.calls, (1000, 3000), strict=True):
            call.voip.post(Message(uuid=uuid4(), data=call.voip.audio_format.silence(ms), done=True))
        figures = scraped(metrics)
        assert figures.get("dialog_playout_queued_seconds") == 4
        assert figures.get("dialog_playout_longest_seconds") == 3
        for call in house.calls:
            call.end("over")
            await call.wait_closed()
        assert scraped(metrics).get("dialog_playout_queued_seconds") == 0

    run_virtual(scenario)


def test_after_close_nothing_is_counted_any_more():
    told, call = Told(), a_call()
    told.metrics.close()
    told.metrics.close()
    started(told, call)
    assert told.figures.get("dialog_live_calls") == 0


async def until(true, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await true():
            await asyncio.sleep(0.02)


async def test_a_served_gateway_answers_metrics_of_calls_and_of_what_it_refused():
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, base_url="http://127.0.0.1:9")
    gateway.on("voip", lambda voip: voip.post(Message(uuid=uuid4(), data=mulaw_encode(sine(300, 600)), done=True)))
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(gateway, host="127.0.0.1", port=0, leave_s=0.0, stop=stop, started=port.set_result)
    )
    url = f"http://127.0.0.1:{await port}"
    async with aiohttp.ClientSession() as session:

        async def figures() -> Figures:
            async with session.get(f"{url}/metrics") as response:
                assert response.status == 200
                assert response.headers["Content-Type"].startswith("text/plain; version=")
                return Figures(await response.text())

        async with session.post(f"{url}/twilio", data={"CallSid": "CA1"}) as response:
            assert response.status == 400
        async with session.get(f"{url}/twilio/media", headers={"X-Twilio-Signature": "wrong"}) as response:
            assert response.status == 403
        async with Caller.dial(f"{url}/twilio", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            await caller.listen()
            assert (await figures()).get("dialog_playout_queued_seconds") == 0
            await caller.hang_up()

        async def ended() -> bool:
            return (await figures()).get("dialog_calls_total", direction="inbound", outcome="caller_hangup") == 1

        await until(ended)

        async def beaten() -> bool:
            return (await figures()).get("dialog_loop_lag_seconds_count") > 1

        await until(beaten)
        found = await figures()
        assert found.get("dialog_webhook_refusals_total", status="400") == 1
        assert found.get("dialog_socket_refusals_total", code="403") == 1
        assert any(name[0] == "dialog_info" for name in found.samples)
        async with session.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text"}) as response:
            assert response.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await response.text()).endswith("# EOF\n")
    stop.set()
    await serving


async def test_a_gateway_that_shows_nothing_of_itself_is_served_all_the_same():
    class Plain:
        ready = True

        def add_routes(self, app: web.Application) -> None:
            """It has none."""

        async def drain(self, timeout_s: float) -> bool:
            return True

    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(Plain(), host="127.0.0.1", port=0, leave_s=0.0, stop=stop, started=port.set_result)
    )
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{await port}/metrics") as response:
        assert "dialog_info" in await response.text()
    stop.set()
    assert await serving
