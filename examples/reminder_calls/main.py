"""Calls everybody on a list and reminds them of their table; people may cancel, machines get a message.

Run it with ``python -m dialog dial main.py:on_voip numbers.csv``; the settings are explained in ``.env.template``.
"""

from __future__ import annotations

from dialog import CartesiaTTS, DeepgramSTT, OpenAIAgent, VoIP, end_call_tool, tool
from dialog.env import read_env, required

env = read_env()
required(env, "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")


class Reminder(OpenAIAgent):
    """Knows one reservation: the columns of the list."""

    end_call = end_call_tool()

    @tool
    async def cancel_reservation(self) -> str:
        """Cancel the reservation, when the guest has said clearly that they will not come."""
        self.cancelled = True  # a real one tells the restaurant's books
        return "cancelled"


def on_voip(voip: VoIP) -> None:
    """Somebody is about to be called: give them an agent, which speaks when they answer."""
    name, time = voip.metadata.parameter("name"), voip.metadata.parameter("time")
    Reminder(
        voip=voip,
        stt=DeepgramSTT(
            api_key=env["DEEPGRAM_API_KEY"], base_url=env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
        ),
        tts=CartesiaTTS(
            api_key=env["CARTESIA_API_KEY"], base_url=env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
        ),
        api_key=env["OPENAI_API_KEY"],
        base_url=env.get("OPENAI_BASE_URL", ""),
        system=f"You call for Luigi's. {name} has a table at {time}. Be brief. At the end say goodbye and hang up.",
        greeting=f"Hello {name}, this is Luigi's. Will we see you at {time} tonight?",
    ).activate()
