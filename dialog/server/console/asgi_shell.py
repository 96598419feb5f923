"""The console as an ASGI 3 application.

Source: ASGI specification 3.0, HTTP and WebSocket; its denial response extension.
"""

from __future__ import annotations

import logging

from dialog.errors import RemoteProtocolError
from dialog.net.asgi import Message, Receive, RequestBody, Send, headers_of, local_path, peer_of, query_of
from dialog.net.bodies import read_body
from dialog.server.api.asgi_answer import deny_socket, send_answer
from dialog.server.api.core import refused
from dialog.server.api.problems import Problem
from dialog.server.console.core import Console, Visit

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
            settings = self._console.settings
            body = await read_body(
                RequestBody(receive), Problem, limit=settings.max_body, timeout_s=settings.body_timeout_s
            )
            answer = await self._console.answer(visit, body)
        except Problem as problem:
            answer = refused(problem)
        except Exception:
            logger.exception("%s of the console failed: %s", visit.method, visit.path)
            answer = refused(Problem(500, "something went wrong; the log says what"))
        await send_answer(answer, receive, send)

    async def _attend(self, scope: Message, visit: Visit, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            visitor = self._console.admit(visit)
        except Problem as problem:
            await deny_socket(scope, problem, send)
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


def _visit(scope: Message, root: str) -> Visit:
    mounted = scope.get("root_path", "").rstrip("/")
    return Visit(
        method=scope.get("method", "GET"),
        path=local_path(scope)[len(root) :],
        query=query_of(scope),
        headers=headers_of(scope),
        peer=peer_of(scope),
        base=f"{mounted}{root}",
        secure=scope.get("scheme") in ("https", "wss"),
    )
