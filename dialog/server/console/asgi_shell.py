"""The console as an ASGI 3 application.

Source: ASGI specification 3.0, HTTP and WebSocket; its denial response extension.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from dialog.errors import LimitError, RemoteProtocolError
from dialog.keyed import BodyBuffer
from dialog.server.api.problems import Problem
from dialog.server.console.core import Console, Visit, refused
from dialog.voip.lifespan import Message, Receive, Send

__all__ = ["ConsoleAsgi"]

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 4096


class ConsoleAsgi:
    """Serves what lies beneath the console's path; whoever mounts it says how much of the path that is."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def __call__(self, scope: Message, receive: Receive, send: Send, root: str) -> None:
        """Serve a request or a socket; ``root`` is the console's own path below where the service is mounted."""
        visit = _visit(scope, root)
        if scope["type"] == "websocket":
            await self._attend(scope, visit, receive, send)
        else:
            await self._respond(visit, receive, send)

    async def _respond(self, visit: Visit, receive: Receive, send: Send) -> None:
        try:
            answer = await self._console.answer(visit, await self._body(receive))
        except Problem as problem:
            answer = refused(problem)
        except Exception:
            logger.exception("%s of the console failed: %s", visit.method, visit.path)
            answer = refused(Problem(500, "something went wrong; the log says what"))
        headers = [*answer.headers, ("Content-Type", answer.content_type)]
        if answer.stream is None:
            headers.append(("Content-Length", str(len(answer.body))))
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        if answer.stream is None:
            await send({"type": "http.response.body", "body": answer.body})
        else:
            await _stream(answer.stream, receive, send)

    async def _attend(self, scope: Message, visit: Visit, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            visitor = self._console.admit(visit)
        except Problem as problem:
            if "websocket.http.response" in (scope.get("extensions") or {}):
                await send({"type": "websocket.http.response.start", "status": problem.status, "headers": []})
                await send({"type": "websocket.http.response.body", "body": problem.to_json()})
            else:
                await send({"type": "websocket.close", "code": 1008})  # the server answers 403
            return
        await send({"type": "websocket.accept"})
        socket = _Socket(receive, send)
        try:
            await self._console.attend(visitor, socket)
        except RemoteProtocolError as exc:
            logger.warning("%s", exc)
            socket.code = 1008
        except Exception as exc:  # each server has its own way to say that the page is gone
            logger.info("a page of the console has left: %r", exc)
            socket.closed = True
        if not socket.closed:
            await send({"type": "websocket.close", "code": socket.code})

    async def _body(self, receive: Receive) -> bytes:
        settings = self._console.settings
        buffer = BodyBuffer(settings.max_body)
        try:
            async with asyncio.timeout(settings.body_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Problem(400, "the request broke off")
                    buffer.add(message.get("body", b""))
                    more = message.get("more_body", False)
        except LimitError as exc:
            raise Problem(413, str(exc)) from exc
        except TimeoutError as exc:
            raise Problem(408, "the body took too long") from exc
        return buffer.bytes()


class _Socket:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.closed = False
        self.code = 1000

    async def send_text(self, text: bytes) -> None:
        await self._send({"type": "websocket.send", "text": text.decode()})

    async def send_bytes(self, data: bytes) -> None:
        await self._send({"type": "websocket.send", "bytes": data})

    async def receive(self) -> str | None:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self.closed = True
            return None
        text: str | None = message.get("text")
        if text is None or len(text) > _MAX_MESSAGE:
            raise RemoteProtocolError("a page of the console sent what is no wish")
        return text


async def _stream(stream: AsyncIterator[bytes], receive: Receive, send: Send) -> None:
    leaving = asyncio.create_task(_gone(receive), name="whether a page leaves")
    writing = asyncio.create_task(_write(stream, send), name="a recording for a page")
    try:
        await asyncio.wait((leaving, writing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (leaving, writing):
            task.cancel()
        await asyncio.wait((leaving, writing))
    if not writing.cancelled() and writing.exception() is not None:
        logger.info("a page has left: %r", writing.exception())


async def _write(stream: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _visit(scope: Message, root: str) -> Visit:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    client = scope.get("client")
    mounted = scope.get("root_path", "").rstrip("/")
    path: str = scope["path"]
    if mounted and path.startswith(f"{mounted}/"):
        path = path[len(mounted) :]
    return Visit(
        method=scope.get("method", "GET"),
        path=path[len(root) :],
        query=dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        headers=headers,
        peer=client[0] if client else "",
        base=f"{mounted}{root}",
        secure=scope.get("scheme") in ("https", "wss"),
    )
