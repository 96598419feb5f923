"""What the processes of the pool's tests run: answers keys."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from uuid import uuid4

from dialog.message import Message
from dialog.voip.voip import VoIP

WARM: list[str] = []


def warm_up() -> None:
    WARM.append("warm")


async def warm_up_later() -> None:
    WARM.append("later")


async def warm_up_for_ever() -> None:
    await asyncio.Event().wait()


def stray() -> int:
    """A process that lives on for a while, with everything that this one has open."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    with Path(os.environ["STRAYS"]).open("a") as file:
        file.write(f"{child}\n")
    return child


def on_voip(voip: VoIP) -> None:
    """Tell one's process id in audio: as many milliseconds of bytes as its number, so that it can be read back."""

    def say(text: str) -> None:
        voip.post(Message(uuid=uuid4(), data=text.encode().ljust(160, b" "), done=True))

    def pressed(digit: str) -> None:
        match digit:
            case "0":
                say(f"pid {os.getpid()}")
            case "1":
                voip.spawn(voip.hangup(), "hang up")
            case "2":
                time.sleep(60)
            case "3":
                os.kill(os.getpid(), 9)
            case "4":
                say(f"warm {WARM}")
            case "5":
                LEAK.append(bytearray(150_000_000))
                say("leaked")
            case "6":
                say(f"child {stray()}")
            case _:
                say(f"digit {digit}")

    voip.on(VoIP.DTMF, pressed)


LEAK: list[bytearray] = []
