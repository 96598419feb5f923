"""A whole service as an ASGI 3 application: probes, REST API, webhooks and media sockets.

Source: ASGI specification 3.0, HTTP and WebSocket; its denial response extension.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from dialog.errors import LimitError, MissingExtra
from dialog.keyed import BodyBuffer
from dialog.server.api.core import Answer, HttpRequest
from dialog.server.api.cors import allowed_origin, cors_headers, preflight
from dialog.server.api.feeds import Feed
from dialog.server.api.problems import Problem
from dialog.server.console.asgi_shell import ConsoleAsgi
from dialog.voip.lifespan import Message, Receive, Send, serve_lifespan

if TYPE_CHECKING:
    from dialog.server.service import Service
    from dialog.telemetry import Metrics

__all__ = ["ServiceAsgi"]

logger = logging.getLogger(__name__)

_PROBLEM = "application/problem+json"


class ServiceAsgi:
    """An ASGI application: ``await app(scope, receive, send)``."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._api = service.api
        self._metrics = _metrics(service)
        self._console = None if service.console is None else ConsoleAsgi(service.console)
        self._gateways: list[tuple[str, str, str, Any]] = [
            (f"{gateway.path}/", gateway.media_path, gateway.path, gateway.asgi())
            for gateway in service.gateways.values()
        ]
        if service.clients is not None:
            path = service.clients.path
            self._gateways.append((f"{path}/", path, path, service.clients.asgi()))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, a socket, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await serve_lifespan(receive, send, start=self._start, close=self._close)
            return
        path = _local(scope)
        for beneath, media, own, app in self._gateways:
            if path in (media, own) or path.startswith(beneath):
                await app(scope, receive, send)
                return
        prefix = self._service.config.prefix
        if prefix and path != prefix and not path.startswith(f"{prefix}/"):
            path = "\0"  # nothing of ours
        own = f"{prefix}{self._service.config.console}"
        if self._console is not None and (path == own or path.startswith(f"{own}/")):
            await self._console(scope, receive, send, own)
            return
        seen = _request(scope, path[len(prefix) :] or "/")
        if scope["type"] == "websocket":
            await self._socket(scope, seen, receive, send)
        else:
            await self._http(seen, receive, send)

    async def _start(self) -> None:
        await self._service.start()
        if self._metrics is not None:
            self._metrics.start()

    async def _close(self) -> None:
        await self._service.close()
        if self._metrics is not None:
            self._metrics.close()

    async def _http(self, seen: HttpRequest, receive: Receive, send: Send) -> None:
        origin = allowed_origin(self._api.settings, seen.headers.get("origin", ""))
        try:
            answer = await self._answer(seen, origin, receive)
        except Problem as problem:
            answer = _refused(problem)
        except Exception:
            logger.exception("%s %s failed", seen.method, seen.path)
            answer = _refused(Problem(500, "something went wrong; the log says what"))
        headers = [*answer.headers, *cors_headers(origin)]
        if answer.body or answer.stream is not None:
            headers.append(("Content-Type", answer.content_type))
        if answer.stream is None and answer.status != 204:
            headers.append(("Content-Length", str(len(answer.body))))
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        if answer.stream is None:
            await send({"type": "http.response.body", "body": answer.body})
            return
        writing = asyncio.create_task(_write(answer.stream, send), name="stream of an answer")
        leaving = asyncio.create_task(_gone(receive, "http.disconnect"), name="whether the reader leaves")
        await _race(writing, leaving)

    async def _answer(self, seen: HttpRequest, origin: str, receive: Receive) -> Answer:
        if seen.method == "OPTIONS" and origin:
            return Answer(status=204, headers=preflight(origin))
        probe = self._probe(seen)
        if probe is not None:
            return probe
        return await self._api.answer(self._api.head(seen), await self._body(receive))

    def _probe(self, seen: HttpRequest) -> Answer | None:
        if seen.method != "GET":
            return None
        if seen.path == "/health":
            return Answer(body=b'{"status":"ok"}')
        if seen.path == "/metrics" and self._metrics is not None:
            body, content_type = self._metrics.exposition(seen.headers.get("accept", ""))
            return Answer(body=body, content_type=content_type)
        if seen.path == "/ready":
            ready = self._service.ready
            return Answer(status=200 if ready else 503, body=b'{"status":"%s"}' % (b"ready" if ready else b"not ready"))
        return None

    async def _body(self, receive: Receive) -> bytes:
        buffer = BodyBuffer(self._api.settings.max_body)
        try:
            async with asyncio.timeout(self._api.settings.body_timeout_s):
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

    async def _socket(self, scope: Message, seen: HttpRequest, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            matched = self._api.head(seen)
            if matched.operation.produces != "events":
                raise Problem(400, "this is no WebSocket")  # noqa: TRY301
            feed = await self._api.feed(matched)
        except Problem as problem:
            await _deny(scope, problem, send)
            return
        await send({"type": "websocket.accept"})
        sending = asyncio.create_task(_tell(feed, send), name="events over a WebSocket")
        leaving = asyncio.create_task(_gone(receive, "websocket.disconnect"), name="a reader of events")
        try:
            await _race(sending, leaving)
        finally:
            await feed.aclose()


def _metrics(service: Service) -> Metrics | None:
    try:
        from dialog.telemetry import Metrics
    except MissingExtra as exc:
        logger.info("/metrics is not served: %s", exc)
        return None
    metrics = Metrics()
    metrics.watch(service)
    return metrics


async def _race(work: asyncio.Task[None], leaving: asyncio.Task[None]) -> None:
    try:
        await asyncio.wait((work, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (work, leaving):
            task.cancel()
        await asyncio.wait((work, leaving))
    if not work.cancelled() and work.exception() is not None:
        # Each server has its own way to say that the reader is gone.
        logger.info("a reader has left: %r", work.exception())


async def _write(stream: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator


async def _tell(feed: Feed, send: Send) -> None:
    async for happened in feed:
        if happened is not None:  # the server has pings of its own
            await send({"type": "websocket.send", "text": happened.body.decode()})
    await send({"type": "websocket.close", "code": 1000})


async def _gone(receive: Receive, kind: str) -> None:
    while (await receive())["type"] != kind:
        pass


async def _deny(scope: Message, problem: Problem, send: Send) -> None:
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008})  # the server answers 403
        return
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers]
    headers.append((b"content-type", _PROBLEM.encode()))
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.to_json()})


def _refused(problem: Problem) -> Answer:
    return Answer(status=problem.status, body=problem.to_json(), content_type=_PROBLEM, headers=problem.headers)


def _local(scope: Message) -> str:
    """The path beneath where the application is mounted: servers differ in whether the path includes that."""
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"


def _request(scope: Message, path: str) -> HttpRequest:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    client = scope.get("client")
    return HttpRequest(
        method=scope.get("method", "GET"),
        path=path,
        query=dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        headers=headers,
        peer=client[0] if client else "",
    )
