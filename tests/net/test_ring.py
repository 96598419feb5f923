from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.message import MULAW_8K, Message
from dialog.net.ring import AudioRing, StreamTime

CALL = UUID(int=1)


def frame(at_ms, size=160):
    return Message(uuid=CALL, data=b"\xff" * size, at_ms=at_ms)


def test_ring_keeps_what_is_not_safe_and_no_more_than_its_bound():
    ring = AudioRing(MULAW_8K, keep_ms=1000)
    for index in range(100):
        ring.append(frame(index * 20))
    assert len(ring) == 50
    assert ring.end_ms == 2000
    ring.release(1500)
    assert next(m.at_ms for m in ring.since(1500)) == 1500
    assert len(ring) == 25


def test_replay_begins_with_the_frame_that_reaches_beyond_the_safe_point():
    ring = AudioRing(MULAW_8K)
    for index in range(5):
        ring.append(frame(index * 20))
    ring.release(50)
    assert [m.at_ms for m in ring.since(50)] == [40, 60, 80]


def test_one_huge_message_is_kept_whole():
    ring = AudioRing(MULAW_8K, keep_ms=100)
    ring.append(frame(0, 8000))
    assert len(ring) == 1


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
    st.floats(-1, 4),
    st.floats(-1, 4),
)
def test_a_span_is_where_its_two_ends_are(sent, start_s, end_s):
    time, at_ms = StreamTime(), 0.0
    for pause_ms, duration_ms in sent:
        at_ms += pause_ms if pause_ms > 2500 else 0.0  # sometimes the clock has jumped
        time.add(at_ms, duration_ms)
        at_ms += duration_ms
    ends = (time.begins_at(start_s), time.ends_at(end_s))
    assert time.span(start_s, end_s) == pytest.approx(ends)
