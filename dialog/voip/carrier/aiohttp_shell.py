"""The gateway on aiohttp: HTTP requests and WebSockets turned into what the core understands."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TypeAlias

from aiohttp import web

from dialog.net.bodies import read_body
from dialog.net.cutoff import cut_off
from dialog.voip.aiosocket import AiohttpSockets
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Fields, Refusal, Request, Response, Site, Webhooks
from dialog.voip.carrier.session import MediaSession
from dialog.voip.wires import Codec, SocketWire

__all__ = ["AiohttpShell", "OpenMedia"]

OpenMedia: TypeAlias = Callable[[Site, Fields], tuple[Codec, Callable[[SocketWire], MediaSession]]]
"""What is spoken on a new media socket, of which its request tells that, and who takes what comes."""

logger = logging.getLogger(__name__)


class AiohttpShell:
    """Handlers for the routes of a gateway."""

    def __init__(
        self,
        webhooks: Webhooks,
        exchange: Exchange,
        open_media: OpenMedia,
        *,
        body_timeout_s: float,
        start_timeout_s: float,
        max_message: int,
    ) -> None:
        self._webhooks = webhooks
        self._exchange = exchange
        self._open_media = open_media
        self._body_timeout_s = body_timeout_s
        self.sockets = AiohttpSockets(max_message=max_message, start_timeout_s=start_timeout_s)

    def add_routes(self, app: web.Application) -> None:
        """Route the gateway's paths; other methods are refused here, so that they are all alike."""
        for endpoint, path in self._webhooks.paths().items():
            app.router.add_route("*", path, self.media if endpoint == "media" else self.webhook)

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        """Answer a webhook."""
        try:
            seen = _request(request)
            endpoint = self._webhooks.head(seen)
            body = await read_body(
                request.content.iter_any(), Refusal, limit=self._webhooks.max_body, timeout_s=self._body_timeout_s
            )
            seen = _request(request, body)
            fields = self._webhooks.check(seen)
            response = await self._exchange.respond(endpoint, fields, self._webhooks.site(seen))
        except Refusal as refusal:
            answer = _refused(request, refusal, self._exchange.refusals.webhooks)
            if refusal.status in (408, 413):
                await cut_off(request, answer)
            return answer
        return _response(response)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Serve a media socket."""
        seen = _request(request)
        try:
            self._webhooks.head(seen)
            fields = self._webhooks.check(seen)
            if self._exchange.closing:
                raise Refusal(503, "the gateway is closing")  # noqa: TRY301
            if not web.WebSocketResponse(compress=False).can_prepare(request):
                raise Refusal(400, "this is a WebSocket endpoint")  # noqa: TRY301
            site = self._webhooks.site(seen)
        except Refusal as refusal:
            return _refused(request, refusal, self._exchange.refusals.sockets)
        codec, make = self._open_media(site, fields)
        return await self.sockets.serve(request, codec, make)

    async def close(self) -> None:
        """Close the sockets that no call closed, and wait until all are."""
        await self.sockets.close()


def _request(request: web.Request, body: bytes = b"") -> Request:
    path, _, query = request.raw_path.partition("?")
    if "://" in path:  # absolute form, as through a forward proxy
        path = request.rel_url.raw_path
    headers = {name.lower(): value for name, value in reversed(tuple(request.headers.items()))}
    secure = request.transport is not None and request.transport.get_extra_info("sslcontext") is not None
    return Request(method=request.method, path=path, query=query, headers=headers, secure=secure, body=body)


def _response(response: Response) -> web.Response:
    headers = dict(response.headers)
    if response.status != 204:
        headers["Content-Type"] = response.content_type
    return web.Response(status=response.status, body=response.body or None, headers=headers)


def _refused(request: web.Request, refusal: Refusal, counts: Counter[int]) -> web.Response:
    counts[refusal.status] += 1
    logger.warning("%s %s was refused with %d: %s", request.method, request.path, refusal.status, refusal)
    return _response(refusal.response())
