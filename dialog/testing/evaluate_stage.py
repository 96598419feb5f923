"""Where a user's own agent is played: their code, behind a gateway, with a simulated caller on the line."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

from aiohttp import web

from dialog.agent.agent import Agent
from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing.caller import Caller
from dialog.testing.scenario_house import ACCOUNT, TOKEN
from dialog.testing.scenario_providers import Ears, HearingDeepgram, SpellingCartesia
from dialog.testing.server import Faults
from dialog.testing.twilio_rest import CallUpdate, TwilioRestEmulator
from dialog.tts.cartesia import CartesiaTTS

if TYPE_CHECKING:
    from dialog.voip.twilio.gateway import TwilioGateway

__all__ = ["Site", "Target", "UserStage", "open_site"]

Target: TypeAlias = "Callable[..., Any] | TwilioGateway | web.Application"
"""``on_voip(voip)``, a gateway, an aiohttp application with one, or a function without arguments that makes one."""

_OVER_S = 20.0


class Site:
    """A server with the user's code, and the stages that its calls belong to."""

    def __init__(self, clock: Clock, *, own_speech: bool) -> None:
        self.clock: Clock = clock
        self.url: str = ""
        self.public_url: str = ""
        self.auth_token: str = TOKEN
        self.account_sid: str = ACCOUNT
        self.own_speech: bool = own_speech
        self.twilio: TwilioRestEmulator = TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN)
        self.stages: dict[str, UserStage] = {}
        """By the carrier's id of their call."""
        self.on_voip: Callable[[Any], Any] | None = None
        """What takes the calls; ``None``: only the user's application knows."""

    def speech(self, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of an agent that is being made, with the stage's ears and voice in them."""
        stage = self.stages.get(options["voip"].metadata.carrier_call_id)
        if self.own_speech or stage is None:
            return options
        replaced = {**options, "tts": stage.voice}
        if options.get("stt") is not None:
            replaced["stt"] = stage.ears
        return replaced

    def made(self, agent: Agent) -> None:
        """An agent was made: it belongs to the stage of its call."""
        stage = self.stages.get(agent.voip.metadata.carrier_call_id)
        if stage is not None:
            stage.take(agent)


class UserStage:
    """A :class:`~dialog.testing.scenario_run.Stage` for one call to the user's agent."""

    def __init__(self, site: Site) -> None:
        self.clock: Clock = site.clock
        self.url: str = site.url
        self.public_url: str = site.public_url
        self.auth_token: str = site.auth_token
        self.account_sid: str = site.account_sid
        self.deepgram: HearingDeepgram = HearingDeepgram(Ears())
        self.cartesia: SpellingCartesia = SpellingCartesia(timings_first=True, first_audio_s=site.clock.real(0.12))
        self.raised: Exception | None = None
        """What ``on_voip`` raised."""
        self._site = site
        self._agents: list[Agent] = []
        self._reported = asyncio.Event()
        self._updates: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[UserStage]:
        """Run the emulated providers meanwhile."""
        async with self.deepgram, self.cartesia:
            yield self

    def ears(self) -> DeepgramSTT:
        """Hears what the caller says, word for word."""
        return DeepgramSTT(api_key=self.deepgram.api_key, base_url=self.deepgram.url, timeout_s=self.clock.real(0.5))

    def voice(self) -> CartesiaTTS:
        """Says what can be read from the line again."""
        return CartesiaTTS(api_key=self.cartesia.api_key, base_url=self.cartesia.ws_url, parallel_parts=12)

    def take(self, agent: Agent) -> None:
        """An agent was made for this call."""
        self._agents.append(agent)
        agent.on(Agent.REPORT, lambda _: self._reported.set())

    def agent(self, call_sid: str) -> Agent | None:
        """The agent that took the call; the newest, if there are several."""
        del call_sid
        return self._agents[-1] if self._agents else None

    def dialled(self, caller: Caller) -> None:
        """The call is about to begin: the site's agents of it are ours."""
        self._site.stages[caller.call_sid] = self

        def updated(update: CallUpdate) -> None:
            task = asyncio.ensure_future(caller.update(status=update.status, twiml=update.twiml, url=update.url))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

        self._site.twilio.add_call(caller.call_sid, on_update=updated)

    def text_of(self, lane: int) -> str:
        """What context number ``lane`` of the voice was given to speak."""
        return self.cartesia.text_of(lane)

    def part_of(self, lane: int) -> tuple[UUID, int] | None:
        """Turn and part of a context of the voice."""
        return self.cartesia.part_of(lane)

    def fault(self, provider: str, faults: Faults) -> None:
        """Let the emulated ears or voice misbehave.

        Raises:
            ConfigurationError: The model is the user's own, and so are the providers with ``own_speech``.
        """
        emulator = {"deepgram": self.deepgram, "cartesia": self.cartesia}.get(provider)
        if emulator is None or self._site.own_speech:
            raise ConfigurationError(f"a fault of {provider!r} cannot be played: it is not emulated here")
        emulator.faults = faults

    async def call_over(self, call_sid: str) -> bool:
        """Wait until the agent has given its report."""
        self._site.twilio.end_call(call_sid)
        if not self._agents:
            return True
        try:
            async with asyncio.timeout(self.clock.real(_OVER_S)):
                await self._reported.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def open_site(target: Target, clock: Clock, *, own_speech: bool, env: Mapping[str, str]) -> AsyncGenerator[Site]:
    """Serve the user's code on loopback for as long as the block lasts.

    Raises:
        ConfigurationError: It is nothing that takes calls.
    """
    site = Site(clock, own_speech=own_speech)
    async with AsyncExitStack() as stack:
        stack.enter_context(_agents_noticed(site))
        await stack.enter_async_context(site.twilio)
        app, path = await _application(target, site, env)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        site.url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        yield site


async def _application(target: Target, site: Site, env: Mapping[str, str]) -> tuple[web.Application, str]:
    if callable(target) and not isinstance(target, web.Application) and _takes_nothing(target):
        made = target()
        target = await made if inspect.isawaitable(made) else made
    if isinstance(target, web.Application):
        site.auth_token = env.get("TWILIO_AUTH_TOKEN", "")
        site.account_sid = env.get("TWILIO_ACCOUNT_SID", "") or site.account_sid
        path = _webhook_path(target)
        webhook = env.get("WEBHOOK_URL", "")
        site.public_url = webhook if urlsplit(webhook).path == path else ""
        if not site.auth_token:
            raise ConfigurationError("an application checks signatures: set TWILIO_AUTH_TOKEN to its auth token")
        return target, path
    from dialog.voip.twilio.gateway import TwilioGateway  # an application brings its own

    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, base_url=site.twilio.url, clock=site.clock)
    if isinstance(target, TwilioGateway):
        listeners = tuple(target._listeners)
    elif callable(target):
        listeners = (target,)
    else:
        raise ConfigurationError(
            f"{type(target).__name__} takes no calls: give on_voip(voip), a TwilioGateway, an aiohttp application, "
            "or a function without arguments that makes one"
        )
    if not listeners:
        raise ConfigurationError("nobody listens for calls: gateway.on('voip', …)")
    site.on_voip = listeners[0]
    for listener in listeners:
        gateway.on("voip", _noted(site, listener))
    return gateway.app(), "/twilio"


