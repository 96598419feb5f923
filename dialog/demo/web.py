"""Agents for the talk page that need no account: the front desk, and a parrot that tells what was understood."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from dialog.agent.agent import Agent
from dialog.demo.front_desk import VOICE, FrontDesk
from dialog.demo.phrases import GRAMMAR
from dialog.message import Message
from dialog.stt.pocketsphinx import UNCLEAR, PocketsphinxSTT
from dialog.tts.espeak import EspeakTTS
from dialog.voip.voip import VoIP

__all__ = ["AGENTS", "Parrot", "on_voip"]

AGENTS: Final = {"front-desk": "Luigi's front desk", "parrot": "A parrot"}
"""Their names for the gateway, and for people."""


class Parrot(Agent):
    """Repeats what it has understood."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        """Repeat it."""
        yield "I did not understand that." if message.data == UNCLEAR else f"You said: {message.data}."


def on_voip(voip: VoIP) -> None:
    """Give a call the agent that its page has chosen."""
    stt, tts = PocketsphinxSTT(GRAMMAR), EspeakTTS(VOICE)
    if voip.metadata.to == "parrot":
        Parrot(voip=voip, stt=stt, tts=tts, greeting="I am a parrot. I repeat what I understand.").activate()
    else:
        FrontDesk(voip=voip, stt=stt, tts=tts).activate()
