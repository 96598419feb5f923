import math
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.message import MULAW_8K, AudioFormat, Message
from dialog.net.ring import AudioRing, StreamTime

CALL = UUID(int=1)


def frame(at_ms, size=160):
    return Message(uuid=CALL, data=b"\xff" * size, at_ms=at_ms)


def told(ring, at_ms, until_ms=math.inf):
    """Where each stretch of the ring's audio begins and ends."""
    stretches: list[tuple[float, float]] = []
    for message in ring.since(at_ms, until_ms):
        assert 0 < len(message.data) <= 160
        end_ms = message.at_ms + len(message.data) / 8
        if stretches and abs(stretches[-1][1] - message.at_ms) < 1:
            stretches[-1] = (stretches[-1][0], end_ms)
        else:
            stretches.append((message.at_ms, end_ms))
    return stretches


def test_ring_keeps_what_is_not_safe_and_no_more_than_its_bound():
    ring = AudioRing(MULAW_8K, keep_ms=1000)
    for index in range(100):
        ring.append(frame(index * 20))
    assert (ring.start_ms, ring.end_ms) == (1000, 2000)
    assert sum(len(m.data) for m in ring.since(0)) == 8000
    ring.release(1500)
    assert ring.start_ms == 1500
    assert told(ring, 0) == [(1500, 2000)]


def test_replay_begins_where_what_is_safe_ends():
    ring = AudioRing(MULAW_8K)
    for index in range(5):
        ring.append(Message(uuid=CALL, data=bytes([index]) * 160, at_ms=index * 20))
    ring.release(50)
    assert ring.since(50) == [
        Message(uuid=CALL, data=b"\2" * 80, at_ms=50),
        Message(uuid=CALL, data=b"\3" * 160, at_ms=60),
        Message(uuid=CALL, data=b"\4" * 160, at_ms=80),
    ]
    assert told(ring, 0, 90) == [(50, 90)]
    assert told(ring, 100) == []


def test_one_huge_message_is_kept_whole():
    ring = AudioRing(MULAW_8K, keep_ms=100)
    ring.append(frame(0, 8000))
    assert told(ring, 0) == [(0, 1000)]
    ring.append(frame(1000))
    assert told(ring, 0) == [(920, 1020)]


def test_a_jump_of_the_clock_is_kept():
    ring = AudioRing(MULAW_8K)
    for at_ms in (0, 20, 5000, 5020.4, 5040):
        ring.append(frame(at_ms))
    assert told(ring, 0) == [(0, 40), (5000, 5060)]
    ring.release(4000)
    assert (ring.start_ms, ring.end_ms) == (5000, 5060)


def test_a_sample_is_never_cut():
    ring = AudioRing(AudioFormat("s16le", 16000))
    ring.append(frame(0, 640))
    ring.release(0.05)
    assert [(m.at_ms, len(m.data)) for m in ring.since(0)] == [(0, 640)]
    assert [(m.at_ms, len(m.data)) for m in ring.since(1.01)] == [(1, 608)]


def test_what_comes_after_all_was_released_is_kept():
    ring = AudioRing(MULAW_8K)
    ring.append(frame(0))
    ring.release(math.inf)
    assert (ring.start_ms, ring.since(0)) == (20, [])
    ring.append(frame(20))
    assert told(ring, 0) == [(20, 40)]


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 30, 400, 3000]), st.integers(1, 3000)), min_size=1, max_size=40),
    st.lists(st.floats(0, 20_000), max_size=3),
    st.floats(0, 20_000),
)
def test_every_kept_byte_is_where_it_was(appended, released, since_ms):
    ring, at, whole = AudioRing(MULAW_8K, keep_ms=2000), 0, {}
    for number, (jump, size) in enumerate(appended):
        at += jump * 8
        ring.append(Message(uuid=CALL, data=bytes([number]) * size, at_ms=at / 8))
        whole |= dict.fromkeys(range(at, at + size), number)
        at += size
    for safe_ms in released:
        ring.release(safe_ms)
    got = {}
    for message in ring.since(since_ms):
        start = round(message.at_ms * 8)
        got |= dict(enumerate(message.data, start))
    assert got.items() <= whole.items()
    floor = max([since_ms, *(min(safe_ms, ring.end_ms) for safe_ms in released)])
    newest = at - appended[-1][1]
    must = {position for position in whole if position >= floor * 8 and position >= min(at - 16_000, newest)}
    assert must <= got.keys()
    assert not got or min(got) >= floor * 8 - 1


def test_stream_time_follows_the_base_and_the_jumps_of_the_clock():
    time = StreamTime()
    time.add(5000, 20)
    time.add(5020.4, 20)
    time.add(9000, 20)
    assert time.sent_ms == 60
    assert time.to_call(10) == 5010
    assert time.to_call(40) == 9000
    assert time.to_call(40, end=True) == 5040
    assert time.to_call(50) == 9010


def test_dropped_audio_becomes_a_gap():
    time = StreamTime()
    for index in range(5):
        time.add(1000 + 20 * index, 20)
    time.drop(40, 20)  # the third frame was never sent
    assert time.sent_ms == 80
    assert time.to_call(39) == 1039
    assert time.to_call(40) == 1060
    assert time.to_call(79) == 1099


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=60))
def test_every_sent_frame_maps_to_where_it_was(frames):
    """Whatever jumps and whatever is dropped on the way, the frames that arrive keep their times."""
    time, at, sent, queue = StreamTime(), 0.0, [], []
    for jump, dropped in frames:
        at += 20.0 + jump * 100.0
        if dropped and queue:
            position = time.sent_ms - 20.0 * len(queue)
            time.drop(position, 20.0)
            queue.pop(0)
        queue.append(at)
        time.add(at, 20.0)
        if len(queue) > 3:
            sent.append(queue.pop(0))
    for index, at_ms in enumerate([*sent, *queue]):
        assert abs(time.to_call(index * 20.0 + 1.0) - (at_ms + 1.0)) < 1.0


@given(
    st.lists(st.tuples(st.floats(0, 5000), st.floats(1, 400)), max_size=6),
    st.lists(st.tuples(st.floats(-1, 4), st.floats(-1, 4)), max_size=3),
)
def test_spans_are_where_their_ends_are(sent, spans_s):
    time, at_ms = StreamTime(), 0.0
    for pause_ms, duration_ms in sent:
        at_ms += pause_ms if pause_ms > 2500 else 0.0  # sometimes the clock has jumped
        time.add(at_ms, duration_ms)
        at_ms += duration_ms
    ends = [pytest.approx((time.begins_at(start_s), time.ends_at(end_s))) for start_s, end_s in spans_s]
    assert time.spans(spans_s) == ends
