"""The gateway's WebSocket as an ASGI 3 application, to mount into FastAPI or Starlette.

Source: ASGI specification 3.0, WebSocket; its denial response extension.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.net.asgi import Message, Receive, RequestBody, Send, deny, headers_of, peer_of, respond, serve_lifespan
from dialog.voip.aiosocket import Session
from dialog.voip.asgisocket import AsgiSockets
from dialog.voip.web.messages import SUBPROTOCOL
from dialog.voip.web.stream import WebStream
from dialog.voip.wires import AsgiWire

if TYPE_CHECKING:
    from dialog.voip.web.rtc.offers import Offers

__all__ = ["WebAsgi"]

_TEXT = (("content-type", "text/plain; charset=utf-8"),)


class MakeSession(Protocol):
    """Makes the session of a connection."""

    def __call__(self, stream: WebStream, wire: AsgiWire, remote: str, origin: str, /) -> Session: ...


class WebAsgi:
    """An ASGI application: ``await app(scope, receive, send)``."""

    def __init__(
        self,
        make: MakeSession,
        offers: Offers | None = None,
        *,
        refusal: Callable[[Mapping[str, str]], tuple[int, str] | None],
        max_message: int,
        start_timeout_s: float,
        on_start: Callable[[], Awaitable[None]],
        on_shutdown: Callable[[], Awaitable[None]],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._make = make
        self._offers = offers
        self._refusal = refusal
        self._sockets = AsgiSockets(max_message=max_message, start_timeout_s=start_timeout_s)
        self._on_start = on_start
        self._on_shutdown = on_shutdown
        self._clock = clock

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a socket, WebRTC's offers, the server's lifespan, or tell a request that this is a WebSocket."""
        match scope["type"]:
            case "websocket":
                await self._websocket(scope, receive, send)
            case "http" if self._offers is not None and scope["path"].endswith("/webrtc"):
                await self._answer(self._offers, scope, receive, send)
            case "http":
                await respond(send, 426, _TEXT, b"this is a WebSocket\n")
            case "lifespan":
                await serve_lifespan(receive, send, start=self._on_start, close=self._on_shutdown)
            case _:
                raise NotImplementedError(f"the ASGI scope {scope['type']!r} is not served here")

    async def close(self) -> None:
        """Close the sockets that no call closed; their handlers end them."""
        await self._sockets.close()

    async def _answer(self, offers: Offers, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "OPTIONS"):
            await respond(send, 405, _TEXT, b"offers are posted\n")
            return
        answer = await offers.answer(scope["method"], headers_of(scope), peer_of(scope), RequestBody(receive))
        kind = (("content-type", "application/json"),) if answer.body else ()
        await respond(send, answer.status, (*answer.headers, *kind), answer.body)

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        headers = headers_of(scope)
        refused = self._refusal(headers)
        if refused is not None:
            status, reason = refused
            await deny(scope, send, status, _TEXT, f"{reason}\n".encode())
            return
        offered = scope.get("subprotocols") or ()
        remote, origin = peer_of(scope), headers.get("origin", "")
        stream = WebStream(self._clock.now())
        await self._sockets.serve(
            receive,
            send,
            stream,
            lambda wire: self._make(stream, wire, remote, origin),
            subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else "",
        )
