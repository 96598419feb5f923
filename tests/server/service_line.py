"""What the tests of a service dial and ask: a service on a real socket, its account, a phone and a client."""

from __future__ import annotations

import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import aiohttp
from aiohttp import web

from dialog.net.listening import unlisten
from dialog.server.config import ApiSettings, ApiToken, PhoneNumber, ServiceConfig, TwilioTenant
from dialog.server.service import Service
from dialog.sessions.config import AgentConfig
from dialog.testing import HummingTTS, ScriptedLLM, ToldSTT
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.pacing import Pacing

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, TOKEN, Phone

SECRET = "a-token-of-the-tests"
READER = "a-token-that-may-read"
HEADERS = {"Authorization": f"Bearer {SECRET}"}
OURS = "+15551230002"
THEIRS = "+15551230009"
FAST = Pacing(calls_per_s=1000.0)


def assistant(**more) -> AgentConfig:
    return AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM(lambda request: "Yes."), **more)


def api(**more) -> ApiSettings:
    tokens = (
        ApiToken(name="tests", token=SECRET),
        ApiToken(name="reader", token=READER, scopes=frozenset({"calls:read"})),
    )
    return ApiSettings(**{"tokens": tokens, "requests_per_s": 1000.0, "burst": 1000, **more})


def make_config(rest: TwilioRestEmulator, **more) -> ServiceConfig:
    settings = {
        "assistants": {"desk": assistant(greeting="Good day to you.")},
        "tenants": {"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, pacing=FAST)},
        "numbers": {"first": PhoneNumber(number=OURS)},
        "api": api(),
    }
    settings |= more
    if callable(settings["tenants"]):
        settings["tenants"] = settings["tenants"](rest)
    return ServiceConfig(**settings)


class Client:
    """Asks the REST API."""

    def __init__(self, origin, session):
        self.origin = origin
        self.session = session

    async def ask(self, method, path, body=None, *, headers=HEADERS, **more):
        if body is not None:
            more["json"] = body
        async with self.session.request(method, self.origin + path, headers=headers, **more) as response:
            data = await response.read()
            kind = response.headers.get("Content-Type", "")
            found = await response.json(content_type=None) if data and "json" in kind else data
            return SimpleNamespace(status=response.status, body=found, kind=kind, headers=response.headers)

    async def get(self, path, **more):
        return await self.ask("GET", path, **more)

    async def post(self, path, body=None, **more):
        return await self.ask("POST", path, body, **more)


@asynccontextmanager
async def serving_at(listening, app):
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        await unlisten(runner)


@asynccontextmanager
async def service_line(*, public=False, serve=serving_at, **settings):
    """A service with one account and one assistant, unless ``settings`` say otherwise.

    ``public``: it knows its own address, so that calls can be placed. ``tenants`` may be a function of the account.
    """
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        if public:
            settings["webhook_url"] = f"http://127.0.0.1:{listening.getsockname()[1]}/twilio/voice"
        service = Service(make_config(rest, **settings))
        app = service if serve is not serving_at else service.app()
        async with serve(listening, app) as origin, aiohttp.ClientSession() as session:
            phone = Phone(origin + next((each.path for each in service.gateways.values()), ""), session)
            yield SimpleNamespace(
                service=service, rest=rest, origin=origin, phone=phone, client=Client(origin, session), session=session
            )
            for call in service.calls:
                if call.state != "ended" and (call.state != "offered" or call.metadata.direction == "outbound"):
                    await call.voip.hangup()
            for opened in phone.sockets:
                await opened.ws.close()
            await rest.wait_hung_up()
