"""Calls over Telnyx whose agent, or whose socket and webhooks, are in another process."""

from __future__ import annotations

import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web
from telnyx_phone import CLOCK, SETTINGS, house, until

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message, StreamStarted
from dialog.net.listening import unlisten
from dialog.testing.callee import Callee
from dialog.testing.telnyx import TelnyxEmulator
from dialog.voip.peers import Adoption
from dialog.voip.telnyx.gateway import TelnyxGateway
from dialog.voip.telnyx.voip import TelnyxVoIP
from dialog.voip.voip import VoIP
from dialog.workers.peers import FabricPeers
from dialog.workers.pool import WorkerPool
from dialog.workers.sockets import SocketFabric

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))

TONE = mulaw_encode(sine(300, 400))
APP = Path(__file__).parent / "telnyx_app.py"


async def test_an_agent_in_a_worker_process_talks_over_telnyx():
    pool = WorkerPool(f"{APP}:on_voip", processes=1)
    async with house(workers=pool, codec="L16", sample_rate=16000) as there, there.telnyx.dial() as caller:
        heard = await caller.listen(silence_ms=300)
        assert heard.duration_ms > 300
        caller.press("7")
        await caller.wait_ended()
        assert there.actions == ["answer", "streaming_start", "hangup"]  # the answer takes no sample rate
        assert not there.voips


async def test_without_a_worker_the_caller_is_told():
    pool = WorkerPool(f"{APP}:raises", processes=1)
    async with house(workers=pool, error_text="Sorry!") as there, there.telnyx.dial() as caller:
        await caller.wait_ended()
        assert there.actions == ["answer", "speak", "hangup"]
        assert there.fields("speak")["payload"] == "Sorry!"


class Neighbour:
    """One of two gateways that share an account."""

    def __init__(self, node: str, peers: type[FabricPeers]) -> None:
        self.voips: list[VoIP] = []
        self.fabric = SocketFabric(node)
        self.peers = peers(self.fabric)
        self.fabric.receiver = self.peers
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}/telnyx"
        self.gateway: TelnyxGateway = None  # type: ignore[assignment]  # when both addresses are known


class Adopting(FabricPeers):
    """Goes on with calls whose gateway is gone."""

    adopted: list[VoIP]

    async def adopt(self, orphan):
        self.adopted = []

        def take(voip: VoIP) -> None:
            self.adopted.append(voip)

        return Adoption(orphan.metadata, take)


@asynccontextmanager
async def neighbours(peers: type[FabricPeers] = FabricPeers):
    """Calls come in at ``one``; its callbacks and streams land at ``two``."""
    async with TelnyxEmulator(clock=CLOCK) as telnyx:
        one, two = Neighbour("one", peers), Neighbour("two", peers)
        here, there = socket.socketpair()
        for sock in (here, there):
            sock.setblocking(False)
        await one.fabric.connect("two", here)
        await two.fabric.connect("one", there)
        one.peers.came("two")
        two.peers.came("one")
        telnyx.webhook_url = one.url
        runners = []
        for house_ in (one, two):
            house_.gateway = TelnyxGateway(
                api_key=telnyx.api_key,
                public_key=telnyx.public_key,
                connection_id=telnyx.connection_id,
                base_url=telnyx.url,
                webhook_url=two.url,
                clock=CLOCK,
                call_settings=SETTINGS,
            )
            house_.gateway.on("voip", house_.voips.append)
            house_.gateway.use_peers(house_.peers)
            runner = web.AppRunner(house_.gateway.app(), access_log=None)
            await runner.setup()
            await web.SockSite(runner, house_.sock).start()
            runners.append(runner)
        try:
            yield telnyx, one, two
        finally:
            for runner in runners:
                await unlisten(runner)
            await one.fabric.close()
            await two.fabric.close()


async def test_what_lands_at_another_gateway_reaches_the_call():
    async with neighbours() as (telnyx, one, two), telnyx.dial() as caller:
        await until(lambda: one.voips and one.voips[0].state == "live")
        voip = one.voips[0]
        heard, keys, dispatched = bytearray(), [], []
        voip.on(VoIP.MESSAGE, lambda message: heard.extend(message.data))
        voip.on(VoIP.DTMF, keys.append)
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        await caller.say(TONE)
        await until(lambda: len(set(heard)) > 20)
        turn = uuid4()
        voip.post(Message(uuid=turn, data=TONE, done=True))
        await until(lambda: dispatched == [turn])
        caller.press("#")
        await until(lambda: keys == ["#"])
        assert not two.gateway.calls
        await caller.hang_up()
        await until(lambda: not one.gateway.calls)
        assert voip.end.reason == "caller_hangup"
        assert [command.action for command in telnyx.commands] == ["answer"]


async def test_a_call_whose_gateway_is_gone_goes_on_elsewhere():
    async with neighbours(Adopting) as (telnyx, one, two), telnyx.dial() as caller:
        await until(lambda: one.voips and one.voips[0].state == "live")
        two.fabric._connections["one"].transport.abort()
        await until(lambda: two.voips or getattr(two.peers, "adopted", None))
        voip = two.peers.adopted[0]
        started: list[StreamStarted] = []
        voip.on(VoIP.STREAMING_STARTED, started.append)
        await caller.wait_streaming(streams=2)
        await until(lambda: voip.state == "live")
        assert isinstance(voip, TelnyxVoIP)
        assert voip.call_control_id == caller.call_sid
        assert voip.generation >= 2  # the other one is not dead here, and asks for a stream of its own
        await caller.hang_up()
        await until(lambda: not two.gateway.calls)


@pytest.mark.parametrize("somebody", [True, False])
async def test_a_caller_who_waits_for_somebody_when_the_gateway_is_gone_is_not_left_in_silence(monkeypatch, somebody):
    monkeypatch.setattr("dialog.voip.telnyx.consulting._LOOPS", 1)  # four seconds of music
    async with neighbours(Adopting if somebody else FabricPeers) as (telnyx, one, two), telnyx.dial() as caller:
        await until(lambda: one.voips and one.voips[0].state == "live")
        telnyx.callees["+15550123"] = Callee(outcome="no-answer")
        await one.voips[0].consult("+15550123")
        await until(lambda: any(told.event_type == "streaming.stopped" for told in telnyx.delivered))
        await until(lambda: telnyx.legs[caller.call_sid].playback)
        two.fabric._connections["one"].transport.abort()
        if somebody:
            await caller.wait_streaming(streams=2)
            await until(lambda: two.peers.adopted[0].state == "live")
            # No music under the agent's voice.
            await until(lambda: any(command.action == "playback_stop" for command in telnyx.commands))
        else:
            await until(lambda: any(command.action == "speak" for command in telnyx.commands))
        await caller.hang_up()
        await until(lambda: not two.gateway.calls)


async def test_a_call_whose_gateway_is_gone_and_that_nobody_takes_is_apologised_for():
    async with neighbours() as (telnyx, one, two), telnyx.dial() as caller:
        await until(lambda: one.voips and one.voips[0].state == "live")
        two.fabric._connections["one"].transport.abort()
        await until(lambda: any(command.action == "speak" for command in telnyx.commands))
        await caller.wait_ended()
