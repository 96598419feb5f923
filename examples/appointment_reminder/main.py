"""Calls patients about their appointments: they confirm, move or cancel, by voice or with a key.

``python main.py --offline`` shows it on this machine alone; the settings of real calls are in ``.env.template``.
"""

from __future__ import annotations

import asyncio
import csv
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from dialog import (
    STT,
    TTS,
    CallHungUp,
    CallNotAnswered,
    CartesiaTTS,
    Clock,
    ConfigurationError,
    DeepgramSTT,
    NotUnderstood,
    ScriptCall,
    Timeout,
    TwilioGateway,
    answers,
    dial,
    logs,
    play_on_speakers,
)
from dialog.env import number, read_env, required

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
CHOICE = answers.Choice(
    {
        "confirm": ["yes", "I will be there", "I will come", "that is fine"],
        "move": ["another day", "a different day", "change it", "later"],
        "cancel": ["no", "not come", "do not need it"],
    }
)
KEYS = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")


class Appointment(NamedTuple):
    """A row of the list."""

    number: str
    name: str
    day: str
    time: str


class Line(NamedTuple):
    """What calls are made of."""

    gateway: TwilioGateway
    from_: str
    stt: Callable[[], STT]
    tts: Callable[[], TTS]
    aloud: bool = False
    """Both sides are heard on this machine."""


async def remind(call: ScriptCall, what: Appointment) -> str:
    """Talk to one patient; what comes of it."""
    await call.say(f"Hello {what.name}, this is the practice of Doctor Smith.")
    try:
        choice = await call.ask(
            f"You have an appointment on {what.day} at {what.time}. Will you come? You may say yes, say that you need "
            "another day, or cancel it. Or press 1, 2, or 3.",
            CHOICE,
            reprompts=["Say yes, another day, or cancel. Or press 1, 2, or 3."],
        )
        if choice == "cancel":
            await call.say("We have cancelled your appointment. Goodbye.")
            return "cancelled"
        if choice == "confirm":
            await call.say("Thank you. We look forward to seeing you. Goodbye.")
            return "confirmed"
        day = await call.ask("Which day suits you, from Monday to Friday?", answers.Choice(DAYS), confirm=True)
        await call.say(f"Then we see you on {day} at {what.time}. Goodbye.")
    except (Timeout, NotUnderstood):
        await call.say("I am sorry, I do not understand you. Somebody from the practice will call you.")
        return "to be called"
    return f"moved to {day}"


async def call_one(line: Line, what: Appointment) -> str:
    """Call one patient; what comes of it, also if nobody answers."""
    try:
        async with dial(what.number, line.from_, gateway=line.gateway, stt=line.stt, tts=line.tts) as call:
            if line.aloud:
                play_on_speakers(line.gateway, call.voip)
            return await remind(call, what)
    except CallNotAnswered as exc:
        return exc.reason
    except CallHungUp:
        return "hung up"


async def call_all(line: Line, file: Path, host: str, port: int) -> None:
    """Serve the gateway, call everybody on the list, and write what came of it beside it."""
    with file.open(newline="") as rows:
        appointments = [Appointment(**row) for row in csv.DictReader(rows)]
    runner = web.AppRunner(line.gateway.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        with file.with_suffix(".results.csv").open("w", newline="") as results:
            writer = csv.writer(results)
            writer.writerow([*Appointment._fields, "outcome"])
            for what in appointments:
                outcome = await call_one(line, what)
                writer.writerow([*what, outcome])
                print(f"{what.name}: {outcome}", flush=True)
    finally:
        await runner.cleanup()


async def live() -> None:
    """Call with the providers of ``.env``."""
    env = read_env()
    required(env, *KEYS, "TWILIO_PHONE_NUMBER", "WEBHOOK_URL")
    gateway = TwilioGateway(
        account_sid=env["TWILIO_ACCOUNT_SID"],
        auth_token=env["TWILIO_AUTH_TOKEN"],
        webhook_url=env["WEBHOOK_URL"],
        base_url=env.get("TWILIO_BASE_URL"),
    )

    def stt() -> STT:
        base_url = env.get("DEEPGRAM_BASE_URL", "https://api.deepgram.com")
        return DeepgramSTT(api_key=env["DEEPGRAM_API_KEY"], base_url=base_url)

    def tts() -> TTS:
        base_url = env.get("CARTESIA_BASE_URL", "wss://api.cartesia.ai")
        return CartesiaTTS(api_key=env["CARTESIA_API_KEY"], base_url=base_url)

    line = Line(gateway, env["TWILIO_PHONE_NUMBER"], stt, tts, aloud=env.get("VOICE_MONITOR", "0") != "0")
    file = Path("appointments.csv")
    with logs.configure(env.get("LOG_LEVEL", "warning"), secrets=[env[key] for key in KEYS]):
        await call_all(line, file, env.get("HOST_NAME", "127.0.0.1"), number(env, "PORT", 8080))


async def offline(speed: float) -> None:
    """Call three patients who exist in this process only, with local voices and ears: no account is needed."""
    from dialog.stt.grammar import Grammar
    from dialog.stt.pocketsphinx import PocketsphinxSTT
    from dialog.testing import Callee, Caller, TwilioRestEmulator
    from dialog.tts.espeak import EspeakTTS

    grammar = Grammar(
        patterns=("yes i will be there", "i need another day", "{day} would be fine", "that is right"),
        slots={"day": tuple(day.lower() for day in DAYS)},
    )

    async def comes(patient: Caller) -> None:
        await patient.listen(silence_ms=2000, timeout_s=60)
        await patient.say("yes i will be there")
        await patient.wait_ended(timeout_s=60)

    async def moves(patient: Caller) -> None:
        await patient.listen(silence_ms=2000, timeout_s=60)
        patient.press("2")
        for words in ("thursday would be fine", "that is right"):
            await patient.listen(silence_ms=2000, timeout_s=60)
            await patient.say(words)
        await patient.wait_ended(timeout_s=60)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    clock = Clock(speed)
    with logs.configure("error"):
        async with TwilioRestEmulator(clock=clock) as twilio:
            gateway = TwilioGateway(
                account_sid=twilio.account_sid,
                auth_token=twilio.auth_token,
                webhook_url=f"http://127.0.0.1:{port}/twilio",
                base_url=twilio.url,
                clock=clock,
            )
            twilio.callees["+15550123"] = Callee(on_answer=comes)
            twilio.callees["+15550124"] = Callee(on_answer=moves)
            twilio.callees["+15550125"] = Callee(outcome="busy")
            line = Line(gateway, "+15550100", lambda: PocketsphinxSTT(grammar), EspeakTTS)
            await call_all(line, Path(__file__).with_name("appointments.csv"), "127.0.0.1", port)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--offline"]:
            asyncio.run(offline(speed=float(sys.argv[2]) if len(sys.argv) > 2 else 1.0))
        else:
            asyncio.run(live())
    except (ConfigurationError, OSError) as exc:  # such as a port that another program has
        sys.exit(f"error: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)
