"""The gateway on aiohttp: HTTP requests and WebSockets turned into what the core understands."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextvars import copy_context
from typing import Any, cast

from aiohttp import web

from dialog.errors import LimitError
from dialog.keyed import BodyBuffer
from dialog.net.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameError, FrameReader, accept_key
from dialog.scope import CallScope
from dialog.voip.twilio.exchange import Exchange
from dialog.voip.twilio.session import MediaSession
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.twilio.webhooks import Refusal, Request, Response, Webhooks
from dialog.voip.twilio.wire import CLOSE_S, AiohttpWire

__all__ = ["AiohttpShell"]

logger = logging.getLogger(__name__)

_LINGER_S = 0.5


class AiohttpShell:
    """Handlers for the routes of a gateway."""

    def __init__(
        self,
        webhooks: Webhooks,
        exchange: Exchange,
        *,
        body_timeout_s: float,
        start_timeout_s: float,
        max_message: int,
    ) -> None:
        self._webhooks = webhooks
        self._exchange = exchange
        self._body_timeout_s = body_timeout_s
        self._start_timeout_s = start_timeout_s
        self._max_message = max_message
        self.sockets: dict[asyncio.Task[Any], AiohttpWire] = {}
        """The media sockets that are open, by the task that reads each."""

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
            response = await self._exchange.respond(endpoint, fields, self._webhooks.site(seen))
        except Refusal as refusal:
            answer = _refused(request, refusal, self._exchange.refusals.webhooks)
            if refusal.status in (408, 413):
                await _cut_off(request, answer)
            return answer
        return _response(response)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Serve a media socket."""
        seen = _request(request)
        try:
            self._webhooks.head(seen)
            self._webhooks.check(seen)
            if self._exchange.closing:
                raise Refusal(503, "the gateway is closing")  # noqa: TRY301
            if not web.WebSocketResponse(compress=False).can_prepare(request):
                raise Refusal(400, "this is a WebSocket endpoint")  # noqa: TRY301
        except Refusal as refusal:
            return _refused(request, refusal, self._exchange.refusals.sockets)
        site = self._webhooks.site(seen)
        upgraded = _upgrade(request)
        await upgraded.prepare(request)
        if request.transport is None:
            return upgraded  # gone again
        stream = TwilioStream()
        wire = AiohttpWire(stream, request.transport)
        session = MediaSession(self._exchange, stream, wire, site)
        socket = _Socket(session, wire, self._max_message)
        handler = asyncio.current_task()
        assert handler is not None
        self.sockets[handler] = wire
        patience = asyncio.get_running_loop().call_later(self._start_timeout_s, self._lose_patience, session)
        try:
            wire.start()
            request.protocol.set_parser(cast("Any", socket))
            await socket.over
        finally:
            patience.cancel()
            session.closed()
            wire.finish()
            del self.sockets[handler]
        return upgraded

    def _lose_patience(self, session: MediaSession) -> None:
        if session.end is None:
            session.refuse(1008, f"no start message within {self._start_timeout_s:g} s")

    async def close(self) -> None:
        """Close the sockets that no call closed, and wait until all are."""
        for wire in self.sockets.values():
            wire.close()
        handlers = set(self.sockets) - {asyncio.current_task()}
        if handlers:
            await asyncio.wait(handlers, timeout=2 * CLOSE_S)

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


class _Socket:
    """What aiohttp hands the bytes behind an upgrade to, as it does to its own parser of WebSockets.

    Every message is acted on in the step that read it, in the context of its call.
    """

    def __init__(self, session: MediaSession, wire: AiohttpWire, max_message: int) -> None:
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
            if not self._in_call and self._session.end is not None:
                self._in_call = True
                # Whatever listeners create belongs to the call.
                CallScope.adopt(self._session.end.scope)
        elif opcode == PONG:
            self._wire.receive_pong()
        elif opcode == BINARY:
            self._session.refuse(1008, "a binary frame came, which Media Streams does not have")
        elif opcode == CLOSE:
            self.feed_eof()
        elif opcode == PING and isinstance(data, bytes):
            self._wire.answer_ping(data)


def _upgrade(request: web.Request) -> web.StreamResponse:
    """Return the answer that makes a request a WebSocket (RFC 6455, section 4.2.2)."""
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    answer = web.StreamResponse(
        status=101, headers={"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Accept": accept}
    )
    answer.force_close()  # it never serves another request
    return answer


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


async def _cut_off(request: web.Request, answer: web.Response) -> None:
    """Answer a request whose body is not worth waiting for, and close the connection soon.

    Closing at once would reset it, and the other side would not see the answer; aiohttp itself would
    go on reading for ten seconds.
    """
    answer.force_close()
    await answer.prepare(request)
    await answer.write_eof()
    try:
        async with asyncio.timeout(_LINGER_S):
            async for _ in request.content.iter_any():
                pass
    except TimeoutError:
        logger.debug("the body of a refused request went on, and was cut off")
    if request.transport is not None:
        request.transport.close()
