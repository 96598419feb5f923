"""What an application and its ASGI server tell each other, whatever is served.

Source: ASGI specification 3.0, HTTP and WebSocket, lifespan protocol; its denial response extension.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl

from dialog.net.presence import while_there

__all__ = [
    "Message",
    "Receive",
    "RequestBody",
    "Send",
    "deny",
    "gone",
    "headers_of",
    "local_path",
    "peer_of",
    "query_of",
    "respond",
    "serve_lifespan",
    "stream",
]

logger = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


def headers_of(scope: Message) -> dict[str, str]:
    """The headers of a request, with names in lower case; of one that comes twice the first."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return headers


def query_of(scope: Message) -> dict[str, str]:
    """The fields of a request's query."""
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))


def peer_of(scope: Message) -> str:
    """The address that a request comes from; empty if the server does not know it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def local_path(scope: Message) -> str:
    """The path beneath where the application is mounted: servers differ in whether the path includes that."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"


class RequestBody:
    """The pieces of a request's body, to iterate over once.

    Raises:
        ConnectionResetError: From the iteration: the request broke off.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._more:
            raise StopAsyncIteration
        message = await self._receive()
        if message["type"] != "http.request":
            raise ConnectionResetError("the request broke off")
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


async def respond(send: Send, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
    """Answer a request."""
    await _answer(send, "http.response", status, headers, body)


async def stream(
    receive: Receive, send: Send, status: int, headers: Iterable[tuple[str, str]], pieces: AsyncIterator[bytes]
) -> None:
    """Answer a request piece by piece, and close the generator when that is done or nobody is there any more."""
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await while_there(_write(pieces, send), gone(receive, "http.disconnect"))


async def deny(scope: Message, send: Send, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
    """Refuse a WebSocket that was not accepted: with an answer, or 403 of the server's own, if it knows no other."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _answer(send, "websocket.http.response", status, headers, body)
    else:
        await send({"type": "websocket.close", "code": 1008})


async def gone(receive: Receive, leaves: str) -> None:
    """Wait for the message, of the type ``leaves``, which tells that the peer is gone."""
    while (await receive())["type"] != leaves:
        pass


async def _answer(send: Send, kind: str, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
    encoded = _encoded(headers)
    if status != 204:
        encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": f"{kind}.start", "status": status, "headers": encoded})
    await send({"type": f"{kind}.body", "body": body})


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]


async def _write(pieces: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await pieces.aclose()  # type: ignore[attr-defined]  # it is a generator


async def serve_lifespan(
    receive: Receive, send: Send, *, start: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]
) -> None:
    """Run ``start`` when the server starts and ``close`` when it ends.

    A ``start`` that raises stops the server, with the reason: servers take an exception here for an application
    without a lifespan, and would serve one that is not ready.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await start()
            except Exception as exc:
                logger.exception("what is served could not be started")
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await close()
            await send({"type": "lifespan.shutdown.complete"})
            return
