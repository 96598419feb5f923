"""Several owners behind one set of peers: each hears what is meant for it, and they come and go together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from service_line import ACCOUNT, TOKEN, service_line, serving_at
from twilio_phone import Phone

from dialog.errors import RemoteProtocolError, StateError
from dialog.server.channels import Channels
from dialog.server.config import TwilioTenant
from dialog.workers.peers import FabricPeers
from dialog.workers.sockets import SocketFabric

OTHER = "AC" + "1" * 32


class Peers:
    """The other process is this one, without anything in between."""

    def __init__(self) -> None:
        self.node = "here"
        self.others = {"there"}
        self.life: list[str] = []
        self.far = None

    async def start(self, owner) -> None:
        self.life.append("started")
        self.far = owner

    async def close(self) -> None:
        self.life.append("closed")

    def reaches(self, node: str) -> bool:
        return node in self.others

    async def ask(self, node: str, call_id: UUID, request: bytes) -> bytes:
        return await self.far.answer(request)

    def relay(self, node: str, call_id: UUID, opening: bytes, wire, audio_format):
        del audio_format
        return self.far.join_relayed(opening, wire)


class Owner:
    def __init__(self, name: str, *calls: UUID) -> None:
        self.name = name
        self.calls = calls

    def holds(self, call_id: UUID) -> bool:
        return call_id in self.calls

    async def answer(self, request: bytes) -> bytes:
        return b"%s: %s" % (self.name.encode(), request)

    def join_relayed(self, opening: bytes, wire) -> tuple:
        return self.name, opening, wire


async def test_each_owner_hears_what_is_meant_for_it() -> None:
    peers, one, two = Peers(), uuid4(), uuid4()
    channels = Channels(peers)
    named = {name: channels.channel(name) for name in ("", "luigi", "müller")}
    for name, call in (("", None), ("luigi", one), ("müller", two)):
        await named[name].start(Owner(name, *filter(None, [call])))
    assert peers.life == ["started"]
    for name, channel in named.items():
        assert await channel.ask("there", one, b"\x00hello") == f"{name}: \x00hello".encode()
        assert channel.relay("there", one, b"opening", "wire") == (name, b"opening", "wire")
        assert (channel.node, channel.others, channel.reaches("there")) == ("here", {"there"}, True)
    assert channels.holds(one)
    assert channels.holds(two)
    assert not channels.holds(uuid4())


async def test_what_nobody_serves_here_is_refused() -> None:
    peers = Peers()
    channels = Channels(peers)
    served, unknown = channels.channel("luigi"), channels.channel("mario")
    await served.start(Owner("luigi"))
    for request in (unknown.ask("there", uuid4(), b"x"), channels.answer(b"")):
        with pytest.raises(RemoteProtocolError, match="not served here"):
            await request


async def test_peers_close_with_the_last_channel() -> None:
    peers = Peers()
    channels = Channels(peers)
    one, two = channels.channel("one"), channels.channel("two")
    await one.start(Owner("one"))
    await one.close()
    await one.close()
    assert peers.life == ["started"]
    await two.close()  # which was never started
    assert peers.life == ["started", "closed"]


async def test_each_tenant_has_its_name_behind_the_address_of_a_process() -> None:
    tenants = {
        "a": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN),
        "b": TwilioTenant(account_sid=OTHER, auth_token=TOKEN),
    }

    @asynccontextmanager
    async def shared(listening, service):
        service.use_peers(FabricPeers(SocketFabric("node-0")), media_url="wss://voice.example/media/0/")
        with pytest.raises(StateError):
            service.use_peers(FabricPeers(SocketFabric("node-1")))
        async with serving_at(listening, service.app()) as origin:
            yield origin

    async with service_line(tenants=tenants, numbers={}, serve=shared) as line:
        for name, account in (("a", ACCOUNT), ("b", OTHER)):
            phone = Phone(f"{line.origin}/twilio/voice/{name}", line.session, account=account)
            document = await phone.ring()
            assert document.stream.get("url") == f"wss://voice.example/media/0/{name}"
            assert document.parameters["node"] == "node-0"
