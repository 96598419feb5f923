"""The house that the whole calls ring at: a gateway and its providers, all on loopback."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from aiohttp import web
from steady import steady_clock

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.llm.llm import Entry
from dialog.net.listening import unlisten
from dialog.presets import OpenAIAgent
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.caller import Caller
from dialog.testing.cartesia import CartesiaEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.openai import OpenAIEmulator
from dialog.tts.cartesia import CartesiaTTS
from dialog.voip.twilio.gateway import TwilioGateway

ACCOUNT = "AC" + "0" * 32
TOKEN = "secret-auth-token"


def voice(ms: float) -> bytes:
    """Something that sounds like speech to an energy detector."""
    return mulaw_encode(sine(300, ms))


class FrontDesk(OpenAIAgent):
    booked: list[int]

    @tool
    async def book_table(self, people: int) -> str:
        """Book a table.

        Args:
            people: How many.
        """
        self.booked.append(people)
        return f"booked for {people}"


class House:
    """A gateway with its providers, all on loopback."""

    def __init__(self, **options) -> None:
        self.options = options
        self.clock = steady_clock(options.pop("scale", 4.0))
        self.agents: list[Agent] = []
        self.sentences = options.pop("sentences", ["hello"])
        self.replies = options.pop("replies", lambda fields: "Fine, thank you. What can I do for you?")
        self.faults = options.pop("faults", {})
        self.greeting = options.pop("greeting", "")
        self.settings = options.pop("settings", AgentSettings())
        self.kind = options.pop("kind", FrontDesk)

    def on_voip(self, voip) -> None:
        agent = self.kind(
            voip=voip,
            stt=DeepgramSTT(api_key=self.deepgram.api_key, base_url=self.deepgram.url),
            tts=CartesiaTTS(api_key=self.cartesia.api_key, base_url=self.cartesia.ws_url),
            api_key=self.openai.api_key,
            base_url=self.openai.base_url,
            system="Be brief.",
            greeting=self.greeting,
            settings=self.settings,
        )
        agent.booked = []
        self.agents.append(agent)
        agent.activate()

    @asynccontextmanager
    async def open(self):
        async with (
            DeepgramEmulator(
                sentences=self.sentences, faults=self.faults.get("deepgram"), interim_s=0.4
            ) as self.deepgram,
            OpenAIEmulator(self.replies, faults=self.faults.get("openai")) as self.openai,
            CartesiaEmulator(faults=self.faults.get("cartesia")) as self.cartesia,
        ):
            self.gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, clock=self.clock, **self.options)
            self.gateway.on("voip", self.on_voip)
            runner = web.AppRunner(self.gateway.app())
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/twilio"
            try:
                yield self
            finally:
                await unlisten(runner)

    def dial(self, **options):
        return Caller.dial(self.url, auth_token=TOKEN, account_sid=ACCOUNT, clock=self.clock, **options)

    async def all_over(self) -> None:
        """Wait until nothing of any call is left."""
        async with asyncio.timeout(10):
            while self.gateway.calls:
                await asyncio.gather(*(call.wait_closed() for call in self.gateway.calls))

    def said(self, number: int = 0) -> list[tuple[str, str]]:
        return [(item.role, item.text) for item in self.agents[number].history.items() if isinstance(item, Entry)][1:]
