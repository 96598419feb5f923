"""The gateway as an ASGI application, driven by the protocol itself, alone and mounted into Starlette."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from twilio.request_validator import RequestValidator
from twilio_phone import ACCOUNT, FORM, TOKEN, Document, new_sid, until

from dialog.message import Message
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP
from dialog.voip.web import WebGateway
from dialog.workers import WorkerPool

VALIDATOR = RequestValidator(TOKEN)
GREETING = Path(__file__).parents[1] / "workers" / "apps" / "greeting.py"


class AsgiServer:
    """As much of an ASGI server as the tests need; with ``extensions`` it can refuse an upgrade."""

    def __init__(self, app, *, host="voice.example", extensions=None):
        self.app = app
        self.host = host
        self.extensions = extensions

    def scope(self, kind, path, query="", headers=(), **more):
        return {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", self.host.encode()), *[(n.lower().encode(), v.encode()) for n, v in headers]],
            "scheme": "https" if kind == "http" else "wss",
            **more,
        }

    async def request(self, method, path, query="", *, body=(b"",), headers=(), root_path="", stall=False):
        sent = []
        pieces = list(body)

        async def receive():
            if not pieces:
                await asyncio.Event().wait()
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces) or stall}

        async def send(message):
            sent.append(message)

        scope = self.scope("http", path, query, headers, method=method, root_path=root_path)
        async with asyncio.timeout(5):
            await self.app(scope, receive, send)
        start = sent[0]
        text = b"".join(m.get("body", b"") for m in sent[1:]).decode()
        return start["status"], text, {n.decode(): v.decode() for n, v in start["headers"]}

    async def post(self, path, fields, *, query="", public=None, **more):
        url = public or f"https://{self.host}{path}" + (f"?{query}" if query else "")
        headers = [("Content-Type", FORM), ("X-Twilio-Signature", VALIDATOR.compute_signature(url, fields))]
        return await self.request("POST", path, query, body=[urlencode(fields).encode()], headers=headers, **more)

    @asynccontextmanager
    async def socket(self, path, *, headers=None, signature=None, **more):
        if headers is None:
            signature = signature or VALIDATOR.compute_signature(f"wss://{self.host}{path}", {})
            headers = [("X-Twilio-Signature", signature)]
        scope = self.scope("websocket", path, headers=headers, extensions=self.extensions, **more)
        socket = AsgiSocket()
        socket.task = asyncio.create_task(self.app(scope, socket.to_app.get, socket.from_app.put))
        socket.to_app.put_nowait({"type": "websocket.connect"})
        try:
            yield socket
        finally:
            socket.to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
            async with asyncio.timeout(5):
                await socket.task


class AsgiSocket:
    """The server's end of a socket."""

    def __init__(self):
        self.to_app = asyncio.Queue()
        self.from_app = asyncio.Queue()
        self.task = None

    def send(self, event, **more):
        self.to_app.put_nowait({"type": "websocket.receive", "text": json.dumps({"event": event, **more})})

    def start(self, sid, parameters):
        detail = {"accountSid": ACCOUNT, "callSid": sid, "streamSid": "MZ1", "customParameters": parameters}
        self.send("connected")
        self.send("start", streamSid="MZ1", start=detail)

    async def hear(self):
        async with asyncio.timeout(5):
            return await self.from_app.get()


def form(sid, **more):
    return {"CallSid": sid, "AccountSid": ACCOUNT, "From": "+1", "To": "+2", "CallStatus": "ringing", **more}


@asynccontextmanager
async def asgi_gateway(**settings):
    voips = []
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, **settings)
        gateway.on("voip", voips.append)
        yield gateway, AsgiServer(gateway.asgi()), voips
        await gateway.close()


