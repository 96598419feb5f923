"""The console on aiohttp."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import WSMsgType, web

from dialog.errors import RemoteProtocolError
from dialog.net.bodies import read_body
from dialog.net.cutoff import cut_off
from dialog.server.api.core import refused
from dialog.server.api.problems import Problem
from dialog.server.console.core import Console, Visit

__all__ = ["add_console_routes"]

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 4096


def add_console_routes(console: Console, app: web.Application, prefix: str = "") -> None:
    """Route the page and all beneath it."""
    shell = _Shell(console, f"{prefix}{console.path}")
    app.router.add_route("*", f"{prefix}{console.path}", shell.handle)
    app.router.add_route("*", f"{prefix}{console.path}/{{rest:.*}}", shell.handle)
    app.on_shutdown.append(shell.close)


class _Shell:
    def __init__(self, console: Console, root: str) -> None:
        self._console = console
        self._root = root
        self._pages: set[asyncio.Task[object]] = set()
        """Those that are open: a server that comes down does not wait for them."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        visit = self._visit(request)
        if web.WebSocketResponse().can_prepare(request):
            return await self._attend(request, visit)
        try:
            settings = self._console.settings
            body = await read_body(
                request.content.iter_any(), Problem, limit=settings.max_body, timeout_s=settings.body_timeout_s
            )
            answer = await self._console.answer(visit, body)
        except Problem as problem:
            answer = refused(problem)
        except Exception:
            logger.exception("%s %s failed", request.method, request.path)
            answer = refused(Problem(500, "something went wrong; the log says what"))
        response = web.StreamResponse(status=answer.status)
        response.headers.extend(answer.headers)
        response.headers["Content-Type"] = answer.content_type
        if answer.stream is None:
            plain = web.Response(status=answer.status, body=answer.body, headers=response.headers)
            if answer.status in (408, 413):
                await cut_off(request, plain)
            return plain
        try:
            await response.prepare(request)
            async for piece in answer.stream:
                await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            logger.debug("%s: the page has left", request.path)
        finally:
            await answer.stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        return response

    async def _attend(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        try:
            visitor = self._console.admit(visit)
        except Problem as problem:
            return web.Response(status=problem.status, text=f"{problem}\n", headers=dict(problem.headers))
        ws = web.WebSocketResponse(heartbeat=20.0, max_msg_size=_MAX_MESSAGE, compress=False)
        await ws.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._pages.add(task)
        try:
            await self._console.attend(visitor, _Socket(ws))
        except RemoteProtocolError as exc:
            logger.warning("%s", exc)
            await ws.close(code=1008)
        except ConnectionError:
            logger.debug("a page of the console has left")
        finally:
            self._pages.discard(task)
            await ws.close()
        return ws

    def _visit(self, request: web.Request) -> Visit:
        # The host may have mounted the whole application below a path of its own.
        at = request.path.find(self._root)
        end = at + len(self._root)
        return Visit(
            method=request.method,
            path=request.path[end:],
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            peer=request.remote or "",
            base=request.path[:end],
            secure=request.secure,
        )

    async def close(self, _: web.Application) -> None:
        for task in self._pages:
            task.cancel()


class _Socket:
    def __init__(self, ws: web.WebSocketResponse) -> None:
        self._ws = ws

    async def send_text(self, text: bytes) -> None:
        await self._ws.send_str(text.decode())

    async def send_bytes(self, data: bytes) -> None:
        await self._ws.send_bytes(data)

    async def receive(self) -> str | None:
        message = await self._ws.receive()
        if message.type is WSMsgType.TEXT:
            return message.data  # type: ignore[no-any-return]
        if message.type is WSMsgType.BINARY:
            raise RemoteProtocolError("a page of the console sent audio")
        return None