def _noted(site: Site, on_voip: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The user's function; what it raises is known to the stage of the call."""

    @wraps(on_voip)
    def noted(voip: Any) -> Any:
        try:
            return on_voip(voip)
        except Exception as exc:
            stage = site.stages.get(voip.metadata.carrier_call_id)
            if stage is not None:
                stage.raised = exc
            raise

    return noted


def _takes_nothing(target: Callable[..., Any]) -> bool:
    parameters = inspect.signature(target).parameters.values()
    return not any(
        parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        for parameter in parameters
    )


def _webhook_path(app: web.Application) -> str:
    """The gateway's webhook among the routes: its media socket lies beneath it."""
    paths = {resource.canonical for resource in app.router.resources()}
    for path in sorted(paths, key=len):
        if f"{path.rstrip('/')}/media" in paths:
            return path
    raise ConfigurationError("the application has no gateway: TwilioGateway.add_routes(app) is missing")


_sites: list[Site] = []
"""The sites that are open in this process."""
_plain_init = Agent.__init__


@wraps(_plain_init)
def _noticing_init(self: Agent, **options: Any) -> None:
    for site in _sites:
        options = site.speech(options)
    _plain_init(self, **options)
    for site in _sites:
        site.made(self)


@contextmanager
def _agents_noticed(site: Site) -> Generator[None]:
    """Meanwhile every agent that is made for a call of the site gets its stage's ears and voice, and is told to it.

    The user's code builds its agents by itself, and may need keys for it that are not at hand: the
    constructor is the one place that they all pass.
    """
    if not _sites:
        Agent.__init__ = _noticing_init  # type: ignore[method-assign]
    _sites.append(site)
    try:
        yield
    finally:
        _sites.remove(site)
        if not _sites:
            Agent.__init__ = _plain_init  # type: ignore[method-assign]