async def test_a_whole_call():
    async with asgi_gateway() as (gateway, server, voips):
        sid = new_sid()
        status, text, headers = await server.post("/twilio", form(sid))
        assert (status, headers["content-type"]) == (200, "text/xml; charset=utf-8")
        document = Document(text)
        assert document.stream.get("url") == "wss://voice.example/twilio/media"
        (voip,) = voips
        frames, ends = [], []
        voip.on(VoIP.MESSAGE, frames.append)
        voip.on(VoIP.ENDED, ends.append)
        async with server.socket("/twilio/media") as socket:
            assert await socket.hear() == {"type": "websocket.accept"}
            socket.start(sid, document.parameters)
            socket.send("media", streamSid="MZ1", media={"payload": "/////w==", "timestamp": "0"})
            await until(lambda: frames)
            assert frames[0].data == b"\xff" * 4
            turn = uuid4()
            voip.post(Message(uuid=turn, data=b"\x01" * 8000))
            media = await socket.hear()
            assert json.loads(media["text"])["event"] == "media"
            voip.abort(turn)
            while json.loads((await socket.hear())["text"])["event"] != "clear":
                pass
            socket.send("stop", streamSid="MZ1")
            while (last := await socket.hear())["type"] != "websocket.close":
                pass
            assert last["code"] == 1000
        assert [end.reason for end in ends] == ["caller_hangup"]
        await until(lambda: not gateway.calls)


async def test_the_refusals_are_those_of_the_other_shell():
    async with asgi_gateway(max_body=100, body_timeout_s=0.05) as (gateway, server, _):
        good = [("Content-Type", FORM), ("X-Twilio-Signature", "x")]
        for expected, request in {
            404: server.request("POST", "/other", headers=good),
            405: server.request("PUT", "/twilio", headers=good),
            415: server.request("POST", "/twilio", headers=[("Content-Type", "application/json")]),
            400: server.request("POST", "/twilio", headers=good[:1]),
            403: server.post("/twilio", {"CallSid": "CA1"}, public="https://else.example/twilio"),
            413: server.request("POST", "/twilio", body=[b"x" * 60, b"x" * 60], headers=good),
            408: server.request("POST", "/twilio", body=[b"x"], headers=good, stall=True),
        }.items():
            status, _, headers = await request
            assert status == expected
            if expected == 405:
                assert headers["allow"] == "GET, POST"
        declared = [*good, ("Content-Length", "1000")]
        assert (await server.request("POST", "/twilio", headers=declared))[0] == 413
        assert (await server.request("GET", "/twilio/media", headers=good))[0] == 403
        assert not gateway.calls


async def test_an_upgrade_is_refused_with_a_status_where_the_server_can():
    async with asgi_gateway() as (gateway, plain, _):
        server = AsgiServer(gateway.asgi(), extensions={"websocket.http.response": {}})
        for path, headers, expected in (
            ("/twilio/media", [], 400),
            ("/twilio/media", [("X-Twilio-Signature", "x")], 403),
            ("/nothing", [("X-Twilio-Signature", "x")], 404),
        ):
            async with server.socket(path, headers=headers) as socket:
                start = await socket.hear()
                assert (start["type"], start["status"]) == ("websocket.http.response.start", expected)
            async with plain.socket(path, headers=headers) as socket:
                assert (await socket.hear())["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"text": "hello"}, 1008),
        ({"bytes": b"\x00"}, 1008),
        ({"text": '{"event":"media","streamSid":"MZ","media":{"payload":""}}'}, 1008),
        ({"text": json.dumps({"event": "new", "x": "y" * 70_000})}, 1009),
    ],
)
async def test_a_socket_that_breaks_the_protocol_is_closed(message, code):
    async with asgi_gateway() as (_, server, _), server.socket("/twilio/media") as socket:
        assert (await socket.hear())["type"] == "websocket.accept"
        socket.to_app.put_nowait({"type": "websocket.receive", **message})
        assert await socket.hear() == {"type": "websocket.close", "code": code, "reason": ""}


async def test_a_stream_that_never_starts_is_closed():
    async with asgi_gateway(start_timeout_s=0.05) as (_, server, _), server.socket("/twilio/media") as socket:
        assert (await socket.hear())["type"] == "websocket.accept"
        assert (await socket.hear())["code"] == 1008


