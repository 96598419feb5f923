"""The door through which Twilio's calls come in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, ClassVar, Literal, TypeVar, overload
from urllib.parse import urlsplit

from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError
from dialog.message import ReceivedSMS
from dialog.participant import Event
from dialog.voip.admission import Declined, Reject, Resolver, Workers
from dialog.voip.call import CallSettings
from dialog.voip.carrier.gateway import PhoneGateway, local_path
from dialog.voip.carrier.http import Fields, Site
from dialog.voip.carrier.session import MediaSession
from dialog.voip.carrier.switchboard import SwitchboardSettings
from dialog.voip.carrier.token import StreamTokens, derive_key
from dialog.voip.inbox import SMSListener
from dialog.voip.listeners import Listeners
from dialog.voip.pacing import Pacing
from dialog.voip.twilio.commands import TwilioCommands
from dialog.voip.twilio.consulting import TwilioConsultations
from dialog.voip.twilio.exchange import TwilioExchange
from dialog.voip.twilio.outbound import TwilioOutbound
from dialog.voip.twilio.placing import PlacedCalls
from dialog.voip.twilio.rest import TwilioRest
from dialog.voip.twilio.session import TwilioSession
from dialog.voip.twilio.signature import SignatureChecker
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.twilio.switchboard import TwilioSwitchboard
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import TwilioWebhooks
from dialog.voip.wires import Codec, SocketWire

__all__ = ["TwilioGateway"]

logger = logging.getLogger(__name__)

Listener = Callable[[TwilioVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)
SMSListenerT = TypeVar("SMSListenerT", bound=SMSListener)

_DEFAULT_PATH = "/twilio"
_DEFAULT_SETTINGS = CallSettings()
_DEFAULT_PACING = Pacing()
_BUSY = Reject("busy")


class TwilioGateway(PhoneGateway[TwilioVoIP]):
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
        local = local_path(path, self.webhook_url, _DEFAULT_PATH, media_path=media_path)
        _warn_of_plain_http(self.webhook_url)
        previous = previous_auth_token or ""
        webhooks = TwilioWebhooks(
            path=local,
            media_path=media_path or "",
            checker=SignatureChecker(auth_token, previous) if validate else None,
            webhook_url=self.webhook_url,
            media_url=media_url or "",
            trust_forwarded=trust_forwarded_headers,
            max_body=max_body,
        )
        commands = TwilioCommands(
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
        self._switchboard = TwilioSwitchboard(
            SwitchboardSettings(
                account_id=account_sid,
                resolver=resolver,
                resolver_timeout_s=resolver_timeout_s,
                stream_parameters=stream_parameters,
                call=call_settings,
                error_text=error_text,
                error_language=error_language,
                when_busy=when_busy,
                close_timeout_s=close_timeout_s,
            ),
            commands,
            StreamTokens(key, previous=(derive_key(previous),) if previous and token_key is None else ()),
            self._emit,
            workers=workers,
            events=events,
            clock=clock,
        )
        self._outbound = TwilioOutbound(self._switchboard, PlacedCalls(commands.rest), pacing, clock)
        consultations = commands.consultations = TwilioConsultations(self._switchboard, self._outbound)
        self._switchboard.reports.on_conference = consultations.conference
        self._switchboard.on_returned = consultations.returned
        super().__init__(
            webhooks=webhooks,
            commands=commands,
            switchboard=self._switchboard,
            exchange=TwilioExchange(self._switchboard, webhooks),
            outbound=self._outbound,
            listeners=Listeners("TwilioGateway", self._switchboard.inbox),
            workers=workers,
            max_message=max_message,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
        )

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
        return self._listeners.on(event, listener)

    @overload
    def off(self, event: Event[TwilioVoIP] | Literal["voip"], listener: Listener) -> None: ...
    @overload
    def off(self, event: Event[ReceivedSMS] | Literal["sms"], listener: SMSListener) -> None: ...
    def off(self, event: str, listener: Any) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        self._listeners.off(event, listener)

    @property
    def placed(self) -> PlacedCalls:
        """Looks up calls that were placed, at Twilio."""
        return self._outbound.placed

    def _open_media(
        self,
        site: Site,
        fields: Fields,  # noqa: ARG002
    ) -> tuple[Codec, Callable[[SocketWire], MediaSession]]:
        stream = TwilioStream()
        return stream, lambda wire: TwilioSession(self._exchange, stream, wire, site, self._start_timeout_s)


def _warn_of_plain_http(url: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    if parts.scheme == "http" and not near:
        logger.warning("webhook_url is http: Twilio opens media sockets over wss:// only (its error 31922)")
