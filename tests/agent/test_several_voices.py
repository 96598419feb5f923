"""Several characters in one call: which voice says which part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from msgspec.structs import replace
from test_agent_on_a_line import Echo, on_a_call

from dialog.agent.agent import Agent
from dialog.errors import ConfigurationError, StateError
from dialog.message import Message
from dialog.testing.doubles import HummingTTS
from dialog.testing.session import TextSession


def spoken(talk) -> list[tuple[str, str]]:
    """Text and voice of each part, in their order."""
    return [(talk.tts.texts[key].strip(), talk.tts.voices[key]) for key in talk.tts.texts]


class Tale(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield "Once upon a time "
        yield "there was a wolf. "
        self.use_voice("wolf")
        yield "Good evening. "
        self.dispatch_message("Who is there?", voice="sheep")
        yield "It is me."
        self.use_voice("")
        yield "The end."


def test_yielded_text_is_said_by_the_voice_that_the_turn_uses_and_dispatched_by_its_own():
    async def scenario(talk):
        talk.stt.heard("a tale please")
        await talk.quiet()
        assert spoken(talk) == [
            ("Once upon a time there was a wolf.", ""),
            ("Good evening.", "wolf"),
            ("Who is there?", "sheep"),
            ("It is me.", "wolf"),
            ("The end.", ""),
        ]
        texts = [text for role, text, _ in talk.spoken() if role == "assistant"]
        assert " ".join(texts) == ("Once upon a time there was a wolf. Good evening. Who is there? It is me. The end.")

    on_a_call(scenario, Tale)


def test_a_turn_begins_with_the_voices_own_voice():
    async def scenario(talk):
        for _ in range(2):
            talk.stt.heard("a tale please")
            await talk.quiet()
        assert [voice for _, voice in spoken(talk)] == ["", "wolf", "sheep", "wolf", ""] * 2

    on_a_call(scenario, Tale)


def test_what_is_dispatched_outside_a_turn_may_name_a_voice_and_streams_may():
    async def words():
        yield "By the "
        yield "way."

    async def scenario(talk):
        talk.agent.dispatch_message("Hello.", voice="wolf")
        talk.agent.dispatch_stream(words(), voice="sheep")
        talk.agent.dispatch_message("Bye.")
        await talk.quiet()
        assert spoken(talk) == [("Hello.", "wolf"), ("By the way.", "sheep"), ("Bye.", "")]
        with pytest.raises(StateError, match="inference, or a tool"):
            talk.agent.use_voice("wolf")

    on_a_call(scenario)


class OneVoice(HummingTTS):
    capabilities = replace(HummingTTS.capabilities, voices=False)


class Asking(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        for ask in (self.use_voice, lambda voice: self.dispatch_message("Hello.", voice=voice)):
            with pytest.raises(ConfigurationError, match="OneVoice speaks with one voice only") as caught:
                ask("wolf")
            assert "'wolf'" in str(caught.value)
        self.use_voice("")
        yield "As ever."


def test_a_tts_with_one_voice_refuses_another_at_once():
    async def scenario(talk):
        talk.stt.heard("as a wolf please")
        await talk.quiet()
        assert spoken(talk) == [("As ever.", "")]
        assert talk.errors == []

    on_a_call(scenario, Asking, tts=OneVoice())


def test_a_voice_that_is_swapped_in_speaks_the_next_part_as_far_as_it_can():
    async def scenario(talk):
        talk.agent.dispatch_message("Hello.", voice="wolf")
        await talk.clock.sleep(0.1)
        alone = OneVoice()
        talk.agent.set_tts(alone)
        with pytest.raises(ConfigurationError):
            talk.agent.dispatch_message("Bye.", voice="wolf")
        talk.agent.dispatch_message("Bye.")
        await talk.quiet()
        assert list(alone.texts.values()) == ["Bye."]

    on_a_call(scenario)


async def test_in_a_text_call_every_voice_is_the_same():
    def on_voip(voip) -> None:
        Tale(voip=voip, stt=None, tts=HummingTTS).activate()

    async with TextSession(on_voip) as session:
        reply = await session.run("a tale please")
        reply.says("Who is there?")
        assert session.heard[-1][1].endswith("It is me. The end.")


def test_an_utterance_names_no_voice():
    async def scenario(talk):
        talk.agent.post(Message(uuid=uuid4(), data="typed", voice="wolf"))
        await talk.quiet()
        assert {voice for _, voice in spoken(talk)} == {""}

    on_a_call(scenario, Echo)
