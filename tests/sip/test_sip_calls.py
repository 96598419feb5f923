"""Calls over real sockets: how they begin, change and end, and what is refused."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from uuid import uuid4

import pytest
from sip_house import CLOCK, SETTINGS, Desk, a_gateway, speech, until

from dialog.agent.agent import Agent
from dialog.errors import CarrierError, ConfigurationError, NotSupportedError
from dialog.message import ALAW_8K, MULAW_8K, Message
from dialog.providers.factories import create_gateway, provider_class
from dialog.testing.doubles import HummingTTS
from dialog.testing.sip import SIPPhone, SIPRefused
from dialog.voip.admission import Accept, Reject, Say
from dialog.voip.sip.gateway import SIPGateway
from dialog.voip.sip.voip import SIPVoIP
from dialog.voip.voip import VoIP
from dialog.workers.hosted import HostingSettings
from dialog.workers.pool import WorkerPool

APPS = Path(__file__).parents[1] / "workers" / "apps"


def dial(gateway: SIPGateway, **options):
    return SIPPhone.call("127.0.0.1", gateway.port, clock=CLOCK, **options)


class Greeter(Agent):
    """Says something by itself."""


async def test_a_call_is_known_by_its_numbers_and_headers():
    desk = Desk()
    async with a_gateway(desk) as gateway:
        async with dial(
            gateway, to="1000", from_="+15550100", headers={"X-Campaign": "spring", "Authorization": "Digest secret"}
        ) as phone:
            [voip] = desk.voips
            assert isinstance(voip, SIPVoIP)
            assert (voip.metadata.from_, voip.metadata.to, voip.metadata.carrier) == ("+15550100", "1000", "sip")
            assert voip.metadata.parameter("X-Campaign") == "spring"
            assert voip.metadata.parameter("Authorization") == ""
            assert voip.sip_call_id == phone.call_id
            assert gateway.get(phone.call_id) is gateway.get(str(voip.metadata.call_id)) is voip
            assert gateway.get("nobody") is None
        await until(lambda: desk.ends)
        assert desk.ends[0].reason == "caller_hangup"
        assert desk.life == ["live 1", "ended"]


async def test_an_agent_greets_over_a_telephone_line():
    def greet(voip: SIPVoIP) -> None:
        Greeter(voip=voip, tts=HummingTTS(), greeting="Good evening, this is Luigi's.").activate()

    async with a_gateway(greet) as gateway, dial(gateway) as phone:
        await until(lambda: phone.heard.count(MULAW_8K.silence(1)[:1]) < len(phone.heard) - 4000)


async def test_a_european_telephone_speaks_a_law():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway, formats=[ALAW_8K, MULAW_8K]) as phone:
        assert phone.audio_format == ALAW_8K == desk.voips[0].audio_format


async def test_keys_come_by_info_requests_too():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        phone.press("7#", by="info")
        await until(lambda: desk.digits == ["7", "#"])


async def test_keys_are_pressed_towards_the_other_side():
    desk = Desk()
    async with a_gateway(desk) as gateway:
        async with dial(gateway) as phone:
            await until(lambda: desk.voips[0].state == "live")
            await desk.voips[0].send_digits("12w#")
            await until(lambda: phone.keys == ["1", "2", "#"])
            with pytest.raises(CarrierError, match="keys"):
                await desk.voips[0].send_digits("hello")
        await until(lambda: desk.ends)
        assert desk.life == ["live 1", "ended"]  # and not taken for the end of a stream that moves on


async def test_an_agent_that_hangs_up_tells_the_telephone():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        await desk.voips[0].hangup()
        assert phone.requests[-1].method == "BYE"
        await phone.over.wait()
        assert desk.ends[0].reason == "agent_hangup"


async def test_an_agent_that_hangs_up_before_it_answers_refuses_the_call():
    async with a_gateway(Desk(lambda voip: voip.dispose())) as gateway:
        with pytest.raises(SIPRefused) as caught:
            async with dial(gateway):
                pass
        assert caught.value.status == 480


async def test_a_transfer_that_is_answered_ends_the_call():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        await desk.voips[0].transfer_to("+15550123")
        [refer] = [each for each in phone.requests if each.method == "REFER"]
        assert f"<sip:+15550123@127.0.0.1:{phone._signalling.port}>" == refer.headers["Refer-To"]
        await phone.over.wait()
        await until(lambda: desk.ends)
        assert desk.ends[0].reason == "transferred"


async def test_a_transfer_that_the_pbx_refuses_leaves_the_call_as_it_is():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        phone.transfer = "refused"
        await until(lambda: desk.voips[0].state == "live")
        with pytest.raises(CarrierError, match="603"):
            await desk.voips[0].transfer_to("200")
        with pytest.raises(CarrierError, match=r"E\.164"):
            await desk.voips[0].transfer_to("200>\r\nEvil: 1")
        assert desk.life == ["live 1"]


async def test_a_transfer_that_nobody_answers_brings_the_caller_back_in_time():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        phone.transfer = "silent"
        await until(lambda: desk.voips[0].state == "live")
        await desk.voips[0].transfer_to("200", back_within_s=1.0)
        await until(lambda: desk.life == ["live 1", "moving", "live 2 transfer_failed"])
        turn = uuid4()
        desk.voips[0].post(Message(uuid=turn, data=speech(300), done=True))
        await until(lambda: any(each.uuid == turn and each.state == "played" for each in desk.reports))


async def test_a_pbx_that_hangs_up_after_a_transfer_has_carried_it_out():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        phone.transfer = "silent"
        await until(lambda: desk.voips[0].state == "live")
        await desk.voips[0].transfer_to("200")
        await phone.hang_up()
        await until(lambda: desk.ends)
        assert (desk.ends[0].reason, desk.ends[0].detail) == ("transferred", "unconfirmed")


async def test_what_a_telephone_line_cannot_do_says_so():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway):
        for attempt in (
            desk.voips[0].start_recording(),
            desk.voips[0].send_sms("hello", to="+15550123"),
            desk.voips[0].consult("+15550123"),
        ):
            with pytest.raises(NotSupportedError, match="SIP line"):
                await attempt
        with pytest.raises(NotSupportedError):
            desk.voips[0].download_recording("https://recordings.example/1")


async def test_a_caller_on_hold_hears_nothing_and_his_music_is_not_heard():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        await phone.invite({}, direction="sendonly")
        before, loud = len(phone.heard), desk.loud_ms
        phone.say(speech(400))
        desk.voips[0].post(Message(uuid=uuid4(), data=speech(400), done=True))
        await until(lambda: any(each.state == "played" for each in desk.reports))
        assert len(phone.heard) <= before + 320  # what was on its way
        assert desk.loud_ms == loud
        await phone.invite({}, direction="sendrecv")
        await until(lambda: len(phone.heard) > before + 1600)
        phone.say(speech(400))
        await until(lambda: desk.loud_ms > loud + 300)


async def test_a_caller_who_was_on_hold_for_long_is_not_lost_when_he_is_back():
    desk = Desk()
    async with a_gateway(desk, quiet_s=4.0) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        await phone.invite({}, direction="inactive")
        phone.muted = True
        frames = len(desk.audio)
        await until(lambda: sum(len(each.data) for each in desk.audio[frames:]) > 5 * 8000)
        sent = len(phone.heard)
        await phone.invite({}, direction="sendrecv")
        await until(lambda: len(phone.heard) > sent + 160)
        phone.muted = False
        loud = desk.loud_ms
        phone.say(speech(400))
        await until(lambda: desk.loud_ms > loud + 300)
        assert desk.life == ["live 1"]


async def test_the_call_is_refreshed_by_requests_without_a_description():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        assert (await phone.request("UPDATE")).code == 200
        assert (await phone.request("OPTIONS")).code == 200
        answer = await phone.request("INVITE")
        assert b"m=audio" in answer.body
        phone.acknowledge(answer.cseq.sequence)
        phone._send(phone._request("ACK", body="nonsense", sequence=answer.cseq.sequence))  # which cannot be refused
        assert (await phone.request("MESSAGE", body="hello")).code == 405
        assert desk.life == ["live 1"]


async def test_a_caller_who_hears_of_nothing_any_more_is_lost():
    desk = Desk()
    async with a_gateway(desk, quiet_s=1.0) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        phone.muted = True
        await until(lambda: desk.ends)
        assert desk.life == ["live 1", "lost"]
        assert desk.ends[0].reason == "lost"
        await until(lambda: any(each.method == "BYE" for each in phone.requests))


async def test_an_answer_that_is_not_acknowledged_is_repeated_and_starts_no_stream():
    desk = Desk()
    async with a_gateway(desk) as gateway:
        phone = SIPPhone("127.0.0.1", gateway.port, to="1000", from_="+15550100", clock=CLOCK, formats=[MULAW_8K])
        await phone.open()
        phone.acknowledges = False
        answer = await phone.invite({})
        await until(lambda: len([each for each in phone.answers if each.code == 200]) > 1)
        assert desk.life == []
        phone.acknowledge(answer.cseq.sequence)
        await until(lambda: desk.life == ["live 1"])
        await phone.hang_up()
        await phone.close()


async def test_a_caller_who_hangs_up_while_it_rings_is_not_answered():
    desk, deciding = Desk(), asyncio.Event()

    async def resolver(offer):
        deciding.set()
        await asyncio.sleep(60)

    async with a_gateway(desk, resolver=resolver, resolver_timeout_s=60) as gateway:
        phone = SIPPhone("127.0.0.1", gateway.port, to="1000", from_="+15550100", clock=CLOCK, formats=[MULAW_8K])
        await phone.open()
        call = asyncio.create_task(phone.invite({}))
        await deciding.wait()
        phone.cancel()
        with pytest.raises(SIPRefused) as caught:
            await call
        assert caught.value.status == 487
        assert not desk.voips
        await phone.close()


@pytest.mark.parametrize(
    ("decision", "status"),
    [(Reject("busy"), 486), (Reject(), 603), (Say("We are closed."), 603), ("nonsense", 500), (None, 500)],
)
async def test_a_resolver_declines_before_anything_is_spent(decision, status):
    desk = Desk()

    async def resolver(offer):
        if offer.metadata.to == "2000":
            return Accept()
        if decision == "nonsense":
            raise ValueError(decision)
        return decision

    async with a_gateway(desk, resolver=resolver) as gateway:
        with pytest.raises(SIPRefused) as caught:
            async with dial(gateway):
                pass
        assert caught.value.status == status
        assert not desk.voips
        assert gateway.refusals.sip[status] == 1
        async with dial(gateway, to="2000"):
            assert len(desk.voips) == 1


async def test_code_that_raises_costs_only_its_call():
    def take(voip: SIPVoIP) -> None:
        if voip.metadata.to == "1000":
            raise ValueError("of the user")
        desk(voip)

    desk = Desk()
    async with a_gateway(take) as gateway, dial(gateway, to="2000"):
        with pytest.raises(SIPRefused, match="500"):
            async with dial(gateway, to="1000"):
                pass
        assert desk.voips[0].state == "live"


async def test_all_ports_for_audio_are_taken():
    desk = Desk()
    first = 41_000
    async with a_gateway(desk, rtp_ports=(first, first)) as gateway:
        async with dial(gateway):
            with pytest.raises(SIPRefused, match="486"):
                async with dial(gateway):
                    pass
        await until(lambda: not gateway.calls)
        async with dial(gateway):
            assert len(desk.voips) == 2


async def test_strangers_are_not_answered(caplog):
    desk = Desk()
    async with a_gateway(desk, peers=["192.0.2.0/24"]) as gateway:
        phone = SIPPhone("127.0.0.1", gateway.port, to="1000", from_="+15550100", clock=CLOCK, formats=[MULAW_8K])
        await phone.open()
        for _ in range(3):
            phone.send(b"OPTIONS sip:x@127.0.0.1 SIP/2.0\r\n\r\n")
        await until(lambda: gateway.refusals.sip[0] == 3)
        assert not phone.answers
        assert caplog.text.count("none of the gateway's peers") == 1
        await phone.close()


async def test_garbage_costs_nothing_but_itself(caplog):
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        for data in (b"\r\n\r\n", b"\0", b"garbage", b"INVITE x SIP/2.0\r\n\r\n", b"x" * 20_000, b"\xff" * 900):
            phone.send(data)
        for data in (b"", b"x", b"\x80" + bytes(11), bytes(3000), b"\x80\x48" + bytes(30)):
            phone.send_audio(data)
        phone.say(speech(300))
        await until(lambda: desk.loud_ms > 200)
        await until(lambda: gateway.refusals.sip[400] == 4)
        assert caplog.text.count("an RTP packet") == 1


async def test_a_call_without_g711_is_refused():
    desk = Desk()
    async with a_gateway(desk) as gateway:
        phone = SIPPhone("127.0.0.1", gateway.port, to="1000", from_="+15550100", clock=CLOCK, formats=[MULAW_8K])
        await phone.open()
        for offer, status in (("v=0\r\nm=audio 4000 RTP/AVP 18\r\n", 488), ("nonsense", 400), ("", 400)):
            phone._offer = lambda direction, offer=offer: offer
            phone.call_id = f"{uuid4()}"
            with pytest.raises(SIPRefused) as caught:
                await phone.invite({})
            assert caught.value.status == status
        assert not desk.voips
        await phone.close()


async def test_requests_that_are_of_no_call_are_refused():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        known = phone._remote
        phone._remote = f"{known}x"
        assert (await phone.request("BYE")).code == 481
        phone._remote = known
        assert (await phone.request("INFO")).code == 200
        other = SIPPhone("127.0.0.1", gateway.port, to="1000", from_="+15550100", clock=CLOCK, formats=[MULAW_8K])
        await other.open()
        assert (await other.request("OPTIONS")).code == 200
        assert (await other.request("REGISTER")).code == 405
        other.call_id = phone.call_id
        with pytest.raises(SIPRefused, match="482"):
            await other.invite({})
        other.call_id = "another"
        with pytest.raises(SIPRefused, match="420"):
            await other.invite({"Require": "100rel"})
        await other.close()
        assert desk.life == ["live 1"]


async def test_a_gateway_that_drains_or_closes_takes_no_calls():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        drained = asyncio.create_task(gateway.drain(20))
        await asyncio.sleep(0)
        assert not gateway.ready
        with pytest.raises(SIPRefused, match="486"):
            async with dial(gateway):
                pass
        await phone.hang_up()
        assert await drained


async def test_closing_hangs_up_on_everybody():
    desk = Desk()
    async with a_gateway(desk) as gateway, dial(gateway) as phone:
        await until(lambda: desk.voips[0].state == "live")
        await gateway.close()
        assert desk.ends[0].reason == "shutdown"
        await phone.over.wait()


async def test_a_gateway_serves_until_it_is_cancelled(caplog):
    caplog.set_level(logging.INFO)
    desk = Desk()
    gateway = SIPGateway(host="127.0.0.1", port=0, peers=["127.0.0.1"], clock=CLOCK, call_settings=SETTINGS)
    gateway.on("voip", desk)
    serving = asyncio.create_task(gateway.serve())
    await until(lambda: gateway.ready)
    with pytest.raises(ConfigurationError, match="cannot listen"):
        await SIPGateway(host="127.0.0.1", port=gateway.port, peers=["127.0.0.1"]).start()
    async with dial(gateway):
        assert "127.0.0.1" in repr(gateway)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not gateway.ready


def test_a_setting_that_cannot_be_used_says_so():
    for options in (
        {"host": "pbx.example", "peers": ["127.0.0.1"]},
        {"host": "127.0.0.1", "peers": []},
        {"host": "127.0.0.1", "peers": "127.0.0.1"},
        {"host": "127.0.0.1", "peers": ["pbx.example"]},
        {"host": "127.0.0.1", "peers": ["127.0.0.1"], "rtp_ports": (20, 10)},
        {"host": "127.0.0.1", "peers": ["127.0.0.1"], "public_host": "voice.example"},
    ):
        with pytest.raises(ConfigurationError):
            SIPGateway(**options)


def test_the_registry_knows_it():
    assert provider_class("voip", "sip") is SIPVoIP
    assert issubclass(provider_class("voip", "sip"), VoIP)
    assert isinstance(create_gateway("sip", host="127.0.0.1", peers=["127.0.0.1"]), SIPGateway)


async def test_an_agent_in_a_worker_process_answers_the_telephone():
    workers = WorkerPool(
        f"{APPS / 'greeting.py'}:on_voip", processes=1, hosting=HostingSettings(admit_s=20, answer_s=10)
    )
    async with a_gateway(Desk(), workers=workers) as gateway:
        async with dial(gateway) as phone:
            await until(lambda: phone.heard_ms >= 590)
            phone.press("1")  # it hangs up
            await phone.over.wait()
        await until(lambda: not workers.host.calls)


async def test_no_worker_has_room():
    workers = WorkerPool(f"{APPS / 'broken.py'}:on_voip", processes=1, hosting=HostingSettings(admit_s=20, answer_s=10))
    async with a_gateway(Desk(), workers=workers) as gateway:
        with pytest.raises(SIPRefused, match="500"):
            async with dial(gateway):
                pass
