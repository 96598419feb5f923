"""A served gateway looks after its event loop."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from dialog.server.serving import serve


class Quiet:
    """A gateway without calls."""

    ready = True

    def add_routes(self, app: web.Application) -> None:
        """There are none."""

    async def drain(self, timeout_s: float) -> bool:
        return True


async def test_what_blocks_the_loop_is_logged_with_its_line(caplog) -> None:
    stop = asyncio.Event()

    def hold_everybody_up() -> None:
        until = time.monotonic() + 30
        while "has been blocked" not in caplog.text and time.monotonic() < until:
            time.sleep(0.01)
        stop.set()

    loop = asyncio.get_running_loop()
    assert await serve(
        Quiet(), host="127.0.0.1", port=0, leave_s=0, stop=stop, started=lambda _: loop.call_soon(hold_everybody_up)
    )
    assert "hold_everybody_up" in caplog.text
