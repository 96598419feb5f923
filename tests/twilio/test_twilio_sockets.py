"""Media sockets of the gateway: upgrades, protocol, several streams, several processes."""

import asyncio
import json
import socket as sockets
from uuid import UUID, uuid4

import aiohttp
import pytest
from twilio_phone import ACCOUNT, TOKEN, Document, Phone, new_sid, phone_line, until

from dialog.message import Message
from dialog.voip.call import CallSettings
from dialog.voip.carrier.record import call_id_of
from dialog.voip.carrier.token import StreamTokens, derive_key
from dialog.voip.twilio import TwilioGateway
from dialog.voip.voip import VoIP


async def test_audio_marks_and_keys_arrive():
    async with phone_line() as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        (voip,) = voips
        frames, keys, dispatched, changes = [], [], [], []
        voip.on(VoIP.MESSAGE, frames.append)
        voip.on(VoIP.DTMF, keys.append)
        voip.on(VoIP.MESSAGE_DISPATCHED, dispatched.append)
        voip.on(VoIP.STREAMING_STARTED, changes.append)
        voip.on(VoIP.STREAMING_STOPPED, changes.append)
        voip.on(VoIP.ENDED, changes.append)
        socket = await phone.stream(document, sid)
        await socket.media(bytes(range(160)))
        await socket.media(b"\x01" * 160)
        await until(lambda: len(frames) == 2)
        assert frames[0].data == bytes(range(160))
        assert frames[0].uuid == voip.metadata.call_id
        assert [round(frame.at_ms - frames[0].at_ms) for frame in frames] == [0, 20]
        turn = uuid4()
        voip.post(Message(uuid=turn, data=b"\x02" * 160, done=True))
        assert (await socket.hear())["event"] == "media"
        mark = await socket.hear()
        assert mark["event"] == "mark"
        assert not dispatched
        await socket.mark(mark["mark"]["name"])
        await until(lambda: dispatched == [turn])
        await socket.send("dtmf", streamSid=socket.stream_sid, dtmf={"track": "inbound_track", "digit": "#"})
        await until(lambda: keys == ["#"])
        await socket.stop()
        assert await socket.close_code() == 1000
        await until(lambda: not gateway.calls)
        assert [type(change).__name__ for change in changes] == ["StreamStarted", "StreamStopped", "CallEnd"]
        assert changes[-1].reason == "caller_hangup"
        assert voip.disposed


async def test_an_abort_clears_the_line():
    async with phone_line() as (_, phone, _, voips):
        socket = await phone.call()
        turn = uuid4()
        voips[0].post(Message(uuid=turn, data=b"\x02" * 16000, done=True))
        assert (await socket.hear())["event"] == "media"
        voips[0].abort(turn)
        async with asyncio.timeout(5):
            while (message := await socket.hear())["event"] != "clear":
                assert message["event"] in ("media", "mark")
        assert message == {"event": "clear", "streamSid": socket.stream_sid}


# The upgrade


