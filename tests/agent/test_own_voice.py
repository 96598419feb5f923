"""The agent's own voice comes back from the line: its echo is nobody's words, and a barge-in is the caller's."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from msgspec.structs import replace
from test_agent_on_a_line import on_a_call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import BargeIn, TurnSettings
from dialog.audio.g711 import mulaw_encode
from dialog.calls.events import CallerSaid, Interrupted, ResumedAfterPause
from dialog.clock import Clock
from dialog.errors import ProviderError
from dialog.message import Message, Utterance
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.echo import Echo
from dialog.stt.fallback import FallbackSTT
from dialog.stt.stt import STT
from dialog.stt.tee import TeeSTT
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.tts.tts import TTS
from dialog.voip.memory import MemoryLine, memory_call

QUESTION = "Shall I book you a table for two at seven"
"""50 ms a character: "table" ends at 1.25 s, "two" at 1.65, all of it at 2.1."""


class GuardedSTT(ToldSTT):
    """Hears what it is told, and drops what it takes for the echo of the agent."""

    def __init__(self) -> None:
        super().__init__()
        self.echo = Echo()
        self.finals: list[str] = []

    @property
    def words(self) -> str:
        """All that was heard of the agent."""
        return " ".join(self.own_speech.words(-math.inf, math.inf).split())

    @property
    def agent_sounds(self) -> bool:
        return self.own_speech.stretches[-1][1] == math.inf

    def utters(self, text: str, ms: float) -> None:
        """``text`` was said within the last ``ms``."""
        now_ms = self._at_ms + 20
        utterance = Utterance(uuid=uuid4(), data=text, at_ms=now_ms - ms, end_ms=now_ms)
        if not self.echo.is_echo(utterance, self.own_speech):
            self.finals.append(text)
            self.emit(STT.MESSAGE, utterance)


class Asking(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield QUESTION if message.data == "hello" else "Fine."


async def asked(talk) -> None:
    """The caller hears the question from now on."""
    talk.line.pump()
    await talk.clock.sleep(1.0)
    talk.agent.post(Message(uuid=uuid4(), data="hello"))


def said(talk):
    return [event.text for event in talk(CallerSaid) if event.final]


def on_a_guarded_call(scenario, **options):
    return on_a_call(scenario, Asking, stt=GuardedSTT(), **options)


@pytest.mark.parametrize("timings", [True, False], ids=["word times", "no word times"])
def test_an_echo_is_dropped_while_the_agent_speaks_and_shortly_after(timings):
    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(1.5)
        talk.stt.utters("shall i book you a table", 1300)
        await talk.quiet()
        await talk.clock.sleep(0.3)
        talk.stt.utters("for two at seven", 900)
        await talk.clock.sleep(1)
        assert said(talk) == ["hello"]
        assert not talk(Interrupted)
        assert talk.stt.words == QUESTION
        assert not talk.stt.agent_sounds

    on_a_guarded_call(scenario, tts=HummingTTS(timings=timings))


def test_who_repeats_the_agent_a_while_after_it_is_heard():
    async def scenario(talk):
        await asked(talk)
        await talk.quiet()
        await talk.clock.sleep(1.4)
        talk.stt.utters("a table for two at seven", 1200)
        await talk.clock.sleep(0.01)
        assert said(talk) == ["hello", "a table for two at seven"]
        await talk.quiet()

    on_a_guarded_call(scenario)


def test_a_barge_in_with_words_that_the_agent_has_not_said_yet_is_kept():
    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(0.9)
        talk.stt.utters("a table for two at seven", 800)
        await talk.quiet()
        assert said(talk) == ["hello", "a table for two at seven"]
        assert len(talk(Interrupted)) == 1

    on_a_guarded_call(scenario)


def test_of_a_part_that_is_cut_only_what_was_heard_is_told():
    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(0.9)
        talk.stt.utters("no wait", 500)
        await talk.quiet()
        assert talk.stt.words == "Shall I book you a Fine"
        assert talk.spoken()[1][1] == "Shall I book you a"
        assert not talk.stt.agent_sounds

    on_a_guarded_call(scenario)


@pytest.mark.parametrize("asked_meanwhile", [False, True], ids=["asked afterwards", "asked all the time"])
def test_words_are_told_for_when_they_are_heard_and_hardly_sooner(asked_meanwhile):
    async def scenario(talk):
        await asked(talk)
        own, started_ms = talk.stt.own_speech, talk.stt._at_ms + 20
        for _ in range(40 if asked_meanwhile else 0):
            own.words(0.0, 0.0)
            await talk.clock.sleep(0.1)
        await talk.quiet()
        position = 0
        for frame in range(300):
            at_ms = started_ms + 20 * frame
            for word in own.words(at_ms, at_ms + 19.9).split():
                position = QUESTION.index(word, position)
                spoken_ms = (position + len(word)) * 50
                assert spoken_ms - 550 <= at_ms - started_ms <= spoken_ms + 400, word
                position += len(word)
        assert position == len(QUESTION)

    on_a_guarded_call(scenario)


def test_a_pause_for_a_cough_is_silence_and_what_follows_it_echoes_again():
    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(1.0)
        talk.stt.speech_starts()
        await talk.clock.sleep(0.1)
        assert not talk.stt.agent_sounds
        paused = talk.stt.words
        talk.stt.speech_stops()
        await talk.clock.sleep(0.55)
        assert talk.stt.words == paused
        await talk.clock.sleep(1.1)
        assert talk.stt.agent_sounds
        talk.stt.utters("a table for two", 900)
        await talk.quiet()
        assert len(talk(ResumedAfterPause)) == 1
        assert said(talk) == ["hello"]

    on_a_guarded_call(scenario)


def test_an_agent_that_takes_its_call_again_is_known_by_its_echo_as_before():
    async def scenario(talk):
        talk.line.pump()
        await talk.clock.sleep(0.5)
        talk.agent.deactivate()
        await talk.clock.sleep(0.1)
        talk.agent.activate()
        talk.agent.post(Message(uuid=uuid4(), data="hello"))
        await talk.clock.sleep(1.6)
        assert talk.stt.agent_sounds
        talk.stt.utters("shall i book you a table", 1300)
        await talk.quiet()
        assert talk.stt.finals == []
        assert talk.stt.words == QUESTION

    on_a_guarded_call(scenario)


def test_a_recogniser_that_is_swapped_in_knows_what_was_heard_before_it_came():
    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(1.3)
        old, new = talk.stt, GuardedSTT()
        talk.agent.set_stt(new)
        await talk.clock.sleep(0.3)
        new.utters("you a table for two", 900)
        await talk.quiet()
        new.utters("for two at seven", 700)
        new.utters("nine would be better", 700)
        await talk.clock.sleep(0.1)
        assert said(talk) == ["hello", "nine would be better"]
        assert old.finals == []
        await talk.quiet()

    on_a_guarded_call(scenario)


def test_one_that_takes_over_or_is_compared_with_knows_what_was_heard_too():
    first, second, compared = GuardedSTT(), GuardedSTT(), GuardedSTT()

    async def scenario(talk):
        await asked(talk)
        await talk.clock.sleep(1.3)
        first.fail(ProviderError("first", "is gone", retryable=False), fatal=True)
        await talk.clock.sleep(0.3)
        second.utters("you a table for two", 900)
        compared.utters("you a table for two", 900)
        assert compared.finals == []
        await talk.quiet()
        assert said(talk) == ["hello"]

    on_a_call(scenario, Asking, stt=TeeSTT(FallbackSTT([first, second]), compared))


def test_what_is_said_otherwise_than_it_is_written_echoes_as_it_is_said():
    class Price(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            yield "That makes $25 for you."

    class Reading(HummingTTS):
        capabilities = replace(HummingTTS.capabilities, normalizes=False)

    async def scenario(talk):
        await asked(talk)
        await talk.quiet()
        assert "twenty-five dollars" in talk.stt.words
        talk.stt.utters("that makes twenty five dollars", 1500)
        assert said(talk) == ["hello"]

    on_a_call(scenario, Price, stt=GuardedSTT(), tts=Reading())


class Whistle(HummingTTS):
    """Speaks so that it can be heard: a tone."""

    def emit(self, event, payload) -> None:
        if event == TTS.MESSAGE and payload.data:
            wave = array("h", (round(8000 * math.sin(i * 0.5)) for i in range(len(payload.data))))
            payload = Message(
                uuid=payload.uuid,
                part=payload.part,
                data=mulaw_encode(wave.tobytes()),
                at_ms=payload.at_ms,
                done=payload.done,
            )
        super().emit(event, payload)


async def test_the_echo_on_a_real_line_leads_to_nothing_and_the_caller_is_answered():
    """The line brings back everything after 200 ms; the recogniser hears it, over a socket."""
    clock = Clock()
    line = MemoryLine(clock=clock, rtt_s=0.04)
    async with DeepgramEmulator(interim_s=0.3) as deepgram:
        # Who speaks can be told from the pitch.
        deepgram.hears = lambda onset: (
            "at eight please" if min(array("h", onset)) < -12000 else "a table for two at seven"
        )
        agents: list[Agent] = []
        # The emulator hears whole sentences: the voice is not to fall silent in the middle of one.
        settings = AgentSettings(turns=TurnSettings(greeting=BargeIn(mode="after_sentence")))

        def on_voip(voip) -> None:
            stt = DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url)
            agent = Asking(voip=voip, stt=stt, tts=Whistle(), greeting="A table for two at seven?", settings=settings)
            agents.append(agent)
            agent.activate()

        call, _ = memory_call(on_voip, clock=clock, line=line)
        line.on_audio = lambda data: clock.call_at(clock.now() + 0.2, lambda: line.say(data) if any(data) else None)
        line.pump()
        [agent] = agents
        over = asyncio.Event()
        agent.on(Agent.EVENT, lambda event: over.set() if isinstance(event, CallerSaid) and event.final else None)
        async with asyncio.timeout(15):
            await deepgram.until(lambda: deepgram.said)  # the echo was heard to its end
            await clock.sleep(0.5)
            assert not over.is_set()
            loud = array("h", (round(20000 * math.sin(i * 0.5)) for i in range(8 * 900)))
            line.on_audio = None
            line.say(mulaw_encode(loud.tobytes()))
            await over.wait()
        finals = [event.text for event in agent.events if isinstance(event, CallerSaid) and event.final]
        assert finals == ["at eight please"]
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
