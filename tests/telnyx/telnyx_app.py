"""An agent for a worker process: greets, and hangs up when a key is pressed."""

from __future__ import annotations

from uuid import uuid4

from dialog.audio.tones import sine
from dialog.message import Message
from dialog.voip.telnyx.voip import TelnyxVoIP
from dialog.voip.voip import VoIP


def on_voip(voip: VoIP) -> None:
    assert isinstance(voip, TelnyxVoIP)
    rate = voip.audio_format.sample_rate
    voip.post(Message(uuid=uuid4(), data=sine(300, 600, sample_rate=rate), done=True))
    voip.on(VoIP.DTMF, lambda _: voip.spawn(voip.hangup(), "hang up"))


def raises(voip: VoIP) -> None:
    raise RuntimeError("no agent today")
