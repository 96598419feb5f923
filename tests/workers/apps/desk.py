"""An agent that hands every caller who presses a key over to a colleague, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dialog.agent.agent import Agent
from dialog.message import Message
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.voip import VoIP


class FrontDesk(Agent):
    """Repeats what it hears."""

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        """Say it."""
        yield message.data


def on_voip(voip: VoIP) -> None:
    """Give the call an agent."""
    agent = FrontDesk(voip=voip, stt=ToldSTT(), tts=HummingTTS(ms_per_char=10), greeting="Good day.")

    def pressed(_: str) -> None:
        agent.dispatch_message("Please hold the line.")
        agent.warm_transfer_to("+15550123", summary="They want a refund.")

    voip.on(VoIP.DTMF, pressed)
    agent.activate()
