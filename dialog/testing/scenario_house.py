"""The house at which scenarios ring: the real gateway, the real clients of emulated providers, a scripted model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from aiohttp import web
from msgspec import Struct, field

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.clock import Clock
from dialog.llm.openai import OpenAILLM
from dialog.presets import OpenAIAgent
from dialog.s2s.cascade import CascadeS2S
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.stt import STT
from dialog.testing.caller import Caller
from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse
from dialog.testing.scenario_providers import EagerDeepgramSTT, Ears, HearingDeepgram, SpellingCartesia
from dialog.testing.server import Faults
from dialog.testing.twilio_rest import CallUpdate, TwilioRestEmulator
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.tts import TTS
from dialog.voip.voip import VoIP

if TYPE_CHECKING:
    from dialog.voip.twilio.gateway import TwilioGateway

__all__ = ["House", "HouseAgent", "RealtimeHouseAgent", "Reply", "Setup", "serve"]

ACCOUNT = "AC" + "0" * 32
TOKEN = "scenario-auth-token"  # noqa: S105  # signs on loopback only
_OVER_S = 20.0
GOODBYE = "Thank you for calling and have a very nice evening."
SYSTEM = "You are the host of a restaurant. Be brief."


class Reply(Struct, frozen=True, kw_only=True):
    """What the scripted model answers when the newest entry of the conversation matches."""

    match: str
    """Regular expression, searched in the newest entry: the caller's words or a tool's result."""
    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    first_token_s: float = 0.25
    """Of the call's clock, as all times here."""
    token_s: float = 0.02


class _Tools(Agent):
    """What a host can do, which takes its time."""

    booked: list[int]

    @tool
    async def book_table(self, people: int) -> str:
        """Book a table.

        Args:
            people: How many.
        """
        await self.voip.clock.sleep(0.4)
        self.booked.append(people)
        return f"booked for {people}"

    @tool(filler="Let me check.")
    async def check_table(self, name: str) -> str:
        """Check a booking, which takes a moment.

        Args:
            name: Whose.
        """
        await self.voip.clock.sleep(2.5)
        return f"a table for {name}"

    @tool(filler="One moment please, I am looking.")
    async def slow_lookup(self, name: str) -> str:
        """Look somebody up, which takes four seconds.

        Args:
            name: Who.
        """
        await self.voip.clock.sleep(4.0)
        return f"found {name}"

    @tool(background=True)
    async def ask_the_chef(self, question: str) -> str:
        """Ask the chef, who answers when there is time.

        Args:
            question: What to ask.
        """
        await self.voip.clock.sleep(7.0)
        return f"the chef says yes to {question}"

    @tool
    async def say_goodbye(self) -> None:
        """Say goodbye and hang up."""
        await self.dispatch_message(GOODBYE)
        await self.voip.hangup()