async def test_a_peer_that_goes_away_loses_the_stream():
    async with asgi_gateway() as (_, server, voips):
        sid = new_sid()
        document = Document((await server.post("/twilio", form(sid)))[1])
        async with server.socket("/twilio/media") as socket:
            socket.start(sid, document.parameters)
            await until(lambda: voips[0].state == "live")
        assert voips[0].state == "lost"


async def test_it_can_be_mounted_into_starlette():
    async def hello(request):
        return PlainTextResponse("hello")

    for settings in ({}, {"webhook_url": "https://voice.example/phone/twilio"}, {"path": "/phone/twilio"}):
        async with asgi_gateway(**settings) as (gateway, _, voips):
            app = Starlette(routes=[Route("/", hello), Mount("/phone", app=gateway.asgi())])
            server = AsgiServer(app)
            assert (await server.request("GET", "/"))[1] == "hello"
            sid = new_sid()
            status, text, _ = await server.post("/phone/twilio", form(sid))
            assert status == 200, settings
            document = Document(text)
            assert document.stream.get("url") == "wss://voice.example/phone/twilio/media"
            assert document.action.startswith("https://voice.example/phone/twilio/after?call=")
            async with server.socket("/phone/twilio/media") as socket:
                socket.start(sid, document.parameters)
                await until(lambda: voips[0].state == "live")


async def test_a_prefix_that_a_proxy_strips_is_the_root_path():
    async with asgi_gateway() as (_, server, _):
        status, text, _ = await server.post(
            "/twilio", form(new_sid()), public="https://voice.example/api/twilio", root_path="/api"
        )
        assert status == 200
        assert Document(text).stream.get("url") == "wss://voice.example/api/twilio/media"


async def test_the_servers_lifespan_starts_and_ends_the_workers_of_a_gateway():
    pool = WorkerPool(f"{GREETING}:on_voip", processes=1)
    async with asgi_gateway(workers=pool) as (gateway, server, _):
        assert not gateway.ready
        to_app, from_app = asyncio.Queue(), asyncio.Queue()
        life = asyncio.create_task(server.app({"type": "lifespan"}, to_app.get, from_app.put))
        async with asyncio.timeout(30):
            to_app.put_nowait({"type": "lifespan.startup"})
            assert (await from_app.get())["type"] == "lifespan.startup.complete"
            assert gateway.ready
            to_app.put_nowait({"type": "lifespan.shutdown"})
            assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
            await life
        assert not pool.pids


@pytest.mark.parametrize("kind", ["twilio", "web"])
async def test_a_server_whose_workers_cannot_start_is_told_so_and_stops(kind):
    pool = WorkerPool(f"{GREETING}:there_is_none", processes=1)
    made = (
        WebGateway(workers=pool)
        if kind == "web"
        else TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, workers=pool)
    )
    to_app, from_app = asyncio.Queue(), asyncio.Queue()
    to_app.put_nowait({"type": "lifespan.startup"})
    async with made as gateway, asyncio.timeout(30):
        await gateway.asgi()({"type": "lifespan"}, to_app.get, from_app.put)
        answer = from_app.get_nowait()
        assert answer["type"] == "lifespan.startup.failed"
        assert "there_is_none" in answer["message"]
        assert not gateway.ready


async def test_the_servers_lifespan_closes_the_gateway():
    async with asgi_gateway() as (gateway, server, voips):
        sid = new_sid()
        document = Document((await server.post("/twilio", form(sid)))[1])
        to_app, from_app = asyncio.Queue(), asyncio.Queue()
        life = asyncio.create_task(server.app({"type": "lifespan"}, to_app.get, from_app.put))
        to_app.put_nowait({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        async with server.socket("/twilio/media") as idle:
            assert (await idle.hear())["type"] == "websocket.accept"
            to_app.put_nowait({"type": "lifespan.shutdown"})
            assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
            assert (await idle.hear())["type"] == "websocket.close"
        await life
        assert voips[0].end.reason == "shutdown"
        assert not gateway.calls
        status, _, _ = await server.post("/twilio", form(new_sid()))
        assert status == 503
        assert document.verbs == ["Connect"]
        with pytest.raises(NotImplementedError):
            await server.app({"type": "other"}, None, None)
