"""One direction of a call's frames over a way that loses, repeats and delays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import LimitError
from dialog.workers.frames import CallerAudio, DigitCame
from dialog.workers.ordered import Inbound, Outbound

AUDIO = CallerAudio(0.0, b"\x00" * 160)


def outbound(window_ms: float = 100.0, keep_ms: float = 200.0) -> Outbound:
    return Outbound(window_ms=window_ms, keep_ms=keep_ms)


def test_frames_are_numbered_from_one_and_sent_at_once():
    out = outbound()
    assert [out.push(DigitCame(digit), 0.0).seq for digit in "123"] == [1, 2, 3]


def test_audio_that_is_not_acknowledged_holds_back_what_comes_after_it():
    out = outbound(window_ms=40.0)
    assert out.push(AUDIO, 0.0, 20.0) is not None
    assert out.push(AUDIO, 0.0, 20.0) is not None
    assert out.push(AUDIO, 0.0, 20.0) is None
    assert out.push(DigitCame("1"), 0.0) is None, "a key must not overtake what was said before it"
    assert [each.body for each in out.acknowledge(2, 0.0)] == [AUDIO, DigitCame("1")]


def test_of_the_audio_that_waits_the_oldest_goes_and_no_key_does():
    out = outbound(window_ms=20.0, keep_ms=40.0)
    out.push(CallerAudio(0.0, b""), 0.0, 20.0)
    for at in (20.0, 40.0):
        out.push(CallerAudio(at, b""), 0.0, 20.0)
    out.push(DigitCame("1"), 0.0)
    out.push(CallerAudio(60.0, b""), 0.0, 20.0)
    assert out.dropped_ms == 20.0
    sent = [each.body for each in out.acknowledge(1, 0.0)]
    assert sent == [CallerAudio(40.0, b""), DigitCame("1")], "the rest waits for the window"


def test_a_receiver_that_takes_nothing_ends_in_an_error_and_not_in_memory():
    out = outbound()
    for _ in range(20_000):
        out.push(DigitCame("1"), 0.0)
    for _ in range(3):
        with pytest.raises(LimitError):
            out.push(DigitCame("1"), 0.0)
    out.acknowledge(20_000, 0.0)
    assert out.idle
    for _ in range(20_000):
        assert out.push(DigitCame("1"), 0.0) is not None, "what was refused takes no place"


def test_what_is_refused_while_others_wait_does_not_wait_itself():
    out = outbound(window_ms=20.0)
    out.push(AUDIO, 0.0, 20.0)
    out.push(AUDIO, 0.0, 20.0)
    for _ in range(20_000):
        out.push(DigitCame("1"), 0.0)
    with pytest.raises(LimitError):
        out.push(DigitCame("#"), 0.0)
    assert DigitCame("#") not in out.withdraw()


def test_a_gap_is_asked_for_once_and_again_at_the_next_beat():
    inbound = Inbound()
    assert inbound.take(1)
    assert not inbound.take(3)
    assert inbound.missing(3) == 2
    assert not inbound.take(4)
    assert inbound.missing(4) is None
    assert inbound.due() == 1
    assert not inbound.take(5)
    assert inbound.missing(5) == 2


def test_a_repeated_frame_is_acknowledged_again():
    inbound = Inbound()
    inbound.take(1)
    assert inbound.due() == 1
    assert inbound.due() is None
    assert not inbound.take(1)
    assert inbound.due() == 1


@given(st.lists(st.sampled_from(["push", "audio", "deliver", "lose", "twice", "swap", "beat"]), max_size=200))
def test_whatever_the_way_does_everything_comes_once_and_in_order(steps):
    out, inbound = Outbound(window_ms=60.0, keep_ms=1e9), Inbound()
    way: list = []
    pushed: list = []
    got: list = []

    def deliver(each) -> None:
        if inbound.take(each.seq):
            got.append(each.body)
        elif (lost := inbound.missing(each.seq)) is not None:
            way.extend(out.again(lost, 0.0))

    def beat() -> None:
        seq = inbound.due()
        if seq is not None:
            way.extend(out.acknowledge(seq, 0.0))
        way.extend(out.again(0, 0.0))

    for count, step in enumerate(steps):
        if step in ("push", "audio"):
            body = DigitCame(str(count)) if step == "push" else CallerAudio(float(count), b"")
            pushed.append(body)
            each = out.push(body, 0.0, 20.0 if step == "audio" else 0.0)
            if each is not None:
                way.append(each)
        elif step == "beat":
            beat()
        elif not way:
            continue
        elif step == "deliver":
            deliver(way.pop(0))
        elif step == "lose":
            way.pop(0)
        elif step == "twice":
            way.insert(0, way[0])
        elif step == "swap":
            way.append(way.pop(0))
    for _ in range(2 * len(pushed) + 2):
        while way:
            deliver(way.pop(0))
        beat()
    assert got == pushed
