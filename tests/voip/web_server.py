"""A gateway for browsers on a port of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager

import uvicorn
from aiohttp import web

from dialog.net.listening import unlisten
from dialog.voip.web.gateway import WebGateway

__all__ = ["serving", "until"]


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for what happens at the other end."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(gateway: WebGateway, *, asgi: bool = False):
    """A gateway on a port of its own; the address of its WebSocket."""
    sock = socket.create_server(("127.0.0.1", 0))
    url = f"ws://127.0.0.1:{sock.getsockname()[1]}{gateway.path}"
    if not asgi:
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, sock).start()
            yield url
        finally:
            await unlisten(runner)
        return
    config = uvicorn.Config(gateway.asgi(), log_config=None, ws="websockets-sansio", lifespan="on")
    server = uvicorn.Server(config)
    serve = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield url
    finally:
        server.should_exit = True
        await serve
