"""The REST API on aiohttp."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import WSMsgType, web

from dialog.net.bodies import read_body
from dialog.net.cutoff import cut_off
from dialog.net.presence import while_there
from dialog.server.api.core import Answer, Api, HttpRequest, Matched, refused
from dialog.server.api.cors import allowed_origin, cors_headers, preflight
from dialog.server.api.feeds import Feed
from dialog.server.api.problems import Problem

__all__ = ["add_api_routes"]

logger = logging.getLogger(__name__)


def add_api_routes(api: Api, app: web.Application, prefix: str = "") -> None:
    """Route all operations beneath ``prefix``; methods that a path does not know are refused by the API."""
    shell = _Shell(api, prefix)
    paths = {f"{prefix}{operation.path}" for operation in api.operations}
    if prefix:
        paths.add(prefix)
    for path in sorted(paths):
        app.router.add_route("*", path, shell.handle)
    app.on_shutdown.append(shell.close)


class _Shell:
    def __init__(self, api: Api, prefix: str) -> None:
        self._api = api
        self._prefix = prefix
        self._feeds: set[asyncio.Task[object]] = set()
        """Streams of events, which a server that comes down does not wait for."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        origin = allowed_origin(self._api.settings, request.headers.get("Origin", ""))
        seen = _request(request, self._prefix)
        try:
            if request.method == "OPTIONS" and origin:
                return web.Response(status=204, headers=dict(preflight(origin)))
            matched = self._api.head(seen)
            if matched.operation.produces == "events" and web.WebSocketResponse().can_prepare(request):
                return await self._over_socket(request, matched)
            settings = self._api.settings
            body = await read_body(
                request.content.iter_any(), Problem, limit=settings.max_body, timeout_s=settings.body_timeout_s
            )
            answer = await self._api.answer(matched, body)
        except Problem as problem:
            answer = refused(problem)
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            answer = refused(Problem(500, "something went wrong; the log says what"))
        headers = {**dict(answer.headers), **dict(cors_headers(origin))}
        if answer.stream is None:
            if answer.body:
                headers["Content-Type"] = answer.content_type
            response = web.Response(status=answer.status, body=answer.body or None, headers=headers)
            if answer.status in (408, 413):
                await cut_off(request, response)
            return response
        return await self._stream(request, answer, headers)

    async def _stream(self, request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
        assert answer.stream is not None
        response = web.StreamResponse(status=answer.status, headers={**headers, "Content-Type": answer.content_type})
        self._enter()
        try:
            await response.prepare(request)
            async for piece in answer.stream:
                await response.write(piece)
            await response.write_eof()
        except (ConnectionResetError, ConnectionError):
            logger.debug("%s: the reader has left", request.path)
        finally:
            self._leave()
            close = getattr(answer.stream, "aclose", None)
            if close is not None:
                await close()
        return response

    async def _over_socket(self, request: web.Request, matched: Matched) -> web.StreamResponse:
        feed = await self._api.feed(matched)
        socket = web.WebSocketResponse(heartbeat=20.0, max_msg_size=4096)
        self._enter()
        try:
            await socket.prepare(request)
            await while_there(_send(socket, feed), _until_closed(socket))
        finally:
            self._leave()
            await feed.aclose()
            if socket.prepared:
                await socket.close()
        return socket

    def _enter(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._feeds.add(task)

    def _leave(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._feeds.discard(task)

    async def close(self, _: web.Application) -> None:
        for task in self._feeds:
            task.cancel()


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.ERROR:
            return


async def _send(socket: web.WebSocketResponse, feed: Feed) -> None:
    async for happened in feed:
        if happened is not None:  # the socket has pings of its own
            await socket.send_str(happened.body.decode())


def _request(request: web.Request, prefix: str) -> HttpRequest:
    path = request.path
    path = path[len(prefix) :] or "/"
    return HttpRequest(
        method=request.method,
        path=path,
        query=dict(request.query),
        headers={name.lower(): value for name, value in request.headers.items()},
        peer=request.remote or "",
    )
