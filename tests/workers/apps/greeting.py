"""Says a tone, and another one when it is asked to."""

from __future__ import annotations

import os
from uuid import uuid4

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message
from dialog.voip.voip import VoIP


def on_voip(voip: VoIP) -> None:
    """Greet, and obey keys: 0 says something, 1 hangs up, 3 kills this process."""

    def say() -> None:
        voip.post(Message(uuid=uuid4(), data=mulaw_encode(sine(300, 600)), done=True))

    def pressed(digit: str) -> None:
        if digit == "0":
            say()
        elif digit == "1":
            voip.spawn(voip.hangup(), "hang up")
        elif digit == "3":
            os.kill(os.getpid(), 9)

    voip.on(VoIP.DTMF, pressed)
    if voip.checkpoint is None:
        say()
