"""Media sockets on aiohttp, below its own WebSockets: every message is acted on in the step that read it."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any, Protocol, cast

from aiohttp import web

from dialog.net.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameError, FrameReader, accept_key
from dialog.scope import CallScope
from dialog.voip.wires import CLOSE_S, AiohttpWire, Codec

__all__ = ["AiohttpSockets", "Session"]


class Session(Protocol):
    """What is said on one media socket."""

    @property
    def scope(self) -> CallScope | None:
        """Of the call, once it is known and here."""
        ...

    def receive(self, text: str | bytes) -> None:
        """Take a text frame."""

    def receive_binary(self, data: bytes) -> None:
        """Take a binary frame."""

    def refuse(self, code: int, reason: str) -> None:
        """Close the socket because of what the other side did."""

    def peer_closes(self, code: int) -> None:
        """The other side has said that it closes the socket; 1005 if it gave no code."""

    def closed(self) -> None:
        """The socket is closed; called once, last."""

    def lose_patience(self) -> None:
        """Nothing has begun in time."""


class AiohttpSockets:
    """The sockets that are open.

    Args:
        max_message: Largest message, in bytes.
        start_timeout_s: How long one may stay before something begins.
    """

    def __init__(self, *, max_message: int, start_timeout_s: float) -> None:
        self._max_message = max_message
        self._start_timeout_s = start_timeout_s
        self.open: dict[asyncio.Task[Any], AiohttpWire] = {}
        """By the task that reads each."""

    async def serve(
        self, request: web.Request, codec: Codec, make: _MakeSession, *, subprotocol: str = ""
    ) -> web.StreamResponse:
        """Upgrade a request and serve its socket until it is closed; ``make`` gets the wire."""
        upgraded = _upgrade(request, subprotocol)
        await upgraded.prepare(request)
        if request.transport is None:
            return upgraded  # gone again
        wire = AiohttpWire(codec, request.transport)
        session = make(wire)
        socket = _Socket(session, wire, self._max_message)
        handler = asyncio.current_task()
        assert handler is not None
        self.open[handler] = wire
        patience = asyncio.get_running_loop().call_later(self._start_timeout_s, session.lose_patience)
        try:
            wire.start()
            request.protocol.set_parser(cast("Any", socket))
            await socket.over
        finally:
            patience.cancel()
            session.closed()
            wire.finish()
            del self.open[handler]
        return upgraded

    async def close(self) -> None:
        """Close the sockets that no call closed, and wait until all are."""
        for wire in self.open.values():
            wire.close()
        handlers = set(self.open) - {asyncio.current_task()}
        if handlers:
            await asyncio.wait(handlers, timeout=2 * CLOSE_S)


class _MakeSession(Protocol):
    def __call__(self, wire: AiohttpWire, /) -> Session: ...


class _Socket:
    """What aiohttp hands the bytes behind an upgrade to, as it does to its own parser of WebSockets.

    Every message is acted on in the step that read it, in the context of its call.
    """

    __slots__ = ("_context", "_in_call", "_reader", "_session", "_wire", "over")

    def __init__(self, session: Session, wire: AiohttpWire, max_message: int) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Nothing more comes."""
        self._session = session
        self._wire = wire
        self._reader = FrameReader(self._receive, masked=True, max_message=max_message)
        self._context = copy_context()
        self._in_call = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes came."""
        self._wire.heard = True
        try:
            self._context.run(self._reader.feed, data)
        except FrameError as exc:
            self._session.refuse(exc.code, str(exc))
        except Exception as exc:  # raised where the handler waits
            self._reader.stop()
            if not self.over.done():
                self.over.set_exception(exc)
        return False, b""

    def feed_eof(self) -> None:
        """The connection is gone."""
        self._reader.stop()
        if not self.over.done():
            self.over.set_result(None)

    def _receive(self, opcode: int, data: str | bytes) -> None:
        if opcode == TEXT:
            self._session.receive(data)
            if not self._in_call:
                self._enter()
        elif isinstance(data, str):
            return
        elif opcode == BINARY:
            self._session.receive_binary(data)
            if not self._in_call:
                self._enter()
        elif opcode == PONG:
            self._wire.receive_pong()
        elif opcode == CLOSE:
            self._session.peer_closes(int.from_bytes(data[:2]) if data else 1005)
            self.feed_eof()
        elif opcode == PING:
            self._wire.answer_ping(data)

    def _enter(self) -> None:
        """From when the call is known on, whatever listeners create belongs to it."""
        if self._session.scope is not None:
            self._in_call = True
            CallScope.adopt(self._session.scope)


def _upgrade(request: web.Request, subprotocol: str) -> web.StreamResponse:
    """Return the answer that makes a request a WebSocket (RFC 6455, section 4.2.2)."""
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    headers = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Accept": accept}
    if subprotocol:
        headers["Sec-WebSocket-Protocol"] = subprotocol
    answer = web.StreamResponse(status=101, headers=headers)
    answer.force_close()  # it never serves another request
    return answer
