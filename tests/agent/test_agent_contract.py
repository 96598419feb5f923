"""What an agent promises whoever uses it: what its methods return, take and own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.events import CallEnded, ErrorRaised, ToolEnded
from dialog.clock import Clock
from dialog.errors import ProviderError
from dialog.llm.llm import LLM, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult
from dialog.message import MULAW_8K, AudioFormat, Message
from dialog.participant import Participant
from dialog.presets import OpenAIAgent, TwilioOpenAIAgent
from dialog.stt.stt import STT
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.virtual import run_virtual
from dialog.tts.tts import TTS
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP

PCM_16K = AudioFormat("s16le", 16000)
PCM_24K = AudioFormat("s16le", 24000)


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"You said: {message.data}"


def on_a_call(scenario, *, make=None, **options):
    """Run ``scenario(agent, line, clock)`` on a live call and end it; the agent is returned."""

    async def run(clock):
        made: list[Agent] = []

        def on_voip(voip: VoIP) -> None:
            settings = {"stt": ToldSTT(), "tts": HummingTTS(), **options}
            made.append(make(voip) if make is not None else Echo(voip=voip, **settings))
            made[0].activate()

        call, line = memory_call(on_voip, clock=clock)
        await scenario(made[0], line, clock)
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
        return made[0]

    return run_virtual(run)


# What is dispatched.


def test_a_dispatched_message_knows_its_text_at_once():
    async def scenario(agent, line, clock):
        speech = agent.dispatch_message("Welcome to the shop.")
        assert speech.text == "Welcome to the shop."
        assert not speech.done()
        heard = await speech
        assert (heard.text, heard.complete) == ("Welcome to the shop.", True)

    on_a_call(scenario)


def test_a_dispatched_stream_gathers_the_text_it_was_given():
    async def words():
        for word in ("One ", "moment, ", "please."):
            yield word

    async def scenario(agent, line, clock):
        speech = agent.dispatch_stream(words())
        heard = await speech
        assert speech.text == "One moment, please."
        assert heard.text == "One moment, please."

    on_a_call(scenario)


@pytest.mark.parametrize("how", ["message", "stream"])
def test_what_may_not_be_interrupted_is_waited_for_until_it_was_heard_whatever_is_aborted(how):
    text = "This call is recorded."

    async def words():
        for word in text.split(" "):
            yield word + " "

    async def scenario(agent, line, clock):
        began = clock.now()
        if how == "message":
            speech = agent.dispatch_message(text, allow_interrupt=False)
        else:
            speech = agent.dispatch_stream(words(), allow_interrupt=False)
        await clock.sleep(0.3)
        agent.abort()
        agent.stt.speech_starts()
        agent.stt.heard("hello? hello?")
        heard = await speech
        assert heard.complete
        assert clock.now() - began == pytest.approx(len(text) * 0.05, abs=0.3)
        assert not line.clears, "nothing of it was taken back"

    on_a_call(scenario)


def test_abort_stops_what_may_be_interrupted():
    async def scenario(agent, line, clock):
        speech = agent.dispatch_message("A long story. " * 20)
        await clock.sleep(2)
        agent.abort()
        heard = await speech
        assert not heard.complete
        assert heard.why == "interrupted"
        assert heard.text.startswith("A long story.")
        silent = len(line.heard_audio)
        await clock.sleep(1)
        assert len(line.heard_audio) == silent

    on_a_call(scenario)


def test_posting_nothing_starts_nothing():
    async def scenario(agent, line, clock):
        for text in ("", "   ", "\n"):
            agent.post(Message(uuid=agent.voip.metadata.call_id, data=text))
        await clock.sleep(1)
        assert not line.heard_audio
        assert not list(agent.history.items())

    on_a_call(scenario)


# What it is given.


def test_providers_may_be_objects_or_factories():
    async def scenario(agent, line, clock):
        agent.stt.heard("hi")
        await clock.sleep(2)
        assert len(line.heard_audio) == MULAW_8K.size(len("You said: hi") * 50)

    given = {"stt": ToldSTT, "tts": HummingTTS}
    agent = on_a_call(scenario, **given)
    assert isinstance(agent.stt, ToldSTT)
    assert agent.stt.disposed, "what a factory made is owned like what was given"
    assert agent.tts.disposed


class WideSTT(ToldSTT):
    formats: ClassVar[tuple[AudioFormat, ...]] = (PCM_16K,)


class WideTTS(HummingTTS):
    """Speaks 100 ms of a square wave per character, at 24 kHz."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (PCM_24K,)

    def open(self, audio_format: AudioFormat) -> None:
        assert audio_format == PCM_24K

    def _speak(self, message: Message[str]) -> None:
        data = (b"\x00\x10" * 12 + b"\x00\xf0" * 12) * (100 * len(message.data))
        self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=data, done=message.done))


