"""Asks somebody before a caller is handed over, when the caller presses a key."""

from __future__ import annotations

from uuid import uuid4

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message
from dialog.voip.voip import VoIP


def on_voip(voip: VoIP) -> None:
    """Ask, and do what the key says: 1 brings both together, any other one hangs up."""

    async def ask() -> None:
        asked = await voip.consult("+15550123")
        asked.post(Message(uuid=uuid4(), data=mulaw_encode(sine(300, 600)), done=True))

        async def decide(key: str) -> None:
            await (voip.join(asked) if key == "1" else asked.hangup(reason="refused"))

        asked.on(VoIP.DTMF, lambda key: asked.spawn(decide(key), "decide"))

    voip.on(VoIP.DTMF, lambda _: voip.spawn(ask(), "ask"))
