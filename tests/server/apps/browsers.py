"""A gateway for browsers whose agents answer keys with a tone."""

from __future__ import annotations

from uuid import uuid4

from dialog import VoIP, WebGateway, WebRTC
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message

TOKEN_KEY = b"the same key in all of the processes"


def on_voip(voip: VoIP) -> None:
    """Answer every key."""

    def pressed(_: str) -> None:
        voip.post(Message(uuid=uuid4(), data=mulaw_encode(sine(300, 400)), done=True))

    voip.on(VoIP.DTMF, pressed)


def make() -> WebGateway:
    """A gateway that shares its address."""
    gateway = WebGateway(token_key=TOKEN_KEY, webrtc=WebRTC())
    gateway.on("voip", on_voip)
    return gateway
