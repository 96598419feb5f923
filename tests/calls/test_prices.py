"""What usage costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from dialog import AgentSettings, Usage
from dialog.agent.agent import Agent
from dialog.calls import events as ev
from dialog.calls.meter import CallMeter
from dialog.calls.prices import PRICES, Price, cost_usd
from dialog.llm.llm import LLM, Finish, LLMEvent, LLMRequest, TextDelta
from dialog.stt.stt import STT
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTS
from dialog.usage import ReplyUsage
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP

REPLY = Usage(
    model="gpt-realtime",
    input_tokens=1000,
    cached_tokens=400,
    output_tokens=300,
    input_audio_tokens=700,
    cached_audio_tokens=200,
    output_audio_tokens=250,
)


def used(seq: int, usage: Usage) -> ev.UsageReported:
    return ev.UsageReported(seq=seq, at_s=float(seq), turn=uuid4(), usage=usage)


def test_text_audio_and_cached_tokens_are_priced_apart():
    text = (100 * 4.0 + 200 * 0.4 + 50 * 16.0) / 1e6
    audio = (500 * 32.0 + 200 * 0.4 + 250 * 64.0) / 1e6
    assert cost_usd(REPLY) == pytest.approx(text + audio)


def test_minutes_and_characters_are_priced():
    prices = {"m": Price(heard_minute=0.6, spoken_minute=1.2, session_minute=6.0, characters=10.0)}
    usage = Usage(model="m", input_audio_s=60, output_audio_s=30, session_s=20, characters=100_000)
    assert cost_usd(usage, prices) == pytest.approx(0.6 + 0.6 + 2.0 + 1.0)


def test_a_version_of_a_model_costs_what_the_model_costs_and_another_model_does_not():
    assert cost_usd(Usage(model="gpt-4.1-mini-2025-04-14", output_tokens=1_000_000)) == pytest.approx(1.6)
    assert cost_usd(Usage(model="grok-voice-latest", session_s=60)) == pytest.approx(0.05)
    assert cost_usd(Usage(model="gpt-realtime-99", output_tokens=1)) is None


def test_a_call_sums_up_by_model_and_is_not_priced_by_halves():
    meter = CallMeter()
    meter.feed(used(1, REPLY))
    meter.feed(used(2, REPLY))
    meter.feed(used(3, Usage(model="gpt-transcribe", input_audio_s=60)))
    metrics = meter.metrics
    assert [(usage.model, usage.input_tokens) for usage in metrics.usage] == [
        ("gpt-realtime", 2000),
        ("gpt-transcribe", 0),
    ]
    assert metrics.usage[0].cached_audio_tokens == 400
    assert metrics.cost_usd == pytest.approx(2 * (cost_usd(REPLY) or 0) + 0.0045)
    assert CallMeter(meter.state).metrics.cost_usd == metrics.cost_usd
    meter.feed(used(4, Usage(model="unheard-of", output_tokens=1)))
    assert meter.metrics.cost_usd is None


def test_prices_of_ones_own_win():
    settings = AgentSettings(prices={"gpt-realtime": Price(), "mine": Price(output=1.0)})
    assert settings.all_prices["gpt-realtime"] == Price()
    assert settings.all_prices["gpt-transcribe"] == PRICES["gpt-transcribe"]
    meter = CallMeter(prices=settings.all_prices)
    meter.feed(used(1, REPLY))
    meter.feed(used(2, Usage(model="mine", output_tokens=1_000_000)))
    assert meter.metrics.cost_usd == pytest.approx(1.0)
    assert CallMeter().metrics.cost_usd is None


def test_what_ears_and_voices_used_is_the_calls_also_if_they_tell_at_their_end():
    class Ear(ToldSTT):
        def dispose(self) -> None:
            if not self.disposed:
                self.emit(STT.USAGE, ReplyUsage(usage=Usage(model="nova-3", input_audio_s=60.0)))
            super().dispose()

    class Voice(HummingTTS):
        def post(self, message):
            super().post(message)
            used = Usage(model="sonic-3.5", characters=len(message.data))
            self.emit(TTS.USAGE, ReplyUsage(usage=used, uuid=message.uuid))

    async def scenario(clock):
        told, agents = [], []

        def on_voip(voip):
            voip.on(VoIP.EVENT, told.append)
            agents.append(Agent(voip=voip, stt=Ear(), tts=Voice(), greeting="Good day."))
            agents[0].activate()

        call, line = memory_call(on_voip, clock=clock)
        await clock.sleep(5)
        agents[0].set_stt(Ear())  # the first one is the call's as well
        agents[0].set_tts(Voice())
        agents[0].dispatch_message("Bye.")
        await clock.sleep(10)
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
        reported = [event for event in told if isinstance(event, ev.UsageReported)]
        assert all(event.cost_usd for event in reported if event.usage.characters or event.usage.input_audio_s)
        assert {event.turn is None for event in reported if event.usage.model == "sonic-3.5"} == {False}
        [measured] = [event for event in told if isinstance(event, ev.CallMeasured)]
        used = {usage.model: usage for usage in measured.metrics.usage}
        assert used["nova-3"].input_audio_s == 120.0
        assert used["sonic-3.5"].characters == len("Good day.Bye.")
        assert measured.metrics.cost_usd == pytest.approx(sum(event.cost_usd for event in reported), abs=1e-6)

    run_virtual(scenario)


def test_what_an_answer_costs_is_told_with_its_usage():
    class Model(LLM):
        async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
            yield TextDelta("It is noon.")
            yield Usage(model="gpt-4.1-mini", input_tokens=1_000_000, output_tokens=10)
            yield Finish(reason="stop")

    async def scenario(clock):
        told, stt = [], ToldSTT()

        def on_voip(voip):
            Agent(voip=voip, stt=stt, tts=HummingTTS(), llm=Model()).activate()

        call, line = memory_call(on_voip, clock=clock)
        call.voip.on(VoIP.EVENT, told.append)
        stt.heard("what time is it")
        await clock.sleep(10)
        (event,) = [event for event in told if isinstance(event, ev.UsageReported)]
        assert event.cost_usd == cost_usd(event.usage)
        assert event.cost_usd > 0
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()

    run_virtual(scenario)
