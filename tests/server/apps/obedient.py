"""A gateway whose agents greet, and obey keys."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

from dialog import TwilioGateway, VoIP
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message, StreamStarted


def on_voip(voip: VoIP) -> None:
    """Greet. 0 says something, 1 hangs up, 2 talks for long, 4 falls silent, 5 transfers, * hears how the caller came."""
    turns = [uuid4()]

    def say(ms: int = 600) -> None:
        turns.append(uuid4())
        voip.post(Message(uuid=turns[-1], data=mulaw_encode(sine(300, ms)), done=True))

    def pressed(digit: str) -> None:
        match digit:
            case "1":
                voip.spawn(voip.hangup(), "hang up")
            case "2":
                say(20_000)
            case "4":
                voip.abort(turns[-1])
            case "5":
                voip.spawn(voip.transfer_to("+15550100", back_within_s=20), "transfer")
            case _:
                say()

    def started(stream: StreamStarted) -> None:
        if stream.resumed == "transfer_failed":
            say(1200)

    voip.on(VoIP.DTMF, pressed)
    voip.on(VoIP.STREAMING_STARTED, started)
    say()


def make() -> TwilioGateway:
    """A gateway with its agents in its own process."""
    gateway = TwilioGateway(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        base_url=os.environ["TWILIO_BASE_URL"],
        webhook_url=os.environ["WEBHOOK_URL"],
    )
    gateway.on("voip", on_voip)
    return gateway


def make_with_a_stray() -> TwilioGateway:
    """A gateway whose process starts another one, which has everything open that it has, and lives on."""
    child = os.fork()
    if child == 0:
        time.sleep(120)
        os._exit(0)
    with Path(os.environ["STRAYS"]).open("a") as file:
        file.write(f"{child}\n")
    return make()


def make_with_workers() -> TwilioGateway:
    """A gateway with agents in processes of their own."""
    from dialog.workers import WorkerPool

    return TwilioGateway(
        account_sid=os.environ["TWILIO_ACCOUNT_SID"],
        auth_token=os.environ["TWILIO_AUTH_TOKEN"],
        base_url=os.environ["TWILIO_BASE_URL"],
        webhook_url=os.environ["WEBHOOK_URL"],
        workers=WorkerPool(f"{__file__}:on_voip", processes=1),
    )


def cannot() -> TwilioGateway:
    """No gateway."""
    return TwilioGateway(account_sid="", auth_token="")
