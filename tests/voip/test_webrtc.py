"""The client protocol over WebRTC: who gets in and how it is refused, what becomes of connections, and what is pure in it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from aiohttp import ClientSession
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st
from web_server import serving, until

from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.audio.tones import sine
from dialog.errors import ConfigurationError, MissingExtra
from dialog.message import MULAW_8K, PCM_16K, PCM_24K, Message
from dialog.testing.web import WebCaller, WebRefused
from dialog.testing.webrtc import RtcCaller
from dialog.voip.admission import Reject
from dialog.voip.call import CallSettings
from dialog.voip.voip import VoIP
from dialog.voip.web import messages as ms
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc import settings
from dialog.voip.web.rtc.connection import RtcConnection
from dialog.voip.web.rtc.offers import RtcAnswer
from dialog.voip.web.rtc.reorder import Reorder
from dialog.voip.web.rtc.settings import IceServer, WebRTC
from dialog.voip.web.rtc.speech import Speech

KEY = b"a key of thirty-two bytes, or so"


@asynccontextmanager
async def a_gateway(on_voip=lambda voip: None, *, asgi=False, **options):
    gateway = WebGateway(token_key=KEY, webrtc=WebRTC(), **options)
    voips = []

    def taken(voip):
        voips.append(voip)
        on_voip(voip)

    gateway.on("voip", taken)
    async with serving(gateway, asgi=asgi) as url:
        yield gateway, url, voips


async def offer(url, body, **headers):
    """Post something; the status, the headers and the JSON that comes back."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with ClientSession() as http:
        async with http.post(url.replace("ws", "http", 1) + "/webrtc", data=data, headers=headers) as response:
            text = await response.read()
            said = json.loads(text) if response.content_type == "application/json" else {}
            return response.status, response.headers, said


def start(**fields):
    return {"type": "session.start", "version": 1, **fields}


# Its bundle begins with a section that there is not: aiortc neither answers it, nor closes what it made of it.
BUNDLED_WITH_NOTHING = (
    (Path(__file__).parents[1] / "fuzz/corpus/webrtc-description/bundled-with-nothing").read_bytes().decode()
)
AN_OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"


# -- who gets in


@pytest.mark.parametrize("asgi", [False, True])
async def test_a_client_is_let_in_and_refused_as_on_a_websocket(asgi):
    async with a_gateway(asgi=asgi, agents=["desk"]) as (gateway, url, voips):
        token = gateway.token(user="ada")
        async with RtcCaller.connect(url, token=token, audio=[PCM_16K]) as caller:
            assert (voips[0].user, voips[0].agent) == ("ada", "desk")
            assert caller.audio_format == voips[0].audio_format == PCM_16K
            with pytest.raises(WebRefused, match="used before") as refused:
                async with RtcCaller.connect(url, token=token):
                    pass
            assert refused.value.close_code == 4401
        await until(lambda: not gateway.calls)
        assert voips[0].end.reason == "caller_hangup"


@pytest.mark.parametrize("asgi", [False, True])
@pytest.mark.parametrize(
    ("body", "origin", "status", "code"),
    [
        ({"sdp": AN_OFFER, "session": start()}, "", 401, "token"),
        ({"sdp": AN_OFFER, "session": start(token="forged")}, "", 401, "token"),
        ({"sdp": AN_OFFER, "session": start(version=2)}, "", 400, "version"),
        ({"sdp": AN_OFFER, "session": start(token="{token}", agent="nobody")}, "", 400, "unknown_agent"),
        ({"sdp": AN_OFFER, "session": start(token="{token}")}, "", 400, "offer"),
        ({"sdp": AN_OFFER.replace("audio", "video"), "session": start(token="{token}")}, "", 400, "offer"),
        ({"sdp": AN_OFFER + "a=candidate:x\r\n" * 50, "session": start(token="{token}")}, "", 400, "offer"),
        ({"sdp": BUNDLED_WITH_NOTHING, "session": start(token="{token}")}, "", 400, "offer"),
        ({"sdp": AN_OFFER, "session": {"type": "ping", "id": 1}}, "", 400, "protocol"),
        (
            {"sdp": "", "session": {"type": "session.resume", "version": 1, "session": str(uuid4()), "secret": "x"}},
            "",
            400,
            "offer",
        ),
        (b"{", "", 400, "protocol"),
        ({"sdp": AN_OFFER, "session": start(token="{token}")}, "https://evil.example", 403, "refused"),
        (b"x" * 70_000, "", 413, "protocol"),
    ],
)
async def test_what_is_no_good_is_refused_with_a_status_and_costs_nothing(body, origin, status, code, asgi):
    async with a_gateway(asgi=asgi, agents=["desk"]) as (gateway, url, _):
        if not isinstance(body, bytes):
            body = json.loads(json.dumps(body).replace("{token}", gateway.token()))
        answered, _, said = await offer(url, body, **({"Origin": origin} if origin else {}))
        assert (answered, said.get("code")) == (status, code)
        await until(lambda: not gateway.calls)
        assert not gateway._offers._connections