def test_formats_that_differ_are_converted_by_the_wiring():
    stt, tts = WideSTT(), WideTTS()

    async def scenario(agent, line, clock):
        line.pump()
        line.say(b"\x20" * 8000)
        await clock.sleep(1.5)
        assert stt.audio_format == PCM_16K
        assert len(stt.audio) == pytest.approx(PCM_16K.size(1500), rel=0.05)
        speech = agent.dispatch_message("hello")
        await speech
        heard = line.heard_audio
        assert len(heard) == MULAW_8K.size(500)
        assert len(set(heard)) > 1, "a wave is left of it"

    on_a_call(scenario, stt=stt, tts=tts)


def test_a_failure_before_the_agent_listens_is_not_lost():
    stt = ToldSTT()
    errors = []

    def make(voip):
        stt.fail(ProviderError("deepgram", "no key", retryable=False))
        return Echo(voip=voip, stt=stt, tts=HummingTTS())

    async def scenario(agent, line, clock):
        agent.on(Participant.ERROR, errors.append)  # later than the failure, too

    agent = on_a_call(scenario, make=make)
    assert [event.source for event in agent.events if isinstance(event, ErrorRaised)] == ["ToldSTT"]
    assert [str(failure.error) for failure in errors] == ["deepgram: no key"]


def test_a_provider_that_a_listener_replaces_may_fail_for_good():
    stt, tts, fresh = ToldSTT(), HummingTTS(), ToldSTT()

    async def scenario(agent, line, clock):
        def replace(failure):
            if failure.fatal and failure.source == "ToldSTT":
                agent.set_stt(fresh)

        agent.on(Participant.ERROR, replace)
        stt.fail(ProviderError("deepgram", "gave up", retryable=False), fatal=True)
        await clock.sleep(3)
        assert stt.disposed
        assert agent.voip.state == "live"
        fresh.heard("are you there")
        await clock.sleep(3)
        assert len(line.heard_audio) == MULAW_8K.size(len("You said: are you there") * 50)

    on_a_call(scenario, stt=stt, tts=tts)


def test_a_voice_that_was_replaced_may_fail_for_good():
    tts = HummingTTS()

    async def scenario(agent, line, clock):
        agent.dispatch_message("Something to say before it goes.")
        await clock.sleep(0.2)
        agent.set_tts(HummingTTS())
        tts.fail(ProviderError("cartesia", "gave up", retryable=False), fatal=True)
        await clock.sleep(3)
        assert agent.voip.state == "live"

    agent = on_a_call(scenario, tts=tts)
    assert sum(isinstance(event, ErrorRaised) for event in agent.events) == 1


def test_a_call_that_ends_before_it_could_be_recorded_has_failed_only_once():
    class Mute(HummingTTS):
        def open(self, audio_format):
            self.fail(ProviderError("humming", "the API key was refused", retryable=False), fatal=True)

    async def scenario(agent, line, clock):
        await clock.sleep(5)
        assert agent.voip.state == "ended"

    agent = on_a_call(scenario, tts=Mute(), settings=AgentSettings(record=True, transcribe=True))
    assert [event.source for event in agent.events if isinstance(event, ErrorRaised)] == ["Mute"]


# How it ends.


def test_the_cause_of_a_dispose_is_logged_and_no_cause_is_not(caplog):
    async def scenario(agent, line, clock):
        agent.dispose(RuntimeError("the booking system is gone"))
        agent.dispose(RuntimeError("a second time"))
        await clock.sleep(1)

    with caplog.at_level(logging.ERROR):
        on_a_call(scenario)
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "the booking system is gone" in record.getMessage()
    assert record.exc_info
    caplog.clear()

    async def quietly(agent, line, clock):
        agent.dispose()
        await clock.sleep(1)

    with caplog.at_level(logging.WARNING):
        agent = on_a_call(quietly)
    assert not caplog.records
    assert agent.stt.disposed
    assert agent.tts.disposed


