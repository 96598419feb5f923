"""Gateways for browsers that share an address: a client comes back to its session wherever it lands."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from bridges import hang

from dialog.agent.agent import Agent
from dialog.audio.tones import sine
from dialog.errors import NotSupportedError, StateError
from dialog.message import MULAW_8K, PCM_24K, ClientTool, Message
from dialog.testing.doubles import HummingTTS
from dialog.testing.nats_server import NatsServer
from dialog.testing.web import WebCaller, WebRefused
from dialog.testing.webrtc import RtcCaller
from dialog.voip.call import CallSettings
from dialog.voip.link import UseClientTool
from dialog.voip.voip import VoIP
from dialog.voip.web import messages as ms
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.settings import WebRTC
from dialog.workers.fleet import Fleet, nats_settings
from dialog.workers.nats import NatsFabric
from dialog.workers.peers import FabricPeers
from dialog.workers.sockets import SocketFabric
from dialog.workers.worker import Worker

sys.path.insert(0, str(Path(__file__).parents[1] / "voip"))
from web_server import serving, until

KEY = b"the same key in all of the processes"


class House:
    """One of the gateways."""

    def __init__(self, node: str) -> None:
        self.fabric = SocketFabric(node)
        self.peers = FabricPeers(self.fabric)
        self.fabric.receiver = self.peers
        self.voips: list[VoIP] = []
        self.gateway = WebGateway(token_key=KEY, webrtc=WebRTC())
        self.gateway.on("voip", self.voips.append)
        self.gateway.use_peers(self.peers)
        self.url = ""

    def part(self, other: str) -> None:
        """As if it was killed, for the other one."""
        self.fabric._connections[other].transport.abort()


@asynccontextmanager
async def two_gateways():
    one, two = House("one"), House("two")
    here, there = socket.socketpair()
    for sock in (here, there):
        sock.setblocking(False)
    await one.fabric.connect("two", here)
    await two.fabric.connect("one", there)
    one.peers.came("two")
    two.peers.came("one")
    try:
        async with serving(one.gateway) as one.url, serving(two.gateway) as two.url:
            yield one, two
    finally:
        await one.fabric.close()
        await two.fabric.close()


@pytest.fixture(params=[WebCaller, RtcCaller])
def kind(request):
    return request.param


async def moved(caller, house):
    """Its connection breaks, and it comes back somewhere else."""
    await caller.drop()
    caller._url = house.url
    return await caller.resume()


async def test_a_session_goes_on_over_a_connection_to_another_gateway(kind):
    digits, heard, ended = [], [], []
    async with two_gateways() as (one, two), kind.connect(one.url, token=one.gateway.token(user="ada")) as caller:
        (voip,) = one.voips
        voip.on(VoIP.DTMF, digits.append)
        voip.on(VoIP.MESSAGE, lambda message: heard.append(message.data))
        voip.on(VoIP.ENDED, ended.append)
        started = await moved(caller, two)
        assert (started.resumed, started.audio) == (True, PCM_24K)
        await until(lambda: voip.state == "live" and voip.generation == 2)
        assert not two.gateway.calls
        turn, played = uuid4(), []
        voip.on(VoIP.MESSAGE_DISPATCHED, played.append)
        voip.post(Message(uuid=turn, data=sine(300, 400, sample_rate=24_000), done=True))
        await until(lambda: played == [turn])
        await until(lambda: caller.heard_ms >= 360)
        caller.say(sine(300, 300, sample_rate=24_000))
        caller.press("5")
        await until(lambda: digits == ["5"])
        await until(lambda: any(max(memoryview(each).cast("h")) > 1000 for each in heard))
        again = await moved(caller, one)  # and back
        assert again.resumed
        await until(lambda: voip.generation == 3)
        await moved(caller, two)
        await caller.hang_up()
        await until(lambda: ended)
        assert ended[0].reason == "caller_hangup"


async def test_what_the_agent_has_to_tell_and_to_ask_goes_there_and_back():
    tool = ClientTool(name="paint", description="Paints.")
    async with two_gateways() as (one, two):
        async with WebCaller.connect(one.url, token=one.gateway.token(), tools=[tool]) as caller:
            (voip,) = one.voips
            await moved(caller, two)
            asking = asyncio.ensure_future(
                voip._link.command(UseClientTool(name="paint", arguments="{}", timeout_s=10.0))
            )
            call = await caller.wait_for(ms.ToolCall)
            caller.send(ms.ToolResult(id=call.id, result="green"))
            assert await asking == "green"
            caller.send(ms.Ping(4))
            assert (await caller.wait_for(ms.Pong)).id == 4
            await voip.hangup(reason="done")
            assert (await caller.wait_for(ms.SessionEnded)).reason == "done"
            assert await caller.wait_closed() == 1000


async def test_only_with_its_secret_and_only_while_it_lasts(kind):
    async with two_gateways() as (one, two), kind.connect(one.url, token=one.gateway.token()) as caller:
        (voip,) = one.voips
        secret = caller.started.secret
        other = WebGateway(token_key=b"another key, just as long as ours is")
        stranger = other._board._secrets
        ticket = one.gateway._board._secrets.verify(secret, voip.metadata.call_id)
        from msgspec.structs import replace

        for wrong in ("", "x", secret[:-2] + "AA", stranger.issue(ticket)):
            started = caller.started
            caller.started = replace(started, secret=wrong)
            with pytest.raises(WebRefused) as refused:
                await moved(caller, two)
            assert refused.value.close_code == 4404
            caller.started = started
        await voip.hangup()
        await until(lambda: not one.gateway.calls)
        with pytest.raises(WebRefused, match="no such session") as refused:
            await moved(caller, two)
        assert refused.value.close_code == 4404


async def test_a_token_is_used_once_wherever_it_is_shown():
    async with two_gateways() as (one, two):
        token = one.gateway.token()
        async with WebCaller.connect(one.url, token=token):
            with pytest.raises(WebRefused, match="used before"):
                async with WebCaller.connect(two.url, token=token):
                    pass
        await until(lambda: not one.gateway.calls)
        with pytest.raises(WebRefused, match="used before"):
            async with WebCaller.connect(two.url, token=token):
                pass
        assert not two.voips


async def test_when_its_gateway_dies_the_client_is_told_and_its_session_is_over(kind):
    async with two_gateways() as (one, two):
        async with kind.connect(one.url, token=one.gateway.token()) as caller:
            await moved(caller, two)
            two.part("one")
            assert await caller.wait_closed() == 1011
            with pytest.raises(WebRefused) as refused:
                await caller.resume()
            assert refused.value.close_code == 4404
        for call in one.gateway.calls:
            call.end("test")


async def test_a_gateway_that_drains_waits_for_what_it_relays():
    async with two_gateways() as (one, two):
        async with WebCaller.connect(one.url, token=one.gateway.token()) as caller:
            await moved(caller, two)
            assert not await two.gateway.drain(0.05)
            await caller.hang_up()
            assert await two.gateway.drain(10)


async def test_peers_are_named_before_the_start():
    async with two_gateways() as (one, two):
        assert one.gateway.peers is one.peers
        with pytest.raises(StateError, match="before it starts"):
            one.gateway.use_peers(two.peers)
        with pytest.raises(NotSupportedError):
            await one.gateway._exchange.answer(b"")


class Teller(Agent):
    async def inference(self, message: Message[str]):
        yield f"You said {message.data}."


async def test_a_fleet_s_session_survives_its_gateway():
    agents = []

    def take(voip):
        agents.append(Teller(voip=voip, tts=HummingTTS(ms_per_char=10), greeting="Hello there."))
        agents[-1].activate()

    async with NatsServer() as nats:
        fleets = [Fleet(nats.url), Fleet(nats.url)]
        one, two = (WebGateway(token_key=KEY, workers=fleet) for fleet in fleets)
        fabric = NatsFabric("worker-0", nats_settings(nats.url), listens="workers", tells="hosts")
        worker = Worker(fabric, take, settings=CallSettings(settle_s=0.2))
        async with serving(one) as here, serving(two) as there, ClientSession() as http:
            await fabric.connect()
            worker.start()
            await until(lambda: all(each.host.directory.get("worker-0") for each in fleets))
            await until(lambda: fleets[1].peers.others)
            caller = WebCaller(http, here, one._board.clock)
            start = ms.SessionStart(version=1, token=one.token(user="ada"), audio=(MULAW_8K,))
            await caller._open(start)
            await caller.wait_for(ms.AgentTranscript, lambda said: said.state == "played")
            await hang(fleets[0]._fabric)  # as kill -9 does
            await caller.drop()
            await until(lambda: not fleets[1].peers.others)
            caller._url = there
            started = await caller.resume()
            assert started.resumed
            assert started.audio == MULAW_8K
            (call,) = two.calls
            assert (call.metadata.from_, call.generation) == ("ada", 2)
            await until(lambda: len(agents) == 2)
            turn = uuid4()
            agents[-1].post(Message(uuid=turn, data="good morning"))
            said = await caller.wait_for(ms.AgentTranscript, lambda each: each.turn == turn and each.state == "played")
            assert said.heard == "You said good morning."
            await caller.hang_up()
            await until(lambda: not two.calls)
            fleets[0].gone("worker-0", "nobody hears the gateway that died, and it hears nobody")
            await worker.close()
            await fabric.close()