async def test_the_resolver_and_the_host_s_code_decide_over_webrtc_too():
    async def resolve(offered):
        return Reject()

    async with a_gateway(resolver=resolve) as (gateway, url, _):
        with pytest.raises(WebRefused) as refused:
            async with RtcCaller.connect(url, token=gateway.token()):
                pass
        assert refused.value.close_code == 4403

    def broken(voip):
        raise ValueError("a secret")

    async with a_gateway(broken) as (gateway, url, _):
        with pytest.raises(WebRefused, match="an error has occurred") as refused:
            async with RtcCaller.connect(url, token=gateway.token()):
                pass
        assert refused.value.close_code == 1011


@pytest.mark.parametrize("asgi", [False, True])
async def test_a_page_of_a_trusted_host_may_read_the_answer(asgi):
    async with a_gateway(asgi=asgi, origins=["https://app.example"]) as (_, url, _), ClientSession() as http:
        where = url.replace("ws", "http", 1) + "/webrtc"
        async with http.options(where, headers={"Origin": "https://app.example"}) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        async with http.options(where, headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers
        async with http.get(where) as response:
            assert response.status == 405


async def test_without_webrtc_there_is_nothing_to_post_to():
    gateway = WebGateway()
    assert not gateway.webrtc
    async with serving(gateway) as url:
        status, _, _ = await offer(url, {})
        assert status in (404, 405)


def test_the_extra_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setattr(settings, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"dialog\[webrtc\]"):
        WebGateway(webrtc=WebRTC())
    with pytest.raises(ConfigurationError, match="stun:"):
        IceServer(url="https://stun.example")


# -- what becomes of a connection


async def test_whose_network_lets_no_udp_through_goes_on_with_its_session_by_websocket():
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as real:
            sdp = real._link._peer.localDescription.sdp
        body = {"sdp": sdp, "session": start(token=gateway.token())}  # of a connection that is closed
        status, _, said = await offer(url, body)
        answer = msgspec.convert(said, RtcAnswer)
        assert (status, answer.started.resumed) == (200, False)
        assert voips[1].state == "offered"
        async with ClientSession() as http:
            caller = WebCaller(http, url, gateway._board.clock)
            caller.started = answer.started
            started = await caller.resume()
            assert not started.resumed
            assert (voips[1].state, voips[1].generation) == ("live", 1)
            await caller.hang_up()
        await until(lambda: not gateway.calls)


async def test_a_client_that_never_connects_is_forgotten(monkeypatch):
    settings_ = CallSettings(never_connected_s=0.3)
    async with a_gateway(start_timeout_s=0.2, call_settings=settings_) as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as real:
            sdp = real._link._peer.localDescription.sdp
        status, _, _ = await offer(url, {"sdp": sdp, "session": start(token=gateway.token())})
        assert status == 200
        await until(lambda: not gateway.calls and not gateway._offers._connections)
        assert voips[1].end.reason == "never_connected"


async def test_a_connection_that_falls_silent_is_lost_and_its_session_waits(monkeypatch):
    monkeypatch.setattr("dialog.voip.web.rtc.connection._WATCH_S", 0.05)
    monkeypatch.setattr("dialog.voip.web.rtc.connection._SILENT_S", 0.2)
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as caller:
            await caller.drop()
            await until(lambda: voips[0].state == "lost")
            assert (await caller.resume()).resumed
            await until(lambda: voips[0].state == "live")


async def test_a_page_that_goes_away_without_a_word_has_hung_up():
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as caller:
            await caller._link._peer.close()  # as a tab that is closed
            await until(lambda: voips[0].end is not None)
            assert voips[0].end.reason == "caller_hangup"


async def test_a_newer_connection_takes_the_session_over_and_the_older_is_told():
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as caller, ClientSession() as http:
            other = WebCaller(http, url, gateway._board.clock)
            other.started = caller.started
            assert (await other.resume()).resumed
            await caller._link.over
            assert caller.close_code == 4409
            assert voips[0].state == "live"
            await other.hang_up()


@pytest.mark.parametrize(
    ("said", "code"), [("{", 1008), ('{"type":"session.start","version":1}', 1008), (b"\0", 1008), ("x" * 70_000, 1009)]
)
async def test_what_breaks_the_protocol_closes_the_connection_with_its_code(said, code):
    async with a_gateway() as (gateway, url, _):
        async with RtcCaller.connect(url, token=gateway.token()) as caller:
            caller._link._channel.send(said)
            assert await caller.wait_closed() == code


async def test_other_data_channels_are_closed():
    async with a_gateway() as (gateway, url, _):
        async with RtcCaller.connect(url, token=gateway.token()) as caller:
            other = caller._link._peer.createDataChannel("something else")
            await until(lambda: other.readyState == "closed")
            caller.send(ms.Ping(3))
            assert (await caller.wait_for(ms.Pong)).id == 3


async def test_closing_the_gateway_ends_its_sessions_and_says_so():
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as caller:
            await gateway.close()
            assert (await caller.wait_for(ms.SessionEnded)).reason == "shutdown"
            assert await caller.wait_closed() == 1000
            assert voips[0].end.reason == "shutdown"


async def test_a_connection_that_cannot_even_be_begun_leaves_no_session_behind(monkeypatch):
    def broken(*_, **__):
        raise ValueError("no such ICE server")

    monkeypatch.setattr("dialog.voip.web.rtc.offers.RtcConnection", broken)
    async with a_gateway() as (gateway, url, voips):
        status, _, said = await offer(url, {"sdp": AN_OFFER, "session": start(token=gateway.token())})
        assert (status, said["code"]) == (400, "offer")
        await until(lambda: not gateway.calls)
        assert voips[0].end is not None
        assert not gateway._offers._connections


async def test_a_connection_that_is_still_being_made_when_the_gateway_closes_is_closed_with_it(monkeypatch):
    async with a_gateway() as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token()) as real:
            sdp = real._link._peer.localDescription.sdp
        answering, go_on = asyncio.Event(), asyncio.Event()
        answer = RtcConnection.answer
        closed = []

        async def slow(connection, sdp):
            answering.set()
            await go_on.wait()
            return await answer(connection, sdp)

        async def close(connection):
            await connection._close()
            closed.append(connection)

        monkeypatch.setattr(RtcConnection, "answer", slow)
        monkeypatch.setattr(RtcConnection, "close", close)
        posted = asyncio.create_task(offer(url, {"sdp": sdp, "session": start(token=gateway.token())}))
        await answering.wait()
        closing = asyncio.create_task(gateway.close())
        await until(lambda: gateway._offers._closed)
        assert not closing.done()
        go_on.set()
        await closing
        assert len(closed) == 1
        assert not gateway._offers._connections
        status, _, said = await posted
        assert (status, said["code"]) == (503, "busy")
        assert voips[1].end.reason == "shutdown"


