"""Frames on absolute deadlines for everybody, and a generator that knows when it is late itself."""

from __future__ import annotations

import itertools

from dialog.clock import Clock
from dialog.testing.load_figures import Distribution
from dialog.testing.load_metronome import Metronome
from dialog.testing.virtual import run_virtual


class Ticker:
    def __init__(self) -> None:
        self.due: list[float] = []

    def tick(self, due: float) -> None:
        self.due.append(due)


def intervals(due: list[float]) -> set[int]:
    return {round(1e6 * (b - a)) for a, b in itertools.pairwise(due)}


def test_everybody_is_ticked_every_20_ms_spread_over_them():
    async def scene(clock: Clock):
        metronome = Metronome(clock, Distribution())
        tickers = [Ticker() for _ in range(30)]
        begun = clock.now()
        for ticker in tickers:
            metronome.join(ticker)
        await clock.sleep(1.0)
        for ticker in tickers:
            metronome.leave(ticker)
            metronome.leave(ticker)
        assert {len(ticker.due) for ticker in tickers} <= {49, 50, 51}
        assert all(intervals(ticker.due) == {20_000} for ticker in tickers)
        firsts = [round(1000 * (ticker.due[0] - begun)) for ticker in tickers]
        assert {firsts.count(first) for first in firsts} == {3}
        ticked = [len(ticker.due) for ticker in tickers]
        await clock.sleep(1.0)
        assert ticked == [len(ticker.due) for ticker in tickers]

    run_virtual(scene)


def test_a_stall_is_caught_up_frame_by_frame_and_noted():
    now = 0.0

    async def scene(_: Clock):
        nonlocal now
        clock = Clock(time=lambda: now)
        lag = Distribution()
        metronome = Metronome(clock, lag)
        ticker = Ticker()
        metronome.join(ticker)
        for _ in range(50):
            now += 0.002
            metronome._beats()
        assert len(ticker.due) == 6  # at 0, 20 … 100 ms
        assert not metronome.disturbed
        now += 0.3
        assert metronome.disturbed  # it knows before it has caught up
        metronome._beats()
        assert len(ticker.due) == 21
        assert intervals(ticker.due) == {20_000}
        assert 280 < lag.most <= 300
        assert metronome.disturbed  # what waited in the sockets is not heard yet
        for _ in range(200):
            now += 0.002
            metronome._beats()
        assert not metronome.disturbed
        metronome.leave(ticker)

    run_virtual(scene)


def test_a_clock_that_runs_faster_ticks_by_its_own_time():
    async def scene(clock: Clock):
        faster = Clock(4.0, clock.now)
        lag = Distribution()
        metronome = Metronome(faster, lag)
        ticker = Ticker()
        metronome.join(ticker)
        await clock.sleep(1.0)
        metronome.leave(ticker)
        assert 198 <= len(ticker.due) <= 202
        assert lag.most <= 1.5  # real milliseconds

    run_virtual(scene)
