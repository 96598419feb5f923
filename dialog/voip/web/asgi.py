"""The gateway's WebSocket as an ASGI 3 application, to mount into FastAPI or Starlette.

Source: ASGI specification 3.0, WebSocket; its denial response extension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import LimitError
from dialog.keyed import BodyBuffer
from dialog.scope import CallScope
from dialog.voip.aiosocket import Session
from dialog.voip.lifespan import Message, Receive, Send, serve_lifespan
from dialog.voip.web.messages import SUBPROTOCOL
from dialog.voip.web.stream import WebStream
from dialog.voip.wires import CLOSE_S, AsgiWire

if TYPE_CHECKING:
    from dialog.voip.web.rtc.offers import Offers

__all__ = ["WebAsgi"]

_BODY_S = 5.0


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
        self._max_message = max_message
        self._start_timeout_s = start_timeout_s
        self._on_start = on_start
        self._on_shutdown = on_shutdown
        self._clock = clock
        self._wires: set[AsgiWire] = set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a socket, WebRTC's offers, the server's lifespan, or tell a request that this is a WebSocket."""
        match scope["type"]:
            case "websocket":
                await self._websocket(scope, receive, send)
            case "http" if self._offers is not None and scope["path"].endswith("/webrtc"):
                await self._answer(self._offers, scope, receive, send)
            case "http":
                await _respond(send, "http.response", 426, "this is a WebSocket")
            case "lifespan":
                await serve_lifespan(receive, send, start=self._on_start, close=self._on_shutdown)
            case _:
                raise NotImplementedError(f"the ASGI scope {scope['type']!r} is not served here")

    async def close(self) -> None:
        """Close the sockets that no call closed; their handlers end them."""
        for wire in tuple(self._wires):
            wire.close()

    async def _answer(self, offers: Offers, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "OPTIONS"):
            await _respond(send, "http.response", 405, "offers are posted")
            return
        buffer = BodyBuffer(offers.max_message)
        try:
            async with asyncio.timeout(_BODY_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        return  # it broke off
                    buffer.add(message.get("body", b""))
                    more = message.get("more_body", False)
        except LimitError as exc:
            await _respond(send, "http.response", 413, str(exc))
            return
        except TimeoutError:
            await _respond(send, "http.response", 408, f"the offer did not come within {_BODY_S:g} s")
            return
        headers = _headers(scope)
        client = scope.get("client") or ("", 0)
        answer = await offers.answer(scope["method"], headers, str(client[0]), buffer.bytes())
        fields = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        if answer.body:
            fields.append((b"content-type", b"application/json"))
        fields.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body})

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        headers = _headers(scope)
        refused = self._refusal(headers)
        if refused is not None:
            if "websocket.http.response" in (scope.get("extensions") or {}):
                await _respond(send, "websocket.http.response", *refused)
            else:
                await send({"type": "websocket.close", "code": 1008})  # the server answers 403
            return
        offered = scope.get("subprotocols") or ()
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None})
        wire = AsgiWire(stream := WebStream(self._clock.now()), send)
        client = scope.get("client") or ("", 0)
        session = self._make(stream, wire, str(client[0]), headers.get("origin", ""))
        self._wires.add(wire)
        writer = asyncio.create_task(wire.run(), name="write to a client")
        patience = asyncio.get_running_loop().call_later(self._start_timeout_s, session.lose_patience)
        try:
            await self._read(receive, session, wire)
        finally:
            patience.cancel()
            session.closed()
            self._wires.discard(wire)
            await asyncio.wait((writer,), timeout=CLOSE_S)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _read(self, receive: Receive, session: Session, wire: AsgiWire) -> None:
        entered = False
        while not wire.closed:
            message = await receive()
            if message["type"] != "websocket.receive":
                session.peer_closes(int(message.get("code") or 1005))
                wire.peer_closed()
                return
            text, data = message.get("text"), message.get("bytes")
            size = len(text if text is not None else data or b"")
            if size > self._max_message:
                session.refuse(1009, f"a message of {size} characters came, more than {self._max_message}")
            elif text is not None:
                session.receive(text)
            elif data is not None:
                session.receive_binary(data)
            if not entered and session.scope is not None:
                entered = True
                CallScope.adopt(session.scope)  # whatever listeners create belongs to the call


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _respond(send: Send, kind: str, status: int, text: str) -> None:
    body = text.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