def test_a_disposed_agent_says_and_hears_nothing():
    async def scenario(agent, line, clock):
        agent.dispatch_message("A long story. " * 20)
        await clock.sleep(1)
        agent.dispose()
        silent = len(line.heard_audio)
        await clock.sleep(2)
        assert len(line.heard_audio) <= silent + MULAW_8K.size(20)

    on_a_call(scenario)


def test_an_activated_again_agent_goes_on():
    async def scenario(agent, line, clock):
        agent.deactivate()
        stt: STT = agent.stt
        stt.heard("nobody listens")
        await clock.sleep(1)
        assert not line.heard_audio
        agent.activate()
        stt.heard("hi")
        await clock.sleep(2)
        assert len(line.heard_audio) == MULAW_8K.size(len("You said: hi") * 50)

    agent = on_a_call(scenario)
    assert sum(isinstance(event, CallEnded) for event in agent.events) == 1


class Booker(Agent):
    takes_s: ClassVar[float] = 1.0
    clock: Clock

    @tool
    async def book(self) -> str:
        """Book."""
        await self.clock.sleep(self.takes_s)
        return "booked"


class Books(LLM):
    """Calls the tool, whatever is said."""

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        if any(isinstance(item, ToolResult) for item in request.items):
            yield TextDelta(text="Done.")
        else:
            yield ToolCall(id="1", name="book", arguments="{}")
        yield Finish(reason="stop")


@pytest.mark.parametrize(("takes_s", "state"), [(1.0, "done"), (60.0, "cancelled")])
def test_a_tool_that_runs_when_the_caller_hangs_up_may_finish_within_a_bound(takes_s, state):
    stt = ToldSTT()

    def make(voip):
        agent = Booker(voip=voip, stt=stt, tts=HummingTTS(), llm=Books())
        agent.clock = voip.clock
        agent.takes_s = takes_s
        return agent

    async def scenario(agent, line, clock):
        stt.heard("book a table")
        await clock.sleep(0.2)

    agent = on_a_call(scenario, make=make)
    *_, tool_ended, call_ended = [event for event in agent.events if isinstance(event, ToolEnded | CallEnded)]
    assert isinstance(call_ended, CallEnded)
    assert call_ended is agent.events[-1]
    assert tool_ended.state == state
    assert tool_ended.result == {"done": "booked", "cancelled": "cancelled: the call ended"}[state]
    [result] = [item for item in agent.history.items() if isinstance(item, ToolResult)]
    assert result.content.startswith(tool_ended.result)


# The presets.


@pytest.mark.parametrize("kind", [OpenAIAgent, TwilioOpenAIAgent])
async def test_a_preset_passes_everything_on_to_its_model(kind):
    async with OpenAIEmulator(["Fine."]) as openai:
        stt = ToldSTT()
        made = []

        def on_voip(voip):
            agent = kind(
                voip=voip,
                stt=stt,
                tts=HummingTTS(ms_per_char=1),
                api_key=openai.api_key,
                base_url=openai.base_url,
                model="another-model",
                system="Be brief.",
                options={"temperature": 0.3, "something_new": True},
                headers={"X-Team": "desk"},
                query={"api-version": "2026-01"},
            )
            made.append(agent)
            agent.activate()

        call, line = memory_call(on_voip)
        stt.heard("how are you")
        async with asyncio.timeout(5):
            while not line.heard_audio:
                await asyncio.sleep(0.01)
        line.hang_up()
        await call.wait_closed()
        [exchange] = openai.exchanges
        assert exchange.fields["model"] == "another-model"
        assert exchange.fields["temperature"] == 0.3
        assert exchange.fields["something_new"] is True
        assert [message["content"] for message in exchange.messages] == ["Be brief.", "how are you"]
        request = next(request for request in openai.requests if request.method == "POST")
        assert request.headers["X-Team"] == "desk"
        assert request.values("api-version") == ["2026-01"]
