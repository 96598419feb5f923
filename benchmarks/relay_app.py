"""The owner of the calls of ``relay.py``, and the gateway of its whole calls: agents that do next to nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

from dialog import TwilioGateway, VoIP
from dialog.loop import calm_collector, new_event_loop
from dialog.message import MULAW_8K, Message, Playback
from dialog.voip.line import Wire
from dialog.workers.siblings import Siblings

STAMPS = struct.Struct("<qq")
NODE = "owner"
REST = bytes(160 - STAMPS.size)


class Answering:
    """Where a relayed stream ends: stamps every frame and sends it back."""

    scope = None

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def receive_audio(self, data: bytes, timestamp_ms: float) -> None:
        now = time.monotonic_ns()
        self._wire.send_audio(STAMPS.pack(now, now - STAMPS.unpack_from(data)[0]) + REST)

    def receive_mark(self, name: str) -> None:
        pass

    def receive_digit(self, digit: str) -> None:
        pass

    def stopped(self) -> None:
        self._wire.close()

    def closed(self) -> None:
        self._wire.close()


class Owner:
    """A gateway that has every call."""

    def holds(self, call_id: UUID) -> bool:
        return True

    async def answer(self, request: bytes) -> bytes:
        return request

    def join_relayed(self, opening: bytes, wire: Wire) -> Answering:
        return Answering(wire)


async def own(directory: Path, listening: socket.socket) -> None:
    """Answer until standard input ends."""
    siblings = Siblings(NODE, directory, listening)
    await siblings.start(Owner())
    calm_collector()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await siblings.close()


def on_voip(voip: VoIP) -> None:
    """Talk without end, and hear everything."""
    minute = MULAW_8K.silence(20_000)

    def talk() -> None:
        voip.post(Message(uuid=uuid4(), data=minute, done=True))

    def played(playback: Playback) -> None:
        if playback.state == "played":
            talk()

    voip.on(VoIP.PLAYBACK, played)
    voip.on(VoIP.MESSAGE, lambda _: None)
    talk()


def make() -> TwilioGateway:
    """A gateway without a public URL: its addresses lead to whatever port was dialled."""
    gateway = TwilioGateway(account_sid=os.environ["TWILIO_ACCOUNT_SID"], auth_token=os.environ["TWILIO_AUTH_TOKEN"])
    gateway.on("voip", on_voip)
    return gateway


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(own(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))))
