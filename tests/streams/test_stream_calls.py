"""Calls that carriers bring as a media socket, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import uvicorn
from aiohttp import web
from steady import steady_clock

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.errors import CarrierError, ConfigurationError, NotSupportedError
from dialog.message import Message
from dialog.net.listening import unlisten
from dialog.testing.faults import CallFaults, bad_messages
from dialog.testing.stream_call import dial_stream
from dialog.voip.admission import Accept, Reject, Say
from dialog.voip.call import CallSettings
from dialog.voip.streams.gateway import StreamGateway
from dialog.voip.voip import VoIP

CLOCK = steady_clock(4.0)
SETTINGS = CallSettings(settle_s=0.2)
TOKEN = "a-token-of-the-tests"


async def until(condition, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


class House:
    def __init__(self, gateway: StreamGateway, url: str) -> None:
        self.gateway = gateway
        self.url = url
        self.voips: list[VoIP] = []

    @property
    def voip(self) -> VoIP:
        return self.voips[-1]

    def dial(self, carrier: str = "plivo", query: str = f"?token={TOKEN}", **options):
        return dial_stream(self.url + query, carrier=carrier, clock=CLOCK, **options)


@asynccontextmanager
async def house(on_voip=None, **settings):
    gateway = StreamGateway(**{"token": TOKEN, "clock": CLOCK, "call_settings": SETTINGS, **settings})
    sock = socket.create_server(("127.0.0.1", 0))
    there = House(gateway, f"ws://127.0.0.1:{sock.getsockname()[1]}{gateway.media_path}")

    def taken(voip: VoIP) -> None:
        there.voips.append(voip)
        if on_voip is not None:
            on_voip(voip)

    gateway.on("voip", taken)
    runner = web.AppRunner(gateway.app(), access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield there
    finally:
        await unlisten(runner)


@pytest.mark.parametrize("carrier", ["plivo", "exotel", "compatible"])
async def test_a_socket_is_a_call(carrier):
    async with house() as there:
        query = f"?token={TOKEN}&from=%2B15550109&to=%2B15550100&ticket=17"
        async with there.dial(carrier, query, call_id="their-id") as caller:
            await until(lambda: there.voips and there.voip.state == "live")
            metadata = there.voip.metadata
            assert (metadata.carrier, metadata.carrier_call_id) == (carrier, "their-id")
            assert metadata.from_ == ("+15551230001" if carrier == "exotel" else "+15550109")
            assert metadata.parameter("ticket") == "17"
            assert "token" not in dict(metadata.parameters)
            assert there.gateway.get("their-id") is there.voip
            heard, keys, dispatched = bytearray(), [], []
            there.voip.on(VoIP.MESSAGE, lambda message: heard.extend(message.data))
            there.voip.on(VoIP.DTMF, keys.append)
            there.voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
            await caller.say(mulaw_encode(sine(300, 400)))
            await until(lambda: len(set(heard)) > 20)
            tone = sine(300, 500)
            turn = uuid4()
            there.voip.post(Message(uuid=turn, data=tone if carrier == "exotel" else mulaw_encode(tone), done=True))
            assert (await caller.listen(silence_ms=300)).duration_ms > 400
            await until(lambda: dispatched == [turn])
            caller.press("#")
            await until(lambda: keys == ["#"])
            assert not caller.warnings
            await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "caller_hangup"


async def test_hanging_up_closes_the_socket():
    async with house() as there, there.dial() as caller:
        await until(lambda: there.voips and there.voip.state == "live")
        await there.voip.hangup(reason="said_goodbye")
        await caller.wait_ended()
        assert caller.ended_by == "agent"
        assert caller.closed_with[0] == 1000
        assert there.voip.end.reason == "said_goodbye"


async def test_a_connection_that_breaks_ends_the_call_at_once():
    async with house() as there, there.dial() as caller:
        await until(lambda: there.voips and there.voip.state == "live")
        await caller.drop()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_what_only_the_carrier_can_do_says_so():
    async with house() as there, there.dial(call_id="their-id"):
        await until(lambda: there.voips and there.voip.state == "live")
        for wanted in (there.voip.transfer_to("+15550100"), there.voip.start_recording(), there.voip.send_digits("1")):
            with pytest.raises(NotSupportedError, match=r"streams of plivo: use the carrier's own API .* their-id"):
                await wanted
        assert there.voip.state == "live"
        with pytest.raises(NotSupportedError, match="StreamGateway places no calls"):
            await there.gateway.call("+15550100", from_="+15550101")
        with pytest.raises(CarrierError, match="fetch it with the carrier's credentials"):
            async for _ in there.gateway.download_recording("https://elsewhere.example/1"):
                pass


async def reject(offer):
    return Reject()


async def say(offer):
    return Say("We are closed.")


async def fail(offer):
    raise ValueError("of the resolver's own")


async def sleep(offer):
    await asyncio.sleep(60)


@pytest.mark.parametrize("resolver", [reject, say, fail, sleep])
async def test_a_call_that_is_not_taken_has_its_socket_closed(resolver):
    async with house(resolver=resolver, resolver_timeout_s=0.1) as there, there.dial() as caller:
        await caller.wait_ended()
        assert caller.closed_with[0] == 1000
        assert not there.voips
        assert not there.gateway.calls


async def test_an_agent_that_cannot_be_made_has_the_socket_closed():
    def on_voip(voip):
        raise RuntimeError("no agent today")

    async with house(on_voip) as there, there.dial() as caller:
        await caller.wait_ended()
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "error"


async def test_what_is_pressed_while_it_is_decided_is_kept():
    go, keys = asyncio.Event(), []

    async def resolver(offer):
        await go.wait()
        return Accept(session='{"context":{"name":"Ada"}}')

    def on_voip(voip):
        voip.on(VoIP.DTMF, keys.append)

    async with house(on_voip, resolver=resolver) as there, there.dial() as caller:
        caller.press("12")
        await caller.say(mulaw_encode(sine(300, 100)))
        go.set()
        await until(lambda: keys == ["1", "2"])
        assert there.voip.metadata.context == {"name": "Ada"}
        assert there.voip.state == "live"


async def test_a_caller_who_leaves_while_it_is_decided_has_left():
    asked, go = asyncio.Event(), asyncio.Event()

    async def resolver(offer):
        asked.set()
        await go.wait()
        return Accept()

    async with house(resolver=resolver) as there:
        async with there.dial() as caller:
            await asked.wait()
            await caller.hang_up()
        go.set()
        await until(lambda: there.voips and there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"
        await until(lambda: not there.gateway.calls)


async def test_a_call_is_taken_once():
    async with house() as there, there.dial(call_id="one") as caller:
        await until(lambda: there.voips and there.voip.state == "live")
        async with there.dial(call_id="one") as second:
            await second.wait_ended()
            assert second.closed_with[0] == 1008
        assert caller.status == "in-progress"
        assert len(there.voips) == 1
        # The same id at another carrier is another call.
        async with there.dial("exotel", call_id="one"):
            await until(lambda: len(there.voips) == 2 and there.voip.state == "live")


# Who may come in


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", f"?Token={TOKEN}", "?token=%ff"])
async def test_without_the_token_the_socket_is_refused(query):
    async with house() as there:
        async with there.dial(query=query) as caller:
            await caller.wait_ended()
        assert caller.upgrade_status in (400, 401)
        assert sum(there.gateway.refusals.sockets.values()) == 1
        assert not there.voips


async def test_the_token_may_be_a_password():
    good = {"Authorization": "Basic " + b64encode(f"dialog:{TOKEN}".encode()).decode()}
    async with house() as there:
        async with there.dial(query="", headers=good):
            await until(lambda: there.voips and there.voip.state == "live")
        for bad in ("Basic !!", "Basic " + b64encode(b"dialog:other").decode(), f"Bearer {TOKEN}"):
            async with there.dial(query="", headers={"Authorization": bad}) as caller:
                await caller.wait_ended()
            assert caller.upgrade_status == 401


@pytest.mark.parametrize("settings", [{"token": "short"}, {"path": "stream"}])
def test_settings_that_cannot_work_are_told_at_once(settings):
    with pytest.raises(ConfigurationError):
        StreamGateway(**{"token": TOKEN, **settings})


@pytest.mark.parametrize("carrier", ["plivo", "exotel", "compatible"])
async def test_a_malformed_message_costs_its_call_alone(carrier):
    async with house() as there, there.dial(carrier) as good:
        await until(lambda: there.voips and there.voip.state == "live")
        for name, bad in bad_messages("str-1", oversized=300_000).items():
            if carrier == "plivo" and name in ("timestamp is not a number", "mark without name"):
                continue  # nothing of Plivo's
            async with there.dial(carrier) as caller:
                caller.send_raw(bad)
                await caller.wait_ended()
                assert caller.closed_with[0] in (1008, 1009), name
        assert good.status == "in-progress"


async def test_a_socket_that_says_nothing_is_closed():
    async with house(start_timeout_s=0.1) as there:
        async with there.dial(faults=CallFaults(omit_start=True)) as caller:
            await caller.wait_ended()
        assert caller.closed_with[0] == 1008


async def test_a_gateway_that_drains_and_closes():
    async with house() as there, there.dial() as caller:
        await until(lambda: there.voips and there.voip.state == "live")
        drained = asyncio.ensure_future(there.gateway.drain(30))
        await asyncio.sleep(0)
        async with there.dial() as late:
            await late.wait_ended()
        assert not drained.done()
        await there.gateway.close()
        await caller.wait_ended()
        assert there.voip.end.reason == "shutdown"
        await drained


async def test_a_gateway_under_asgi_takes_calls():
    gateway, voips = StreamGateway(token=TOKEN, clock=CLOCK, call_settings=SETTINGS), []
    gateway.on("voip", voips.append)
    config = uvicorn.Config(gateway.asgi(), port=0, log_level="error", ws="websockets-sansio")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    try:
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"ws://127.0.0.1:{port}/stream?token={TOKEN}"
        async with dial_stream(url, carrier="exotel", clock=CLOCK) as caller:
            await until(lambda: voips and voips[0].state == "live")
            dispatched = []
            voips[0].on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
            voips[0].post(Message(uuid=uuid4(), data=sine(300, 300), done=True))
            await until(lambda: dispatched)
            await caller.hang_up()
        await until(lambda: not gateway.calls)
    finally:
        server.should_exit = True
        await serving
