"""A service: gateways of accounts and of browsers, one policy on sessions, one stream of events, one REST API."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, Final, Self
from uuid import UUID, uuid4

from aiohttp import web
from msgspec.structs import replace

from dialog.calls.publish import CallEvents
from dialog.errors import ConfigurationError, LimitError, StateError
from dialog.message import CallMetadata, SentSMS
from dialog.server.channels import Channels
from dialog.server.config import ClientSettings, PhoneNumber, ServiceConfig, config_from_env
from dialog.server.limits import Limit, Limits, Place, Stamp
from dialog.server.live import LiveSessions, Session
from dialog.server.tenants import TelnyxTenant, TwilioTenant
from dialog.sessions.sessions import reason
from dialog.sessions.spec import SessionRequest, SessionSpec, phone_context, request_of
from dialog.sms.sms import SMS
from dialog.voip.admission import Accept, Decision, Declined, Offer, Reject, Workers
from dialog.voip.answering import MachineDetection
from dialog.voip.call import Call, CallSettings
from dialog.voip.carrier.gateway import PhoneGateway
from dialog.voip.peers import Peers
from dialog.voip.refusals import Refusals
from dialog.voip.voip import VoIP
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.recordings import SCHEME
from dialog.voip.web.switchboard import Refusal

__all__ = ["Service", "SessionRefused", "Unknown"]

logger = logging.getLogger(__name__)

_NOBODY: Final = ""
"""Whose calls those are that are no tenant's."""


class Unknown(ConfigurationError):
    """There is no such assistant, number or call."""

    code = "unknown"


class SessionRefused(StateError):
    """The session resolver did not want it."""

    code = "refused"