async def test_a_telephone_s_audio_goes_both_ways():
    heard = []
    async with a_gateway(lambda voip: voip.on(VoIP.MESSAGE, heard.append)) as (gateway, url, voips):
        async with RtcCaller.connect(url, token=gateway.token(), audio=[MULAW_8K]) as caller:
            tone = sine(300, 400)
            caller.say(mulaw_encode(tone))
            voips[0].post(Message(uuid=uuid4(), data=mulaw_encode(tone), done=True))
            await until(lambda: caller.heard_ms >= 380)

            def loud():
                pcm = memoryview(mulaw_decode(b"".join(each.data for each in heard))).cast("h")
                return sum(abs(each) > 1000 for each in pcm)

            await until(lambda: loud() > 0.25 * 8000)


# -- what is pure


@given(st.lists(st.one_of(st.integers(1, 3000), st.just("mark"), st.just("take"), st.just("clear"))))
def test_speech_loses_nothing_and_every_mark_comes_in_its_place(steps):
    speech = Speech(MULAW_8K)
    put, taken, marks = bytearray(), bytearray(), {}
    for number, step in enumerate(steps):
        if step == "mark":
            marks[str(number)] = len(put)
            speech.mark(str(number))
        elif step == "clear":
            assert speech.clear() == len(put) - len(taken)
            del put[len(taken) :]
            marks = {}
        elif step == "take":
            _check(speech, put, taken, marks)
        else:
            data = bytes(number % 200 for _ in range(step))
            put += data
            speech.put(data)
        assert speech.queued == len(put) - len(taken)
    while len(taken) < len(put) or marks:
        _check(speech, put, taken, marks)


