"""The door through which browsers, apps and scripts come in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload
from urllib.parse import urlsplit
from uuid import UUID

from aiohttp import web

from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError, MissingExtra, StateError
from dialog.net.cutoff import cut_off
from dialog.net.origins import is_own
from dialog.participant import Event
from dialog.voip.admission import Resolver, Workers
from dialog.voip.aiosocket import AiohttpSockets
from dialog.voip.call import CallSettings
from dialog.voip.listeners import Listeners
from dialog.voip.peers import MediaWire, Peers
from dialog.voip.refusals import Refusals
from dialog.voip.served import ServedGateway
from dialog.voip.web.asgi import WebAsgi
from dialog.voip.web.exchange import WebExchange
from dialog.voip.web.messages import SUBPROTOCOL
from dialog.voip.web.rtc.settings import WebRTC, has_aiortc
from dialog.voip.web.session import WebSession
from dialog.voip.web.stream import WebStream
from dialog.voip.web.switchboard import WebSettings, WebSwitchboard
from dialog.voip.web.tokens import SessionSecrets, SessionTokens
from dialog.voip.web.voip import WebVoIP

if TYPE_CHECKING:
    from dialog.voip.web.rtc.offers import Offers

__all__ = ["WebGateway"]

logger = logging.getLogger(__name__)

Listener = Callable[[WebVoIP], object]
ListenerT = TypeVar("ListenerT", bound=Listener)

_DEFAULT_SETTINGS = CallSettings(lost_s=15.0, never_connected_s=20.0)


class WebGateway(ServedGateway[WebVoIP, WebSwitchboard, WebExchange]):
    """Takes calls over the client protocol, and emits ``voip`` with a fresh :class:`WebVoIP` for each.

    ::

        gateway = WebGateway(token_key=…)


        @gateway.on("voip")
        def on_voip(voip: WebVoIP) -> None:
            FrontDesk(voip=voip, stt=…, tts=…).activate()


        app = web.Application()  # the host's own, which knows its users
        gateway.add_routes(app)

    A page gets its token from the host (:meth:`token`), and opens a WebSocket at ``path``. The gateway belongs to the
    event loop that serves it. Several that share one address need the same ``token_key``, and :meth:`use_peers` to find
    each other's sessions.
    """

    VOIP: ClassVar[Event[WebVoIP]] = Event("voip")
    """A session was accepted; once per call, inside the call's scope."""

    def __init__(
        self,
        *,
        token_key: bytes | None = None,
        path: str = "/ws/realtime",
        agents: Sequence[str] = (),
        origins: Sequence[str] = (),
        allow_anybody: bool = False,
        resolver: Resolver | None = None,
        resolver_timeout_s: float = 3.0,
        workers: Workers | None = None,
        events: CallEvents | None = None,
        call_settings: CallSettings = _DEFAULT_SETTINGS,
        recordings: Path | str | None = None,
        webrtc: WebRTC | None = None,
        max_message: int = 65_536,
        start_timeout_s: float = 10.0,
        close_timeout_s: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Check and keep the settings.

        Args:
            token_key: Signs the tokens; the same in all processes. Unless given, a random one: then this very gateway
                must issue them.
            path: Of the WebSocket.
            agents: The names that a client may ask for, the first being the one for whoever asks for none. Empty:
                any name is passed on.
            origins: Pages of other hosts that may connect, as ``https://app.example``. Those of the host itself may;
                programs, which send no ``Origin``, may too: it is the token that lets them in.
            allow_anybody: Start sessions without a token, for whoever reaches the server: on your own machine, or
                when the ``resolver`` decides.
            resolver: Asked whether to take a session, before anything is spent on it.
            resolver_timeout_s: After that the session is refused.
            workers: Run the agents, instead of the listeners for ``voip``. They start and close with the gateway.
            events: Where the events of its calls are published; several gateways may share one.
            call_settings: Bounds of a call. ``lost_s`` is how long a client whose connection broke may take to resume.
            recordings: Directory for recordings, which calls ask for by ``voip.start_recording()`` or
                ``AgentSettings(record=True)``: a stereo WAV file for each, caller left.
            webrtc: Let clients come by WebRTC, too; they ``POST`` their offer to ``path`` + ``/webrtc``.
            max_message: Largest WebSocket message, in bytes.
            start_timeout_s: How long a socket may stay without a session.
            close_timeout_s: How long :meth:`close` may take.
            clock: Time of the calls.

        Raises:
            ConfigurationError: A setting is malformed.
            MissingExtra: ``webrtc`` is given, and its extra is not installed.
        """
        if not path.startswith("/"):
            raise ConfigurationError(f"path must start with a slash, got {path!r}")
        self.path: str = path
        self.agents: tuple[str, ...] = tuple(agents)
        self._origins = frozenset(_origin(each) for each in origins)
        key = token_bytes(32) if token_key is None else token_key
        self._tokens = SessionTokens(key)
        board = WebSwitchboard(
            WebSettings(
                agents=self.agents,
                allow_anybody=allow_anybody,
                resolver=resolver,
                resolver_timeout_s=resolver_timeout_s,
                call=call_settings,
                close_timeout_s=close_timeout_s,
                recordings=None if recordings is None else Path(recordings),
            ),
            self._tokens,
            SessionSecrets(key),
            self._emit,
            workers=workers,
            events=events,
            clock=clock,
        )
        super().__init__(
            board=board,
            exchange=WebExchange(board),
            listeners=Listeners[WebVoIP]("WebGateway"),
            workers=workers,
        )
        self._refusals = Refusals()
        self._sockets = AiohttpSockets(max_message=max_message, start_timeout_s=start_timeout_s)
        self._offers: Offers | None = None
        if webrtc is not None:
            self._offers = self._make_offers(webrtc, max_message, start_timeout_s, clock)
        self._asgi = WebAsgi(
            self._session,
            self._offers,
            refusal=self._refusal,
            max_message=max_message,
            start_timeout_s=start_timeout_s,
            on_start=self.start,
            on_shutdown=self.close,
            clock=clock,
        )
        if workers is not None and workers.peers is not None:
            self._exchange.share(workers.peers)

    def __repr__(self) -> str:
        return f"<WebGateway {self.path} with {len(self.calls)} calls>"

    # Listeners.

    @overload
    def on(self, event: Event[WebVoIP] | Literal["voip"]) -> Callable[[ListenerT], ListenerT]: ...
    @overload
    def on(self, event: Event[WebVoIP] | Literal["voip"], listener: ListenerT) -> ListenerT: ...
    def on(self, event: str, listener: Any = None) -> Any:
        """Call ``listener`` with the :class:`WebVoIP` of every call; also a decorator.

        If a listener raises, the client is told of an error and the call ends.

        Raises:
            ValueError: There is no such event.
            TypeError: ``listener`` is a coroutine function, which nobody would wait for.
        """
        return self._listeners.on(event, listener)

    # Letting clients in.

    def token(
        self,
        *,
        user: str = "",
        agent: str = "",
        parameters: Mapping[str, str] | None = None,
        account: str = "",
        session: str = "",
        call_id: UUID | None = None,
        life_s: float = 60.0,
    ) -> str:
        """A token for one session, to be handed to a user of yours over a connection on which you know them.

        Args:
            user: Who that is: ``voip.user``, and what your ``resolver`` sees as ``offer.metadata.from_``.
            agent: The only agent that it is good for; empty: any.
            parameters: What the agent is to know: ``voip.metadata.parameter("plan")``.
            account: Whose session it is, where you serve several: ``voip.metadata.account_id``.
            session: What it is to be like, in JSON: see :attr:`~dialog.message.CallMetadata.session`. Whoever has the
                token can read it.
            call_id: Of the call that it starts; a new one unless given.
            life_s: How long the session may take to start, an hour at most.

        Raises:
            ConfigurationError: ``life_s`` is out of its range, or all that is too long for a token.
        """
        return self._tokens.issue(
            user=user,
            agent=agent,
            parameters=parameters,
            account=account,
            session=session,
            call_id=call_id,
            life_s=life_s,
        )

    def trusts(self, origin: str, host: str) -> bool:
        """Whether a page of ``origin`` may use what is served as ``host``: it is its own, or a setting names it.

        Browsers send cookies and open WebSockets for any page; this keeps other sites' pages out.
        """
        if not origin:
            return True  # no browser
        return is_own(origin, host) or origin.lower() in self._origins

    # Serving.

    def asgi(self) -> WebAsgi:
        """An ASGI 3 application: the WebSocket, at whatever path it is mounted.

        Mounted into another one, :meth:`start` and :meth:`close` are up to the host's lifespan.
        """
        return self._asgi

    def use_peers(self, peers: Peers, *, media_url: str = "") -> None:
        """Share sessions with other gateways: whoever comes back to one of theirs is passed on to them.

        Before :meth:`start`; the peers start and close with the gateway, and all have the same ``token_key``. Without
        it they are those of a fleet, if the workers are one. ``media_url`` is for carriers.

        Raises:
            StateError: The gateway has started.
        """
        del media_url
        if self._started:
            raise StateError("a gateway gets its peers before it starts")
        self._exchange.share(peers)

    @property
    def webrtc(self) -> bool:
        """Whether clients may come by WebRTC."""
        return self._offers is not None

    # Calls.

    @property
    def refusals(self) -> Refusals:
        """How many sockets were refused."""
        return self._refusals

    def get(self, call: UUID | str) -> WebVoIP | None:
        """A call by its ``call_id``; ``None`` once nothing of it is left."""
        try:
            found = self._board.find(call if isinstance(call, UUID) else UUID(call))
        except ValueError:
            return None
        if found is None:
            return None
        assert isinstance(found.voip, WebVoIP)
        return found.voip

    def download_recording(self, url: str) -> AsyncIterator[bytes]:
        """The bytes behind a RECORDING_URL, also after its call is gone.

        Raises:
            CarrierError: It is not there.
            NotSupportedError: Nothing is recorded here, or not this.
        """
        return self._board.download(url)

    def _route(self, app: web.Application) -> None:
        app.router.add_get(self.path, self._serve)
        if self._offers is not None:
            for method in ("POST", "OPTIONS"):
                app.router.add_route(method, f"{self.path}/webrtc", self._answer)

    async def _close_connections(self) -> None:
        await self._sockets.close()
        await self._asgi.close()
        if self._offers is not None:
            await self._offers.close()
        await self._close_peers()

    def _refusal(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Why an upgrade is not granted: an HTTP status, and a sentence."""
        refused = None
        if self._closed:
            refused = 503, "the gateway is closing"
        elif not self.trusts(headers.get("origin", ""), headers.get("host", "")):
            refused = 403, "pages of this origin may not connect"
        if refused is not None:
            self._refusals.sockets[refused[0]] += 1
            logger.warning("a WebSocket was refused with %d: %s", *refused)
        return refused

    def _make_offers(self, webrtc: WebRTC, max_message: int, start_timeout_s: float, clock: Clock) -> Offers:
        if not has_aiortc():
            raise MissingExtra("aiortc", "webrtc")
        from dialog.voip.web.rtc.offers import Offers

        return Offers(
            webrtc,
            self._session,
            refusal=self._refusal,
            refused=self._count,
            max_message=max_message,
            start_timeout_s=start_timeout_s,
            clock=clock,
        )

    def _count(self, code: int, reason: str) -> None:
        self._refusals.sockets[code] += 1
        logger.warning("an offer was refused with %d: %s", code, reason)

    def _session(self, stream: WebStream, wire: MediaWire, remote: str, origin: str) -> WebSession:
        about = (("remote", remote), ("origin", origin))
        return WebSession(self._exchange, stream, wire, about, self._refusals)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        refused = self._refusal(headers)
        if refused is not None:
            return web.Response(status=refused[0], text=refused[1] + "\n")
        if not web.WebSocketResponse(protocols=(SUBPROTOCOL,), compress=False).can_prepare(request):
            return web.Response(status=426, text="this is a WebSocket\n", headers={"Upgrade": "websocket"})
        stream = WebStream(self._board.clock.now())
        remote, origin = request.remote or "", headers.get("origin", "")
        offered = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
        return await self._sockets.serve(
            request,
            stream,
            lambda wire: self._session(stream, wire, remote, origin),
            subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else "",
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert self._offers is not None
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await self._offers.answer(request.method, headers, request.remote or "", request.content.iter_any())
        kind = "application/json" if answer.body else None
        fields = dict(answer.headers)
        response = web.Response(status=answer.status, body=answer.body or None, headers=fields, content_type=kind)
        if answer.status in (408, 413):
            await cut_off(request, response)
        return response


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise ConfigurationError(f"origins are like https://app.example, got {text!r}")
    return f"{parts.scheme}://{parts.netloc}".lower()
