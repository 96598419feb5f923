"""Calls that come in over Telnyx, against an emulated account: webhooks, commands, media, faults."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import aiohttp
import pytest
from telnyx_phone import CLOCK, SETTINGS, house, until

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.errors import CarrierError, MissingPublicURL, NotSupportedError, StateError
from dialog.message import ALAW_8K, PCM_8K, Message, StreamStopped
from dialog.scope import CallScope
from dialog.testing.faults import CallFaults
from dialog.testing.server import Faults
from dialog.voip.admission import Accept, Document, Reject, Say
from dialog.voip.carrier.record import call_id_of
from dialog.voip.link import UseClientTool
from dialog.voip.telnyx.gateway import TelnyxGateway
from dialog.voip.voip import VoIP

TONE = mulaw_encode(sine(300, 400))


# Taking a call


async def test_a_call_is_answered_with_a_stream_to_the_gateway():
    async with house() as there, there.telnyx.dial(from_="+15551230001", to="+15551230002") as caller:
        await until(lambda: there.voip.state == "live")
        metadata = there.voip.metadata
        assert metadata.call_id == call_id_of(caller.call_sid)
        assert there.voip.call_control_id == caller.call_sid
        assert there.voip.connection_id == there.telnyx.connection_id
        assert (metadata.carrier, metadata.from_, metadata.to) == ("telnyx", "+15551230001", "+15551230002")
        asked = there.fields("answer")
        assert asked["stream_url"] == there.telnyx.webhook_url.replace("http", "ws", 1) + "/media"
        assert asked["webhook_url"] == f"{there.telnyx.webhook_url}?call={metadata.call_id}"
        assert (asked["stream_bidirectional_mode"], asked["stream_bidirectional_target_legs"]) == ("rtp", "self")
        assert (asked["stream_codec"], asked["stream_bidirectional_codec"]) == ("PCMU", "PCMU")
        assert there.gateway.get(caller.call_sid) is there.voip
        assert there.gateway.get(str(metadata.call_id)) is there.voip
        assert there.gateway.get("nobody") is None
        await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "caller_hangup"
        assert not caller.warnings
        assert there.actions == ["answer"]  # Telnyx has said itself that it is over


@pytest.mark.parametrize(("codec", "audio_format"), [("PCMA", ALAW_8K), ("L16", PCM_8K)])
async def test_other_codecs_carry_a_call(codec, audio_format):
    async with house(codec=codec) as there, there.telnyx.dial() as caller:
        assert there.voip.audio_format == audio_format
        heard = []
        there.voip.on(VoIP.MESSAGE, lambda message: heard.append(message.data))
        await caller.say(TONE)
        await until(lambda: any(len(set(data)) > 8 for data in heard))
        speech = {"alaw": bytes(range(160)) * 10, "s16le": sine(300, 200)}[audio_format.encoding]
        there.voip.post(Message(uuid=uuid4(), data=speech, done=True))
        await until(lambda: caller.received_bytes >= 1600)
        assert not caller.warnings


async def test_a_caller_in_another_code_is_understood():
    async with house() as there, there.telnyx.dial(sends="PCMA") as caller:
        heard = bytearray()
        there.voip.on(VoIP.MESSAGE, lambda message: heard.extend(message.data))
        await caller.say(TONE)
        await until(lambda: len(set(heard)) > 20)


async def test_a_codec_that_is_not_spoken_costs_its_stream():
    async with house() as there, there.telnyx.dial(sends="G722") as caller:
        await until(lambda: caller.closed_with[0] == 1008)
        assert there.gateway.refusals.sockets[1008]
        await caller.hang_up()
        await until(lambda: not there.gateway.calls)


@pytest.mark.parametrize(("decision", "cause"), [(Reject("busy"), "USER_BUSY"), (Reject(), "CALL_REJECTED")])
async def test_a_call_that_is_rejected_is_never_answered(decision, cause):
    async def resolver(offer):
        return decision

    async with house(resolver=resolver) as there:
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert [(command.action, command.fields["cause"]) for command in there.telnyx.commands] == [("reject", cause)]
        assert not there.voips
        assert there.told("call.hangup")[0].body["data"]["payload"]["hangup_cause"] in ("user_busy", "call_rejected")


async def fails(offer):
    raise ValueError("of the resolver's own")


async def takes_too_long(offer):
    await asyncio.sleep(60)


async def wants_a_document(offer):
    return Document("<Response/>")


async def says_sorry(offer):
    return Say("We are closed.", "en-GB")


@pytest.mark.parametrize(
    ("resolver", "text", "language"),
    [
        (says_sorry, "We are closed.", "en-GB"),
        (fails, "Sorry!", "en-US"),
        (takes_too_long, "Sorry!", "en-US"),
        (wants_a_document, "Sorry!", "en-US"),
    ],
)
async def test_a_caller_is_told_in_telnyxs_voice_and_hung_up_on(resolver, text, language):
    async with house(resolver=resolver, resolver_timeout_s=0.1, error_text="Sorry!") as there:
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert there.actions == ["answer", "speak", "hangup"]
        assert "stream_url" not in there.fields("answer")
        said = there.fields("speak")
        assert (said["payload"], said["language"]) == (text, language)
        assert not there.voips


async def test_a_caller_is_told_once_though_webhooks_come_twice():
    async with house(resolver=says_sorry) as there:
        there.telnyx.repeat_webhooks = True
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert there.actions == ["answer", "speak", "hangup"]


async def test_an_agent_that_cannot_be_made_is_apologised_for():
    def on_voip(voip):
        raise RuntimeError("no agent today")

    async with house(on_voip, error_text="Sorry!") as there:
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert there.actions == ["answer", "speak", "hangup"]
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "error"


async def test_an_agent_that_hangs_up_at_once_rejects_the_call():
    async with house(lambda voip: voip.dispose()) as there:
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert there.actions == ["reject"]


async def test_what_a_resolver_decides_travels_with_the_call():
    async def resolver(offer):
        assert offer.metadata.from_ == "+15550109"
        return Accept(session='{"context":{"name":"Ada"}}')

    async with house(resolver=resolver) as there, there.telnyx.dial(from_="+15550109"):
        assert there.voip.metadata.context == {"name": "Ada"}


async def test_a_caller_who_leaves_while_it_is_decided_is_not_answered():
    asked, go = asyncio.Event(), asyncio.Event()

    async def resolver(offer):
        asked.set()
        await go.wait()
        return Accept()

    async with house(resolver=resolver) as there:
        call = there.telnyx.dial()
        dialling = asyncio.ensure_future(call._set_up())
        await asked.wait()
        await call._caller.hang_up()
        await dialling
        await until(lambda: there.told("call.hangup"))
        go.set()
        await until(lambda: not there.gateway.calls)
        await asyncio.sleep(0.05)
        assert there.actions == []
        assert not there.voips


async def test_an_answer_that_telnyx_refuses_ends_the_call():
    async with house() as there:
        there.telnyx.refuse["answer"] = (422, 90018)
        call = there.telnyx.dial()
        dialling = asyncio.ensure_future(call._set_up())
        await until(lambda: there.voips and there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"
        await call._caller.hang_up()
        await dialling


async def test_a_gateway_that_drains_takes_no_more_calls():
    async with house() as there, there.telnyx.dial():
        drained = asyncio.ensure_future(there.gateway.drain(30))
        await asyncio.sleep(0)
        async with there.telnyx.dial() as late:
            await late.wait_ended()
        assert there.fields("reject")["cause"] == "USER_BUSY"
        assert not drained.done()
        await there.voip.hangup()
        assert await drained


async def test_a_gateway_that_closes_hangs_up():
    async with house() as there, there.telnyx.dial() as caller:
        await there.gateway.close()
        await caller.wait_ended()
        assert there.voip.end.reason == "shutdown"
        assert there.actions == ["answer", "hangup"]
        assert (
            await there.telnyx.webhook(
                there.telnyx.webhook_url, "call.initiated", {"call_control_id": "v3:late", "direction": "incoming"}
            )
            == 503
        )


# Webhooks


async def test_webhooks_that_come_twice_count_once():
    async with house() as there:
        there.telnyx.repeat_webhooks = True
        async with there.telnyx.dial() as caller:
            await until(lambda: there.voip.state == "live")
            await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        assert len(there.voips) == 1
        assert there.actions == ["answer"]


async def test_a_call_whose_end_comes_before_its_beginning_is_not_taken():
    async with house() as there:
        url, call = (
            there.telnyx.webhook_url,
            {"call_control_id": "v3:gone", "connection_id": "", "direction": "incoming"},
        )
        assert await there.telnyx.webhook(url, "call.hangup", call) == 200
        assert await there.telnyx.webhook(url, "call.initiated", call) == 200
        await asyncio.sleep(0.05)
        assert not there.voips
        assert there.actions == []


async def test_a_call_is_live_though_its_webhooks_are_late():
    async with house() as there:
        there.telnyx.late = {"call.answered": 2.0, "streaming.started": 1.0}
        async with there.telnyx.dial() as caller:
            await until(lambda: there.voip.state == "live")
            await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        await until(lambda: there.told("call.answered"))
        assert there.voip.end.reason == "caller_hangup"


@pytest.mark.parametrize(("signature", "status"), [("wrong", 403), ("missing", 400), ("stale", 403)])
async def test_a_webhook_of_somebody_else_is_refused(signature, status):
    async with house() as there:
        there.telnyx.webhook_signature = signature
        async with there.telnyx.dial() as caller:
            await caller.wait_ended()
        assert {each.status for each in there.telnyx.delivered} == {status}
        assert there.gateway.refusals.webhooks[status] == 2
        assert not there.voips


async def test_a_webhook_of_another_application_is_refused():
    async with house(connection_id="another") as there, there.telnyx.dial() as caller:
        await caller.wait_ended()
        assert there.told("call.initiated")[0].status == 403


@pytest.mark.parametrize("event", ["call.cost", "call.conversation.ended", "weather.changed"])
async def test_a_webhook_of_no_interest_is_answered(event):
    async with house() as there:
        url = there.telnyx.webhook_url
        assert await there.telnyx.webhook(url, event, {}) == 200
        async with there.telnyx.dial() as caller:
            assert await there.telnyx.webhook(url, event, {"call_control_id": caller.call_sid}) == 200


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"data":{"event_type":[]}}', b"\xff", b"[" * 9000])
async def test_a_malformed_webhook_is_refused_and_costs_nothing(body):
    async with house() as there:
        assert await there.telnyx._post(there.telnyx.webhook_url, body) == 400
        async with there.telnyx.dial():
            await until(lambda: there.voip.state == "live")


async def test_a_callback_address_with_a_malformed_call_is_refused():
    async with house() as there:
        url = f"{there.telnyx.webhook_url}?call=nonsense"
        assert await there.telnyx.webhook(url, "call.answered", {"call_control_id": "v3:x"}) == 400


# The media socket


async def open_media(there, *messages):
    """The code with which a socket is closed that says this."""
    url = there.telnyx.webhook_url + "/media"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for message in messages:
            await socket.send_str(message)
        async with asyncio.timeout(10):
            while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                pass
        return socket.close_code


def start(call: str, state: str | None) -> str:
    detail = {"call_control_id": call, "client_state": state, "media_format": {"encoding": "PCMU"}}
    return json.dumps({"event": "start", "stream_id": "s", "start": detail})


async def test_a_stream_of_a_stranger_is_refused():
    async with house(start_timeout_s=0.2) as there, there.telnyx.dial() as caller:
        state = there.fields("answer")["client_state"]
        connected = '{"event":"connected","version":"1.0.0"}'
        assert await open_media(there, connected, start("v3:other", state)) == 1008
        assert await open_media(there, connected, start(caller.call_sid, None)) == 1008
        assert await open_media(there, connected, start(caller.call_sid, state[:-8] + "AAAAAAA=")) == 1008
        assert await open_media(there, connected) == 1008
        assert await open_media(there, "hello") == 1008
        assert await caller.open_second_stream() == (101, 1008, "")
        assert there.voip.state == "live"
        assert there.gateway.refusals.sockets[1008] == 6


async def test_audio_that_overtakes_is_put_in_order():
    async with house() as there, there.telnyx.dial(faults=CallFaults(out_of_order=True)) as caller:
        frames = []
        there.voip.on(VoIP.MESSAGE, frames.append)
        await caller.say(bytes(range(255)) * 32)
        await until(lambda: sum(len(frame.data) for frame in frames) > 9600)
        heard = b"".join(frame.data for frame in frames)
        assert bytes(range(255)) * 31 in heard


async def test_a_message_that_telnyx_does_not_understand_is_told_and_forgotten():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        wire = there.gateway._board.find(caller.call_sid).line._wire
        wire.send_control(b'{"event":"media"}')
        await until(lambda: caller.warnings)
        assert there.voip.state == "live"


# A stream that goes, and comes again


async def test_a_stream_that_breaks_is_opened_again():
    async with house() as there, there.telnyx.dial() as caller:
        stops = []
        there.voip.on(VoIP.STREAMING_STOPPED, stops.append)
        await until(lambda: there.voip.state == "live")
        await caller.drop()
        await caller.wait_streaming(streams=2)
        await until(lambda: there.voip.generation == 2)
        assert stops == [StreamStopped(reason="lost")]
        assert there.actions == ["answer", "streaming_start"]


async def test_a_stream_that_cannot_be_opened_is_tried_twice():
    async with house(media_url="ws://127.0.0.1:1/media") as there, there.telnyx.dial() as caller:
        await caller.wait_ended()
        assert there.voip.end.reason == "never_connected"
        assert there.actions == ["answer", "streaming_start", "hangup"]


async def test_a_call_whose_stream_does_not_come_back_is_hung_up():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        there.telnyx.refuse["streaming_start"] = (422, 10015)
        await caller.drop()
        await caller.wait_ended(timeout_s=60)
        assert there.voip.end.reason == "lost"


async def test_a_stream_that_telnyx_does_not_open_at_first_is_asked_for_again_when_the_old_one_has_stopped():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        there.telnyx.refuse["streaming_start"] = (422, 10015)  # it does not know yet that the socket is gone
        there.telnyx.late["streaming.stopped"] = 3600.0
        await caller.drop()
        await until(lambda: there.voip.state == "lost")
        record = there.gateway._board.record(there.voip.metadata.call_id)
        await until(lambda: record.asked == 1)
        there.telnyx.refuse.clear()
        there.telnyx.late.clear()
        await there.telnyx.legs[caller.call_sid].tell("streaming.stopped")
        await caller.wait_streaming(streams=2)
        await until(lambda: there.voip.generation == 2)


async def test_a_stream_that_telnyx_refuses_ends_the_call_at_once():
    async with house(codec="L16", sample_rate=16000) as there:
        there.telnyx.refuse["streaming_start"] = (422, 10015)
        async with there.telnyx.dial() as caller:
            await caller.wait_ended(timeout_s=40)
            assert there.voip.end.reason == "never_connected"
            assert "streaming start" in there.voip.end.detail


async def test_a_call_that_is_over_when_its_stream_breaks_has_ended():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        there.telnyx.refuse["streaming_start"] = (422, 90018)
        await caller.drop()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_a_stream_that_stops_though_the_call_goes_on_ends_it():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        caller.stream.stop()
        await caller.wait_ended()
        assert there.voip.end.reason == "caller_hangup"
        assert there.actions == ["answer", "hangup"]


# Commands


async def test_the_agent_hangs_up_once():
    async with house() as there, there.telnyx.dial() as caller:
        await there.voip.hangup(reason="said_goodbye")
        await caller.wait_ended()
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "said_goodbye"
        assert there.actions == ["answer", "hangup"]


async def test_a_hang_up_that_telnyx_does_not_take_is_told_and_ends_the_call_all_the_same():
    async with house(rest_timeout_s=0.5) as there, there.telnyx.dial():
        await until(lambda: there.voip.state == "live")
        there.telnyx.refuse["hangup"] = (500, 10007)
        with pytest.raises(CarrierError, match=r"hangup: Telnyx answered 500, code 10007: .* try again later"):
            await there.voip.hangup()
        assert there.voip.end.reason == "agent_hangup"


async def test_a_hang_up_whose_answer_is_lost_is_sent_again_and_done_once():
    async with house() as there, there.telnyx.dial() as caller:
        there.telnyx.answers_lost = 1
        await there.voip.hangup()
        await caller.wait_ended()
        assert there.actions == ["answer", "hangup"]


async def test_a_transfer_connects_the_caller_and_leaves():
    async with house() as there, there.telnyx.dial(transfer="completed", transfer_s=2.0) as caller:
        life = []
        there.voip.on(VoIP.STREAMING_STOPPED, lambda stopped: life.append(stopped.reason))
        await until(lambda: there.voip.state == "live")
        await there.voip.transfer_to("+15550100")
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "transferred"
        assert there.fields("transfer")["to"] == "+15550100"
        assert "hangup" not in there.actions
        await caller.wait_ended()
        assert not there.gateway.calls
        assert life[0] in ("moving", "ended")


async def test_a_transfer_that_nobody_answers_ends_the_call():
    async with house() as there, there.telnyx.dial(transfer="busy", transfer_s=0.5) as caller:
        await until(lambda: there.voip.state == "live")
        await there.voip.transfer_to("+15550100")
        await caller.wait_ended()
        assert (there.voip.end.reason, there.voip.end.detail) == ("transfer_failed", "user_busy")
        assert there.actions[-1] == "hangup"


async def test_a_transfer_that_nobody_answers_brings_the_caller_back():
    async with house() as there, there.telnyx.dial(transfer="no-answer", transfer_s=1.0) as caller:
        started = []
        there.voip.on(VoIP.STREAMING_STARTED, started.append)
        await until(lambda: there.voip.state == "live")
        await there.voip.transfer_to("+15550100", back_within_s=10)
        await caller.wait_streaming(streams=2)
        await until(lambda: there.voip.generation == 2)
        assert started[-1].resumed == "transfer_failed"
        await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        assert there.voip.end.reason == "caller_hangup"


async def test_a_caller_who_leaves_while_it_rings_elsewhere_has_left():
    async with house() as there, there.telnyx.dial(transfer="no-answer", transfer_s=20.0) as caller:
        await until(lambda: there.voip.state == "live")
        await there.voip.transfer_to("+15550100", back_within_s=20)
        await until(lambda: there.voip.state == "moving")
        await caller.hang_up()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_a_caller_who_is_back_before_telnyx_answers_stays(monkeypatch):
    async with house() as there, there.telnyx.dial(transfer="busy", transfer_s=0.1) as caller:
        await until(lambda: there.voip.state == "live")
        rest = there.gateway._commands.rest
        command = rest.command

        async def slow(call, action, fields=None):
            await command(call, action, fields)
            if action == "transfer":
                await caller.drop()
                await until(lambda: there.voip.generation == 2)

        monkeypatch.setattr(rest, "command", slow)
        await there.voip.transfer_to("+15550100", back_within_s=20)
        assert there.voip.state == "live"
        assert "streaming_stop" not in there.actions
        await caller.hang_up()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_a_transfer_that_telnyx_refuses_leaves_the_caller_with_the_agent():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        with pytest.raises(CarrierError, match=r"transfer: Telnyx answered 422, code 10015: .*E164"):
            await there.voip.transfer_to("5550100")
        assert there.voip.state == "live"
        assert caller.streams == 1
        await caller.hang_up()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_without_a_public_address_there_are_no_transfers():
    async with house(webhook_url=None, path="/telnyx") as there, there.telnyx.dial():
        with pytest.raises(MissingPublicURL, match="give TelnyxGateway its webhook_url"):
            await there.voip.transfer_to("+15550100")


async def test_keys_are_pressed_and_the_stream_stays():
    async with house() as there, there.telnyx.dial() as caller:
        await until(lambda: there.voip.state == "live")
        await there.voip.send_digits("12w#")
        assert there.fields("send_dtmf")["digits"] == "12w#"
        with pytest.raises(CarrierError, match="digits may be"):
            await there.voip.send_digits("12x")
        assert there.voip.state == "live"
        await caller.hang_up()
        await until(lambda: there.voip.end is not None)
        assert there.voip.end.reason == "caller_hangup"


async def test_a_recording_is_told_fetched_and_removed():
    async with house() as there:
        urls = []
        async with there.telnyx.dial() as caller:
            voip = there.voip
            voip.on(VoIP.RECORDING_URL, urls.append)
            await voip.start_recording()
            asked = there.fields("record_start")
            assert (asked["format"], asked["channels"]) == ("wav", "dual")
            await voip.stop_recording()
            await until(lambda: urls)
            there.telnyx.media_missing = 1
            there.gateway._commands.rest.retry_s = 0.01
            audio = b"".join([piece async for piece in there.gateway.download_recording(urls[0])])
            assert audio == there.telnyx.recording_wav
            assert not [each for each in there.telnyx.requests if "/media/" in each.path][-1].headers.get("X")
            await voip.remove_recording()
            assert not there.telnyx.recordings
            with pytest.raises(CarrierError, match="404: it does not exist"):
                async for _ in there.gateway.download_recording(urls[0]):
                    pass
            await caller.hang_up()
        await until(lambda: not there.gateway.calls)


async def test_a_recording_comes_after_the_call():
    async with house() as there:
        urls = []
        async with there.telnyx.dial() as caller:
            there.voip.on(VoIP.RECORDING_URL, urls.append)
            await there.voip.start_recording()
            with pytest.raises(NotSupportedError, match="give no status_url"):
                await there.voip.start_recording(status_url="https://elsewhere.example")
            await caller.hang_up()
        await until(lambda: urls)
        await until(lambda: not there.gateway.calls)


async def test_telnyx_transcribes_the_call():
    async with house() as there:
        words, scopes = [], set()
        async with there.telnyx.dial() as caller:
            scope = there.gateway.find_call(there.voip.metadata.call_id).scope
            there.voip.on(VoIP.TRANSCRIPT, words.append)
            there.voip.on(VoIP.TRANSCRIPT, lambda _: scopes.add(CallScope.current()))
            await there.voip.start_transcription(language="de")
            asked = there.fields("transcription_start")
            assert (asked["transcription_engine"], asked["transcription_tracks"]) == ("Deepgram", "both")
            await there.telnyx.transcribe(caller.call_sid, "Guten Tag", track="inbound")
            await until(lambda: words)
            await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        assert [(each.state, each.text, each.track, each.final) for each in words] == [
            ("content", "Guten Tag", "caller", True),
            ("stopped", "", "", False),
        ]
        assert scopes == {scope}, "whoever hears it is in the call"


async def test_a_text_message_is_sent_from_the_call():
    async with house() as there, there.telnyx.dial():
        sent = await there.voip.send_sms("Your table is booked.", to="+15550123", from_="+15550100")
        assert (sent.to, sent.status) == ("+15550123", "queued")
        assert there.telnyx.messages[0]["id"] == sent.message_sid
        with pytest.raises(CarrierError, match=r"E\.164"):
            await there.voip.send_sms("x", to="0123", from_="+15550100")


async def test_what_is_not_there_says_so():
    async with house() as there, there.telnyx.dial():
        await until(lambda: there.voip.state == "live")
        with pytest.raises(NotSupportedError, match="UseClientTool is not there for calls over Telnyx"):
            await there.voip.execute(UseClientTool(name="look", arguments="{}", timeout_s=1.0))
        assert there.voip.state == "live"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Faults(refuse=401), "code 10009: .*; check api_key"),
        (Faults(refuse=429), "too many requests at once"),
        (Faults(refuse=503), "Telnyx has trouble"),
        (Faults(hang=True), "no answer within 0.5 s; check the connection"),
    ],
)
async def test_trouble_with_telnyx_is_told_with_what_to_do(fault, said):
    async with house(rest_timeout_s=0.5) as there, there.telnyx.dial():
        await until(lambda: there.voip.state == "live")
        there.telnyx.faults = fault
        with pytest.raises(CarrierError, match=said) as failed:
            await there.voip.send_digits("1")
        assert failed.value.carrier == "telnyx"
        assert there.voip.state == "live"
        there.telnyx.faults = Faults(times=0)


async def test_a_command_after_the_end_is_told():
    async with house() as there, there.telnyx.dial() as caller:
        voip = there.voip
        await caller.hang_up()
        await until(lambda: not there.gateway.calls)
        with pytest.raises((CarrierError, StateError)):
            await voip.send_digits("1")


# Under ASGI


async def test_a_gateway_under_asgi_takes_calls():
    import uvicorn

    from dialog.testing.telnyx import TelnyxEmulator

    async with TelnyxEmulator(clock=CLOCK) as telnyx:
        voips = []
        gateway = TelnyxGateway(
            api_key=telnyx.api_key,
            public_key=telnyx.public_key,
            base_url=telnyx.url,
            clock=CLOCK,
            call_settings=SETTINGS,
        )
        gateway.on("voip", voips.append)
        config = uvicorn.Config(gateway.asgi(), port=0, log_level="error", ws="websockets-sansio")
        server = uvicorn.Server(config)
        serving = asyncio.ensure_future(server.serve())
        try:
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            telnyx.webhook_url = f"http://127.0.0.1:{port}/telnyx"
            async with telnyx.dial() as caller:
                await until(lambda: voips[0].state == "live")
                turn, dispatched = uuid4(), []
                voips[0].on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
                voips[0].post(Message(uuid=turn, data=TONE, done=True))
                await until(lambda: dispatched == [turn])
                await caller.hang_up()
            await until(lambda: not gateway.calls)
            assert voips[0].end.reason == "caller_hangup"
        finally:
            server.should_exit = True
            await serving
