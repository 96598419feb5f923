"""An agent in realtime mode with the real clients, on a line in memory: the caller cuts a reply."""

from __future__ import annotations

import asyncio
from array import array
from functools import partial

import pytest
from steady import steady_clock

from dialog import (
    Agent,
    AgentSettings,
    DeepgramAgentS2S,
    ElevenLabsAgentS2S,
    GeminiLiveS2S,
    GrokS2S,
    OpenAIRealtimeS2S,
    VoIP,
)
from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.audio.tones import sine
from dialog.calls.events import AgentSaid, CallerSaid, Interrupted
from dialog.llm.llm import Entry
from dialog.message import AudioFormat, Message, SpeechEdge
from dialog.testing.deepgram_agent import DeepgramAgentEmulator
from dialog.testing.elevenlabs_agent import ElevenLabsAgentEmulator
from dialog.testing.gemini import GeminiLiveEmulator
from dialog.testing.grok import GrokEmulator
from dialog.testing.openai_realtime import OpenAIRealtimeEmulator
from dialog.testing.s2s import RealtimeReply
from dialog.vad.vad import VAD
from dialog.voip.memory import memory_call

STORY = "Once upon a time there was a table by the window, and nobody sat at it for a very long time."
SPEECH = mulaw_encode(sine(500, 700))


def story_first(items) -> RealtimeReply:
    told = any(item.role == "assistant" for item in items)
    return RealtimeReply(text="All right, I stop." if told else STORY)


class EnergyVAD(VAD):
    """Takes what is loud for a voice: a test has only tones."""

    def open(self, audio_format: AudioFormat) -> None:
        self._loud = self._quiet = 0

    def playing(self, level_dbfs: float) -> None:
        """There is no echo here."""

    def post(self, message: Message[bytes]) -> None:
        pcm = array("h", mulaw_decode(message.data))
        loud = max(map(abs, pcm)) > 2000
        self._loud, self._quiet = (self._loud + 1, 0) if loud else (0, self._quiet + 1)
        if self._loud == 5:
            self.emit(VAD.SPEECH, SpeechEdge(state="started", at_ms=message.at_ms - 80))
        elif self._quiet == 5 and message.at_ms > 500:
            self.emit(VAD.SPEECH, SpeechEdge(state="stopped", at_ms=message.at_ms - 80))


MODELS = pytest.mark.parametrize(
    ("factory", "emulated"),
    [
        (OpenAIRealtimeS2S, OpenAIRealtimeEmulator),
        (GrokS2S, GrokEmulator),
        (GeminiLiveS2S, GeminiLiveEmulator),
        (partial(GeminiLiveS2S, interruption="theirs"), GeminiLiveEmulator),
        (DeepgramAgentS2S, DeepgramAgentEmulator),
        (partial(ElevenLabsAgentS2S, agent_id="agent_test"), ElevenLabsAgentEmulator),
    ],
    ids=["openai", "grok", "gemini", "gemini-theirs", "deepgram", "elevenlabs"],
)


class Conversation:
    """A call with an agent whose model is emulated, four times as fast as real time."""

    def __init__(self, factory, emulator, vad="auto") -> None:
        def on_voip(voip: VoIP) -> None:
            s2s = factory(api_key=emulator.api_key, base_url=emulator.base_url)
            self.agent = Agent(voip=voip, s2s=s2s, settings=AgentSettings(vad=vad), vad=EnergyVAD)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=steady_clock(4.0))
        self._happened = asyncio.Event()
        self.agent.on(Agent.EVENT, lambda _: self._happened.set())
        self.line.pump()

    async def until(self, condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._happened.clear()
                await self._happened.wait()

    def events(self, kind):
        return [event for event in self.agent.events if isinstance(event, kind)]

    def caller_said(self) -> list[str]:
        return [said.text for said in self.events(CallerSaid) if said.final]

    def entries(self) -> list[tuple[str, str]]:
        return [(item.role, item.text) for item in self.agent.history.items() if isinstance(item, Entry)]

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


@pytest.mark.parametrize("vad", ["provider", "local"])
@MODELS
async def test_a_reply_is_cut_and_the_model_knows_how_far_it_was_heard(factory, emulated, vad):
    async with emulated(sentences=["tell me a story", "stop"], replies=story_first, ms_per_char=60) as emulator:
        talk = Conversation(factory, emulator, vad)
        talk.line.say(SPEECH)
        async with asyncio.timeout(10):
            while len(talk.line.heard_audio) < 12_000:  # a second and a half of the story
                await asyncio.sleep(0.02)
        talk.line.say(SPEECH)
        await talk.until(lambda: talk.events(Interrupted))
        await talk.until(lambda: len(talk.events(AgentSaid)) == 2)
        cut, answer = talk.events(AgentSaid)
        assert cut.state == "cut"
        # What is known by marks may be a little less than what has sounded, and of 5.5 seconds most was not heard.
        assert 1000 <= cut.heard_ms < 5000
        assert (answer.text, answer.state) == ("All right, I stop.", "played")
        await talk.until(lambda: len(talk.caller_said()) == 2)  # the words may come late
        assert talk.caller_said() == ["tell me a story", "stop"]
        assert [role for role, _ in talk.entries()] == ["user", "assistant", "user", "assistant"]
        assert STORY.startswith(talk.entries()[1][1])
        if talk.agent.s2s.capabilities.truncate:
            [truncated] = [item for item in emulator.sessions[0].items if item.truncated_ms is not None]
            assert truncated.truncated_ms == int(cut.heard_ms)
        assert emulator.violations == []
        await talk.over()


@MODELS
async def test_a_call_goes_on_when_its_session_ends(factory, emulated):
    async with emulated(sentences=["one", "two"]) as emulator:
        talk = Conversation(factory, emulator)
        talk.line.say(SPEECH)
        await talk.until(lambda: len(talk.events(AgentSaid)) == 1 and talk.caller_said())
        for socket in tuple(emulator.sockets):
            await socket.close(1001, "the longest duration of a session")
        talk.line.say(SPEECH)  # at once: it is kept for the next session
        await talk.until(lambda: len(talk.events(AgentSaid)) == 2 and len(talk.caller_said()) == 2)
        assert [said.text for said in talk.events(AgentSaid)] == ["You said: one", "You said: two"]
        assert talk.entries() == [
            ("user", "one"), ("assistant", "You said: one"), ("user", "two"), ("assistant", "You said: two"),
        ]  # fmt: skip
        assert len(emulator.sessions) == 2
        known = [text for _, text in emulator.conversation]
        assert any(text.endswith("You said: one") for text in known)
        assert emulator.violations == []
        await talk.over()
