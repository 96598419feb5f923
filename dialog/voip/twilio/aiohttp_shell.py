"""The gateway on aiohttp: HTTP requests and WebSockets turned into what the core understands."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from dialog.errors import LimitError
from dialog.keyed import BodyBuffer
from dialog.voip.twilio.session import MediaSession
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.twilio.switchboard import Switchboard
from dialog.voip.twilio.webhooks import Refusal, Request, Response, Webhooks
from dialog.voip.twilio.wire import AiohttpWire

__all__ = ["AiohttpShell"]

logger = logging.getLogger(__name__)

_CLOSE_S = 2.0


class AiohttpShell:
    """Handlers for the routes of a gateway."""

    def __init__(
        self,
        webhooks: Webhooks,
        switchboard: Switchboard,
        *,
        body_timeout_s: float,
        start_timeout_s: float,
        max_message: int,
    ) -> None:
        self._webhooks = webhooks
        self._switchboard = switchboard
        self._body_timeout_s = body_timeout_s
        self._start_timeout_s = start_timeout_s
        self._max_message = max_message
        self.sockets: set[AiohttpWire] = set()
        """The media sockets that are open."""

    def add_routes(self, app: web.Application) -> None:
        """Route the gateway's paths; other methods are refused here, so that they are all alike."""
        for endpoint, path in self._webhooks.paths().items():
            app.router.add_route("*", path, self.media if endpoint == "media" else self.webhook)

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        """Answer a webhook."""
        try:
            seen = _request(request)
            endpoint = self._webhooks.head(seen)
            body = await self._body(request)
            seen = _request(request, body)
            fields = self._webhooks.check(seen)
            response = await self._switchboard.respond(endpoint, fields, self._webhooks.site(seen))
        except Refusal as refusal:
            return _refused(request, refusal)
        return _response(response)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Serve a media socket."""
        seen = _request(request)
        ws = web.WebSocketResponse(
            compress=False, autoping=False, max_msg_size=self._max_message, timeout=_CLOSE_S, decode_text=True
        )
        try:
            self._webhooks.head(seen)
            self._webhooks.check(seen)
            if self._switchboard.closing:
                raise Refusal(503, "the gateway is closing")  # noqa: TRY301
            if not ws.can_prepare(request):
                raise Refusal(400, "this is a WebSocket endpoint")  # noqa: TRY301
        except Refusal as refusal:
            return _refused(request, refusal)
        site = self._webhooks.site(seen)
        await ws.prepare(request)
        assert request.transport is not None
        stream = TwilioStream()
        wire = AiohttpWire(stream, ws, request.transport)
        session = MediaSession(self._switchboard, stream, wire, site)
        self.sockets.add(wire)
        try:
            wire.start()
            await self._until_start(ws, session)
            if session.call is not None:
                # Whatever listeners create belongs to the call.
                with session.call.scope.entered():
                    await _serve(ws, session)
        finally:
            session.closed()
            self.sockets.discard(wire)
            await wire.wait_closed()
        return ws

    async def close(self) -> None:
        """Close the sockets that no call closed, and wait until all are."""
        for wire in tuple(self.sockets):
            wire.close()
        while self.sockets:
            await asyncio.wait([asyncio.ensure_future(wire.wait_closed()) for wire in self.sockets])
            await asyncio.sleep(0)

    async def _body(self, request: web.Request) -> bytes:
        if not request.can_read_body:
            return b""
        buffer = BodyBuffer(self._webhooks.max_body)
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for piece in request.content.iter_any():
                    buffer.add(piece)
        except LimitError as exc:
            raise Refusal(413, str(exc)) from exc
        except TimeoutError as exc:
            raise Refusal(408, f"the body did not come within {self._body_timeout_s:g} s") from exc
        return buffer.bytes()

    async def _until_start(self, ws: web.WebSocketResponse, session: MediaSession) -> None:
        deadline = monotonic() + self._start_timeout_s
        while session.call is None and not session.wire.closed:
            left = deadline - monotonic()
            try:
                if left <= 0:
                    raise TimeoutError  # noqa: TRY301
                message = await ws.receive(left)
            except TimeoutError:
                session.refuse(1008, f"no start message within {self._start_timeout_s:g} s")
                return
            if not _take(message, session):
                return


def _take(message: WSMessage, session: MediaSession) -> bool:
    """Take one message; False when the socket is closed."""
    wire = session.wire
    assert isinstance(wire, AiohttpWire)
    kind = message.type
    data: Any = message.data
    if kind is WSMsgType.TEXT:
        wire.heard = True
        session.receive(data)
    elif kind is WSMsgType.PONG:
        wire.heard = True
        wire.receive_pong()
    elif kind is WSMsgType.PING:
        wire.heard = True
        wire.answer_ping(data)
    elif kind is WSMsgType.BINARY:
        session.refuse(1008, "a binary frame came, which Media Streams does not have")
    else:
        if kind is WSMsgType.ERROR:
            logger.warning("a media socket failed: %s", data)
        return False
    return True


async def _serve(ws: web.WebSocketResponse, session: MediaSession) -> None:
    wire = session.wire
    receive = session.receive
    assert isinstance(wire, AiohttpWire)
    while not wire.closed:
        message = await ws.receive()
        if message.type is WSMsgType.TEXT:
            wire.heard = True
            receive(message.data)
        elif not _take(message, session):
            return


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


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    logger.warning("%s %s was refused with %d: %s", request.method, request.path, refusal.status, refusal)
    answer = _response(refusal.response())
    if refusal.status in (408, 413):
        answer.force_close()  # the rest of the body is not worth waiting for
    return answer