class Service:
    """Takes and places calls for the assistants and tenants of a configuration.

    ``python -m dialog serve`` runs one. Into an aiohttp application of your own: :meth:`add_routes`; into FastAPI or
    Starlette: mount :meth:`asgi`, and call :meth:`start` and :meth:`close` in the lifespan. It belongs to the event
    loop that serves it.
    """

    def __init__(self, config: ServiceConfig) -> None:
        from dialog.server.api.core import Api
        from dialog.server.console.core import Console

        self.config = config
        self.events: CallEvents = CallEvents(redaction=config.redaction)
        self.sessions = config.sessions()
        self._accounts = {tenant.account_id: name for name, tenant in config.tenants.items()}
        users = len(config.tenants) + (config.clients is not None)
        self._workers = None if config.workers is None else _Shared(config.workers, users)
        each = {name: tenant.max_calls for name, tenant in config.tenants.items()}
        self.limits: Limits = Limits(config.max_calls, {**each, _NOBODY: None}, self._count)
        """Counts calls against their limits."""
        self.gateways: Mapping[str, PhoneGateway[Any]] = {
            name: self._make_gateway(name, tenant) for name, tenant in config.tenants.items()
        }
        """By tenant."""
        self.clients: WebGateway | None = None if config.clients is None else self._make_web_gateway(config.clients)
        """Where browsers and apps come in."""
        self.live = LiveSessions(self.events, self.tenant_of, keep_ended=config.keep_ended)
        if config.spending is not None:
            config.spending.follow(self.events)
        if config.callbacks is not None:
            config.callbacks.follow(self.events)
        self._placing: set[UUID] = set()
        """Calls that still have the places that were taken for them, and do not count as calls."""
        self._messages: dict[str, SMS] = {}
        self.log: Any = None
        """The :class:`~dialog.calls.store.log.CallLog`, while the service runs with one."""
        self.webhooks: Any = None
        """Its :class:`~dialog.calls.delivery.webhooks.Webhooks`, likewise: what waits, dead letters."""
        self.api = Api(self)
        self.console: Console | None = Console(self) if config.console and config.api.tokens else None
        self._peers: Peers | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """A service from the environment alone; see :func:`~dialog.server.config.config_from_env`."""
        return cls(config_from_env(env))

    def __repr__(self) -> str:
        return f"<Service with {len(self.calls)} calls>"

    # Serving.

    def app(self) -> web.Application:
        """A whole aiohttp application with its probes and metrics, closed with its server."""
        from dialog.server.serving import Probes, add_metrics

        app = web.Application()
        Probes(self).add_routes(app)
        self.add_routes(app)
        add_metrics(self, app)
        return app

    def add_routes(self, app: web.Application) -> None:
        """Add webhooks, media sockets and the API to the host's own application, with which it will be closed."""
        from dialog.server.api.aiohttp_shell import add_api_routes
        from dialog.server.console.aiohttp_shell import add_console_routes

        app.on_startup.append(self._on_startup)
        for gateway in self.doors:
            gateway.add_routes(app)
        add_api_routes(self.api, app, self.config.prefix)
        if self.console is not None:
            add_console_routes(self.console, app, self.config.prefix)
        app.on_cleanup.append(self._on_cleanup)

    def asgi(self) -> Any:
        """An ASGI 3 application, with probes; by itself it keeps the server's lifespan."""
        from dialog.server.api.asgi_shell import ServiceAsgi

        return ServiceAsgi(self)

    def use_peers(self, peers: Peers, *, media_url: str = "") -> None:
        """Share the address with other processes of this service: see :meth:`PhoneGateway.use_peers`.

        The REST API of each then sees and steers the calls of all, and limits count them together. Several tenants
        share the peers; of their media each has its name behind ``media_url``.

        Raises:
            StateError: The service has started, or has peers already.
        """
        if self._peers is not None:
            raise StateError("a service gets its peers once, before it starts")
        self._peers, channels = peers, Channels(peers)
        self.limits.node = peers.node
        self.api.elsewhere.peers = channels.channel("")
        for name, gateway in self.gateways.items():
            own = media_url and f"{media_url.rstrip('/')}{self._behind(name)}"
            gateway.use_peers(channels.channel(name), media_url=own)
        if self.clients is not None:
            self.clients.use_peers(channels.channel("/clients"))  # no name of a tenant, which stands in addresses

    @property
    def peers(self) -> Peers | None:
        """The other processes that share the address: those that were named, or those that come with the workers."""
        workers = self.config.workers
        return self._peers or (None if workers is None else workers.peers)

    async def start(self) -> None:
        """Get ready for calls."""
        await self._begin()
        for gateway in self.doors:
            await gateway.start()

    async def close(self) -> None:
        """Take no more calls, end those that are there, let go of everything; calling it again is harmless."""
        try:
            await asyncio.gather(*(gateway.close() for gateway in self.doors))
            await self.api.elsewhere.close()
        finally:
            await self._close_log()  # whatever could not be closed before: what waits is to be written

    @property
    def ready(self) -> bool:
        """Whether a call would be taken now."""
        return all(gateway.ready for gateway in self.doors)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait for those that are there; whether all have ended by themselves."""
        return all(await asyncio.gather(*(gateway.drain(timeout_s) for gateway in self.doors)))

    # What metrics look at.

    @property
    def doors(self) -> tuple[PhoneGateway[Any] | WebGateway, ...]:
        """All gateways: of the tenants, and that of clients."""
        clients = () if self.clients is None else (self.clients,)
        return (*self.gateways.values(), *clients)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, of telephones and clients alike."""
        return tuple(call for gateway in self.doors for call in gateway.calls)

    @property
    def refusals(self) -> Refusals:
        """What the gateways have refused."""
        together = Refusals()
        for gateway in self.doors:
            together.webhooks += gateway.refusals.webhooks
            together.sockets += gateway.refusals.sockets
            together.sip += gateway.refusals.sip
        return together

    @property
    def workers(self) -> Workers | None:
        """Who runs the agents; ``None``: this process."""
        return self.config.workers

    # Calls.

    def session(self, call_id: UUID) -> Session | None:
        """A call that is live, or has ended lately: its metadata, transcript and numbers at this moment."""
        return self.live.get(call_id)

    def holds(self, call_id: UUID) -> bool:
        """Whether a call is in this process, or was lately."""
        return self.session(call_id) is not None or self.get(call_id) is not None

    def get(self, call: UUID | str) -> VoIP | None:
        """A call by its ``call_id`` or CallSid, to do something with; ``None`` once nothing of it is left."""
        return next((voip for gateway in self.doors if (voip := gateway.get(call)) is not None), None)

    def tenant_of(self, call: CallMetadata) -> str:
        """The name of the tenant whose call it is; empty: nobody's in particular."""
        if call.carrier != "web":
            return self._accounts.get(call.account_id, "")
        tenants = self.config.tenants
        if call.account_id:
            return call.account_id if call.account_id in tenants else ""
        return next(iter(tenants)) if len(tenants) == 1 else ""

    async def place(
        self,
        *,
        assistant: str,
        number: str,
        to: str,
        context: Mapping[str, Any] | None = None,
        machine_detection: MachineDetection | None = None,
        allowed: Callable[[str], bool] = lambda _: True,
    ) -> UUID:
        """Place a call, and return its id once the carrier has it.

        Args:
            assistant: Id of the agent, in the configuration or for the resolver.
            number: Id of the number that it comes from, likewise.
            to: Who is called, in E.164.
            context: What the agent is to know.
            machine_detection: Let the carrier find out whether a machine answers, and what to do then.
            allowed: Whether a tenant may be used.

        Raises:
            Unknown: There is no such assistant or number.
            SessionRefused: The resolver does not want it.
            LimitError: There are too many calls.
            CarrierError: The carrier refused.
            DialogError: As :meth:`PhoneGateway.call`.
        """
        config, call_id = self.config, uuid4()
        listed = config.numbers.get(number)
        if listed is not None and not allowed(config.tenant_of(listed)):
            raise Unknown("there is no phone number of this id")  # nor does anybody decide about it
        known = listed is not None and assistant in config.assistants
        if config.resolver is None and not known:
            raise Unknown(f"there is no {'assistant' if listed is not None else 'phone number'} of this id")
        call = CallMetadata(
            call_id=call_id,
            carrier=self._tenant(listed).carrier if listed is not None else "",
            account_id=self._tenant(listed).account_id if listed is not None else "",
            from_=listed.number if listed is not None else "",
            to=to,
            direction="outbound",
        )
        wanted = SessionSpec(
            assistant=assistant, number=number, context={**phone_context(call), "source": "api", **(context or {})}
        )
        decision = await self.sessions.decide(SessionRequest(source="api", call=call, wanted=wanted, verified=True))
        if not isinstance(decision, SessionSpec):
            if not known:
                raise Unknown("there is no assistant or phone number of this id")
            raise SessionRefused(f"the session was refused: {reason(decision)}")
        listed = config.numbers.get(decision.number or number)
        if listed is None or not allowed(tenant := config.tenant_of(listed)):
            raise Unknown("there is no phone number of this id")
        if config.spending is not None:
            config.spending.check()
        place = await self._take_place(tenant)
        if not isinstance(place, Place):
            raise LimitError(f"there are as many calls as there may be: {place.calls}")
        self._placing.add(call_id)
        try:
            await self.gateways[tenant].call(
                to,
                from_=listed.number,
                machine_detection=machine_detection,
                session=decision.to_json(),
                call_id=call_id,
            )
        finally:
            self._placing.discard(call_id)
            self.limits.give(place)
        return call_id

    def client_token(
        self, session: SessionSpec, *, user: str = "", tenant: str = "", life_s: float = 60.0
    ) -> tuple[str, UUID]:
        """A token with which a browser or an app starts one session, and the id that its call will have.

        Args:
            session: What it is to be like. The resolver is asked when it begins; without one it is as it says here.
                Without an assistant the client may choose one.
            user: Who will talk.
            tenant: Whose session it is; not needed if there is only one.
            life_s: How long the session may take to start, an hour at most.

        Raises:
            Unknown: There is no such assistant or tenant, or the service takes no clients.
            ConfigurationError: The session cannot be like that, or does not fit into a token.
        """
        config = self.config
        if self.clients is None:
            raise Unknown("this service takes no clients: its configuration has no clients=ClientSettings()")
        if tenant and tenant not in config.tenants:
            raise Unknown("there is no tenant of this id")
        if config.resolver is None:
            if session.assistant and session.assistant not in config.assistants:
                raise Unknown("there is no assistant of this id")
            self.sessions.check(replace(session, assistant=session.assistant or self.clients.agents[0]))
        call_id = uuid4()
        token = self.clients.token(
            user=user,
            agent=session.assistant,
            account=tenant,
            session=session.to_json(),
            call_id=call_id,
            life_s=life_s,
        )
        return token, call_id

    async def send_sms(self, to: str, text: str, *, number: str = "", tenant: str = "") -> SentSMS:
        """Write a text message, without a call.

        Args:
            to: In E.164.
            text: Up to 1600 characters.
            number: Id of the number that it comes from; unless given, the messaging service or the only number of
                the tenant.
            tenant: Whose account pays; not needed with a number, or if there is only one.

        Raises:
            Unknown: There is no such number, or none to send from.
            CarrierError: The carrier refused.
            DestinationRefused: The tenant's settings do not let it go there.
        """
        config = self.config
        listed = config.numbers.get(number)
        if number and listed is None:
            raise Unknown("there is no phone number of this id")
        name = config.tenant_of(listed) if listed is not None else tenant
        if not name and len(config.tenants) == 1:
            name = next(iter(config.tenants))
        if name not in config.tenants:
            raise Unknown("whose message is it? Name the phone number that it comes from")
        account = config.tenants[name]
        if listed is None and not account.messaging_service_sid:
            own = [each for each in config.numbers.values() if config.tenant_of(each) == name]
            if len(own) != 1:
                raise Unknown("name the phone number that the message comes from")
            listed = own[0]
        settings = account.options.get("call_settings")
        if isinstance(settings, CallSettings):
            settings.destinations.check(to, "text message")
        return await self._sms(name, account).send_sms(to, text, from_=listed.number if listed is not None else "")

    def download(self, tenant: str, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording.

        Raises:
            CarrierError: It cannot be fetched.
        """
        if self.clients is not None and url.startswith(SCHEME):
            return self.clients.download_recording(url)
        return self.gateways[tenant].download_recording(url)

    # Inside.

    def _make_gateway(self, name: str, tenant: TwilioTenant | TelnyxTenant) -> PhoneGateway[Any]:
        config = self.config
        more = self._behind(name)
        gateway = tenant.gateway(
            {
                "webhook_url": config.webhook_url and f"{config.webhook_url.rstrip('/')}{more}",
                "media_url": config.stream_url and f"{config.stream_url.rstrip('/')}{more}",
                "path": f"{config.prefix}{config.webhook_path}{more}",
                "media_path": f"{config.prefix}{config.stream_path}{more}",
                "trust_forwarded_headers": config.trust_forwarded_headers,
                "resolver": partial(self._resolve, name),
                "resolver_timeout_s": config.resolver_timeout_s + 1.0,  # ours comes first, and says more
                "workers": self._workers,
                "events": self.events,
            }
        )
        gateway.listen(self._on_voip)
        return gateway

    def _make_web_gateway(self, clients: ClientSettings) -> WebGateway:
        config = self.config
        names = sorted(config.assistants, key=lambda name: name != config.default_assistant)
        gateway = WebGateway(
            token_key=_token_key(config),
            path=f"{config.prefix}{clients.path}",
            agents=names if config.resolver is None else (),  # a resolver may know others
            origins=clients.origins,
            allow_anybody=clients.token_optional,
            recordings=clients.recordings or None,
            webrtc=clients.webrtc,
            resolver=self._resolve_client,
            resolver_timeout_s=config.resolver_timeout_s + 1.0,  # ours comes first, and says more
            workers=self._workers,
            events=self.events,
        )
        gateway.on("voip", self._on_voip)
        return gateway

    def _on_voip(self, voip: VoIP) -> None:
        self.sessions.on_voip(voip)

    async def _resolve(self, tenant: str, offer: Offer) -> Decision:
        call, account = offer.metadata, self.config.tenants[tenant]
        number = self.config.number_called(tenant, call)
        wanted = SessionSpec(assistant="" if number is None else number.assistant, context=phone_context(call))
        verified = bool(account.options.get("validate", True))
        return await self._decide(tenant, SessionRequest(source="phone", call=call, wanted=wanted, verified=verified))

    async def _resolve_client(self, offer: Offer) -> Decision:
        call = offer.metadata
        try:
            request = request_of(call, verified=True)
        except ConfigurationError as exc:
            logger.error("session %s: the session in its token: %s", call.call_id, exc)  # noqa: TRY400
            return Reject()
        if call.session and (await self.api.elsewhere.owner(call.call_id)).node:
            raise Refusal(4401, "token", "the session's token was used before")
        return await self._decide(self.tenant_of(call), request)

    async def _decide(self, tenant: str, request: SessionRequest) -> Decision:
        if self.config.spending is not None and self.config.spending.reached:
            return self.config.when_full
        full = await self._reached(tenant, self.limits.stamp())
        if full is not None:
            return self._declined(full)
        decision = await self.sessions.decide(request)
        if not isinstance(decision, SessionSpec):
            return decision
        # Others may have come meanwhile.
        place = await self._take_place(tenant)
        if not isinstance(place, Place):
            return self._declined(place)
        self.limits.give(place)  # from here to the call there is no pause
        return Accept(decision.to_json())

    async def _take_place(self, tenant: str) -> Place | Limit:
        """A place for one more call, in all processes together; or the limit that it would exceed."""
        place = self.limits.take(tenant)
        try:
            full = await self._reached(tenant, place.stamp)
        except BaseException:
            self.limits.give(place)
            raise
        if full is None:
            return place
        self.limits.give(place)
        return full

    async def _reached(self, tenant: str, stamp: Stamp) -> Limit | None:
        if not self.limits.matters(tenant):
            return None
        return self.limits.reached(tenant, stamp, await self.api.elsewhere.counts(stamp))

    def _declined(self, full: Limit) -> Declined:
        """What a call is told that would be one too many."""
        if full.tenant:
            logger.warning("tenant %s has %d calls: no more are taken", full.tenant, full.calls)
            return self.config.tenants[full.tenant].when_full
        logger.warning("there are %d calls: no more are taken", full.calls)
        return self.config.when_full

    def _count(self, tenant: str) -> int:
        gateway, clients = self.gateways.get(tenant), self.clients
        there = () if gateway is None else gateway.calls
        clients_there = () if clients is None else clients.calls
        own = [call for call in clients_there if self.tenant_of(call.metadata) == tenant]
        return sum(call.state != "ended" and call.metadata.call_id not in self._placing for call in (*there, *own))

    def _behind(self, tenant: str) -> str:
        """What stands behind the paths of a tenant."""
        return "" if len(self.config.tenants) == 1 else f"/{tenant}"

    def _tenant(self, number: PhoneNumber) -> TwilioTenant | TelnyxTenant:
        return self.config.tenants[self.config.tenant_of(number)]

    def _sms(self, name: str, account: TwilioTenant | TelnyxTenant) -> SMS:
        sender = self._messages.get(name)
        if sender is None:
            sender = self._messages[name] = account.sms()
        return sender

    async def _open_log(self) -> None:
        if not self.config.log or self.log is not None:
            return
        from dialog.calls.delivery.webhooks import Webhooks
        from dialog.calls.store.log import CallLog

        log = CallLog(self.config.log, keep_days=self.config.keep_days, tenant_of=self.tenant_of)
        await log.open()
        self.log = log
        if self.config.webhooks:
            self.webhooks = Webhooks(log, *self.config.webhooks)
            await self.webhooks.open()
        log.follow(self.events)

    async def _close_log(self) -> None:
        webhooks, self.webhooks = self.webhooks, None
        if webhooks is not None:
            await webhooks.close()
        log, self.log = self.log, None
        if log is not None:
            await log.close()
        messages, self._messages = self._messages, {}
        for sender in messages.values():
            await sender.close()

    async def _begin(self) -> None:
        """What comes before the gateways."""
        await self._open_log()
        peers = self.peers
        if self._peers is None and peers is not None:
            self.use_peers(peers)
        await self.api.elsewhere.start()

    async def _on_startup(self, _: web.Application) -> None:
        await self._begin()

    async def _on_cleanup(self, _: web.Application) -> None:
        try:
            await self.api.elsewhere.close()
        finally:
            await self._close_log()


def _token_key(config: ServiceConfig) -> bytes | None:
    """What signs the tokens of clients: the same in all processes that have this configuration."""
    if config.clients is not None and config.clients.token_key:
        return config.clients.token_key.encode()
    for tenant in config.tenants.values():
        return hmac.digest(tenant.secret.encode(), b"dialog client token, version 1", "sha256")
    return None  # this process alone knows it then


class _Shared:
    """Workers of several gateways: started by the first, closed by the last."""

    def __init__(self, workers: Workers, users: int) -> None:
        self._workers = workers
        self._users = users
        self._started = False
        self.take = workers.take

    @property
    def ready(self) -> bool:
        return self._workers.ready

    @property
    def peers(self) -> None:
        """They are the service's, which shares them among its gateways."""
        return

    async def start(self) -> None:
        if not self._started:
            self._started = True
            await self._workers.start()

    async def close(self) -> None:
        self._users -= 1
        if self._users == 0:
            await self._workers.close()
