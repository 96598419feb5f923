"""The pure parts of the simulated caller: playback buffer, measuring, TwiML, signatures."""

from __future__ import annotations

import io
import math
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import RemoteProtocolError
from dialog.testing import twiml
from dialog.testing.heard import Ear, Track, stereo_wav, voiced_span
from dialog.testing.media import Fragment, PlaybackBuffer
from dialog.testing.signing import sign

TONE = b"\x90\x10" * 80  # 20 ms, loud
SILENCE = b"\xff" * 160


def test_a_mark_on_an_empty_buffer_is_due_at_once() -> None:
    buffer = PlaybackBuffer()
    buffer.mark("a", 5.0)
    assert buffer.due_marks(5.0) == ["a"]


def test_a_mark_is_due_when_all_before_it_was_played() -> None:
    buffer = PlaybackBuffer()
    buffer.feed(TONE, 0.0)
    buffer.mark("a", 1.0)
    buffer.feed(TONE, 2.0)
    buffer.mark("b", 3.0)
    assert buffer.next_mark_ms == 20.0
    assert buffer.due_marks(19.9) == []
    assert buffer.due_marks(20.0) == ["a"]
    assert buffer.due_marks(40.0) == ["b"]
    assert buffer.next_mark_ms is None


def test_clear_flushes_every_pending_mark_and_drops_only_what_was_not_played() -> None:
    buffer = PlaybackBuffer()
    buffer.feed(TONE * 10, 0.0)
    buffer.mark("a", 1.0)
    buffer.mark("b", 1.0)
    assert sum(len(f.data) for f in buffer.played(50.0)) == 400
    cleared = buffer.clear(50.0)
    assert cleared.marks == ("a", "b")
    assert cleared.dropped_ms == 150.0
    assert buffer.played(1000.0) == []
    buffer.feed(TONE, 60.0)  # played normally, at once
    assert buffer.played(100.0) == [Fragment(60.0, TONE)]
    assert buffer.gaps == []


def test_a_dry_buffer_leaves_a_gap_that_knows_whether_a_mark_stood_there() -> None:
    buffer = PlaybackBuffer()
    buffer.feed(TONE, 0.0)
    buffer.feed(TONE, 50.0)
    buffer.mark("end", 51.0)
    buffer.feed(TONE, 100.0)
    assert [(g.at_ms, g.duration_ms, g.marked) for g in buffer.gaps] == [(20.0, 30.0, False), (70.0, 30.0, True)]


def test_a_buffer_takes_ten_minutes_and_no_more() -> None:
    buffer = PlaybackBuffer()
    for _ in range(63):
        buffer.feed(b"\xff" * 80_000, 0.0)
    assert buffer.overflow_ms == 20_000.0
    assert buffer.unplayed_ms(0.0) == 610_000.0


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 2000)), max_size=30), st.floats(1, 30))
def test_whatever_is_fed_is_played_once_in_order_and_never_too_early(
    feeds: list[tuple[float, int]], step: float
) -> None:
    buffer = PlaybackBuffer()
    now, fed, heard = 0.0, bytearray(), []
    for number, (wait, size) in enumerate(feeds):
        now += wait
        data = bytes([number % 256]) * size
        buffer.feed(data, now)
        fed += data
        now += step
        heard += buffer.played(now)
        assert all(f.at_ms + len(f.data) / 8 <= now + 1e-6 for f in heard)
    heard += buffer.played(now + 1e9)
    assert b"".join(f.data for f in heard) == bytes(fed)
    times = [f.at_ms for f in heard]
    assert times == sorted(times)


def test_an_ear_splits_speech_at_long_silences_only() -> None:
    ear = Ear(split_ms=300)
    position = 0.0
    for voiced, frames in ((False, 5), (True, 10), (False, 10), (True, 5), (False, 20), (True, 5)):
        for _ in range(frames):
            ear.hear(Fragment(position, TONE if voiced else SILENCE))
            position += 20
    assert [(s.started_ms, s.ended_ms) for s in ear.stretches] == [(100, 600), (1000, 1100)]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=30))
def test_speech_is_found_at_the_same_place_however_it_is_cut(sizes: list[int]) -> None:
    audio = SILENCE * 5 + TONE * 20 + SILENCE * 5
    ear, at = Ear(), 0
    for size in [*sizes, len(audio)]:
        ear.hear(Fragment(at / 8, audio[at : at + size])) if at < len(audio) else None
        at += size
    assert [(s.started_ms, s.ended_ms) for s in ear.stretches] == [(100, 500)]


