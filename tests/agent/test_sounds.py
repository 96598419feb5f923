"""What a caller hears beside the voice: a background, and somebody at work."""

from __future__ import annotations

import asyncio

from test_agent_on_a_line import on_a_call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.audio.sound import Sound
from dialog.llm.llm import LLM, Finish, LLMRequest, TextDelta
from dialog.message import MULAW_8K

TICK = Sound(b"\x40" * 1600, MULAW_8K)
SETTINGS = AgentSettings(thinking_sound=TICK)


class Takes(LLM):
    """Takes its time to the first word."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def stream(self, request: LLMRequest):
        await asyncio.sleep(self.seconds)
        yield TextDelta("Here it is.")
        yield Finish("stop")


def sounded_ms(talk) -> float:
    """Audio on the line that is no voice: the hum of a part is its number."""
    return MULAW_8K.ms(sum(byte not in (1, 2, 0xFF) for byte in talk.line.heard_audio))


def test_a_slow_answer_is_awaited_to_a_sound_that_ends_with_the_first_word():
    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.clock.sleep(0.9)
        assert not talk.line.heard_audio
        await talk.clock.sleep(1.0)
        assert sounded_ms(talk) > 500
        await talk.quiet()
        before = sounded_ms(talk)
        assert 1500 < before < 2500
        await talk.clock.sleep(3)
        assert sounded_ms(talk) == before

    on_a_call(scenario, Agent, llm=Takes(3.0), settings=SETTINGS)


def test_a_quick_answer_needs_no_sound():
    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.quiet()
        assert sounded_ms(talk) == 0

    on_a_call(scenario, Agent, llm=Takes(0.5), settings=SETTINGS)


def test_the_sound_ends_when_the_answer_is_no_longer_wanted():
    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.clock.sleep(2)
        talk.agent.abort()
        await talk.clock.sleep(0.5)
        before = sounded_ms(talk)
        await talk.clock.sleep(3)
        assert sounded_ms(talk) == before

    on_a_call(scenario, Agent, llm=Takes(60.0), settings=SETTINGS)


def test_a_background_is_under_the_whole_call():
    async def scenario(talk):
        await talk.clock.sleep(2)
        assert sounded_ms(talk) > 1500

    on_a_call(scenario, Agent, llm=Takes(1.0), settings=AgentSettings(background_sound=TICK))
