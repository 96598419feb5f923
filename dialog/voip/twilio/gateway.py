"""The door through which Twilio's calls come in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any, ClassVar, Literal, Self, TypeVar, overload
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from aiohttp import ClientSession, web

from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError, StateError
from dialog.message import ReceivedSMS
from dialog.net import shared
from dialog.participant import Event
from dialog.voip.admission import Declined, Reject, Resolver, Workers
from dialog.voip.answering import MachineDetection
from dialog.voip.call import Call, CallSettings
from dialog.voip.line import Tap
from dialog.voip.listeners import Listeners
from dialog.voip.pacing import Pacing
from dialog.voip.peers import Peers
from dialog.voip.refusals import Refusals
from dialog.voip.twilio.aiohttp_shell import AiohttpShell
from dialog.voip.twilio.asgi import AsgiShell
from dialog.voip.twilio.commands import TwilioCommands
from dialog.voip.twilio.consulting import Consultations
from dialog.voip.twilio.exchange import Exchange
from dialog.voip.twilio.inbox import SMSListener
from dialog.voip.twilio.outbound import OutboundCalls, OutgoingCall
from dialog.voip.twilio.placing import PlacedCalls
from dialog.voip.twilio.rest import TwilioRest
from dialog.voip.twilio.signature import SignatureChecker
from dialog.voip.twilio.switchboard import Switchboard, SwitchboardSettings
from dialog.voip.twilio.token import StreamTokens, derive_key
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import Webhooks

__all__ = ["TwilioGateway"]

logger = logging.getLogger(__name__)

Listener = Callable[[TwilioVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)
SMSListenerT = TypeVar("SMSListenerT", bound=SMSListener)

_DEFAULT_PATH = "/twilio"
_DEFAULT_SETTINGS = CallSettings()
_DEFAULT_PACING = Pacing()
_BUSY = Reject("busy")


class TwilioGateway:
    """Takes calls from Twilio, and emits ``voip`` with a fresh :class:`TwilioVoIP` for each.

    ::

        gateway = TwilioGateway(account_sid=…, auth_token=…, webhook_url="https://voice.example/twilio")


        @gateway.on("voip")
        def on_voip(voip: TwilioVoIP) -> None:
            FrontDesk(voip=voip, stt=…, tts=…).activate()


        web.run_app(gateway.app(), port=8080)

    The number's voice webhook is set to ``webhook_url``; everything else (media, callbacks) lies beneath
    it. Several numbers may share a gateway: ``voip.metadata.to`` tells them apart. It belongs to the
    event loop that serves it.
    """

    VOIP: ClassVar[Event[TwilioVoIP]] = Event("voip")
    """A call was accepted; once per call, inside the call's scope."""
    SMS: ClassVar[Event[ReceivedSMS]] = Event("sms")
    """A text message has come to ``webhook_url`` + ``/sms``; the text that a listener returns is the answer."""

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str,
        webhook_url: str | None = None,
        media_url: str | None = None,
        path: str | None = None,
        media_path: str | None = None,
        previous_auth_token: str | None = None,
        token_key: bytes | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        base_url: str | None = None,
        rest_timeout_s: float = 10.0,
        validate: bool = True,
        trust_forwarded_headers: bool = False,
        resolver: Resolver | None = None,
        resolver_timeout_s: float = 3.0,
        workers: Workers | None = None,
        when_busy: Declined = _BUSY,
        events: CallEvents | None = None,
        stream_parameters: tuple[str, ...] = (),
        call_settings: CallSettings = _DEFAULT_SETTINGS,
        pacing: Pacing = _DEFAULT_PACING,
        error_text: str = "We are sorry, an error has occurred. Please call again later.",
        error_language: str = "en-US",
        max_body: int = 1_000_000,
        max_message: int = 65_536,
        body_timeout_s: float = 5.0,
        start_timeout_s: float = 10.0,
        close_timeout_s: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Check and keep the settings; nothing is connected.

        Args:
            account_sid: ``AC…``.
            auth_token: Signs webhooks, and REST requests unless there is an API key.
            webhook_url: Public URL of the voice webhook, as configured for the number. Without it, it is
                taken from each request, and what Twilio must call back (recordings, transcriptions,
                transfers) raises MissingPublicURL, unless a proxy's forwarded headers are trusted.
            media_url: Public ``wss://`` URL of the media socket, if it is not ``webhook_url`` + ``/media``.
            path: Local path of the voice webhook, if it is not that of ``webhook_url`` (``/twilio`` without one).
            media_path: Local path of the media socket, if it does not lie beneath that of the voice webhook.
            previous_auth_token: Accepted as well while the token is rotated.
            token_key: Key of the stream tokens, the same in all processes; by default made from ``auth_token``.
            api_key: ``SK…``, for REST.
            api_secret: Of the API key.
            base_url: Of the REST API, instead of Twilio's.
            rest_timeout_s: Longest time for a REST command, in seconds.
            validate: Check signatures. Switch it off for experiments only.
            trust_forwarded_headers: Believe ``X-Forwarded-*`` of the proxy in front.
            resolver: Asked whether to take a call, before anything is spent on it.
            resolver_timeout_s: After that the caller hears ``error_text``.
            workers: Run the agents, instead of the listeners for ``voip``. They start and close with the gateway.
            when_busy: What callers are told while no worker has room, or the gateway drains.
            events: Where the events of its calls are published, with what is masked in them; several gateways may
                share one.
            stream_parameters: Webhook parameters that also travel with the stream, to another process.
            call_settings: Bounds of a call.
            pacing: How fast :meth:`call` may place calls, and how many there may be at once.
            error_text: Spoken by Twilio when a call cannot be taken because of an error.
            error_language: Its language.
            max_body: Largest webhook, in bytes.
            max_message: Largest WebSocket message, in bytes.
            body_timeout_s: How long a webhook's body may take.
            start_timeout_s: How long a socket may stay without its ``start`` message.
            close_timeout_s: How long :meth:`close` may take.
            clock: Time of the calls.

        Raises:
            ConfigurationError: A setting is missing, malformed, or contradicts another.
            MissingExtra: The ``twilio`` package is not installed.
        """
        if not account_sid or not auth_token:
            raise ConfigurationError("TwilioGateway needs account_sid and auth_token")
        self.webhook_url: str = webhook_url or ""
        local = path or (urlsplit(self.webhook_url).path or "/" if self.webhook_url else _DEFAULT_PATH)
        for name, value in (("path", local), ("media_path", media_path or "/")):
            if not value.startswith("/"):
                raise ConfigurationError(f"{name} must start with a slash, got {value!r}")
        _warn_of_plain_http(self.webhook_url)
        previous = previous_auth_token or ""
        self._webhooks = Webhooks(
            path=local,
            media_path=media_path or "",
            checker=SignatureChecker(auth_token, previous) if validate else None,
            webhook_url=self.webhook_url,
            media_url=media_url or "",
            trust_forwarded=trust_forwarded_headers,
            max_body=max_body,
        )
        self._commands = TwilioCommands(
            TwilioRest(
                account_sid,
                auth_token,
                api_key=api_key or "",
                api_secret=api_secret or "",
                base_url=base_url or "",
                timeout_s=rest_timeout_s,
            )
        )
        key = token_key or derive_key(auth_token)
        self._listeners = Listeners[TwilioVoIP]("TwilioGateway")
        self._workers = workers
        self._switchboard = Switchboard(
            SwitchboardSettings(
                account_sid=account_sid,
                resolver=resolver,
                resolver_timeout_s=resolver_timeout_s,
                stream_parameters=stream_parameters,
                call=call_settings,
                error_text=error_text,
                error_language=error_language,
                when_busy=when_busy,
                close_timeout_s=close_timeout_s,
            ),
            self._commands,
            StreamTokens(key, previous=(derive_key(previous),) if previous and token_key is None else ()),
            self._emit,
            workers=workers,
            events=events,
            clock=clock,
        )
        self._exchange = Exchange(self._switchboard, self._webhooks)
        self._outbound = OutboundCalls(self._switchboard, PlacedCalls(self._commands.rest), pacing, clock)
        consultations = self._commands.consultations = Consultations(self._switchboard, self._outbound)
        self._switchboard.reports.on_conference = consultations.conference
        self._aiohttp = AiohttpShell(
            self._webhooks,
            self._exchange,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
            max_message=max_message,
        )
        self._asgi = AsgiShell(
            self._webhooks,
            self._exchange,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
            max_message=max_message,
            on_start=self.start,
            on_shutdown=self.close,
        )
        self._session: shared.Lease[ClientSession] | None = None
        self._started = False
        self._closed = False
        if workers is not None and workers.peers is not None:
            self._share(workers.peers, "")
        self._chosen = False
        """Peers were named, instead of those that come with the workers."""

    def __repr__(self) -> str:
        return f"<TwilioGateway {self._webhooks.path} with {len(self.calls)} calls>"

    # Listeners.

    @overload
    def on(self, event: Event[TwilioVoIP] | Literal["voip"]) -> Callable[[ListenerT], ListenerT]: ...  # type: ignore[overload-overlap]  # no name is both
    @overload
    def on(self, event: Event[TwilioVoIP] | Literal["voip"], listener: ListenerT) -> ListenerT: ...
    @overload
    def on(self, event: Event[ReceivedSMS] | Literal["sms"]) -> Callable[[SMSListenerT], SMSListenerT]: ...
    @overload
    def on(self, event: Event[ReceivedSMS] | Literal["sms"], listener: SMSListenerT) -> SMSListenerT: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call ``listener`` with the :class:`TwilioVoIP` of every call, or with every text message; also a decorator.

        If one for calls raises, the caller hears ``error_text`` and the call ends. One for ``sms`` may be a coroutine
        function; the text that it returns within 10 s is the answer, ``None`` is none.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        if event == self.SMS:
            if listener is None:
                return partial(self.on, TwilioGateway.SMS)
            self._switchboard.inbox.listeners.append(listener)
            return listener
        if event != self.VOIP:
            raise ValueError(f"TwilioGateway has no event {event!r}, only 'voip' and 'sms'")
        return self._listeners.on(event, listener)

    @overload
    def off(self, event: Event[TwilioVoIP] | Literal["voip"], listener: Listener) -> None: ...
    @overload
    def off(self, event: Event[ReceivedSMS] | Literal["sms"], listener: SMSListener) -> None: ...
    def off(self, event: str, listener: Any) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        if event == self.SMS and listener in self._switchboard.inbox.listeners:
            self._switchboard.inbox.listeners.remove(listener)
        self._listeners.off(event, listener)

    # Serving.

    def app(self) -> web.Application:
        """A whole aiohttp application, closed with its server."""
        app = web.Application()
        self.add_routes(app)
        return app

    def add_routes(self, app: web.Application) -> None:
        """Add the gateway's routes to the host's own aiohttp application, with which it will be closed."""
        self._aiohttp.add_routes(app)
        app.on_startup.append(self._on_startup)
        app.on_shutdown.append(self._on_shutdown)

    def asgi(self) -> AsgiShell:
        """An ASGI 3 application for FastAPI, Starlette or any ASGI server.

        Mounted into another one, :meth:`start` and :meth:`close` are up to the host's lifespan.
        """
        return self._asgi

    def prepare(self) -> None:
        """Make ready what the first call needs, so that it does not wait: done when the server starts.

        Providers share one HTTP session and TLS context per loop, which their last user closes. The
        gateway keeps them from here on: between two calls nobody else would.
        """
        if self._session is None:
            self._session = shared.session()

    @property
    def path(self) -> str:
        """Local path of the voice webhook; callbacks lie beneath it."""
        return self._webhooks.path

    @property
    def media_path(self) -> str:
        """Local path of the media socket."""
        return self._webhooks.paths()["media"]

    def use_peers(self, peers: Peers, *, media_url: str = "") -> None:
        """Share the address with other gateways: what is of a call of theirs is passed on to them.

        Before :meth:`start`; the peers start and close with the gateway. Without it they are those of a fleet, if the
        workers are one.

        Args:
            peers: The others, and our own name among them.
            media_url: Public ``wss://`` URL that leads the carrier to this gateway and no other one, if there is one.

        Raises:
            ConfigurationError: The URL has the wrong scheme or no host.
            StateError: The gateway has started, or has peers already.
        """
        if self._started or self._chosen:
            raise StateError("a gateway gets its peers once, before it starts")
        self._share(peers, media_url)
        self._chosen = True

    @property
    def peers(self) -> Peers | None:
        """The other gateways that share the address."""
        return self._exchange.peers

    # Calls.

    async def call(
        self,
        to: str,
        *,
        from_: str,
        on_voip: Listener | None = None,
        ring_s: float = 30.0,
        machine_detection: MachineDetection | None = None,
        send_digits: str = "",
        parameters: Mapping[str, str] | None = None,
        session: str = "",
        call_id: UUID | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> TwilioVoIP:
        """Place a call, as soon as the account's limits allow it, and return once Twilio has it.

        The call's VoIP is emitted before, like that of a call that comes in, or given to ``on_voip`` alone. Its agent
        may be activated at once: it opens its providers when the phone rings, and speaks when somebody answers. ::

            voip = await gateway.call("+15550123", from_="+15550100", parameters={"name": "Ada"})
            answered_by = await voip.wait_answered()  # raises CallNotAnswered

        Args:
            to: A number in E.164, ``sip:…`` or ``client:…``.
            from_: A number of the account.
            on_voip: Takes the call, here; unless given, the workers or the listeners for ``voip``.
            ring_s: How long it may ring, in seconds.
            machine_detection: Let Twilio find out whether a machine answers, and what to do then.
            send_digits: Keys to press when it is answered, such as an extension: ``wwww1928``.
            parameters: What the agent is to know: ``voip.metadata.parameter("name")``.
            session: What its agent is to be like: see :attr:`~dialog.message.CallMetadata.session`.
            call_id: Dialog's id of the call; a new one unless given.
            before: Awaited right before Twilio is asked, each time; to write down that the call may exist from now on.

        Raises:
            CarrierError: Twilio refused. With ``in_doubt`` the call may have been placed all the same.
            ConfigurationError: A number or a setting cannot be used.
            MissingPublicURL: The gateway was not given its ``webhook_url``.
            LimitError: The account is at its limits for longer than ``pacing`` allows.
            NoWorker: No worker has room for its agent.
            UserCodeError: ``on_voip`` raised.
            StateError: The gateway takes no calls any more.
        """
        wanted = OutgoingCall(
            to=to,
            from_=from_,
            ring_s=ring_s,
            detection=machine_detection,
            send_digits=send_digits,
            parameters=tuple((parameters or {}).items()),
            session=session,
            call_id=call_id or uuid4(),
        )
        self.prepare()
        return await self._outbound.place(wanted, self._webhooks.public_site(), on_voip=on_voip, before=before)

    @property
    def placed(self) -> PlacedCalls:
        """Looks up calls that were placed, at Twilio."""
        return self._outbound.placed

    @property
    def events(self) -> CallEvents:
        """The events of all calls, wherever their agents run."""
        return self._switchboard.events

    @property
    def refusals(self) -> Refusals:
        """How many requests and media sockets were refused."""
        return self._exchange.refusals

    @property
    def workers(self) -> Workers | None:
        """Who runs the agents; ``None``: the listeners for ``voip``."""
        return self._workers

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return self._switchboard.calls

    def get(self, call: UUID | str) -> TwilioVoIP | None:
        """A call by its ``call_id`` or its CallSid; ``None`` once nothing of it is left."""
        found = self.find_call(call)
        if found is None:
            return None
        assert isinstance(found.voip, TwilioVoIP)
        return found.voip

    def find_call(self, call: UUID | str) -> Call | None:
        """The gateway's side of a call, by its ``call_id`` or its CallSid; ``None`` once nothing of it is left."""
        key: UUID | str = call
        if isinstance(call, str):
            try:
                key = UUID(call)
            except ValueError:
                key = call  # a CallSid
        return self._switchboard.find(key)

    def download_recording(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording of this account, also long after its call.

        Raises:
            CarrierError: It cannot be fetched.
        """
        return self._commands.download(url)

    def add_tap(self, voip: TwilioVoIP, tap: Tap) -> None:
        """Let ``tap`` hear both sides of a call from now on: to record it, or to listen in.

        A :class:`~dialog.audio.recorder.StereoRecorder` is one. What the agent's side of it hears is what
        was played, without what an interruption took back.

        Raises:
            StateError: The call is not held by this gateway (any more).
        """
        call = self._switchboard.find(voip.metadata.call_id)
        if call is None:
            raise StateError(f"call {voip.metadata.call_id}: this gateway does not hold it: there is nothing to hear")
        call.add_tap(tap)

    async def close(self) -> None:
        """Take no more calls, end those that are there, close all sockets; calling it again is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._exchange.close()
        await self._switchboard.close()
        if self._workers is not None:
            await self._workers.close()
        await self._aiohttp.close()
        await self._asgi.close()
        if self._exchange.peers is not None:
            await self._exchange.peers.close()
        await self._commands.close()
        session, self._session = self._session, None
        if session is not None:
            await session.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Get ready for calls: done when its server starts, but up to the host's lifespan where it is mounted."""
        self.prepare()
        self._started = True
        if self._exchange.peers is not None:
            await self._exchange.peers.start(self._exchange)
        if self._workers is not None:
            await self._workers.start()

    @property
    def ready(self) -> bool:
        """Whether a call would be taken now: for the readiness probe of whatever stands in front."""
        busy = self._closed or self._switchboard.draining
        return not busy and (self._workers is None or self._workers.ready)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait until those that are there have ended, at most ``timeout_s``.

        What waits for a late recording does not count; a socket that is relayed for another gateway does.
        :meth:`close` comes after it.

        Returns:
            Whether all calls have ended by themselves.
        """
        self._switchboard.draining = True
        until = asyncio.get_running_loop().time() + timeout_s
        clean = await self._switchboard.wait_idle(timeout_s)
        if clean and self._exchange.peers is not None:
            try:
                async with asyncio.timeout_at(until):
                    await self._exchange.peers.wait_idle()
            except TimeoutError:
                return False
        return clean

    async def _on_startup(self, _: web.Application) -> None:
        await self.start()

    async def _on_shutdown(self, _: web.Application) -> None:
        await asyncio.shield(self.close())

    def _share(self, peers: Peers, media_url: str) -> None:
        self._webhooks.name_node(peers.node, media_url)
        self._exchange.peers = peers

    def _emit(self, voip: TwilioVoIP) -> None:
        self.prepare()
        self._listeners.emit(voip)


def _warn_of_plain_http(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    if parts.scheme == "http" and not near:
        logger.warning("webhook_url is http: Twilio opens media sockets over wss:// only (its error 31922)")