def _check(speech, put, taken, marks):
    frame, reached = speech.take()
    assert len(frame) == speech.size
    due = bytes(put[len(taken) : len(taken) + speech.size])
    assert frame == due + speech.silence[len(due) :]
    taken += due
    assert reached == [name for name, at in marks.items() if at <= len(taken)]
    for name in reached:
        del marks[name]


def a_packet(number, timestamp=None, ssrc=1):
    timestamp = number * 960 if timestamp is None else timestamp
    packet = RtpPacket(payload_type=96, sequence_number=number % 2**16, timestamp=timestamp % 2**32, ssrc=ssrc)
    packet._data = b"%d" % number
    return packet


def handed_out(packets):
    """The numbers of what is handed out, and its times in packets since the first."""
    reorder = Reorder()
    frames = [frame for _, frame in map(reorder.add, packets) if frame is not None]
    return [int(frame.data) for frame in frames], [(each.timestamp - frames[0].timestamp) / 960 for each in frames]


@given(st.integers(0, 2**16 - 1), st.lists(st.tuples(st.booleans(), st.integers(0, 40)), min_size=1, max_size=200))
def test_packets_come_in_order_and_only_what_is_lost_or_late_is_missing(first, fates):
    """Each may be lost, or up to 40 ms late."""
    sent = [(at * 20 + late, first + at) for at, (lost, late) in enumerate(fates) if not lost]
    came = [number for _, number in sorted(sent)]
    out, times = handed_out(map(a_packet, came))
    assert out == sorted(set(out))
    assert out == sorted(came)[: len(out)], "nothing that came is missing"
    assert len(came) - len(out) <= 3
    assert times == [number - out[0] for number in out]


def test_a_packet_that_comes_after_its_turn_or_twice_is_dropped():
    assert handed_out(map(a_packet, [1, 2, 4, 5, 6, 7, 3, 8, 8, 9]))[0] == [1, 2, 4, 5, 6]


def test_what_waited_for_seconds_on_a_path_that_was_given_up_is_late():
    """Both sockets are read in turn: packets of now, and those of five seconds ago."""
    now, then = range(1000, 1050), range(743, 793)
    out, times = handed_out(a_packet(each) for pair in zip(now, then, strict=True) for each in pair)
    assert out == [*range(1000, 1047)]
    assert times == [*range(47)]


def test_the_time_goes_on_where_a_sender_counts_anew():
    anew = [a_packet(each, 7_000_000 + each * 960, ssrc=2) for each in range(10, 15)]
    again = [a_packet(each, 2**31 + each * 960, ssrc=2) for each in range(9000, 9005)]
    out, times = handed_out([*map(a_packet, range(5000, 5005)), *anew, *again, *map(a_packet, range(5005, 5010))])
    assert out == [*range(5000, 5005), *range(10, 15), *range(9000, 9005), *range(5005, 5007)]
    assert times == [*range(17)]


def test_who_sends_nothing_while_nothing_is_said_goes_on_later():
    out, times = handed_out(a_packet(each, (each + 5000 * (each > 5)) * 960) for each in range(11))
    assert (out, times) == ([*range(8)], [0, 1, 2, 3, 4, 5, 5006, 5007])


def test_silence_is_recognised_without_looking_at_it():
    speech = Speech(PCM_24K)
    assert speech.take()[0] is speech.silence
    speech.put(bytes(10))
    assert speech.take()[0] is not speech.silence
