"""Listening in: both sides at their places, whatever comes late, early, twice or not at all."""

from __future__ import annotations

from array import array

import pytest

from dialog.audio import SILENCE_DBFS, Monitor, mulaw_encode
from dialog.message import MULAW_8K, PCM_24K

FRAME = 320
"""Bytes of 20 ms at 8 kHz, as s16le."""


def level(value: int, ms: float) -> bytes:
    return array("h", [value] * round(8 * ms)).tobytes()


def coded(value: int, ms: float) -> bytes:
    return mulaw_encode(level(value, ms))


def values(heard) -> list[int]:
    """What was heard, in steps of 20 ms: the sample in the middle of each."""
    samples = array("h", heard.mixed)
    return [round(samples[at], -2) for at in range(80, len(samples), 160)]


def test_both_sides_are_mixed_where_they_sound() -> None:
    monitor = Monitor()
    for number in range(5):
        monitor.caller(1000.0 + 20 * number, coded(1000, 20))
    monitor.agent(1040.0, coded(2000, 40))
    heard = monitor.take(100)
    assert heard is not None
    assert heard.ms == 100
    assert values(heard) == [1000, 1000, 3000, 3000, 1000]
    assert -32 < heard.caller_dbfs < -29
    assert monitor.take(100) is None, "nothing has come meanwhile"


def test_the_agent_is_heard_when_it_sounds_and_not_when_it_is_sent() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(0, 20))
    monitor.agent(40.0, coded(2000, 300))
    heard = monitor.take(20)
    assert heard is not None
    assert values(heard) == [0]
    assert heard.agent_dbfs == SILENCE_DBFS
    for number in range(1, 4):
        monitor.caller(20.0 * number, coded(0, 20))
    heard = monitor.take(60)
    assert heard is not None
    assert values(heard) == [0, 2000, 2000]


def test_what_was_cleared_is_not_heard() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(0, 20))
    monitor.agent(0.0, coded(2000, 300))
    monitor.agent_cleared(60.0)
    monitor.agent(80.0, coded(500, 20))
    for number in range(1, 6):
        monitor.caller(20.0 * number, coded(0, 20))
    heard = monitor.take(120)
    assert heard is not None
    assert values(heard) == [2000, 2000, 2000, 0, 500, 0]


def test_without_the_caller_time_goes_on_by_the_clock() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(1000, 20))
    assert monitor.take(20) is not None
    monitor.agent(20.0, coded(2000, 600))
    assert [monitor.take(100) for _ in range(3)] == [None, None, None]
    heard = monitor.take(100)
    assert heard is not None
    assert values(heard) == [2000] * 5
    monitor.caller(20.0, coded(1000, 100))  # these were late: nobody hears them any more
    monitor.caller(120.0, coded(1000, 20))
    heard = monitor.take(20)
    assert heard is not None
    assert values(heard) == [3000]
    assert heard.ms == 20


def test_a_listener_who_does_not_keep_up_hears_a_gap_and_costs_no_memory() -> None:
    monitor = Monitor()
    for number in range(3000):
        monitor.caller(20.0 * number, coded(number, 20))
        monitor.agent(20.0 * number + 300, coded(0, 20))
    assert len(monitor._caller._data) <= 8 * 2020
    assert len(monitor._agent._data) <= 8 * 2400
    heard = monitor.take(60_000)
    assert heard is not None
    assert heard.ms == pytest.approx(2000, abs=20)
    assert values(heard)[-1] == 3000
    assert values(heard)[0] == 2900


def test_an_agent_that_sends_far_ahead_is_bounded() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(0, 20))
    for number in range(100):
        monitor.agent(1000.0 * number, coded(100, 1000))
    assert len(monitor._agent._data) <= 8 * 12_000


def test_a_jump_of_the_clock_is_not_filled() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(1000, 20))
    monitor.take(20)
    monitor.caller(3_600_000.0, coded(1000, 20))
    heard = monitor.take(20)
    assert heard is not None
    assert heard.ms <= 2020
    assert len(heard.mixed) <= 16 * 2020


def test_silence_of_both_is_heard_as_silence() -> None:
    monitor = Monitor()
    monitor.caller(0.0, coded(0, 20))
    monitor.take(20)
    found = [monitor.take(100) for _ in range(5)]
    assert found[-1] is not None
    assert found[-1].mixed == bytes(1600)
    assert (found[-1].caller_dbfs, found[-1].agent_dbfs) == (SILENCE_DBFS, SILENCE_DBFS)


def test_levels_alone_need_no_mixing() -> None:
    monitor = Monitor(PCM_24K)
    monitor.caller(0.0, array("h", [8000] * 480).tobytes())
    heard = monitor.take(20, sound=False)
    assert heard is not None
    assert heard.mixed == b""
    assert -13 < heard.caller_dbfs < -12
    assert MULAW_8K != PCM_24K


def test_nothing_is_heard_before_anything_has_come() -> None:
    monitor = Monitor()
    assert monitor.take(100) is None
    monitor.agent_cleared(0.0)
    monitor.agent(500.0, coded(2000, 40))
    assert monitor.take(100) is None
