"""The agent of ``bridge.py``: answers every frame of the caller's with one of its own."""

from __future__ import annotations

import struct
import time
from uuid import uuid4

from dialog.message import Message
from dialog.voip.voip import VoIP

STAMPS = struct.Struct("<qq")


def on_voip(voip: VoIP) -> None:
    """Stamp and send back."""
    turn, rest = uuid4(), bytes(160 - STAMPS.size)

    def answer(message: Message[bytes]) -> None:
        now = time.monotonic_ns()
        took = now - STAMPS.unpack_from(message.data)[0]
        voip.post(Message(uuid=turn, data=STAMPS.pack(now, took) + rest))

    voip.on(VoIP.MESSAGE, answer)
