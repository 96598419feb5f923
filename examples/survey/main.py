"""Asks guests how they liked it: plain code in ordinary threads, several calls at once.

``python main.py --offline`` shows it on this machine alone; the settings of real calls are in ``.env.template``.
"""

from __future__ import annotations

import csv
import socket
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dialog import (
    STT,
    TTS,
    BackgroundServer,
    BlockingCall,
    CallHungUp,
    CallNotAnswered,
    CartesiaTTS,
    Clock,
    ConfigurationError,
    DeepgramSTT,
    NotUnderstood,
    Timeout,
    TwilioGateway,
    answers,
    logs,
)
from dialog.env import number, read_env, required

COLUMNS = ("number", "outcome", "stars", "again", "message_s")
AT_ONCE = 5
KEYS = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY")


class Result(NamedTuple):
    """What one guest has said."""

    number: str
    outcome: str
    stars: str = ""
    again: str = ""
    message_s: str = ""


def interview(call: BlockingCall, number: str, messages: Path) -> Result:
    """Ask one guest."""
    call.say("Hello, this is Luigi's. You were our guest, and we have three short questions.")
    stars = again = ""
    try:
        stars = f"{call.ask('How many stars do you give us, from one to five?', answers.Number(1, 5)):g}"
        again = "yes" if call.ask("Would you come again?", answers.YesNo()) else "no"
    except (Timeout, NotUnderstood):
        call.say("I am sorry, I do not understand you. Goodbye.")
        return Result(number, "not understood", stars, again)
    call.say("Is there anything that we should know? Please speak now, and press any key when you are done.")
    file = messages / f"{number.lstrip('+')}.wav"
    message = call.record(max_s=60, silence_s=3, path=file)
    if not message.spoken:
        file.unlink()
    call.say("Thank you very much. Goodbye.")
    return Result(number, "answered", stars, again, f"{message.duration_s:.0f}" if message.spoken else "")


def ask_all(server: BackgroundServer, from_: str, numbers: list[str], messages: Path) -> list[Result]:
    """Call everybody, ``AT_ONCE`` at a time, each in a thread of its own."""

    def one(number: str) -> Result:
        try:
            with server.dial(number, from_=from_) as call:
                result = interview(call, number, messages)
        except CallNotAnswered as exc:
            result = Result(number, exc.reason)
        except CallHungUp:
            result = Result(number, "hung up")
        print(f"{number}: {result.outcome} {result.stars}".rstrip(), flush=True)
        return result

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(one, numbers))


def survey(server: BackgroundServer, from_: str, file: Path) -> None:
    """Call everybody on the list, and write what they have said beside it."""
    with file.open(newline="") as rows:
        numbers = [row["number"] for row in csv.DictReader(rows)]
    messages = file.with_suffix("")
    messages.mkdir(exist_ok=True)
    with server:
        results = ask_all(server, from_, numbers, messages)
    with file.with_suffix(".results.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows(results)


def live() -> None:
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

    host, port = env.get("HOST_NAME", "127.0.0.1"), number(env, "PORT", 8080)
    aloud = env.get("VOICE_MONITOR", "0") != "0"
    server = BackgroundServer(gateway, stt=stt, tts=tts, host=host, port=port, monitor=aloud)
    with logs.configure(env.get("LOG_LEVEL", "warning"), secrets=[env[key] for key in KEYS]):
        survey(server, env["TWILIO_PHONE_NUMBER"], Path("guests.csv"))


def offline(speed: float) -> None:
    """Call three guests who exist in this process only, with local voices and ears: no account is needed."""
    import asyncio

    from dialog.stt.grammar import Grammar
    from dialog.stt.pocketsphinx import PocketsphinxSTT
    from dialog.testing import Callee, Caller, TwilioRestEmulator
    from dialog.tts.espeak import EspeakTTS

    grammar = Grammar(
        patterns=("i would give you {stars} stars", "yes of course i would"), slots={"stars": ("four", "five")}
    )

    def guest(*says: str) -> Callable[[Caller], Awaitable[None]]:
        async def talk(caller: Caller) -> None:
            for words in says:
                await caller.listen(silence_ms=2000, timeout_s=60)
                if words.isdecimal():
                    caller.press(words)
                else:
                    await caller.say(words)
            await caller.wait_ended(timeout_s=60)

        return talk

    async def emulate(run: Callable[[BackgroundServer, str, Path], None]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        async with TwilioRestEmulator(clock=clock) as twilio:
            gateway = TwilioGateway(
                account_sid=twilio.account_sid,
                auth_token=twilio.auth_token,
                webhook_url=f"http://127.0.0.1:{port}/twilio",
                base_url=twilio.url,
                clock=clock,
            )
            talks = guest("i would give you five stars", "yes of course i would", "the soup was a little cold")
            twilio.callees["+15550123"] = Callee(on_answer=talks)
            twilio.callees["+15550124"] = Callee(on_answer=guest("4", "1"))
            twilio.callees["+15550125"] = Callee(outcome="no-answer", ring_s=1.0)
            server = BackgroundServer(
                gateway, stt=lambda: PocketsphinxSTT(grammar), tts=EspeakTTS, host="127.0.0.1", port=port
            )
            await asyncio.to_thread(run, server, "+15550100", Path(__file__).with_name("guests.csv"))

    clock = Clock(speed)
    with logs.configure("error"):
        asyncio.run(emulate(survey))


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--offline"]:
            offline(speed=float(sys.argv[2]) if len(sys.argv) > 2 else 1.0)
        else:
            live()
    except ConfigurationError as exc:
        sys.exit(f"error: {exc}")
    except KeyboardInterrupt:
        sys.exit(130)
