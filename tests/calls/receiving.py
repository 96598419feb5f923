"""A receiver of webhooks on a real socket, that can be down, slow or wrong."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from contextlib import asynccontextmanager

from aiohttp import web
from ports import free_port

from dialog.net.listening import unlisten


class Receiver:
    """Takes what comes to ``/``, and answers what it is told to."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self.answer: Callable[[dict], web.Response] = lambda _: web.Response()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        """All of them, also those that were not taken."""
        self.taken: list[dict] = []
        self.most = 0
        """Requests at the same time."""
        self.hold: asyncio.Event | None = None
        self._port = port
        self._now = 0
        self._runner: web.AppRunner | None = None

    async def up(self) -> None:
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def down(self) -> None:
        if self._runner is not None:
            await unlisten(self._runner)
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((dict(request.headers), body))
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            if self.hold is not None:
                await self.hold.wait()
            message = json.loads(body)
            response = self.answer(message)
            if response.status == 200:
                self.taken.append(message)
            return response
        finally:
            self._now -= 1

    def by_call(self) -> dict[str, list[str]]:
        """Types of the plain messages that were taken, per call, each message once."""
        calls: dict[str, list[str]] = defaultdict(list)
        seen = set()
        for message in self.taken:
            if message["id"] not in seen:
                seen.add(message["id"])
                calls[message["data"]["call_id"]].append(message["type"])
        return dict(calls)

    def seqs(self, call_id: object) -> list[int]:
        """Numbers of the events of a call that were told, as they came; the start of a conversation is told beside."""
        mine = [each for each in self.taken if each["data"]["call_id"] == str(call_id)]
        return [each["data"]["seq"] for each in mine if each["type"] != "call.started"]


@asynccontextmanager
async def receiver(*, up: bool = True):
    one = Receiver(free_port())
    if up:
        await one.up()
    try:
        yield one
    finally:
        if one.hold is not None:
            one.hold.set()
        await one.down()