async def test_an_upgrade_is_refused_before_it_is_one():
    async with phone_line() as (gateway, phone, _, _):
        document = await phone.ring()
        url = document.stream.get("url")
        for signature, headers, expected in (
            (None, {"x-twilio-signature": None}, 400),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAA=", None, 403),
            (phone.validator.compute_signature(url.replace("ws", "http", 1), {}), None, 403),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await phone.connect(url, signature=signature, headers=headers)
            assert refused.value.status == expected
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await phone.connect(url + "s")
        assert refused.value.status == 404
        signature = phone.validator.compute_signature(url, {})
        async with phone.session.get(
            url.replace("ws", "http", 1), headers={"X-Twilio-Signature": signature}
        ) as response:
            assert response.status == 400
        assert len(gateway.calls) == 1


async def test_a_slash_added_by_the_signer_is_tolerated():
    async with phone_line() as (_, phone, _, _):
        url = (await phone.ring()).stream.get("url")
        socket = await phone.connect(url, signature=phone.validator.compute_signature(url + "/", {}))
        assert not socket.ws.closed


# The protocol

BAD = {
    "not json": ["hello"],
    "truncated": ['{"event":"connec'],
    "array": ["[]"],
    "deep": ['{"event":"connected","x":' + "[" * 5000 + "]" * 5000 + "}", "[" * 60_000],
    "wrong type": ['{"event":5}'],
    "media first": ['{"event":"media","streamSid":"MZ","media":{"payload":"AAAA"}}'],
    "stop first": ['{"event":"stop","streamSid":"MZ"}'],
    "connected twice": ['{"event":"connected"}', '{"event":"connected"}'],
    "start without connected": ['{"event":"start","streamSid":"MZ","start":{"accountSid":"AC","callSid":"CA"}}'],
    "binary": [b"\x00\x01"],
}


@pytest.mark.parametrize("texts", BAD.values(), ids=BAD.keys())
async def test_a_socket_that_breaks_the_protocol_is_closed_with_1008(texts):
    async with phone_line() as (gateway, phone, _, voips):
        socket = await phone.connect((await phone.ring()).stream.get("url"))
        for text in texts:
            await (socket.ws.send_bytes if isinstance(text, bytes) else socket.ws.send_str)(text)
        assert await socket.close_code() == 1008
        # It costs only that connection.
        assert voips[0].state == "offered"
        assert len(gateway.calls) == 1


@pytest.mark.parametrize(
    "text", ["hello", b"binary", '{"event":"media","streamSid":"MZ","media":{}}', '{"event":"connected"}']
)
async def test_a_live_stream_that_breaks_the_protocol_is_lost(text):
    async with phone_line() as (_, phone, _, voips):
        socket = await phone.call()
        await until(lambda: voips[0].state == "live")
        await (socket.ws.send_bytes if isinstance(text, bytes) else socket.ws.send_str)(text)
        assert await socket.close_code() == 1008
        await until(lambda: voips[0].state == "lost")


async def test_an_oversized_message_is_closed_with_1009():
    async with phone_line() as (_, phone, _, _):
        socket = await phone.call()
        await socket.ws.send_str(json.dumps({"event": "new", "x": "y" * 70_000}))
        assert await socket.close_code() == 1009


async def test_a_fragmented_text_is_one_message():
    async with phone_line() as (_, phone, _, voips):
        socket = await phone.connect((await phone.ring()).stream.get("url"))
        writer = socket.ws._writer
        writer.transport.write(_frame(0x01, b'{"event":') + _frame(0x80, b'"connected"}'))
        sid = voips[0].call_sid
        await socket.start(sid, {"call_id": "x"})
        assert await socket.close_code() == 1008  # for the start, not the fragments


def _frame(first, payload):
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload  # masked with zeros


async def test_unknown_events_are_ignored():
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        socket = await phone.connect(document.stream.get("url"))
        await socket.send("hello")
        await socket.connected()
        await socket.send("metrics", streamSid="MZ", metrics=[1])
        await socket.start(sid, document.parameters)
        await until(lambda: voips[0].state == "live")


async def test_a_stream_that_never_starts_is_closed():
    async with phone_line(start_timeout_s=0.1) as (gateway, phone, _, voips):
        url = (await phone.ring()).stream.get("url")
        silent = await phone.connect(url)
        chatty = await phone.connect(url)
        await chatty.connected()

        async def chat():
            while not chatty.ws.closed:
                await chatty.send("metrics")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(chat())
        assert await silent.close_code() == 1008
        assert await chatty.close_code() == 1008
        await asyncio.wait([task])
        task.exception()
        assert voips[0].state == "offered"
        assert len(gateway.calls) == 1


async def test_pings_are_answered_and_the_round_trip_is_measured():
    async with phone_line() as (gateway, phone, _, _):
        socket = await phone.call()
        await until(lambda: gateway.calls[0].line is not None)
        # aiohttp's client answers pings while it reads.
        reading = asyncio.create_task(socket.ws.receive())
        (wire,) = gateway._aiohttp.sockets.open.values()
        await until(lambda: wire.rtt_s > 0)
        assert wire.rtt_s < 1
        await socket.stop()
        await reading


# Which call


@pytest.mark.parametrize(
    "tamper",
    [
        lambda p: p.pop("token"),
        lambda p: p.update(token="1.2.x"),
        lambda p: p.update(token=p["token"].replace("1.", "2.", 1)),
        lambda p: p.pop("call_id"),
        lambda p: p.update(call_id="not-a-uuid"),
        lambda p: p.update(call_id=str(UUID(int=7))),
    ],
)
async def test_a_stream_without_a_valid_token_is_refused(tamper):
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        parameters = document.parameters
        tamper(parameters)
        socket = await phone.connect(document.stream.get("url"))
        await socket.connected()
        await socket.start(sid, parameters)
        assert await socket.close_code() == 1008
        assert voips[0].state == "offered"


async def test_a_stream_of_another_call_or_account_is_refused():
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        for call_sid, account in ((new_sid(), ACCOUNT), (sid, "AC" + "1" * 32)):
            socket = await phone.connect(document.stream.get("url"))
            await socket.connected()
            await socket.start(call_sid, document.parameters, accountSid=account)
            assert await socket.close_code() == 1008
        assert voips[0].state == "offered"


async def test_an_expired_token_is_refused():
    now = [0.0]
    expired = StreamTokens(derive_key(TOKEN), time=lambda: now[0])
    async with phone_line() as (_, phone, _, _voips):
        sid = new_sid()
        document = await phone.ring(sid)
        parameters = {**document.parameters, "token": expired.sign(call_id_of(sid), 1)}
        socket = await phone.connect(document.stream.get("url"))
        await socket.connected()
        await socket.start(sid, parameters)
        assert await socket.close_code() == 1008


async def test_two_streams_for_one_call_the_second_is_refused():
    async with phone_line() as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        first = await phone.stream(document, sid)
        await until(lambda: voips[0].state == "live")
        second = await phone.stream(document, sid)
        assert await second.close_code() == 1008
        assert voips[0].state == "live"
        frames = []
        voips[0].on(VoIP.MESSAGE, frames.append)
        await first.media()
        await until(lambda: frames)
        assert len(gateway.calls) == len(voips) == 1


async def test_a_replayed_stream_of_a_call_that_is_over_is_refused():
    async with phone_line() as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        first = await phone.stream(document, sid)
        await first.stop()
        assert await first.close_code() == 1000
        await until(lambda: not gateway.calls)
        again = await phone.stream(document, sid)
        assert await again.close_code() == 1008
        assert len(voips) == 1


async def test_a_stream_that_reaches_another_process_gets_its_call():
    async with phone_line() as (_, phone, _, _), phone_line() as (_, other, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        url = other.url.replace("http", "ws", 1) + "/media"
        socket = await other.connect(url)
        await socket.connected()
        await socket.start(sid, document.parameters)
        await until(lambda: voips)
        (voip,) = voips
        assert voip.metadata.call_id == call_id_of(sid)
        assert voip.call_sid == sid
        assert (voip.metadata.from_, voip.metadata.to) == ("+15551230001", "+15551230002")
        assert voip.metadata.parameter("token") == ""
        assert voip.state == "live"
        # The number's webhook may be repeated there: the same call.
        assert (await other.ring(sid)).verbs == ["Connect"]
        assert len(voips) == 1


async def test_a_token_of_a_call_does_not_open_one_for_another_sid_elsewhere():
    async with phone_line() as (_, phone, _, _), phone_line() as (gateway, other, _, voips):
        document = await phone.ring()
        socket = await other.connect(other.url.replace("http", "ws", 1) + "/media")
        await socket.connected()
        await socket.start(new_sid(), document.parameters)
        assert await socket.close_code() == 1008
        assert not voips
        assert not gateway.calls


async def test_on_voip_that_raises_at_a_stream_is_spoken_afterwards():
    def fail(voip):
        raise ZeroDivisionError

    async with phone_line() as (_, phone, _, _), phone_line(on_voip=fail, error_text="Sorry!") as (g, other, _, _):
        sid = new_sid()
        document = await phone.ring(sid)
        socket = await other.connect(other.url.replace("http", "ws", 1) + "/media")
        await socket.connected()
        await socket.start(sid, document.parameters)
        assert await socket.close_code() == 1008
        after = document.action.replace(phone.url, other.url)
        _, text, _ = await other.post(after, other.form(sid, CallStatus="in-progress"))
        assert Document(text).verbs == ["Say", "Hangup"]
        await until(lambda: not g.calls)


# After a stream


async def after(phone, document, sid, status="in-progress"):
    code, text, _ = await phone.post(document.action, phone.form(sid, CallStatus=status))
    assert code == 200
    return Document(text)


async def test_a_broken_stream_comes_back_by_the_action():
    async with phone_line() as (_gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        socket = await phone.stream(document, sid)
        await until(lambda: voips[0].state == "live")
        started = []
        voips[0].on(VoIP.STREAMING_STARTED, started.append)
        socket.drop()
        await until(lambda: voips[0].state == "lost")
        second = await after(phone, document, sid)
        assert second.verbs == ["Connect"]
        assert second.action.endswith("&generation=2")
        assert (await after(phone, document, sid)).text == second.text  # asked twice
        await phone.stream(second, sid)
        await until(lambda: voips[0].state == "live")
        assert [(s.generation, s.resumed) for s in started] == [(2, "reconnected")]
        # The first stream's action, delivered late, does not harm the second stream.
        assert (await after(phone, document, sid)).text == second.text
        assert voips[0].state == "live"
        assert len(voips) == 1


async def test_the_action_may_know_of_a_broken_socket_first():
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        first = await phone.stream(document, sid)
        await until(lambda: voips[0].state == "live")
        second = await after(phone, document, sid)
        assert second.verbs == ["Connect"]
        assert voips[0].state == "lost"
        await phone.stream(second, sid)
        await until(lambda: voips[0].state == "live")
        assert await first.close_code() == 1000


async def test_a_lost_stream_that_stays_away_ends_the_call():
    async with phone_line(call_settings=CallSettings(lost_s=0.05)) as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        socket = await phone.stream(document, sid)
        await until(lambda: voips[0].state == "live")
        ends = []
        voips[0].on(VoIP.ENDED, ends.append)
        socket.drop()
        await until(lambda: not gateway.calls)
        assert [end.reason for end in ends] == ["lost"]
        assert (await after(phone, document, sid)).verbs == ["Hangup"]


async def test_the_action_of_a_call_that_is_over_or_unknown_hangs_up():
    async with phone_line() as (gateway, phone, _, _):
        sid = new_sid()
        document = await phone.ring(sid)
        socket = await phone.stream(document, sid)
        await socket.stop()
        await socket.close_code()
        assert (await after(phone, document, sid)).verbs == ["Hangup"]
        await until(lambda: not gateway.calls)
        assert (await after(phone, document, sid)).verbs == ["Hangup"]
        for query in ("", f"?call={uuid4()}", f"?call={uuid4()}&generation=x"):
            code, text, _ = await phone.post(phone.url + "/after" + query, phone.form(new_sid()))
            assert (code, Document(text).verbs) == (200, ["Hangup"])
        code, _, _ = await phone.post(phone.url + "/after?call=x", phone.form(new_sid()))
        assert code == 400


async def test_the_action_of_a_caller_who_has_hung_up_ends_the_call():
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        await phone.stream(document, sid)
        await until(lambda: voips[0].state == "live")
        assert (await after(phone, document, sid, "completed")).verbs == ["Hangup"]
        assert voips[0].end.reason == "caller_hangup"


async def test_a_stream_that_twilio_cannot_open_is_not_tried_for_ever():
    async with phone_line() as (_, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        verbs = [(await after(phone, document, sid)).verbs for _ in range(4)]
        assert verbs == [["Connect"], ["Connect"], ["Hangup"], ["Hangup"]]
        assert voips[0].end.reason == "never_connected"


# Closing


async def test_closing_the_gateway_ends_calls_and_sockets():
    async with phone_line() as (gateway, phone, rest, voips):
        sid = new_sid()
        rest.add_call(sid)
        document = await phone.ring(sid)
        live = await phone.stream(document, sid)
        idle = await phone.connect(document.stream.get("url"))
        await phone.ring()
        await until(lambda: voips[0].state == "live")
        ends = []
        for voip in voips:
            voip.on(VoIP.ENDED, ends.append)
        closing = asyncio.create_task(gateway.close())
        assert await live.close_code() == 1000
        assert await idle.close_code() == 1000
        await closing
        await gateway.close()
        assert [end.reason for end in ends] == ["shutdown", "shutdown"]
        assert all(voip.disposed for voip in voips)
        assert not gateway.calls
        assert rest.calls[sid].status == "completed"
        status, _, _ = await phone.post(phone.url, phone.form(new_sid()))
        assert status == 503
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await phone.connect(document.stream.get("url"))
        assert refused.value.status == 503


async def test_a_clear_overtakes_what_a_slow_peer_has_not_taken():
    # The lead is seconds here, so that without a bound all of it would be in the kernel's buffers.
    async with phone_line(call_settings=CallSettings(lead_ms=6000)) as (gateway, phone, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        url = aiohttp.client.URL(document.stream.get("url"))
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.connect((url.host, url.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=2048)
        signature = phone.validator.compute_signature(str(url), {})
        writer.write(
            f"GET {url.path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            f"x-twilio-signature: {signature}\r\n\r\n".encode()
        )
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        detail = {"accountSid": ACCOUNT, "callSid": sid, "customParameters": document.parameters}
        for message in ({"event": "connected"}, {"event": "start", "streamSid": "MZ1", "start": detail}):
            payload = json.dumps(message).encode()
            writer.write(b"\x81\xfe" + len(payload).to_bytes(2) + bytes(4) + payload)
        await until(lambda: voips[0].state == "live")
        turn = uuid4()
        voips[0].post(Message(uuid=turn, data=b"\x02" * 80_000, done=True))
        (wire,) = gateway._aiohttp.sockets.open.values()
        await until(lambda: wire._queued > 0)
        queued = wire._queued
        voips[0].abort(turn)
        assert wire._queued == 0
        received = b""
        async with asyncio.timeout(5):
            while b'"event":"clear"' not in received:
                received += await reader.read(1024)
        # What came before the clear is far less than what was posted: it was purged here.
        assert queued > 10_000
        assert len(received) < 60_000
        writer.close()
        await writer.wait_closed()


async def test_a_peer_that_takes_nothing_is_given_up():
    async with phone_line() as (gateway, phone, _, voips):
        await phone.call()
        await until(lambda: voips[0].state == "live")
        (wire,) = gateway._aiohttp.sockets.open.values()
        for _ in range(3000):
            wire._enqueue(800, b"x")
            if wire.closed:
                break
        assert wire.closed
        assert wire.close_code == 1011


async def test_many_calls_leave_nothing_behind():
    async with phone_line() as (gateway, phone, _, voips):
        for _ in range(50):
            socket = await phone.call()
            await socket.media()
            await socket.stop()
            assert await socket.close_code() == 1000
        await until(lambda: not gateway.calls)
        await until(lambda: not gateway._aiohttp.sockets.open)
        assert not gateway._switchboard._records
        assert not gateway._switchboard._tasks
        assert all(voip.disposed for voip in voips)


async def test_the_local_path_follows_from_the_public_url():
    gateway = TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, webhook_url="https://h.example/in/voice")
    assert "/in/voice" in repr(gateway)
    assert "/ " in repr(TwilioGateway(account_sid=ACCOUNT, auth_token=TOKEN, webhook_url="https://h.example"))
    await gateway.close()


async def test_another_gateway_with_another_token_does_not_take_the_stream():
    async with phone_line() as (_, phone, _, _), phone_line(token_key=b"k") as (_, other, _, voips):
        sid = new_sid()
        document = await phone.ring(sid)
        stranger = Phone(other.url, other.session)
        socket = await stranger.connect(other.url.replace("http", "ws", 1) + "/media")
        await socket.connected()
        await socket.start(sid, document.parameters)
        assert await socket.close_code() == 1008
        assert not voips
