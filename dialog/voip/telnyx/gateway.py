"""The door through which Telnyx's calls come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar, get_args, overload

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
from dialog.voip.carrier.stream import StreamSession
from dialog.voip.carrier.switchboard import SwitchboardSettings
from dialog.voip.carrier.token import StreamTokens, derive_key
from dialog.voip.inbox import SMSListener
from dialog.voip.listeners import Listeners
from dialog.voip.pacing import Pacing
from dialog.voip.telnyx.commands import TelnyxCommands
from dialog.voip.telnyx.consulting import TelnyxConsultations
from dialog.voip.telnyx.exchange import TelnyxExchange
from dialog.voip.telnyx.outbound import TelnyxOutbound
from dialog.voip.telnyx.rest import TelnyxRest
from dialog.voip.telnyx.signature import TelnyxSignature
from dialog.voip.telnyx.stream import Codec, TelnyxStream, audio_format_of
from dialog.voip.telnyx.switchboard import TelnyxSwitchboard
from dialog.voip.telnyx.voip import TelnyxVoIP
from dialog.voip.telnyx.webhooks import TelnyxWebhooks
from dialog.voip.wires import Codec as WireCodec
from dialog.voip.wires import SocketWire

__all__ = ["TelnyxGateway"]

Listener = Callable[[TelnyxVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)
SMSListenerT = TypeVar("SMSListenerT", bound=SMSListener)

_DEFAULT_PATH = "/telnyx"
_DEFAULT_SETTINGS = CallSettings()
_DEFAULT_PACING = Pacing()
_BUSY = Reject("busy")
_RATES = (8000, 16000, 24000)


class TelnyxGateway(PhoneGateway[TelnyxVoIP]):
    """Takes calls from Telnyx, and emits ``voip`` with a fresh :class:`TelnyxVoIP` for each.

    ::

        gateway = TelnyxGateway(api_key=…, public_key=…, webhook_url="https://voice.example/telnyx")


        @gateway.on("voip")
        def on_voip(voip: TelnyxVoIP) -> None:
            FrontDesk(voip=voip, stt=…, tts=…).activate()


        web.run_app(gateway.app(), port=8080)

    ``webhook_url`` is the webhook of a Call Control application, with API version 2; the media socket lies
    beneath it. Several numbers may share a gateway: ``voip.metadata.to`` tells them apart. It belongs to the
    event loop that serves it.
    """

    VOIP: ClassVar[Event[TelnyxVoIP]] = Event("voip")
    """A call was accepted; once per call, inside the call's scope."""

    SMS: ClassVar[Event[ReceivedSMS]] = Event("sms")
    """A text message has come to ``webhook_url`` + ``/sms``; the text that a listener returns is sent as the answer."""

    def __init__(
        self,
        *,
        api_key: str,
        public_key: str = "",
        connection_id: str = "",
        webhook_url: str | None = None,
        media_url: str | None = None,
        path: str | None = None,
        media_path: str | None = None,
        token_key: bytes | None = None,
        base_url: str | None = None,
        rest_timeout_s: float = 10.0,
        validate: bool = True,
        trust_forwarded_headers: bool = False,
        codec: Codec = "PCMU",
        sample_rate: int = 8000,
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
            api_key: ``KEY…``, from the portal, for commands.
            public_key: Of the account, from the portal; checks the signatures of webhooks.
            connection_id: Of the Call Control application; needed to place calls. Webhooks of others are refused.
            webhook_url: Public URL of the webhook, as configured for the application. Without it, it is
                where each webhook says that Telnyx sent it to, and placing calls and transfers raise MissingPublicURL.
            media_url: Public ``wss://`` URL of the media socket, if it is not ``webhook_url`` + ``/media``.
            path: Local path of the webhook, if it is not that of ``webhook_url`` (``/telnyx`` without one).
            media_path: Local path of the media socket, if it does not lie beneath that of the webhook.
            token_key: Key of the stream tokens, the same in all processes; by default made from ``api_key``.
            base_url: Of the API, instead of Telnyx's.
            rest_timeout_s: Longest time for a command, in seconds.
            validate: Check signatures. Switch it off for experiments only.
            trust_forwarded_headers: Believe ``X-Forwarded-*`` of the proxy in front.
            codec: Of the audio both ways: ``PCMU`` (mu-law), ``PCMA`` (A-law), or ``L16`` (16-bit samples).
            sample_rate: With ``L16``: 8000, 16000 or 24000 Hz.
            resolver: Asked whether to take a call, before anything is spent on it; no Document can be returned.
            resolver_timeout_s: After that the caller hears ``error_text``.
            workers: Run the agents, instead of the listeners for ``voip``. They start and close with the gateway.
            when_busy: What callers are told while no worker has room, or the gateway drains.
            events: Where the events of its calls are published; several gateways may share one.
            stream_parameters: Webhook parameters that also travel with the stream, to another process.
            call_settings: Bounds of a call.
            pacing: How fast :meth:`call` may place calls, and how many there may be at once.
            error_text: Spoken by Telnyx when a call cannot be taken because of an error.
            error_language: Its language.
            max_body: Largest webhook, in bytes.
            max_message: Largest WebSocket message, in bytes.
            body_timeout_s: How long a webhook's body may take.
            start_timeout_s: How long a socket may stay without its ``start`` message.
            close_timeout_s: How long :meth:`close` may take.
            clock: Time of the calls.

        Raises:
            ConfigurationError: A setting is missing, malformed, or contradicts another.
            MissingExtra: The ``telnyx`` extra is not installed.
        """
        if not api_key:
            raise ConfigurationError("TelnyxGateway needs api_key")
        if validate and not public_key:
            raise ConfigurationError("TelnyxGateway needs public_key, to check who sends webhooks")
        if codec not in get_args(Codec):
            raise ConfigurationError(f"codec must be one of {', '.join(get_args(Codec))}, got {codec!r}")
        if sample_rate not in _RATES or (codec != "L16" and sample_rate != _RATES[0]):
            raise ConfigurationError(
                f"sample_rate must be 8000, or with codec='L16' one of {_RATES}, got {sample_rate} with {codec}"
            )
        self.webhook_url: str = webhook_url or ""
        self._audio_format = audio_format_of(codec, sample_rate)
        webhooks = TelnyxWebhooks(
            path=local_path(path, self.webhook_url, _DEFAULT_PATH, media_path=media_path),
            media_path=media_path or "",
            signature=TelnyxSignature(public_key) if validate else None,
            webhook_url=self.webhook_url,
            media_url=media_url or "",
            trust_forwarded=trust_forwarded_headers,
            max_body=max_body,
        )
        rest = TelnyxRest(api_key, base_url=base_url or "", timeout_s=rest_timeout_s)
        commands = TelnyxCommands(rest)
        switchboard = TelnyxSwitchboard(
            SwitchboardSettings(
                account_id=connection_id,
                audio_format=self._audio_format,
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
            StreamTokens(token_key or derive_key(api_key)),
            self._emit,
            codec=codec,
            workers=workers,
            events=events,
            clock=clock,
        )
        outbound = TelnyxOutbound(switchboard, rest, pacing, clock)
        commands.consultations = TelnyxConsultations(switchboard, outbound, rest)
        switchboard.on_bridged = commands.consultations.bridged
        switchboard.on_played = commands.consultations.played
        super().__init__(
            webhooks=webhooks,
            commands=commands,
            switchboard=switchboard,
            exchange=TelnyxExchange(switchboard, webhooks),
            outbound=outbound,
            listeners=Listeners("TelnyxGateway", switchboard.inbox),
            workers=workers,
            max_message=max_message,
            body_timeout_s=body_timeout_s,
            start_timeout_s=start_timeout_s,
        )

    @overload
    def on(self, event: Event[TelnyxVoIP] | Literal["voip"]) -> Callable[[ListenerT], ListenerT]: ...  # type: ignore[overload-overlap]  # no name is both
    @overload
    def on(self, event: Event[TelnyxVoIP] | Literal["voip"], listener: ListenerT) -> ListenerT: ...
    @overload
    def on(self, event: Event[ReceivedSMS] | Literal["sms"]) -> Callable[[SMSListenerT], SMSListenerT]: ...
    @overload
    def on(self, event: Event[ReceivedSMS] | Literal["sms"], listener: SMSListenerT) -> SMSListenerT: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call ``listener`` with the :class:`TelnyxVoIP` of every call, or with every text message; also a decorator.

        If one for calls raises, the caller hears ``error_text`` and the call ends. One for ``sms`` may be a coroutine
        function; the text that it returns within 10 s is sent as the answer, ``None`` is none.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        return self._listeners.on(event, listener)

    @overload
    def off(self, event: Event[TelnyxVoIP] | Literal["voip"], listener: Listener) -> None: ...
    @overload
    def off(self, event: Event[ReceivedSMS] | Literal["sms"], listener: SMSListener) -> None: ...
    def off(self, event: str, listener: Any) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        self._listeners.off(event, listener)

    def _open_media(
        self,
        site: Site,
        fields: Fields,  # noqa: ARG002
    ) -> tuple[WireCodec, Callable[[SocketWire], MediaSession]]:
        stream = TelnyxStream(self._audio_format)
        return stream, lambda wire: StreamSession(self._exchange, stream, wire, site, self._start_timeout_s)