def test_speech_that_goes_on_after_a_clear_was_paused_not_cut() -> None:
    ear = Ear()
    ear.hear(Fragment(0.0, TONE * 5))
    ear.cut(100.0)
    assert ear.stretches[-1].cut
    ear.hear(Fragment(200.0, TONE * 5))
    assert [(s.started_ms, s.ended_ms, s.cut) for s in ear.stretches] == [(0, 300, False)]


def test_voiced_span_leaves_out_silence_at_both_ends() -> None:
    assert voiced_span(SILENCE * 3 + TONE * 2 + SILENCE) == (60, 100)
    assert voiced_span(SILENCE * 2) == (0, 40)


def test_a_track_puts_audio_at_its_time_and_fills_with_silence() -> None:
    track = Track()
    track.put(10.0, b"\x01" * 8)
    track.put(11.04, b"\x02" * 8)  # rounding: no hole, nothing lost
    track.put(20.0, b"\x03" * 8)
    assert track.data == b"\xff" * 80 + b"\x01" * 8 + b"\x02" * 8 + b"\xff" * 64 + b"\x03" * 8
    assert track.cut(20.0, 21.0) == b"\x03" * 8


def test_the_recording_is_stereo_16_bit_with_the_caller_on_the_left() -> None:
    sine = bytes(_encode(round(8000 * math.sin(n / 3))) for n in range(800))
    with wave.open(io.BytesIO(stereo_wav(sine, b"\xff" * 1600))) as reader:
        assert (reader.getnchannels(), reader.getsampwidth(), reader.getframerate()) == (2, 2, 8000)
        frames = reader.readframes(reader.getnframes())
    assert len(frames) == 1600 * 4
    left = [int.from_bytes(frames[n : n + 2], "little", signed=True) for n in range(0, len(frames), 4)]
    right = [int.from_bytes(frames[n + 2 : n + 4], "little", signed=True) for n in range(0, len(frames), 4)]
    assert all(abs(sample - 8000 * math.sin(n / 3)) < 300 for n, sample in enumerate(left[:800]))
    assert set(left[800:]) == {0}
    assert set(right) == {0}


def _encode(sample: int) -> int:
    """Mu-law by search, independent of any table."""
    from dialog.testing.heard import _linear

    return min(range(256), key=lambda code: abs(_linear(code) - sample))


@pytest.mark.parametrize(
    ("url", "parameters", "signature"),
    [
        (
            "https://mycompany.com/myapp.php?foo=1&bar=2",
            {
                "CallSid": "CA1234567890ABCDE",
                "Caller": "+14158675309",
                "Digits": "1234",
                "From": "+14158675309",
                "To": "+18005551212",
            },
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        ("https://h.example/voice", {"From": "+1", "To": "+2"}, "SfAxVEjJ+GhhCkZ0eByZzfcr+Kw="),
        ("wss://h.example/media", {}, "iipxWStCPwHv8TIpyhnkV93xQtA="),
    ],
)
def test_signatures_are_those_of_twilio(url: str, parameters: dict[str, str], signature: str) -> None:
    from twilio.request_validator import RequestValidator

    assert sign("12345", url, parameters.items()) == signature
    assert RequestValidator("12345").validate(url, parameters, signature)


def test_twiml_is_read_with_attributes_text_and_nouns() -> None:
    (connect, say) = twiml.parse(
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect action="/after"><Stream url="wss://h/m">'
        '<Parameter name="a" value="1 &amp; 2"/></Stream></Connect><Say>Good-bye</Say></Response>'
    )
    stream = connect.find("Stream")
    assert stream is not None
    assert (connect.get("action"), stream.get("url"), stream.nouns[0].get("value")) == ("/after", "wss://h/m", "1 & 2")
    assert connect.find("Conference") is None
    assert (say.name, say.text) == ("Say", "Good-bye")


@pytest.mark.parametrize(
    "document",
    [
        "",
        "hello",
        "<Response>",
        "<html/>",
        '<!DOCTYPE r [<!ENTITY a "b">]><Response>&a;</Response>',
        "<Response>" + " " * 70_000 + "</Response>",
    ],
)
def test_what_is_not_twiml_is_refused(document: str) -> None:
    with pytest.raises(RemoteProtocolError):
        twiml.parse(document)
