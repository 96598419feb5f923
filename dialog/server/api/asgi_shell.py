"""A whole service as an ASGI 3 application: probes, REST API, webhooks and media sockets.

Source: ASGI specification 3.0, HTTP and WebSocket; its denial response extension.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dialog.errors import MissingExtra
from dialog.net.asgi import (
    Message,
    Receive,
    RequestBody,
    Send,
    gone,
    headers_of,
    local_path,
    peer_of,
    query_of,
    serve_lifespan,
)
from dialog.net.bodies import read_body
from dialog.net.presence import while_there
from dialog.server.api.asgi_answer import deny_socket, send_answer
from dialog.server.api.core import Answer, HttpRequest, refused
from dialog.server.api.cors import allowed_origin, cors_headers, preflight
from dialog.server.api.feeds import Feed
from dialog.server.api.problems import Problem
from dialog.server.console.asgi_shell import ConsoleAsgi

if TYPE_CHECKING:
    from dialog.server.service import Service
    from dialog.telemetry import Metrics

__all__ = ["ServiceAsgi"]

logger = logging.getLogger(__name__)


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
        path = local_path(scope)
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
            answer = refused(problem)
        except Exception:
            logger.exception("%s %s failed", seen.method, seen.path)
            answer = refused(Problem(500, "something went wrong; the log says what"))
        await send_answer(answer, receive, send, cors_headers(origin))

    async def _answer(self, seen: HttpRequest, origin: str, receive: Receive) -> Answer:
        if seen.method == "OPTIONS" and origin:
            return Answer(status=204, headers=preflight(origin))
        probe = self._probe(seen)
        if probe is not None:
            return probe
        matched, settings = self._api.head(seen), self._api.settings
        body = await read_body(
            RequestBody(receive), Problem, limit=settings.max_body, timeout_s=settings.body_timeout_s
        )
        return await self._api.answer(matched, body)

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

    async def _socket(self, scope: Message, seen: HttpRequest, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            matched = self._api.head(seen)
            if matched.operation.produces != "events":
                raise Problem(400, "this is no WebSocket")  # noqa: TRY301
            feed = await self._api.feed(matched)
        except Problem as problem:
            await deny_socket(scope, problem, send)
            return
        await send({"type": "websocket.accept"})
        try:
            await while_there(_tell(feed, send), gone(receive, "websocket.disconnect"))
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


async def _tell(feed: Feed, send: Send) -> None:
    async for happened in feed:
        if happened is not None:  # the server has pings of its own
            await send({"type": "websocket.send", "text": happened.body.decode()})
    await send({"type": "websocket.close", "code": 1000})


def _request(scope: Message, path: str) -> HttpRequest:
    return HttpRequest(
        method=scope.get("method", "GET"),
        path=path,
        query=query_of(scope),
        headers=headers_of(scope),
        peer=peer_of(scope),
    )
