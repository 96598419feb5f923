"""Gateways that share an address: what lands at the wrong one reaches the call all the same."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import aiohttp
import pytest
from bridges import until
from neighbours import PUBLIC, neighbours

from dialog.errors import StateError
from dialog.message import Message
from dialog.voip.admission import NoWorker
from dialog.voip.carrier.record import call_id_of
from dialog.voip.peers import Adoption, PeerLost
from dialog.voip.voip import VoIP
from dialog.workers.frames import MAX_FRAME
from dialog.workers.peers import FabricPeers

from test_twilio_asgi import AsgiServer  # isort: skip
from twilio_phone import Document, new_sid  # isort: skip


# A stream that lands elsewhere


async def test_audio_marks_and_keys_pass_through_another_gateway():
    async with neighbours() as both:
        sid, document, opened, voip = await both.call()
        assert document.parameters["node"] == "one"
        frames, keys, dispatched, changes = [], [], [], []
        voip.on(VoIP.MESSAGE, frames.append)
        voip.on(VoIP.DTMF, keys.append)
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        voip.on(VoIP.STREAMING_STOPPED, changes.append)
        voip.on(VoIP.ENDED, changes.append)
        await until(lambda: voip.state == "live")
        await opened.media(bytes(range(160)))
        await opened.media(b"\x01" * 160)
        await until(lambda: len(frames) == 2)
        assert frames[0].data == bytes(range(160))
        assert [round(frame.at_ms - frames[0].at_ms) for frame in frames] == [0, 20]
        turn = uuid4()
        voip.post(Message(uuid=turn, data=b"\x02" * 160, done=True))
        assert (await opened.hear())["event"] == "media"
        mark = await opened.hear()
        assert mark["event"] == "mark"
        assert not dispatched
        await opened.mark(mark["mark"]["name"])
        await until(lambda: dispatched == [turn])
        await opened.send("dtmf", streamSid=opened.stream_sid, dtmf={"track": "inbound_track", "digit": "#"})
        await until(lambda: keys == ["#"])
        assert not both.two.gateway.calls
        assert not both.two.voips
        await opened.stop()
        assert await opened.close_code() == 1000
        await until(lambda: not both.one.gateway.calls)
        assert [type(change).__name__ for change in changes] == ["StreamStopped", "CallEnd"]
        assert changes[-1].reason == "caller_hangup"
        assert (await both.two.ask(document.action, sid)).verbs == ["Hangup"]


async def test_a_clear_passes_through_another_gateway():
    async with neighbours() as both:
        _, _, opened, voip = await both.call()
        turn = uuid4()
        voip.post(Message(uuid=turn, data=b"\x02" * 16000, done=True))
        assert (await opened.hear())["event"] == "media"
        voip.abort(turn)
        async with asyncio.timeout(5):
            while (message := await opened.hear())["event"] != "clear":
                assert message["event"] in ("media", "mark")
        assert message == {"event": "clear", "streamSid": opened.stream_sid}


async def test_a_socket_under_asgi_is_relayed_too():
    async with neighbours() as both:
        sid = new_sid()
        both.rest.add_call(sid)
        document = await both.one.ring(sid)
        (voip,) = both.one.voips
        frames = []
        voip.on(VoIP.MESSAGE, frames.append)
        async with AsgiServer(both.two.gateway.asgi()).socket("/twilio/media") as opened:
            assert await opened.hear() == {"type": "websocket.accept"}
            opened.start(sid, document.parameters)
            opened.send("media", streamSid="MZ1", media={"payload": "/////w==", "timestamp": "0"})
            await until(lambda: frames)
            assert frames[0].data == b"\xff" * 4
            turn = uuid4()
            voip.post(Message(uuid=turn, data=b"\x01" * 8000))
            assert json.loads((await opened.hear())["text"])["event"] == "media"
            voip.abort(turn)
            while json.loads((await opened.hear())["text"])["event"] != "clear":
                pass
            await voip.hangup()
            while (last := await opened.hear())["type"] != "websocket.close":
                pass
            assert last["code"] == 1000


async def test_a_hang_up_closes_the_socket_at_another_gateway():
    async with neighbours() as both:
        sid, document, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        await voip.hangup()
        assert await opened.close_code() == 1000
        assert (await both.two.ask(document.action, sid)).verbs == ["Hangup"]


async def test_a_second_stream_of_the_same_generation_is_refused_wherever_it_lands():
    async with neighbours() as both:
        sid, document, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        for house in (both.one, both.two):
            again = await house.stream(document, sid)
            assert await again.close_code() == 1008
        assert voip.state == "live"
        assert not opened.ws.closed
        await opened.stop()
        assert await opened.close_code() == 1000
        late = await both.two.stream(document, sid)
        assert await late.close_code() == 1008
        assert len(both.one.voips) == 1
        assert not both.two.voips


@pytest.mark.parametrize(
    "forged",
    [{"node": ""}, {"node": "two"}, {"node": "three"}, {"token": ""}, {"call_id": str(uuid4())}, {"call_id": "x"}],
    ids=["no node", "another node", "an unknown node", "no token", "another call", "no call"],
)
async def test_a_token_opens_only_the_stream_that_it_was_made_for(forged):
    async with neighbours() as both:
        sid = new_sid()
        document = await both.one.ring(sid)
        opened = await both.two.stream(document, sid, **forged)
        assert await opened.close_code() == 1008
        assert not both.two.voips
        assert both.one.voips[0].state == "offered"


async def test_a_stream_that_is_not_signed_is_refused_where_it_lands():
    async with neighbours() as both:
        url = both.two.origin.replace("http", "ws", 1) + "/twilio/media"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await both.two.phone.connect(url, signature="AAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        assert refused.value.status == 403


@pytest.mark.parametrize("text", ["hello", '{"event":"media","streamSid":"MZ","media":{}}', '{"event":"connected"}'])
async def test_a_relayed_stream_that_breaks_the_protocol_is_lost_for_its_call(text):
    async with neighbours() as both:
        _, _, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        await opened.ws.send_str(text)
        assert await opened.close_code() == 1008
        await until(lambda: voip.state == "lost")


# Webhooks that land elsewhere


async def test_a_lost_stream_comes_back_through_another_gateway():
    async with neighbours() as both:
        sid, document, opened, voip = await both.call(at="one")
        await until(lambda: voip.state == "live")
        assert "node=one" in document.action
        opened.drop()
        await until(lambda: voip.state == "lost")
        second = await both.two.ask(document.action, sid)
        assert "generation=2" in second.action
        assert "node=one" in second.action
        assert (await both.one.ask(document.action, sid)).text == second.text
        await both.two.stream(second, sid)
        await until(lambda: voip.state == "live")
        assert voip.generation == 2
        assert not both.two.voips


async def test_a_repeated_voice_webhook_is_answered_alike_at_both():
    async with neighbours() as both:
        sid = new_sid()
        document = await both.one.ring(sid)
        assert (await both.two.ring(sid)).text == document.text
        assert len(both.one.voips) == 1
        assert not both.two.voips


async def test_a_voice_webhook_at_both_at_once_makes_one_call():
    async with neighbours() as both:
        for _ in range(5):
            sid = new_sid()
            here, there = await asyncio.gather(both.one.ring(sid), both.two.ring(sid))
            assert here.text == there.text
        assert len(both.one.voips) + len(both.two.voips) == 5


async def test_a_gateway_that_says_nothing_holds_up_no_call(monkeypatch):
    async with neighbours() as both:
        monkeypatch.setattr("dialog.workers.peers._FIND_S", 0.05)
        monkeypatch.setattr(both.one.fabric, "receiver", None)
        sid = new_sid()
        document = await both.two.ring(sid)
        assert document.parameters["node"] == "two"
        await both.two.stream(document, sid)
        await until(lambda: both.two.voips[0].state == "live")


async def test_an_answer_that_does_not_come_is_a_503(monkeypatch):
    async with neighbours() as both:
        sid, document, _, _ = await both.call()
        monkeypatch.setattr("dialog.workers.peers._ASK_S", 0.05)
        monkeypatch.setattr(both.one.fabric, "receiver", None)
        status, _ = await both.two.post(document.action, sid)
        assert status == 503


async def test_a_transfer_fails_and_the_caller_comes_back_through_another_gateway():
    async with neighbours() as both:
        sid, _, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        started = []
        voip.on(VoIP.STREAMING_STARTED, started.append)
        await voip.transfer_to("+15559990000", back_within_s=20)
        dial = Document(both.rest.calls[sid].updates[0].twiml).root.find("Dial")
        assert "node=one" in dial.get("action")
        await opened.stop()
        await until(lambda: voip.state == "moving")
        back = await both.two.ask(dial.get("action"), sid, DialCallStatus="busy")
        assert back.verbs == ["Connect"]
        await both.two.stream(back, sid)
        await until(lambda: voip.state == "live")
        assert [(each.generation, each.resumed) for each in started] == [(2, "transfer_failed")]


async def test_an_answered_transfer_is_told_through_another_gateway():
    async with neighbours() as both:
        sid, _, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        ends = []
        voip.on(VoIP.ENDED, ends.append)
        await voip.transfer_to("+15559990000")
        dial = Document(both.rest.calls[sid].updates[0].twiml).root.find("Dial")
        await opened.stop()
        await until(lambda: voip.state == "moving")
        number = dial.find("Number").get("statusCallback")
        await both.two.post(number, new_sid(), ParentCallSid=sid, CallStatus="in-progress")
        assert [end.reason for end in ends] == ["transferred"]


async def test_reports_reach_the_call_whichever_address_they_name():
    async with neighbours() as both:
        sid, _, _, voip = await both.call()
        await until(lambda: voip.state == "live")
        urls, ends = [], []
        voip.on(VoIP.RECORDING_URL, urls.append)
        voip.on(VoIP.ENDED, ends.append)
        call = voip.metadata.call_id
        report = {"RecordingSid": "RE1", "RecordingStatus": "completed", "RecordingUrl": "https://api.example/RE1"}
        status, _ = await both.two.post(f"{PUBLIC}/recording?call={call}&node=one", sid, **report)
        assert status == 204
        assert urls == ["https://api.example/RE1"]
        # The number's own status callback names neither call nor node.
        status, _ = await both.two.post(f"{PUBLIC}/status", sid, CallStatus="completed")
        assert status == 204
        assert [end.reason for end in ends] == ["caller_hangup"]


async def test_the_owner_s_refusal_is_passed_on():
    async with neighbours() as both:
        sid, document, _, _ = await both.call()
        status, text = await both.two.post(f"{PUBLIC}/recording?call={call_id_of(sid)}&node=one", sid)
        assert (status, text.startswith("nothing")) == (400, False)
        status, text = await both.two.post(document.action, sid, AccountSid="AC" + "9" * 32)
        assert (status, text) == (403, "the request is of another account\n")
        status, _ = await both.two.post(f"{PUBLIC}/after?call=x&node=one", sid)
        assert status == 400


async def test_an_owner_that_fails_is_not_waited_for(monkeypatch):
    async with neighbours() as both:
        sid, document, _, _ = await both.call()

        async def fail(_: bytes) -> bytes:
            raise ValueError("broken")

        monkeypatch.setattr(both.one.gateway._exchange, "answer", fail)
        status, text = await both.two.post(document.action, sid)
        assert (status, text) == (503, "the gateway that has this call does not answer\n")


async def test_what_is_too_large_for_the_connection_costs_only_that_request(monkeypatch):
    async with neighbours() as both:
        sid, document, _, voip = await both.call()
        with pytest.raises(PeerLost, match="too large"):
            await both.two.peers.ask("one", call_id_of(sid), bytes(MAX_FRAME))

        async def much(_: bytes) -> bytes:
            return bytes(MAX_FRAME)

        with monkeypatch.context() as patched:
            patched.setattr(both.one.gateway._exchange, "answer", much)
            status, _ = await both.two.post(document.action, sid)
        assert status == 503
        assert voip.state == "live", "the relayed stream uses the same connection"
        assert (await both.two.ring(sid)).text == document.text


async def test_whoever_watches_hears_of_gateways_that_come():
    async with neighbours() as both:
        came: list[str] = []
        stop = both.one.peers.watch(came.append)
        both.one.peers.came("three")
        stop()
        both.one.peers.came("four")
        assert came == ["three"]
        assert both.one.peers.others == {"two", "three", "four"}
        for node in ("three", "four"):
            both.one.peers.gone(node, "it was never there")


# Gateways that go


async def test_the_death_of_the_owner_closes_the_socket_and_the_caller_is_told():
    async with neighbours() as both:
        sid, document, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        both.part()
        assert await opened.close_code() == 1011
        await until(lambda: not both.two.peers.others)
        told = await both.two.ask(document.action, sid)
        assert told.verbs == ["Say", "Hangup"]
        assert (await both.two.ask(document.action, sid)).text == told.text
        late = await both.two.stream(document, sid)
        assert await late.close_code() == 1008
        # Who has hung up is not told anything, and what is reported late is just too late.
        other = f"{PUBLIC}/after?call={uuid4()}&generation=1&node=one"
        assert (await both.two.ask(other, new_sid(), CallStatus="completed")).verbs == ["Hangup"]
        report = {"RecordingSid": "RE1", "RecordingStatus": "completed", "RecordingUrl": "https://api.example/RE1"}
        assert (await both.two.post(f"{PUBLIC}/recording?call={uuid4()}&node=one", sid, **report))[0] == 204


async def test_the_death_of_a_relay_is_a_lost_stream_and_the_call_goes_on():
    async with neighbours() as both:
        sid, document, _, voip = await both.call()
        await until(lambda: voip.state == "live")
        both.part()
        await until(lambda: voip.state == "lost")
        second = await both.one.ask(document.action, sid)
        opened = await both.one.stream(second, sid)
        await until(lambda: voip.state == "live")
        assert voip.generation == 2
        voip.post(Message(uuid=uuid4(), data=b"\x02" * 160, done=True))
        assert (await opened.hear())["event"] == "media"


async def test_draining_waits_for_sockets_that_are_relayed():
    async with neighbours() as both:
        _, _, opened, voip = await both.call()
        await until(lambda: voip.state == "live")
        draining = asyncio.create_task(both.two.gateway.drain(20.0))
        assert not await both.one.gateway.drain(0.01)
        assert not draining.done()
        await opened.stop()
        assert await asyncio.wait_for(draining, 10)


async def test_draining_has_a_bound_for_relayed_sockets_too():
    async with neighbours() as both:
        _, _, _, voip = await both.call()
        await until(lambda: voip.state == "live")
        assert not await both.two.gateway.drain(0.05)


# Going on with the calls of a gateway that is gone


class Adopting(FabricPeers):
    """Goes on with every call, in this process."""

    taken: tuple[VoIP, ...] = ()
    outcome: object = "taken"

    async def adopt(self, orphan):
        self.orphan = orphan
        if isinstance(self.outcome, Exception):
            raise self.outcome

        def take(voip: VoIP) -> asyncio.Future[None]:
            self.taken = (*self.taken, voip)
            self.state = voip.state, voip.generation
            taken = asyncio.get_running_loop().create_future()
            if self.outcome == "full":
                taken.set_exception(NoWorker("nobody"))
            else:
                taken.set_result(None)
            return taken

        return Adoption(orphan.metadata, take)


async def test_a_call_can_be_adopted_when_its_gateway_is_gone():
    async with neighbours(peers=Adopting) as both:
        sid, document, opened, _ = await both.call()
        both.part()
        assert await opened.close_code() == 1011
        second, again = await asyncio.gather(
            both.two.ask(document.action, sid, From="+1555"), both.two.ask(document.action, sid)
        )
        assert second.text == again.text
        adopted = both.two.peers
        assert isinstance(adopted, Adopting)
        assert adopted.state == ("lost", 1)
        assert (adopted.orphan.node, adopted.orphan.generation) == ("one", 1)
        (voip,) = adopted.taken
        assert voip.metadata.call_id == UUID(document.parameters["call_id"])
        assert voip.metadata.carrier_call_id == sid
        assert second.parameters["node"] == "two"
        assert "generation=2" in second.action
        started = []
        voip.on(VoIP.STREAMING_STARTED, started.append)
        late = await both.two.stream(document, sid)
        assert await late.close_code() == 1008
        await both.two.stream(second, sid)
        await until(lambda: voip.state == "live")
        assert [(each.generation, each.resumed) for each in started] == [(2, "reconnected")]
        # What still names the dead gateway finds the call where it is now.
        urls = []
        voip.on(VoIP.RECORDING_URL, urls.append)
        report = {"RecordingSid": "RE1", "RecordingStatus": "completed", "RecordingUrl": "https://api.example/RE1"}
        await both.two.post(f"{PUBLIC}/recording?call={voip.metadata.call_id}&node=one", sid, **report)
        assert urls == ["https://api.example/RE1"]


@pytest.mark.parametrize("outcome", ["full", ValueError("broken")], ids=["full", "raises"])
async def test_the_caller_is_told_when_adopting_fails(outcome, monkeypatch):
    monkeypatch.setattr(Adopting, "outcome", outcome)
    async with neighbours(peers=Adopting) as both:
        sid, document, opened, _ = await both.call()
        both.part()
        assert await opened.close_code() == 1011
        told = await both.two.ask(document.action, sid)
        assert told.verbs == ["Say", "Hangup"]
        assert (await both.two.ask(document.action, sid)).text == told.text
        await until(lambda: not both.two.gateway.calls)


async def test_an_adopted_call_that_nobody_calls_back_ends():
    async with neighbours(peers=Adopting) as both:
        sid, document, opened, _ = await both.call()
        both.part()
        assert await opened.close_code() == 1011
        await both.two.ask(document.action, sid)
        adopted = both.two.peers
        assert isinstance(adopted, Adopting)
        ends = []
        adopted.taken[0].on(VoIP.ENDED, ends.append)
        assert (await both.two.ask(document.action, sid, CallStatus="completed")).verbs == ["Hangup"]
        assert [end.reason for end in ends] == ["caller_hangup"]


async def test_peers_are_named_before_the_start_and_once():
    async with neighbours() as both:
        with pytest.raises(StateError):
            both.one.gateway.use_peers(both.one.peers)
