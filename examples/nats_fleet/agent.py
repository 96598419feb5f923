"""The agents of a fleet: what a worker runs for every call, on whichever machine.

``python -m dialog worker agent:on_voip`` runs it; the README tells of the other role, the gateway.
"""

from __future__ import annotations

from typing import Any

from dialog import CartesiaTTS, DeepgramSTT, TwilioOpenAIAgent, VoIP, tool
from dialog.env import read_env, required

env = read_env()
required(env, "OPENAI_API_KEY", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")


class Desk(TwilioOpenAIAgent):
    """Takes orders, and remembers them wherever the call goes on."""

    orders: tuple[str, ...] = ()

    def state(self) -> object:
        """What the next worker has to know, if this one is lost."""
        return self.orders

    def restore(self, state: Any) -> None:
        """Go on from there."""
        self.orders = tuple(state)

    @tool
    async def order(self, dish: str) -> str:
        """Note a dish that the caller orders."""
        self.orders = (*self.orders, dish)
        return f"noted, {len(self.orders)} so far"


def on_voip(voip: VoIP) -> None:
    """Somebody calls: give them an agent of their own."""
    Desk(
        voip=voip,
        stt=lambda: DeepgramSTT(
            api_key=env["DEEPGRAM_API_KEY"], base_url=env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
        ),
        tts=lambda: CartesiaTTS(
            api_key=env["CARTESIA_API_KEY"], base_url=env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
        ),
        api_key=env["OPENAI_API_KEY"],
        base_url=env.get("OPENAI_BASE_URL", ""),
        system=env.get("SYSTEM_PROMPT", "You take orders for a restaurant on the phone. Answer in a sentence or two."),
        greeting=env.get("GREETING", "Good evening, what would you like?"),
    ).activate()
