"""A service whose console is visited: who is signed in, and what the server tells a page."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from service_line import SECRET, service_line

from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT

__all__ = ["DESK", "Visitor", "hearing", "on_a_call", "sign_in", "visiting"]


DESK = {
    "desk": AgentConfig(
        stt=ToldSTT,
        tts=lambda: HummingTTS(ms_per_char=10),
        llm=lambda: ScriptedLLM(lambda _: "Yes."),
        greeting="Good day to you.",
    )
}
"""An agent that speaks fast."""


class Visitor:
    """A page of the console, without a browser."""

    def __init__(self, line, cookie):
        self.line = line
        self.headers = {"Cookie": cookie, "Origin": line.origin}
        self.url = f"{line.origin}{line.service.config.prefix}{line.service.config.console}"
        self.sound = bytearray()
        self.events = []

    async def ask(self, method, path, body=None, **headers):
        return await self.line.client.ask(
            method, self.url.removeprefix(self.line.origin) + path, body, headers={**self.headers, **headers}
        )

    @asynccontextmanager
    async def page(self):
        """Open the page's socket; the list has come."""
        async with self.line.session.ws_connect(f"{self.url}/live", headers=self.headers) as ws:
            self.ws = ws
            self.list = await self.next("list")
            yield self

    async def wish(self, do, **more):
        await self.ws.send_json({"do": do, **more})

    async def next(self, kind, fits=lambda _: True):
        """The next message of a kind; those before are passed over."""
        async with asyncio.timeout(5):
            while True:
                message = await self.ws.receive()
                assert isinstance(message.data, (str, bytes)), message
                if isinstance(message.data, bytes):
                    self.sound += message.data
                    continue
                told = json.loads(message.data)
                if told["type"] == kind and fits(told):
                    return told

    async def event(self, kind):
        """The next event of the call that is watched, of a kind; those before are passed over."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["type"] == kind:
                    return event
            self.events += (await self.next("events"))["events"]


async def sign_in(line, token=SECRET):
    """The cookie of somebody who shows a token."""
    url = f"{line.origin}{line.service.config.prefix}{line.service.config.console}/sign-in"
    async with line.session.post(
        url, data={"token": token}, headers={"Origin": line.origin}, allow_redirects=False
    ) as response:
        assert response.status == 303, await response.text()
        cookie = response.headers["Set-Cookie"].partition(";")[0]
    line.session.cookie_jar.clear()
    return cookie


@asynccontextmanager
async def visiting(token=SECRET, **settings):
    """Somebody who has signed in: ``(line, visitor)``."""
    async with service_line(**{"assistants": DESK, **settings}) as line:
        yield line, Visitor(line, await sign_in(line, token))


def hearing(line) -> ToldSTT:
    """What hears the caller of the only call."""
    (stt,) = [each for call in line.service.calls for each in call.scope.members if isinstance(each, ToldSTT)]
    return stt


async def on_a_call(line):
    """Call the service, and return the call's id and the phone's socket once the agent has greeted."""
    socket = await line.phone.call()
    (session,) = line.service.live.live
    async with asyncio.timeout(5):
        while not session.transcript:
            await asyncio.sleep(0.002)
    return session.call.call_id, socket
