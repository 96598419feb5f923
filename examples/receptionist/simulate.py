"""The receptionist at work without any account or network: caller, colleague and carrier are simulated.

Run it with ``python simulate.py``. Voices and recogniser are those of the extra ``local``; rules take the place of the
model. The first caller meets the colleague; the second one comes back, because the colleague has no time.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys

from aiohttp import web

from dialog import RuleAgent, TwilioGateway, VoIP, end_call_tool, warm_transfer_tool
from dialog.calls.events import AgentSaid, CallerSaid, TransferChanged
from dialog.calls.publish import Notice
from dialog.clock import Clock
from dialog.llm.rules import Rule
from dialog.stt.grammar import Grammar
from dialog.stt.pocketsphinx import PocketsphinxSTT
from dialog.testing import Callee, Caller, TwilioRestEmulator
from dialog.testing.twilio_rest import CallUpdate
from dialog.testing.voice import espeak
from dialog.tts.espeak import EspeakTTS

TOKEN = "simulation"  # noqa: S105  # of an account that exists in this process only
WORKSHOP = "+15550101"
HOURS = "when are you open on saturday"
ASKS = "please connect me to the workshop my bicycle makes a strange noise"
THANKS = "thank you very much and goodbye"
GRAMMAR = Grammar(patterns=(HOURS, ASKS, THANKS))


class Receptionist(RuleAgent):
    """As in ``main.py``, with rules."""

    warm_transfer = warm_transfer_tool({"the workshop": WORKSHOP})
    end_call = end_call_tool()
    rules = (
        Rule(pattern="open on saturday", reply="On Saturday we are open from nine to six."),
        Rule(
            pattern="the workshop",
            reply="Please hold the line, I ask my colleague.",
            tool="warm_transfer",
            arguments={"destination": "the workshop", "summary": "Somebody's bicycle makes a strange noise."},
            result="",
        ),
        Rule(pattern="goodbye", reply="Thank you for calling. Goodbye!", tool="end_call", result=""),
    )


class Town:
    """The shop's gateway, its account, and the telephones that can be called."""

    def __init__(self, account: TwilioRestEmulator, port: int, clock: Clock) -> None:
        self.account = account
        self.clock = clock
        self.said = asyncio.Event()
        """The receptionist has said something to its end."""
        self.gateway = TwilioGateway(
            account_sid=account.account_sid,
            auth_token=TOKEN,
            webhook_url=f"http://127.0.0.1:{port}/twilio",
            base_url=account.url,
            clock=clock,
        )
        self.gateway.on("voip", self.on_voip)
        self.gateway.events.on(self.show)
        self.url = f"http://127.0.0.1:{port}/twilio"

    def on_voip(self, voip: VoIP) -> None:
        """Somebody calls."""
        Receptionist(
            voip=voip,
            stt=PocketsphinxSTT(GRAMMAR),
            tts=EspeakTTS("en-gb-x-rp"),
            greeting="Harbour Bikes, good day! How can I help you?",
        ).activate()

    def show(self, notice: Notice) -> None:
        """Print what is said, and what becomes of the caller."""
        match notice.event:
            case CallerSaid(text=text, final=True):
                print(f"  caller:       {text}", flush=True)
            case AgentSaid(heard=heard) if heard:
                print(f"  receptionist: {heard}", flush=True)
                self.said.set()
            case TransferChanged(state=state):
                print(f"  (transfer {state})", flush=True)
            case _:
                pass

    def colleague(self, key: str) -> Callee:
        """A colleague who listens to the summary, and presses a key: 1 takes the call."""

        async def answer(person: Caller) -> None:
            told = await person.listen()
            print(f"  (the colleague has listened for {told.duration_ms / 1000:.1f} s, and presses {key})", flush=True)
            person.press(key)
            await person.wait_ended(timeout_s=60)

        return Callee(ring_s=1.0, on_answer=answer)

    async def call(self, *sentences: str, back: str = "") -> int:
        """A caller who says this, each when the receptionist has finished, and ``back`` if they are brought back.

        Returns:
            How many people are in the conference with them, themselves included, when the receptionist is done.
        """

        async def updated(update: CallUpdate) -> None:
            await caller.update(status=update.status, twiml=update.twiml, url=update.url)

        sid = self.account.add_call(on_update=updated).sid
        async with Caller.dial(
            self.url,
            auth_token=TOKEN,
            account_sid=self.account.account_sid,
            call_sid=sid,
            voice=espeak("en-us", rate=150),
            clock=self.clock,
        ) as caller:
            for sentence in sentences:
                await caller.listen()
                await caller.say(sentence)
            async with asyncio.timeout(60):
                if back:
                    await caller.wait_streaming(streams=2, timeout_s=60)
                    self.said.clear()
                    await self.said.wait()
                    await caller.say(back)
                if (call := self.gateway.find_call(sid)) is not None:
                    await call.wait_ended()
            met = 0 if caller.conference is None else len(caller.conference.participants)
            await caller.hang_up()
        return met


async def main(speed: float) -> None:
    """Two calls, one after the other."""
    clock = Clock(speed)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with TwilioRestEmulator(auth_token=TOKEN, clock=clock) as account:
            town = Town(account, listening.getsockname()[1], clock)
            runner = web.AppRunner(town.gateway.app(), access_log=None)
            await runner.setup()
            await web.SockSite(runner, listening).start()
            try:
                print("The colleague takes the call:", flush=True)
                account.callees[WORKSHOP] = town.colleague("1")
                print(f"  ({await town.call(HOURS, ASKS)} people talk to each other)", flush=True)
                print("The colleague has no time:", flush=True)
                account.callees[WORKSHOP] = town.colleague("2")
                await town.call(ASKS, back=THANKS)
            finally:
                await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=float, default=1.0, help="so many times faster than calls are")
    try:
        asyncio.run(main(parser.parse_args().speed))
    except KeyboardInterrupt:
        sys.exit(130)
