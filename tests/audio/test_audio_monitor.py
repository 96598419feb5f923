"""Listening in: both sides at their places, whatever comes late, early, twice or not at all."""

from __future__ import annotations

from array import array

from dialog.audio import SILENCE_DBFS, Monitor, mulaw_encode
from dialog.message import MULAW_8K, PCM_24K


def level(value: int, ms: float) -> bytes:
    return array("h", [value] * round(8 * ms)).tobytes()


def coded(value: int, ms: float) -> bytes:
    return mulaw_encode(level(value, ms))


def values(heard) -> list[int]:
    """What was heard, in steps of 20 ms: the sample in the middle of each."""
    samples = array("h", heard.mixed)
    return [round(samples[at], -2) for at in range(80, len(samples), 160)]


class Ear:
    """A monitor, and the clock of its call."""

    def __init__(self, audio_format=MULAW_8K) -> None:
        self.now = 0.0
        self.monitor = Monitor(audio_format, lambda: self.now)
        assert self.monitor.take() is None

    def says(self, *values: int, at_ms: float = 0.0) -> None:
        """The caller's audio comes, 20 ms at a time."""
        for value in values:
            self.now += 20
            self.monitor.caller(at_ms, coded(value, 20))

    def take(self):
        """What is heard by now: a little later than it came."""
        self.now += 100
        heard = self.monitor.take()
        self.now -= 100
        return heard


def test_both_sides_are_mixed_where_they_sound() -> None:
    ear = Ear()
    ear.monitor.agent(40.0, coded(2000, 40))
    ear.says(1000, 1000, 1000, 1000, 1000)
    heard = ear.take()
    assert heard is not None
    assert heard.ms == 200, "it began a moment before"
    assert values(heard)[5:] == [1000, 1000, 3000, 3000, 1000]
    assert -36 < heard.caller_dbfs < -29
    assert ear.take() is None, "no time has passed"


def test_the_agent_is_heard_when_it_sounds_and_not_when_it_is_sent() -> None:
    ear = Ear()
    ear.take()
    ear.monitor.agent(40.0, coded(2000, 300))
    ear.says(0)
    heard = ear.take()
    assert heard is not None
    assert (values(heard), heard.agent_dbfs) == ([0], SILENCE_DBFS)
    ear.says(0, 0, 0)
    assert values(ear.take()) == [0, 2000, 2000]


def test_what_was_cleared_is_not_heard() -> None:
    ear = Ear()
    ear.take()
    ear.monitor.agent(0.0, coded(2000, 300))
    ear.monitor.agent_cleared(60.0)
    ear.monitor.agent(80.0, coded(500, 20))
    ear.says(0, 0, 0, 0, 0, 0)
    assert values(ear.take()) == [2000, 2000, 2000, 0, 500, 0]


def test_audio_that_does_not_come_evenly_is_heard_without_gaps() -> None:
    ear = Ear()
    ear.take()
    ear.now = 60.0
    for _ in range(3):  # all at once, a little late
        ear.monitor.caller(0.0, coded(1000, 20))
    ear.now = 120.0
    for _ in range(3):
        ear.monitor.caller(0.0, coded(1000, 20))
    assert set(values(ear.take())[-5:]) == {1000}


def test_a_caller_whose_clock_is_behind_is_heard_when_they_speak() -> None:
    ear = Ear()
    ear.take()
    ear.now = 5000.0
    ear.take()
    ear.says(1000, 1000, at_ms=120.0)
    assert values(ear.take()) == [1000, 1000]


def test_without_the_caller_the_agent_is_heard_all_the_same() -> None:
    ear = Ear()
    ear.take()
    ear.monitor.agent(20.0, coded(2000, 600))
    ear.now = 100.0
    assert values(ear.take()) == [0, 2000, 2000, 2000, 2000]


def test_a_listener_who_does_not_keep_up_hears_a_gap_and_costs_no_memory() -> None:
    ear = Ear()
    for number in range(3000):
        ear.monitor.agent(ear.now + 300, coded(500, 20))
        ear.says(1000 if number < 2950 else 2000)
    assert len(ear.monitor._caller._data) <= 8 * 12_000
    assert len(ear.monitor._agent._data) <= 8 * 12_000
    heard = ear.take()
    assert heard is not None
    assert heard.ms == 2000
    assert values(heard) == [1500] * 50 + [2500] * 50


def test_an_agent_that_sends_far_ahead_is_bounded() -> None:
    ear = Ear()
    for number in range(100):
        ear.monitor.agent(1000.0 * number, coded(100, 1000))
    assert len(ear.monitor._agent._data) <= 8 * 12_000


def test_silence_of_both_is_heard_as_silence() -> None:
    ear = Ear()
    ear.take()
    ear.now = 100.0
    heard = ear.take()
    assert heard is not None
    assert heard.mixed == bytes(1600)
    assert (heard.caller_dbfs, heard.agent_dbfs) == (SILENCE_DBFS, SILENCE_DBFS)


def test_levels_alone_need_no_mixing() -> None:
    ear = Ear(PCM_24K)
    ear.take()
    ear.now = 20.0
    ear.monitor.caller(0.0, array("h", [8000] * 480).tobytes())
    ear.now = 120.0
    heard = ear.monitor.take(sound=False)
    assert heard is not None
    assert heard.mixed == b""
    assert -13 < heard.caller_dbfs < -12
