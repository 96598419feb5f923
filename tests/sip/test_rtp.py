"""Audio and keys in packets: their order, their time, their loss."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import RemoteProtocolError
from dialog.message import MULAW_8K
from dialog.voip.sip.rtp import Digit, Packet, Receiver, Sender, Sound, decode


def frame(number: int) -> bytes:
    return bytes([number % 200]) * 160


def packet(number: int, *, ssrc: int = 1, payload_type: int = 0, payload: bytes | None = None, at: int | None = None):
    return Packet(
        payload_type,
        (65_530 + number) & 0xFFFF,
        (2**32 - 800 + 160 * (number if at is None else at)) & 0xFFFFFFFF,
        ssrc,
        frame(number) if payload is None else payload,
    )


def receiver() -> Receiver:
    return Receiver(MULAW_8K, 0, 101)


def heard(out) -> list[tuple[float, int]]:
    return [(each.at_ms, each.data[0]) for each in out if isinstance(each, Sound)]


def test_a_packet_is_taken_apart_behind_sources_extension_and_padding():
    header = bytes([0x80 | 0x20 | 0x10 | 2, 0x80]) + b"\0\7" + b"\0\0\0\xa0" + b"\0\0\0\1"
    data = header + b"CSRC" * 2 + b"\xbe\xde\0\1" + b"EXTE" + b"audio" + b"\0\0\3"
    assert decode(data) == Packet(0, 7, 160, 1, b"audio")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" + bytes(10),
        b"\x40" + bytes(11),
        b"\x8f" + bytes(11),
        b"\x90" + bytes(11) + b"\0\0\0\xff",
        b"\xa0" + bytes(12),
        b"\xa0" + bytes(11) + b"\xff",
        b"\x80" + bytes(11) + bytes(1601),
    ],
)
def test_what_is_no_packet_says_so(data):
    with pytest.raises(RemoteProtocolError):
        decode(data)


@given(st.binary(max_size=2000))
def test_any_datagram_is_read_or_refused(data):
    each = receiver()
    try:
        found = decode(data)
    except RemoteProtocolError:
        return
    assert len(found.payload) <= len(data)
    each.receive(found, 1.0)
    each.tick(5.0)


def test_what_a_sender_makes_a_receiver_hears():
    sender, each = Sender(0, 101), receiver()
    out = []
    for number in range(3):
        out += each.receive(decode(sender.audio(frame(number))), 0.02 * number)
    assert heard(out) == [(0, 0), (20, 1), (40, 2)]


def test_packets_that_have_overtaken_each_other_are_put_in_order():
    each = receiver()
    out = []
    for at, number in enumerate([0, 2, 1, 3, 5, 6, 4, 7]):
        out += each.receive(packet(number), 0.02 * at)
    assert heard(out) == [(20 * number, number) for number in range(8)]


def test_a_lost_packet_is_not_waited_for_for_ever():
    each = receiver()
    out = []
    for at, number in enumerate([0, 2, 3, 4, 5]):
        out += each.receive(packet(number), 0.02 * at)
    assert heard(out) == [(0, 0), (40, 2), (60, 3), (80, 4), (100, 5)]


def test_a_packet_that_comes_twice_is_heard_once():
    each = receiver()
    out = []
    for number in [0, 0, 1, 1, 0, 2]:
        out += each.receive(packet(number), 0.02 * number)
    assert heard(out) == [(0, 0), (20, 1), (40, 2)]


def test_silence_takes_the_place_of_what_does_not_come_and_late_audio_is_dropped():
    each = receiver()
    each.receive(packet(0), 0.0)
    assert each.tick(0.4) == []
    [silence] = each.tick(0.6)
    assert silence.data == MULAW_8K.silence(600)
    assert silence.at_ms == 20
    for number in range(5, 31):  # they should have sounded from 100 ms on
        assert each.receive(packet(number), 0.61) == []
    [late] = each.receive(packet(31), 0.62)
    assert (late.at_ms, late.data[0]) == (620, 31)


def test_a_sender_whose_clock_stood_still_while_it_was_silent_is_heard_again():
    each = receiver()
    each.receive(packet(0), 0.0)
    now, out = 0.0, []
    while now < 2.0:
        now += 0.02
        out += each.tick(now)
    for number in range(1, 61):
        now += 0.02
        out += each.receive(packet(number), now)
    loud = [each for each in out if isinstance(each, Sound) and each.data[0] != 0xFF]
    assert loud[-1].data[0] == 60
    assert len(loud) > 15


def test_another_sender_goes_on_where_the_last_one_ended():
    each = receiver()
    each.receive(packet(0), 0.0)
    [sound] = each.receive(packet(9, ssrc=2), 0.02)
    assert sound.at_ms == 20


def test_a_sender_that_numbers_anew_is_heard_at_once():
    each = receiver()
    each.receive(packet(0), 0.0)
    [sound] = each.receive(packet(20_000, at=1), 0.02)
    assert sound.at_ms == 20


def test_packets_that_come_seconds_late_are_dropped_and_nothing_else_is():
    each = receiver()
    out = []
    for number in range(300):
        if not 50 <= number < 100:
            out += each.receive(packet(number), 0.02 * number)
        if number == 250:
            for late in range(50, 60):
                out += each.receive(packet(late), 0.02 * number)
    assert heard(out) == [(20.0 * number, number % 200) for number in range(300) if not 50 <= number < 100]


def test_a_sender_that_begins_again_with_its_own_numbers_is_heard_after_half_a_second():
    each = receiver()
    for number in range(500):
        each.receive(packet(number), 0.02 * number)
    out = []
    for number in range(100):
        out += each.receive(packet(number), 10.0 + 0.02 * number)
    assert [data for _, data in heard(out)] == list(range(26, 100))
    assert out[0].at_ms == 10_000.0


def test_audio_cannot_run_ahead_of_the_clock():
    each = receiver()
    out = []
    for number in range(1000):  # 20 s at once
        out += each.receive(packet(number), 0.0)
    assert sum(len(sound.data) for sound in out) == 5 * 8000


def test_a_key_is_told_once_however_often_it_is_sent():
    each = receiver()
    out = []
    for number in range(6):
        event = bytes([11, 0x8A if number > 3 else 0x0A, 0, 160])
        out += each.receive(packet(number, payload_type=101, payload=event, at=0), 0.02 * number)
    event = bytes([5, 0x0A, 0, 160])
    out += each.receive(packet(6, payload_type=101, payload=event, at=6), 0.2)
    assert out == [Digit("#"), Digit("5")]


def test_keys_that_are_pressed_are_heard_at_the_other_end():
    sender, each = Sender(0, 101), receiver()
    sender.press("1w#a")
    out, frames = [], 0
    while (packets := sender.keys()) is not None:
        frames += 1
        for data in packets:
            out += each.receive(decode(data), 0.02 * frames)
    assert [digit.key for digit in out if isinstance(digit, Digit)] == ["1", "#", "A"]
    assert frames == 3 * (8 + 5) + 25
    [sound] = [each for each in each.receive(decode(sender.audio(frame(1))), 2.0) if isinstance(each, Sound)]
    assert sound.data == frame(1)


@pytest.mark.parametrize("digits", ["", "x", "1 2", "1" * 101])
def test_what_is_no_key_is_not_pressed(digits):
    sender = Sender(0, 101)
    with pytest.raises(ValueError, match=r"\S"):
        sender.press(digits)
    assert sender.keys() is None


@given(st.integers(0, 2**32), st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_whatever_the_network_does_time_only_goes_forward(seed, delays):
    """Packets come late, twice or never: what is handed on is in order and never overlaps."""
    dice = random.Random(seed)
    sent = [(0.02 * (number + delay), number) for number, delay in enumerate(delays) if dice.random() > 0.1]
    sent += dice.sample(sent, len(sent) // 5)
    each, end = receiver(), 0.0
    for now, number in sorted(sent):
        for sound in [*each.tick(now), *each.receive(packet(number), now)]:
            assert isinstance(sound, Sound)
            assert sound.at_ms >= end - 1e-6
            end = sound.at_ms + MULAW_8K.ms(len(sound.data))
