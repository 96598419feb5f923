"""The door for calls that carriers bring as a media socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar, overload

from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError
from dialog.participant import Event
from dialog.voip.admission import Reject, Resolver, Workers
from dialog.voip.call import CallSettings
from dialog.voip.carrier.gateway import PhoneGateway, local_path
from dialog.voip.carrier.http import Fields, Site
from dialog.voip.carrier.session import MediaSession
from dialog.voip.carrier.switchboard import SwitchboardSettings
from dialog.voip.carrier.token import StreamTokens, derive_key
from dialog.voip.listeners import Listeners
from dialog.voip.streams.commands import StreamCommands
from dialog.voip.streams.detect import DetectedStream
from dialog.voip.streams.session import DetectedSession
from dialog.voip.streams.switchboard import StreamExchange, StreamSwitchboard
from dialog.voip.streams.voip import StreamVoIP
from dialog.voip.streams.webhooks import StreamAddress
from dialog.voip.wires import Codec, SocketWire

__all__ = ["StreamGateway"]

Listener = Callable[[StreamVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)

_DEFAULT_SETTINGS = CallSettings()
_SHORTEST_TOKEN = 16


class StreamGateway(PhoneGateway[StreamVoIP]):
    """Takes calls whose carrier opens a media socket for each, and emits ``voip`` with a fresh :class:`StreamVoIP`.

    ::

        gateway = StreamGateway(token=…)


        @gateway.on("voip")
        def on_voip(voip: StreamVoIP) -> None:
            FrontDesk(voip=voip, stt=…, tts=…).activate()


        web.run_app(gateway.app(), port=8080)

    The carrier is given ``wss://host/stream?token=…``; whose stream it is is detected from its first message: Plivo's,
    Exotel's, or one in the protocol of Twilio's Media Streams. What else is in the address (``&from=…&to=…``) and in
    the start of the stream are the call's parameters. It belongs to the event loop that serves it.
    """

    VOIP: ClassVar[Event[StreamVoIP]] = Event("voip")
    """A call was accepted; once per call, inside the call's scope."""

    def __init__(
        self,
        *,
        token: str,
        path: str = "/stream",
        resolver: Resolver | None = None,
        resolver_timeout_s: float = 3.0,
        workers: Workers | None = None,
        events: CallEvents | None = None,
        call_settings: CallSettings = _DEFAULT_SETTINGS,
        max_message: int = 262_144,
        start_timeout_s: float = 10.0,
        close_timeout_s: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Check and keep the settings; nothing is connected.

        Args:
            token: A secret of 16 characters or more, in the address of the socket or as the password of its user.
            path: Local path of the media socket.
            resolver: Asked whether to take a call; all but ``Accept`` closes its socket.
            resolver_timeout_s: After that the socket is closed.
            workers: Run the agents, instead of the listeners for ``voip``. They start and close with the gateway.
            events: Where the events of its calls are published; several gateways may share one.
            call_settings: Bounds of a call.
            max_message: Largest WebSocket message, in bytes.
            start_timeout_s: How long a socket may stay without its ``start`` message.
            close_timeout_s: How long :meth:`close` may take.
            clock: Time of the calls.

        Raises:
            ConfigurationError: The token is too short, or the path is none.
        """
        if len(token) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"StreamGateway needs a token of {_SHORTEST_TOKEN} characters or more: secrets.token_urlsafe(32)"
            )
        address = StreamAddress(token=token, path=local_path(path, "", "/stream", media_path=None))
        commands = StreamCommands()
        switchboard = StreamSwitchboard(
            SwitchboardSettings(
                account_id="",
                resolver=resolver,
                resolver_timeout_s=resolver_timeout_s,
                call=call_settings,
                when_busy=Reject("busy"),
                close_timeout_s=close_timeout_s,
            ),
            commands,
            StreamTokens(derive_key(token)),
            self._emit,
            workers=workers,
            events=events,
            clock=clock,
        )
        super().__init__(
            webhooks=address,
            commands=commands,
            switchboard=switchboard,
            exchange=StreamExchange(switchboard, address),
            outbound=None,
            listeners=Listeners("StreamGateway"),
            workers=workers,
            max_message=max_message,
            body_timeout_s=5.0,
            start_timeout_s=start_timeout_s,
        )

    @overload
    def on(self, event: Event[StreamVoIP] | Literal["voip"]) -> Callable[[ListenerT], ListenerT]: ...
    @overload
    def on(self, event: Event[StreamVoIP] | Literal["voip"], listener: ListenerT) -> ListenerT: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call ``listener`` with the :class:`StreamVoIP` of every call; also a decorator.

        If one raises, the call's socket is closed.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        return self._listeners.on(event, listener)

    def _open_media(self, site: Site, fields: Fields) -> tuple[Codec, Callable[[SocketWire], MediaSession]]:
        stream = DetectedStream()
        return stream, lambda wire: DetectedSession(
            self._exchange, stream, wire, site, self._start_timeout_s, fields=fields
        )
