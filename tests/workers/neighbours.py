"""Two gateways of one public address in one process, joined by a socket: both sides can be looked at."""

from __future__ import annotations

import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP
from dialog.workers.peers import FabricPeers
from dialog.workers.sockets import SocketFabric

sys.path.insert(0, str(Path(__file__).parents[1] / "twilio"))
from twilio_phone import ACCOUNT, TOKEN, Document, Phone, new_sid, serving

PUBLIC = "https://voice.example/twilio"


class House:
    """One of the gateways, and Twilio as far as it lands there."""

    def __init__(self, node: str, rest: TwilioRestEmulator, peers: type[FabricPeers], **settings) -> None:
        self.voips: list[VoIP] = []
        self.fabric = SocketFabric(node)
        self.peers = peers(self.fabric)
        self.fabric.receiver = self.peers
        self.gateway = TwilioGateway(
            account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, webhook_url=PUBLIC, **settings
        )
        self.gateway.on("voip", self.voips.append)
        self.gateway.use_peers(self.peers)
        self.origin = ""
        self.phone: Phone = None  # type: ignore[assignment]  # when it is served

    async def post(self, url: str, sid: str, **more):
        """A webhook for ``url``, which lands here: its status and its text."""
        fields = self.phone.form(sid, **more)
        parts = urlsplit(url)
        here = f"{self.origin}{parts.path}{'?' + parts.query if parts.query else ''}"
        status, text, _ = await self.phone.post(here, fields, signed_url=url)
        return status, text

    async def ask(self, url: str, sid: str, **more) -> Document:
        """A webhook that is answered with a document."""
        status, text = await self.post(url, sid, **{"CallStatus": "in-progress", **more})
        assert status == 200, text
        return Document(text)

    async def ring(self, sid: str) -> Document:
        return await self.ask(PUBLIC, sid, CallStatus="ringing")

    async def stream(self, document: Document, sid: str, **forged: str):
        """The stream of a document, which lands here."""
        url = document.stream.get("url")
        here = self.origin.replace("http", "ws", 1) + urlsplit(url).path
        opened = await self.phone.connect(here, signature=self.phone.validator.compute_signature(url, {}))
        await opened.connected()
        parameters = {**document.parameters, **forged}
        await opened.start(sid, {name: value for name, value in parameters.items() if value})
        return opened


class Neighbours:
    """Both gateways: calls come in at ``one``, and what follows lands at ``two``."""

    def __init__(self, one: House, two: House, rest: TwilioRestEmulator) -> None:
        self.one = one
        self.two = two
        self.rest = rest

    async def call(self, at: str = "two"):
        """A call that is live: its sid, the document, the socket, and the VoIP."""
        sid = new_sid()
        self.rest.add_call(sid)
        document = await self.one.ring(sid)
        landed = self.two if at == "two" else self.one
        opened = await landed.stream(document, sid)
        return sid, document, opened, self.one.voips[-1]

    def part(self) -> None:
        """As if ``one`` was killed, for ``two``; and the other way round."""
        self.one.fabric._connections["two"].transport.abort()


@asynccontextmanager
async def neighbours(*, peers: type[FabricPeers] = FabricPeers, **settings):
    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        one, two = House("one", rest, peers, **settings), House("two", rest, peers, **settings)
        here, there = socket.socketpair()
        for sock in (here, there):
            sock.setblocking(False)
        await one.fabric.connect("two", here)
        await two.fabric.connect("one", there)
        one.peers.came("two")
        two.peers.came("one")
        try:
            async with (
                serving(one.gateway) as one.origin,
                serving(two.gateway) as two.origin,
                aiohttp.ClientSession() as session,
            ):
                for house in (one, two):
                    house.phone = Phone(house.origin + "/twilio", session)
                yield Neighbours(one, two, rest)
                for house in (one, two):
                    for opened in house.phone.sockets:
                        await opened.ws.close()
        finally:
            await one.fabric.close()
            await two.fabric.close()
