"""An agent in realtime mode with the real clients, on a line in memory: the caller cuts a reply."""

from __future__ import annotations

import asyncio
from array import array
from functools import partial

import pytest

from dialog import (
    Agent,
    AgentSettings,
    Clock,
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


@pytest.mark.parametrize("vad", ["provider", "local"])
@pytest.mark.parametrize(
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
async def test_a_reply_is_cut_and_the_model_knows_how_far_it_was_heard(factory, emulated, vad):
    async with emulated(sentences=["tell me a story", "stop"], replies=story_first, ms_per_char=60) as emulator:
        agents: list[Agent] = []

        def on_voip(voip: VoIP) -> None:
            s2s = factory(api_key=emulator.api_key, base_url=emulator.base_url)
            agents.append(Agent(voip=voip, s2s=s2s, settings=AgentSettings(vad=vad), vad=EnergyVAD))
            agents[0].activate()

        call, line = memory_call(on_voip, clock=Clock(4.0))
        [agent] = agents
        happened = asyncio.Event()
        agent.on(Agent.EVENT, lambda _: happened.set())

        async def until(condition) -> None:
            async with asyncio.timeout(10):
                while not condition():
                    happened.clear()
                    await happened.wait()

        def events(kind):
            return [event for event in agent.events if isinstance(event, kind)]

        line.pump()
        line.say(SPEECH)
        async with asyncio.timeout(10):
            while len(line.heard_audio) < 12_000:  # a second and a half of the story
                await asyncio.sleep(0.02)
        line.say(SPEECH)
        await until(lambda: events(Interrupted))
        await until(lambda: len(events(AgentSaid)) == 2)
        cut, answer = events(AgentSaid)
        assert cut.state == "cut"
        # What is known by marks may be a little less than what has sounded, and of 5.5 seconds most was not heard.
        assert 1000 <= cut.heard_ms < 5000
        assert (answer.text, answer.state) == ("All right, I stop.", "played")
        await until(lambda: sum(said.final for said in events(CallerSaid)) == 2)  # the words may come late
        assert [said.text for said in events(CallerSaid) if said.final] == ["tell me a story", "stop"]
        entries = [(item.role, item.text) for item in agent.history.items() if isinstance(item, Entry)]
        assert [role for role, _ in entries] == ["user", "assistant", "user", "assistant"]
        assert STORY.startswith(entries[1][1])
        if agent.s2s.capabilities.truncate:
            [truncated] = [item for item in emulator.sessions[0].items if item.truncated_ms is not None]
            assert truncated.truncated_ms == int(cut.heard_ms)
        assert emulator.violations == []
        line.hang_up()
        await call.wait_closed()
        await line.wait_closed()
