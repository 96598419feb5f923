"""The dialects of media sockets without a socket: who speaks, what it means, what is answered."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import RemoteProtocolError, StateError
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, AudioFormat
from dialog.testing.dialects import Dialect as TheirDialect
from dialog.testing.dialects import StreamFacts, TwilioDialect
from dialog.testing.exotel_dialect import ExotelDialect
from dialog.testing.plivo_dialect import PlivoDialect
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped
from dialog.voip.streams.detect import DetectedStream
from dialog.voip.streams.grain import GrainedWire

FACTS = StreamFacts(
    account_id="acc", call_id="call", stream_id="str-1", parameters={"ticket": "17"}, from_="+15551230001", to="+15551"
)
THEIRS: dict[str, TheirDialect] = {
    "plivo": PlivoDialect(),
    "exotel": ExotelDialect(),
    "compatible": TwilioDialect(),
}


@pytest.fixture(params=list(THEIRS))
def carrier(request):
    return request.param


def opened(carrier: str) -> tuple[DetectedStream, StreamStart]:
    stream, theirs = DetectedStream(), THEIRS[carrier]
    if theirs.connected():
        assert stream.receive(theirs.connected()) == ()
    [start] = stream.receive(theirs.start(FACTS, 1))
    assert isinstance(start, StreamStart)
    return stream, start


def test_the_start_says_whose_stream_it_is(carrier):
    stream, start = opened(carrier)
    assert start.carrier == carrier
    assert (start.carrier_call_id, start.account_id, start.stream_id) == ("call", "acc", "str-1")
    assert start.parameters == {"ticket": "17"}
    assert start.audio_format == (PCM_8K if carrier == "exotel" else MULAW_8K)
    assert start.from_ == ("+15551230001" if carrier == "exotel" else "")
    assert stream.name == "str-1"
    assert stream.audio_rate == (16000 if carrier == "exotel" else 8000)


def test_its_messages_mean_what_they_say(carrier):
    stream, _ = opened(carrier)
    theirs = THEIRS[carrier]
    payload = b64encode(b"\x01\x02" * 160).decode()
    [first] = stream.receive(theirs.media(FACTS, 2, 1, 0, payload))
    assert first == Audio(b"\x01\x02" * 160, 0.0)
    [second] = stream.receive(theirs.media(FACTS, 3, 2, 20, payload))
    assert second.at_ms in (20.0, 40.0)  # Plivo's is counted in what came: 320 bytes of mu-law
    assert stream.receive(theirs.dtmf(FACTS, 4, "#")) == (Pressed("#"),)
    assert stream.receive(theirs.mark(FACTS, 5, 'a"b')) == (Marked('a"b'),)
    assert stream.receive('{"event":"weather","streamSid":"str-1"}') == ()
    assert stream.receive(theirs.stop(FACTS, 6)) == (Stopped(),)


def test_what_is_answered_is_understood(carrier):
    stream, _ = opened(carrier)
    theirs = THEIRS[carrier]
    audio = bytes(range(160)) * 2
    heard = theirs.read(FACTS, stream.media(audio).decode())
    assert heard.kind == "media"
    assert len(heard.data) == (160 if carrier == "exotel" else 320)
    assert theirs.read(FACTS, stream.mark('a"b').decode()) == ("mark", b"", 'a"b')
    assert theirs.read(FACTS, stream.clear().decode()).kind == "clear"


@pytest.mark.parametrize(
    "text", ["", "null", "[1]", "{}", '{"event":5}', '{"event":"media","media":[]}', b"\xff", '{"event":' + "[" * 9000]
)
def test_what_breaks_the_protocol_is_told(carrier, text):
    with pytest.raises(RemoteProtocolError):
        DetectedStream().receive(text)
    with pytest.raises(RemoteProtocolError):
        opened(carrier)[0].receive(text)


def test_a_start_comes_once(carrier):
    stream, _ = opened(carrier)
    with pytest.raises(RemoteProtocolError):
        stream.receive(THEIRS[carrier].start(FACTS, 2))


@pytest.mark.parametrize("at", ['"inf"', '"-inf"', '"nan"', "1e308"])
def test_a_time_that_is_none_is_told(at):
    stream, _ = opened("exotel")
    with pytest.raises(RemoteProtocolError, match="timestamp"):
        stream.receive('{"event":"media","media":{"payload":"AAAA","timestamp":AT}}'.replace("AT", at))


def test_nobody_is_waited_for_who_does_not_say_who_they_are():
    stream = DetectedStream()
    assert stream.receive('{"event":"connected"}') == ()
    with pytest.raises(RemoteProtocolError, match="says nothing that one of plivo, exotel, compatible"):
        stream.receive('{"event":"connected"}')
    with pytest.raises(RemoteProtocolError, match="says nothing"):
        DetectedStream().receive('{"event":"media","media":{"payload":""}}')
    with pytest.raises(StateError, match="before its start"):
        DetectedStream().media(b"")


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers())))
def test_whatever_a_first_message_has_it_breaks_nothing(fields):
    try:
        DetectedStream().receive(json.dumps({"event": "start", "start": fields}))
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    ("encoding", "rate", "audio_format"),
    [
        ("audio/x-mulaw", 8000, MULAW_8K),
        ("audio/x-mulaw;rate=8000", 8000, MULAW_8K),
        ("audio/x-l16", 16000, PCM_16K),
        ("audio/x-l16", "8000", PCM_8K),
    ],
)
def test_the_start_says_what_the_audio_is(encoding, rate, audio_format):
    start = json.loads(PlivoDialect().start(FACTS, 0))
    start["start"]["mediaFormat"] = {"encoding": encoding, "sampleRate": rate}
    stream = DetectedStream()
    [event] = stream.receive(json.dumps(start))
    assert event.audio_format == audio_format
    sent = json.loads(stream.media(b"\x00\x00"))["media"]
    assert sent["contentType"] == ("audio/x-mulaw" if audio_format == MULAW_8K else "audio/x-l16")
    assert sent["sampleRate"] == audio_format.sample_rate


@pytest.mark.parametrize(("encoding", "rate"), [("audio/opus", 48000), ("audio/x-mulaw", 16000), ("audio/x-l16", 0)])
def test_audio_that_is_not_spoken_is_told(encoding, rate):
    start = json.loads(PlivoDialect().start(FACTS, 0))
    start["start"]["mediaFormat"] = {"encoding": encoding, "sampleRate": rate}
    with pytest.raises(RemoteProtocolError, match="are spoken here"):
        DetectedStream().receive(json.dumps(start))


@pytest.mark.parametrize("encoding", ["base64", "audio/x-raw", "raw/slin", "audio/L16"])
def test_exotels_pages_write_one_encoding_in_many_ways(encoding):
    start = json.loads(ExotelDialect().start(FACTS, 1))
    start["start"]["media_format"] = {"encoding": encoding, "sample_rate": "16000", "bit_rate": "16"}
    [event] = DetectedStream().receive(json.dumps(start))
    assert event.audio_format == PCM_16K


@pytest.mark.parametrize(
    "extra",
    [
        '{"X-PH-from":"+1555","X-PH-to":"+1666"}',
        {"X-PH-from": "+1555", "X-PH-to": "+1666"},
        "from=+1555,to=+1666",
        "X-PH-from: +1555; X-PH-to: +1666",
    ],
)
def test_plivos_extra_headers_are_read_however_they_are_written(extra):
    start = json.loads(PlivoDialect().start(FACTS, 0))
    start["extra_headers"] = extra
    [event] = DetectedStream().receive(json.dumps(start))
    assert (event.from_, event.to) == ("+1555", "+1666")


@pytest.mark.parametrize("extra", [None, "", 7, [1], "{{{"])
def test_other_extra_headers_are_none(extra):
    start = json.loads(PlivoDialect().start(FACTS, 0))
    start["extra_headers"] = extra
    [event] = DetectedStream().receive(json.dumps(start))
    assert event.parameters == {}


# Audio in whole pieces


class Wire:
    rtt_s = 0.0

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []
        self.codes: list[int] = []

    def send_audio(self, data: bytes, mark: str = "") -> None:
        self.sent.append((data, mark))

    def send_mark(self, name: str) -> None:
        self.sent.append((b"", name))

    def send_clear(self) -> int:
        return 320

    def close(self) -> None:
        self.codes.append(1000)

    def fail(self, code: int) -> None:
        self.codes.append(code)


async def test_audio_is_sent_in_whole_pieces_and_a_rest_follows():
    below = Wire()
    wire = GrainedWire(below, 320, AudioFormat("s16le", 8000))
    wire.send_audio(b"\x01" * 500, "m")
    assert below.sent == [(b"\x01" * 320, "m")]
    wire.send_audio(b"\x02" * 100, "n")
    assert below.sent[1:] == [(b"", "n")]
    wire.send_audio(b"\x03" * 40)
    assert below.sent[2:] == [(b"\x01" * 180 + b"\x02" * 100 + b"\x03" * 40, "")]
    wire.send_audio(b"\x04" * 10)
    async with asyncio.timeout(5):
        while len(below.sent) < 4:
            await asyncio.sleep(0.005)
    assert below.sent[3:] == [(b"\x04" * 10 + bytes(310), "")]


async def test_a_clear_takes_the_rest_too():
    below = Wire()
    wire = GrainedWire(below, 320, AudioFormat("s16le", 8000))
    wire.send_audio(b"\x01" * 330)
    assert wire.send_clear() == 330
    wire.send_audio(b"\x01" * 330)
    wire.fail(1008)
    wire.close()
    assert below.codes == [1008, 1000]
    await asyncio.sleep(0.1)
    assert len(below.sent) == 2


@given(st.lists(st.integers(0, 900), max_size=12))
def test_nothing_is_lost_or_changes_its_place(sizes):
    async def send() -> bytes:
        below = Wire()
        wire = GrainedWire(below, 320, AudioFormat("s16le", 8000))
        for size in sizes:
            wire.send_audio(bytes(size))
        wire.send_audio(bytes(320 - sum(sizes) % 320))
        assert all(len(data) % 320 == 0 for data, _ in below.sent)
        return b"".join(data for data, _ in below.sent)

    assert len(asyncio.run(send())) == sum(sizes) + 320 - sum(sizes) % 320
