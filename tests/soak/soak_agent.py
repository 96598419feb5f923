"""The agent of the soak: real provider adapters, which talk to the emulators of the soak's process."""

from __future__ import annotations

import os

from dialog import CartesiaTTS, DeepgramSTT, OpenAIAgent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.voip.voip import VoIP


class Desk(OpenAIAgent):
    """Books tables."""

    @tool
    async def book_table(self, people: int) -> str:
        """Book a table.

        Args:
            people: How many.
        """
        return f"booked for {people}"


def on_voip(voip: VoIP) -> None:
    """One agent for each call."""
    Desk(
        voip=voip,
        stt=DeepgramSTT(api_key=os.environ["DEEPGRAM_API_KEY"], base_url=os.environ["DEEPGRAM_BASE_URL"]),
        tts=CartesiaTTS(api_key=os.environ["CARTESIA_API_KEY"], base_url=os.environ["CARTESIA_BASE_URL"]),
        api_key=os.environ["OPENAI_API_KEY"],
        base_url=os.environ["OPENAI_BASE_URL"],
        system="You are at the desk of a restaurant.",
        greeting="Luigi's, good evening! What can I do for you?",
        settings=AgentSettings(outage="Sorry, I lost you for a moment."),
    ).activate()