class HouseAgent(_Tools, OpenAIAgent):
    """A host that hears, thinks and speaks with three providers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.booked = []


class RealtimeHouseAgent(_Tools):
    """The same host in realtime mode: one model hears, thinks and speaks, made of the same three providers."""

    def __init__(self, *, stt: STT, tts: TTS, api_key: str, base_url: str, **options: Any) -> None:
        llm = OpenAILLM(api_key=api_key, base_url=base_url)
        super().__init__(s2s=CascadeS2S(stt=stt, tts=tts, llm=llm), **options)
        self.booked = []


class Setup(Struct, frozen=True, kw_only=True):
    """The agent's side of a scenario."""

    replies: tuple[Reply, ...] = ()
    """The first that matches answers; :attr:`otherwise` if none does."""
    otherwise: str = "Fine, thank you. What can I do for you?"
    greeting: str = ""
    settings: AgentSettings = field(default_factory=AgentSettings)
    ears: Ears = field(default_factory=Ears)
    endpointing_ms: int | None = 300
    vad_events: bool = True
    ms_per_char: float = 60.0
    timings: bool = True
    """The voice tells when it speaks which word."""
    agent: Callable[..., Agent] = HouseAgent
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments of the agent."""
    touch: Callable[[Agent], object] | None = None
    """Called with the active agent: for what settings cannot say."""
    faults: dict[str, Faults] = field(default_factory=dict[str, Faults])
    """By provider, from the start."""


class House:
    """A :class:`~dialog.testing.scenario_run.Stage` of its own for one scenario; made by :func:`serve`."""

    def __init__(self, setup: Setup, clock: Clock) -> None:
        self.setup = setup
        self.clock: Clock = clock
        self.url: str = ""
        self.public_url: str = ""
        self.auth_token: str = TOKEN
        self.account_sid: str = ACCOUNT
        self.agents: list[Agent] = []
        self.deepgram: HearingDeepgram = HearingDeepgram(setup.ears, faults=setup.faults.get("deepgram"))
        self.openai: OpenAIEmulator = OpenAIEmulator(self._reply, faults=setup.faults.get("openai"))
        self.cartesia: SpellingCartesia = SpellingCartesia(
            ms_per_char=setup.ms_per_char,
            timings=setup.timings,
            timings_first=True,
            first_audio_s=clock.real(0.12),
            faults=setup.faults.get("cartesia"),
        )
        self.twilio: TwilioRestEmulator = TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN)
        self.gateway: TwilioGateway | None = None
        self.broken: Exception | None = None
        """What :attr:`Setup.touch` raised: the scenario was not played as it is meant."""
        self._updates: set[asyncio.Task[None]] = set()

    def agent(self, call_sid: str) -> Agent | None:
        """The newest agent that took the call."""
        found = [agent for agent in self.agents if agent.voip.metadata.carrier_call_id == call_sid]
        return found[-1] if found else None

    def dialled(self, caller: Caller) -> None:
        """Let the carrier's REST API know the call, so that the agent can end it."""

        def updated(update: CallUpdate) -> None:
            task = asyncio.ensure_future(caller.update(status=update.status, twiml=update.twiml, url=update.url))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

        self.twilio.add_call(caller.call_sid, on_update=updated)

    def text_of(self, lane: int) -> str:
        """What context number ``lane`` was given to speak."""
        return self.cartesia.text_of(lane)

    def part_of(self, lane: int) -> tuple[UUID, int] | None:
        """Turn and part of context number ``lane``."""
        return self.cartesia.part_of(lane)

    def fault(self, provider: str, faults: Faults) -> None:
        """Let a provider misbehave from now on."""
        emulator = {"deepgram": self.deepgram, "openai": self.openai, "cartesia": self.cartesia}[provider]
        emulator.faults = faults
        if faults.drop_after is not None:
            for socket in tuple(emulator.sockets):
                socket.drop()

    async def call_over(self, call_sid: str) -> bool:
        """Wait until nothing of the call is left in the gateway."""
        self.twilio.end_call(call_sid)
        assert self.gateway is not None
        try:
            async with asyncio.timeout(self.clock.real(_OVER_S)):
                while self.gateway.calls:
                    await asyncio.gather(*(call.wait_closed() for call in self.gateway.calls))
        except TimeoutError:
            return False
        return True

    def on_voip(self, voip: VoIP) -> None:
        """Build the agent of a call."""
        setup = self.setup
        ears = EagerDeepgramSTT if setup.ears.eager_s is not None else DeepgramSTT
        options: dict[str, Any] = {
            "stt": ears(
                api_key=self.deepgram.api_key,
                base_url=self.deepgram.url,
                endpointing_ms=setup.endpointing_ms,
                vad_events=setup.vad_events,
                timeout_s=self.clock.real(0.5),
            ),
            # Room for contexts that were cancelled: their release takes real seconds, many of this clock's.
            "tts": CartesiaTTS(api_key=self.cartesia.api_key, base_url=self.cartesia.ws_url, parallel_parts=12),
            "api_key": self.openai.api_key,
            "base_url": self.openai.base_url,
            "system": SYSTEM,
            "greeting": setup.greeting,
            "settings": setup.settings,
        }
        agent = setup.agent(voip=voip, **{**options, **setup.options})
        self.agents.append(agent)
        agent.activate()
        if setup.touch is not None:
            try:
                setup.touch(agent)
            except Exception as exc:
                self.broken = exc
                raise

    def _reply(self, fields: dict[str, Any]) -> ChatReply:
        newest = str(fields["messages"][-1].get("content") or "")
        found = next((reply for reply in self.setup.replies if re.search(reply.match, newest, re.IGNORECASE)), None)
        reply = found or Reply(match="", text=self.setup.otherwise)
        return ChatReply(
            text=reply.text,
            tools=reply.tools,
            first_token_s=self.clock.real(reply.first_token_s),
            token_s=self.clock.real(reply.token_s) * 4,
            burst=4,
        )


@asynccontextmanager
async def serve(setup: Setup, clock: Clock) -> AsyncGenerator[House]:
    """A gateway with its providers on loopback, for as long as the block lasts."""
    from dialog.voip.twilio.gateway import TwilioGateway

    house = House(setup, clock)
    async with AsyncExitStack() as stack:
        for emulator in (house.deepgram, house.openai, house.cartesia, house.twilio):
            await stack.enter_async_context(emulator)
        house.gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, base_url=house.twilio.url, clock=clock)
        house.gateway.on("voip", house.on_voip)
        runner = web.AppRunner(house.gateway.app(), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        house.url = f"http://127.0.0.1:{addresses(runner)}/twilio"
        yield house


def addresses(runner: web.AppRunner) -> int:
    """The port that a runner listens on."""
    sockets: Sequence[Any] = runner.addresses
    return int(sockets[0][1])
