"""Two gateways of a fleet: what is of each other's calls, and what becomes of those of one that dies."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import pytest
from bridges import hang
from neighbours import ACCOUNT, PUBLIC, TOKEN, House, Phone, TwilioRestEmulator, new_sid, serving
from test_bridge import tone

from dialog.agent.agent import Agent
from dialog.llm.llm import Entry
from dialog.message import Message
from dialog.server.config import ServiceConfig, TwilioTenant
from dialog.server.service import Service
from dialog.sessions.config import AgentConfig
from dialog.sessions.spec import SessionRequest, SessionSpec
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.nats_server import NatsServer
from dialog.testing.scripted import ScriptedLLM
from dialog.voip.admission import Accept, Offer
from dialog.voip.call import CallSettings
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP
from dialog.workers.fleet import Fleet, nats_settings
from dialog.workers.nats import NatsFabric
from dialog.workers.worker import Worker


async def until(true, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


SESSION = '{"context":{"customer":17}}'


async def accept(_: Offer) -> Accept:
    return Accept(SESSION)


class FleetHouse(House):
    """A gateway of the fleet, and Twilio as far as it lands there."""

    def __init__(self, nats: NatsServer, rest: TwilioRestEmulator) -> None:
        self.fleet = Fleet(nats.url)
        self.served: TwilioGateway | Service = TwilioGateway(
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            base_url=rest.url,
            webhook_url=PUBLIC,
            resolver=accept,
            workers=self.fleet,
        )
        self.gateway = self.served
        self.origin = ""
        self.phone: Phone = None  # type: ignore[assignment]  # when it is served

    async def die(self) -> None:
        """As kill -9 does: its sockets break, and nobody hears of it any more."""
        await hang(self.fleet._fabric)
        for opened in self.phone.sockets:
            opened.drop()


class ServiceHouse(FleetHouse):
    """A service of the fleet: its resolver is asked for every call, and it takes one at a time."""

    def __init__(self, nats: NatsServer, rest: TwilioRestEmulator) -> None:
        self.fleet = Fleet(nats.url)
        self.asked = 0
        self.served = self.service = Service(
            ServiceConfig(
                assistants={"day": assistant("You work at day."), "night": assistant("You work at night.")},
                tenants={"main": TwilioTenant(account_sid=ACCOUNT, auth_token=TOKEN, base_url=rest.url, max_calls=1)},
                resolver=self.resolve,
                webhook_path="/twilio",
                webhook_url=PUBLIC,
                workers=self.fleet,
            )
        )
        self.gateway = self.service.gateways["main"]

    async def resolve(self, _: SessionRequest) -> SessionSpec:
        self.asked += 1
        return SessionSpec(assistant="night", max_duration_s=100, context={"customer": 17})


def assistant(system: str) -> AgentConfig:
    return AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM([]), system=system, greeting="Good day.")


class Town:
    """Two gateways, and the workers that they share."""

    def __init__(self, nats: NatsServer, rest: TwilioRestEmulator, house: type[FleetHouse]) -> None:
        self.nats = nats
        self.rest = rest
        self.one, self.two = house(nats, rest), house(nats, rest)
        self.workers: list[Worker] = []
        self.voips: list[VoIP] = []

    async def worker(self, on_voip=None, **options) -> Worker:
        def taken(voip: VoIP) -> None:
            self.voips.append(voip)
            if on_voip is not None:
                on_voip(voip)

        node = f"worker-{len(self.workers)}"
        fabric = NatsFabric(node, nats_settings(self.nats.url), listens="workers", tells="hosts")
        worker = Worker(fabric, taken, settings=CallSettings(settle_s=0.2), **options)
        self.workers.append(worker)
        await fabric.connect()
        worker.start()
        await until(lambda: all(house.fleet.host.directory.get(node) for house in (self.one, self.two)))
        return worker

    async def call(self, at: str = "one"):
        """A call that came in at ``one`` and is live: its sid, the document, and the socket, which lands ``at``."""
        sid = new_sid()
        self.rest.add_call(sid)
        document = await self.one.ring(sid)
        opened = await getattr(self, at).stream(document, sid)
        await until(lambda: self.voips and self.voips[-1].state == "live")
        return sid, document, opened


@asynccontextmanager
async def town(house: type[FleetHouse] = FleetHouse):
    async with NatsServer() as nats, TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        made = Town(nats, rest, house)
        one, two = made.one, made.two
        async with (
            serving(one.served) as one.origin,
            serving(two.served) as two.origin,
            aiohttp.ClientSession() as session,
        ):
            for house in (one, two):
                house.phone = Phone(house.origin + "/twilio", session)
            await until(lambda: one.fleet.peers.others and two.fleet.peers.others)
            try:
                yield made
            finally:
                for house in (one, two):
                    for opened in house.phone.sockets:
                        await opened.ws.close()
                for worker in made.workers:
                    await worker.close()
                    await worker.fabric.close()


async def audio(opened, size: int) -> bytes:
    """So many bytes of what the gateway plays."""
    heard = b""
    while len(heard) < size:
        message = await opened.hear()
        if message["event"] == "media":
            heard += base64.b64decode(message["media"]["payload"])
    return heard


async def test_a_socket_that_lands_elsewhere_is_relayed_over_nats():
    async with town() as both:
        message = Message(uuid=uuid4(), data=tone(200), done=True)
        await both.worker(lambda voip: voip.post(message))
        _, _, opened = await both.call(at="two")
        assert message.data in await audio(opened, len(message.data))
        heard: list[Message[bytes]] = []
        both.voips[-1].on(VoIP.MESSAGE, heard.append)
        await opened.media(tone(20))
        await until(lambda: heard)
        assert heard[0].data == tone(20)
        assert both.two.gateway.calls == ()
        await opened.stop()
        await until(lambda: both.voips[-1].state == "ended")


async def test_a_callback_that_lands_elsewhere_finds_the_agent():
    async with town() as both:
        await both.worker()
        sid, document, _ = await both.call()
        urls: list[str] = []
        both.voips[-1].on(VoIP.RECORDING_URL, urls.append)
        report = {"RecordingSid": "RE1", "RecordingStatus": "completed", "RecordingUrl": "https://api.example/RE1"}
        node = document.parameters["node"]
        call_id = document.parameters["call_id"]
        await both.two.post(f"{PUBLIC}/recording?call={call_id}&node={node}", sid, **report)
        await until(lambda: urls == ["https://api.example/RE1"])


async def test_a_call_whose_gateway_dies_goes_on_at_another_one_with_its_clock_and_its_history():
    async with town() as both:
        await both.worker()
        sid, document, opened = await both.call()
        first = both.voips[-1]
        before: list[Message[bytes]] = []
        first.on(VoIP.MESSAGE, before.append)
        for _ in range(10):
            await opened.media(tone(20))
        await until(lambda: len(before) == 10)
        long = Message(uuid=uuid4(), data=tone(5000))
        playing: list[float] = []
        first.on(VoIP.PLAYBACK, lambda playback: playing.append(playback.heard_ms))
        first.post(long)
        await until(lambda: playing and playing[-1] > 300)
        await both.one.die()
        second = await both.two.ask(document.action, sid)
        assert second.verbs == ["Connect"]
        assert second.parameters["node"] == both.two.fleet.peers.node
        voip = both.voips[-1]
        assert voip is not first
        assert first.end is not None
        assert first.end.reason == "revoked"
        (lost,) = voip.snapshot.playbacks
        assert (lost.uuid, lost.state) == (long.uuid, "lost")
        assert playing[-1] <= lost.heard_ms <= playing[-1] + 250
        assert voip.metadata == first.metadata
        assert (voip.metadata.carrier_call_id, voip.metadata.session) == (sid, SESSION)
        (adopted,) = both.two.gateway.calls
        assert adopted.metadata == first.metadata
        started = []
        after: list[Message[bytes]] = []
        voip.on(VoIP.STREAMING_STARTED, started.append)
        voip.on(VoIP.MESSAGE, after.append)
        opened = await both.two.stream(second, sid)
        await until(lambda: voip.state == "live")
        assert [(each.generation, each.resumed) for each in started] == [(2, "reconnected")]
        await opened.media(tone(20))
        await until(lambda: after)
        assert after[0].at_ms > before[-1].at_ms + 500
        message = Message(uuid=uuid4(), data=tone(200), done=True)
        voip.post(message)
        assert message.data in await audio(opened, len(message.data))


async def test_a_call_keeps_what_was_decided_for_it_when_another_service_goes_on_with_it():
    async with town(ServiceHouse) as both:
        one, two = both.one, both.two
        await both.worker(one.service.sessions.on_voip)
        sid, document, _ = await both.call()
        await until(lambda: one.service.live.live)
        await one.die()
        second = await two.ask(document.action, sid)
        await two.stream(second, sid)
        await until(lambda: two.service.live.live)
        voip, (session,) = both.voips[-1], two.service.live.live
        assert len(both.voips) == 2
        assert voip.checkpoint is None, "its agent has taken it"
        config = one.service.sessions.config(SessionSpec.from_json(voip.metadata.session))
        assert config.system == "You work at night."
        assert config.settings.turns.silence.max_duration_s == 100
        assert (session.tenant, session.agent, session.call.context["customer"]) == ("main", "Agent", 17)
        assert session.call.from_ == one.service.live.live[0].call.from_
        assert session.started_at
        assert (one.asked, two.asked) == (1, 0)
        assert (await two.ring(new_sid())).verbs == ["Reject"], "the call counts here now"
        both.rest.add_call(sid)
        await two.service.get(sid).hangup(reason="api_hangup")
        await until(lambda: session.end is not None)
        assert session.end.reason == "api_hangup"


class Teller(Agent):
    """Tells a story of which each word is known."""

    def __init__(self, voip: VoIP, words: list[str]) -> None:
        self.ear = ToldSTT()
        super().__init__(
            voip=voip, stt=self.ear, tts=HummingTTS(ms_per_char=25.0), llm=ScriptedLLM(lambda _: " ".join(words))
        )


async def test_the_agent_says_what_was_not_heard_and_nothing_twice():
    words = [f"word{number}" for number in range(30)]
    story = " ".join(words).replace("word9 ", "word9. ").replace("word19 ", "word19. ") + "."
    async with town() as both:
        agents: list[Teller] = []

        def on_voip(voip: VoIP) -> None:
            agents.append(Teller(voip, [story]))
            agents[-1].activate()

        await both.worker(on_voip)
        sid, document, opened = await both.call()
        agents[0].ear.heard("tell me a story")
        await audio(opened, 8000)
        await both.one.die()
        second = await both.two.ask(document.action, sid)
        opened = await both.two.stream(second, sid)
        await until(lambda: len(agents) == 2)
        reader = asyncio.create_task(play(opened))
        try:
            await until(lambda: agents[1]._conversation.engine.quiet and len(said(agents[1])) > 0, 25)
            await until(lambda: "word29" in " ".join(said(agents[1])), 25)
        finally:
            reader.cancel()
            await asyncio.wait([reader])
        told = " ".join(said(agents[1]))
        for word in words:
            assert told.replace(".", " ").split().count(word) == 1, told


async def play(opened) -> None:
    """Be a telephone: echo marks when their audio was played."""
    due = asyncio.get_running_loop().time()
    while True:
        message = await opened.ws.receive_json(timeout=30)
        if message["event"] == "media":
            due = max(due, asyncio.get_running_loop().time())
            due += len(base64.b64decode(message["media"]["payload"])) / 8000
        elif message["event"] == "mark":
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            await opened.mark(message["mark"]["name"])


def said(agent: Teller) -> list[str]:
    return [item.text for item in agent.history.items() if isinstance(item, Entry) and item.role == "assistant"]


async def test_the_caller_is_told_when_the_worker_is_gone_with_the_gateway():
    async with town() as both:
        worker = await both.worker()
        sid, document, _ = await both.call()
        worker._ticker.stop()
        worker.fabric.receiver = None
        await hang(worker.fabric)
        await both.one.die()
        told = await both.two.ask(document.action, sid)
        assert told.verbs == ["Say", "Hangup"]
        await until(lambda: not both.two.gateway.calls)


async def test_a_gateway_that_was_thought_dead_lets_go_of_the_call_when_it_is_back(caplog):
    async with town() as both:
        await both.worker()
        sid, document, opened = await both.call()
        fabric = both.one.fleet._fabric
        await hang(fabric)
        second = await both.two.ask(document.action, sid)
        assert second.verbs == ["Connect"]
        voip = both.voips[-1]
        await both.two.stream(second, sid)
        await until(lambda: voip.state == "live")
        with caplog.at_level(logging.WARNING):
            await fabric.connect()
            both.one.fleet.back()
            await opened.media(tone(20))
            await until(lambda: not both.one.gateway.calls)
        assert "another gateway has it" in caplog.text
        assert voip.state == "live"
        assert len(both.voips) == 2


async def test_a_call_that_no_gateway_goes_on_with_is_over(monkeypatch):
    monkeypatch.setattr(NatsFabric, "host_lost_s", 1.5)
    async with town() as both:
        await both.worker()
        await both.call()
        await both.one.die()
        await until(lambda: both.voips[-1].state == "ended")
        assert both.voips[-1].end is not None
        assert both.voips[-1].end.reason == "lost"
        assert not both.workers[0].calls


async def test_a_living_gateways_call_is_not_given_away():
    async with town() as both:
        await both.worker()
        await both.call()
        call_id = both.voips[-1].metadata.call_id
        assert await both.two.fleet.host.seek_call(call_id, 0.5) is None
        assert both.voips[-1].state == "live"


@pytest.mark.parametrize("leaving", ["says so", "is killed"])
async def test_gateways_know_who_is_there(leaving):
    async with town() as both:
        node = both.one.fleet.peers.node
        assert both.two.fleet.peers.reaches(node)
        if leaving == "says so":
            await both.one.gateway.close()
        else:
            await both.one.die()
        await until(lambda: not both.two.fleet.peers.reaches(node))
