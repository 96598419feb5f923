"""The gateway as an ASGI 3 application, to mount into FastAPI or Starlette.

Source: ASGI specification 3.0, HTTP and WebSocket; its denial response extension.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from dialog.net.asgi import Message, Receive, RequestBody, Send, deny, headers_of, respond, serve_lifespan
from dialog.net.bodies import read_body
from dialog.voip.asgisocket import AsgiSockets
from dialog.voip.carrier.aiohttp_shell import OpenMedia
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Refusal, Request, Response, Webhooks

__all__ = ["AsgiShell"]

logger = logging.getLogger(__name__)


class AsgiShell:
    """An ASGI application: ``await app(scope, receive, send)``."""

    def __init__(
        self,
        webhooks: Webhooks,
        exchange: Exchange,
        open_media: OpenMedia,
        *,
        body_timeout_s: float,
        start_timeout_s: float,
        max_message: int,
        on_start: Callable[[], Awaitable[None]],
        on_shutdown: Callable[[], Awaitable[None]],
    ) -> None:
        self._webhooks = webhooks
        self._exchange = exchange
        self._open_media = open_media
        self._body_timeout_s = body_timeout_s
        self._sockets = AsgiSockets(max_message=max_message, start_timeout_s=start_timeout_s)
        self._on_start = on_start
        self._on_shutdown = on_shutdown

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request, a socket, or the server's lifespan."""
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await serve_lifespan(receive, send, start=self._on_start, close=self._on_shutdown)
            case _:
                raise NotImplementedError(f"the ASGI scope {scope['type']!r} is not served here")

    async def close(self) -> None:
        """Close the sockets that no call closed; their handlers end them."""
        await self._sockets.close()

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            seen = _request(scope)
            endpoint = self._webhooks.head(seen)
            body = await read_body(
                RequestBody(receive), Refusal, limit=self._webhooks.max_body, timeout_s=self._body_timeout_s
            )
            seen = _request(scope, body)
            fields = self._webhooks.check(seen)
            response = await self._exchange.respond(endpoint, fields, self._webhooks.site(seen))
        except Refusal as refusal:
            response = _refused(scope, refusal, self._exchange.refusals.webhooks)
        await respond(send, response.status, _headers(response), response.body)

    async def _websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        try:
            seen = _request(scope)
            self._webhooks.head(seen)
            fields = self._webhooks.check(seen)
            if self._exchange.closing:
                raise Refusal(503, "the gateway is closing")  # noqa: TRY301
            site = self._webhooks.site(seen)
        except Refusal as refusal:
            response = _refused(scope, refusal, self._exchange.refusals.sockets)
            await deny(scope, send, response.status, _headers(response), response.body)
            return
        codec, make = self._open_media(site, fields)
        await self._sockets.serve(receive, send, codec, make)


def _request(scope: Message, body: bytes = b"") -> Request:
    raw = scope.get("raw_path")
    path = raw.decode("ascii", "replace").partition("?")[0] if raw else scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and not (path == root or path.startswith(root + "/")):
        path = root + path  # a proxy stripped it
    return Request(
        method=scope.get("method", "GET"),
        path=path,
        query=scope.get("query_string", b"").decode("ascii", "replace"),
        headers=headers_of(scope),
        secure=scope.get("scheme", "http") in ("https", "wss"),
        root=root,
        body=body,
    )


def _headers(response: Response) -> list[tuple[str, str]]:
    headers = list(response.headers)
    if response.status != 204:
        headers.append(("content-type", response.content_type))
    return headers


def _refused(scope: Message, refusal: Refusal, counts: Counter[int]) -> Response:
    counts[refusal.status] += 1
    logger.warning("%s %s was refused with %d: %s", scope.get("method", "GET"), scope["path"], refusal.status, refusal)
    return refusal.response()
