"""What the gateway's tests dial with: a gateway on a real socket, and Twilio's requests by hand."""

import asyncio
import base64
import json
import secrets
import socket
from contextlib import asynccontextmanager
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import aiohttp
from aiohttp import web
from twilio.request_validator import RequestValidator

from dialog.net.listening import unlisten
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.pacing import Pacing
from dialog.voip.twilio import TwilioGateway

ACCOUNT = "AC" + "0" * 32
TOKEN = "secret-token"
FORM = "application/x-www-form-urlencoded; charset=UTF-8"


def new_sid():
    return "CA" + secrets.token_hex(16)


class Document:
    """A TwiML answer."""

    def __init__(self, text):
        self.text = text
        self.root = ET.fromstring(text)
        self.verbs = [verb.tag for verb in self.root]

    @property
    def stream(self):
        return self.root.find("Connect/Stream")

    @property
    def action(self):
        return self.root.find("Connect").get("action")

    @property
    def parameters(self):
        return {p.get("name"): p.get("value") for p in self.stream.iter("Parameter")}


class Phone:
    """Twilio, as far as one gateway can tell."""

    def __init__(self, url, session, token=TOKEN, account=ACCOUNT):
        self.url = url
        self.session = session
        self.account = account
        self.validator = RequestValidator(token)
        self.sockets = []

    def form(self, sid, **more):
        fields = {
            "CallSid": sid,
            "AccountSid": self.account,
            "From": "+15551230001",
            "To": "+15551230002",
            "CallStatus": "ringing",
            "Direction": "inbound",
            "ApiVersion": "2010-04-01",
            "FromCity": "",
        }
        return {**fields, **more}

    async def post(self, url, fields, *, headers=None, signed_url=None, signature=None):
        if signature is None:
            signature = self.validator.compute_signature(signed_url or url, fields)
        sent = {"Content-Type": FORM, "X-Twilio-Signature": signature, **(headers or {})}
        sent = {name: value for name, value in sent.items() if value is not None}
        async with self.session.post(url, data=urlencode(fields), headers=sent) as response:
            return response.status, await response.text(), response.headers

    async def ring(self, sid=None, **more):
        status, text, headers = await self.post(self.url, self.form(sid or new_sid(), **more))
        assert status == 200, text
        assert headers["Content-Type"].startswith("text/xml")
        return Document(text)

    async def connect(self, url, *, signature=None, headers=None):
        if signature is None:
            signature = self.validator.compute_signature(url, {})
        sent = {"x-twilio-signature": signature, **(headers or {})}
        ws = await self.session.ws_connect(url, headers={n: v for n, v in sent.items() if v is not None})
        socket = Socket(ws, self.account)
        self.sockets.append(socket)
        return socket

    async def stream(self, document, sid):
        """Open the stream of a document and send its first two messages."""
        socket = await self.connect(document.stream.get("url"))
        await socket.connected()
        await socket.start(sid, document.parameters)
        return socket

    async def call(self, sid=None):
        sid = sid or new_sid()
        return await self.stream(await self.ring(sid), sid)


class Socket:
    """Twilio's end of a media socket."""

    def __init__(self, ws, account=ACCOUNT):
        self.ws = ws
        self.account = account
        self.stream_sid = "MZ" + secrets.token_hex(16)
        self.at = 0

    async def send(self, event, **more):
        await self.ws.send_str(json.dumps({"event": event, **more}))

    async def connected(self):
        await self.send("connected", protocol="Call", version="1.0.0")

    async def start(self, sid, parameters, **more):
        detail = {
            "accountSid": self.account,
            "callSid": sid,
            "streamSid": self.stream_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
            **more,
        }
        await self.send("start", streamSid=self.stream_sid, sequenceNumber="1", start=detail)

    async def media(self, audio=b"\xff" * 160):
        payload = base64.b64encode(audio).decode()
        media = {"track": "inbound", "chunk": "1", "timestamp": str(self.at), "payload": payload}
        self.at += len(audio) // 8
        await self.send("media", streamSid=self.stream_sid, sequenceNumber="2", media=media)

    async def mark(self, name):
        await self.send("mark", streamSid=self.stream_sid, sequenceNumber="3", mark={"name": name})

    async def stop(self):
        await self.send("stop", streamSid=self.stream_sid, sequenceNumber="9", stop={})

    async def hear(self):
        """The next message of the gateway, decoded."""
        async with asyncio.timeout(5):
            message = await self.ws.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)

    async def close_code(self):
        """Wait until the gateway has closed, and with what."""
        async with asyncio.timeout(5):
            async for _ in self.ws:
                pass
        return self.ws.close_code

    def drop(self):
        """Cut the connection."""
        self.ws._response.connection.transport.abort()


async def until(condition):
    """Wait until ``condition`` holds, letting the loop run."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(gateway, app=None):
    """The gateway on a free port: its origin."""
    runner = web.AppRunner(app or gateway.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await unlisten(runner)


@asynccontextmanager
async def outbound_line(*, on_voip=None, rest=None, **settings):
    """A gateway that can be called back, and the account it places calls with: ``(gateway, rest, voips)``."""
    voips = []
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN, **(rest or {})) as account:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/twilio"
        settings = {"pacing": Pacing(calls_per_s=1000.0), **settings}
        gateway = TwilioGateway(
            account_sid=ACCOUNT, auth_token=TOKEN, base_url=account.url, webhook_url=url, **settings
        )
        if on_voip is not False:
            gateway.on("voip", on_voip or voips.append)
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        try:
            yield gateway, account, voips
            for call in gateway.calls:
                if call.state != "ended":
                    await call.voip.hangup()
            await account.wait_hung_up()
        finally:
            await unlisten(runner)


@asynccontextmanager
async def phone_line(*, on_voip=None, app=None, path="/twilio", **settings):
    """A gateway, the account's REST API, and a phone to call it: ``(gateway, phone, rest, voips)``."""
    voips = []
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        settings = {"account_sid": ACCOUNT, "auth_token": TOKEN, "base_url": rest.url, "path": path, **settings}
        gateway = TwilioGateway(**settings)
        if on_voip is not False:
            gateway.on("voip", on_voip or voips.append)
        async with serving(gateway, app) as origin, aiohttp.ClientSession() as session:
            phone = Phone(origin + path, session)
            yield gateway, phone, rest, voips
            for socket in phone.sockets:
                await socket.ws.close()
