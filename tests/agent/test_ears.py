"""Who hears the caller: a hook before it is opened, and what happens when it gives up for good."""

from __future__ import annotations

import asyncio

import pytest
from steady import steady_clock
from test_agent_on_a_line import Echo, on_a_call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.calls.events import CallEnded, ErrorRaised
from dialog.errors import ProviderError
from dialog.message import Message
from dialog.net.reconnect import Backoff
from dialog.participant import Participant
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.stt import STT
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.server import Faults
from dialog.testing.session import TextSession
from dialog.voip.memory import MemoryLine, memory_call


class Ready(Echo):
    """Notes what it is told, and whether it was open by then."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.ready: list[tuple[STT, object]] = []

    def on_stt_ready(self, stt: STT) -> None:
        self.ready.append((stt, stt.audio_format))


@pytest.mark.parametrize("factory", [False, True], ids=["object", "factory"])
def test_an_stt_is_ready_once_before_it_is_opened(factory):
    async def scenario(talk):
        stt = talk.agent.stt
        assert talk.agent.ready == [(stt, None)]
        assert stt.audio_format is not None
        talk.agent.deactivate()
        talk.agent.activate()
        assert len(talk.agent.ready) == 1
        stt.heard("hello")
        await talk.quiet()

    on_a_call(scenario, Ready, stt=ToldSTT if factory else ToldSTT())


def test_one_that_takes_over_is_ready_too_and_the_same_one_only_once():
    async def scenario(talk):
        second = ToldSTT()
        talk.agent.set_stt(second)
        talk.agent.set_stt(second)
        assert talk.agent.ready == [(talk.stt, None), (second, None)]
        third = ToldSTT()
        other = Ready(voip=talk.agent.voip, stt=third, tts=talk.agent.tts)
        talk.agent.hand_off(other)
        assert other.ready == [(third, None)]
        same = Ready(voip=talk.agent.voip, stt=third, tts=other.tts)
        other.hand_off(same)
        assert same.ready == []
        await talk.clock.sleep(1)

    on_a_call(scenario, Ready)


async def test_a_text_call_has_no_stt_that_could_be_ready():
    made = []

    def on_voip(voip) -> None:
        made.append(Ready(voip=voip, stt=ToldSTT, tts=HummingTTS))
        made[0].activate()

    async with TextSession(on_voip):
        assert made[0].ready == []


class Picky(Echo):
    def on_stt_ready(self, stt: STT) -> None:
        if stt.name == "Deaf":
            raise ValueError("not this one")


class Deaf(ToldSTT):
    pass


def test_a_hook_that_raises_leaves_the_stt_closed_and_the_call_as_it_was():
    async def scenario(talk):
        deaf = Deaf()
        with pytest.raises(ValueError, match="not this one"):
            talk.agent.set_stt(deaf)
        assert deaf.audio_format is None
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said: hello", "")

        other = Picky(voip=talk.agent.voip, stt=deaf, tts=HummingTTS())
        with pytest.raises(ValueError, match="not this one"):
            other.activate()
        assert deaf.audio_format is None
        other.dispose()

    on_a_call(scenario, Picky)


def test_last_words_are_not_waited_for_when_who_would_tell_them_is_gone():
    async def scenario(talk):
        talk.stt.speech_starts()
        talk.stt.hears("my number is")
        talk.line.hang_up()
        await talk.clock.sleep(0.01)
        hung_up = talk.clock.now()
        talk.stt.fail(ProviderError("told", "is gone", retryable=False), fatal=True)
        await talk.call.wait_closed()
        assert talk.clock.now() - hung_up < 0.1

    on_a_call(scenario, settings=AgentSettings(last_words_s=5.0))


@pytest.mark.parametrize("faults", [Faults(refuse=401), Faults(refuse=503)], ids=["a wrong key", "out of order"])
async def test_an_stt_that_gives_up_is_reported_once_and_nobody_waits_for_it(faults):
    clock = steady_clock(scale=5.0)
    line = MemoryLine(clock=clock)
    async with DeepgramEmulator(faults=faults) as deepgram:
        agents: list[Agent] = []
        failures = []

        def on_voip(voip) -> None:
            backoff = Backoff(first_s=0.01, limit_s=0.02, give_up_s=0.1)
            stt = DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url, backoff=backoff)
            agent = Echo(voip=voip, stt=stt, tts=HummingTTS(ms_per_char=5))
            agent.on(Participant.ERROR, failures.append)
            agents.append(agent)
            agent.activate()

        call, _ = memory_call(on_voip, clock=clock, line=line)
        line.pump()
        [agent] = agents
        agent.post(Message(uuid=call.voip.metadata.call_id, data="typed before it gave up"))
        async with asyncio.timeout(10):
            await call.wait_closed()
            await agent.wait_disposed()
        fatal = [failure for failure in failures if failure.fatal]
        assert [failure.source for failure in fatal] == ["DeepgramSTT"]
        told = [event for event in agent.events if isinstance(event, ErrorRaised)]
        assert [event.fatal for event in told].count(True) == 1
        assert len(told) == len(failures)
        assert [type(event) for event in agent.events][-1] is CallEnded
        await line.wait_closed()
