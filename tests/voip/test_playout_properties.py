"""What a playout promises, whatever the line between it and the carrier does."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_playout import RATE, A, B, C, Sim, actions, check_reports, drive, whole

slow = settings(max_examples=100)
holds = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=8)
"""Pauses: how long it plays before each, and how long each lasts, in ms."""
delays = st.sampled_from([0.0, 0.02, 0.15])
lag_lists = st.lists(st.sampled_from([0.0, 0.0, 0.004, 0.09]), max_size=5)


@slow
@given(holds=holds, delay=delays, lags=lag_lists, twice=st.booleans())
def test_pauses_at_any_instants_lose_nothing_and_repeat_nothing(holds, delay, lags, twice):
    sim = Sim(delay=delay, lags=lags)
    sim.post(A, 900)
    sim.post(B, 400, done=False)
    for before, lasts in holds:
        sim.run(before / 1000)
        for _ in range(1 + twice):
            sim.pause()
        sim.run(lasts / 1000)
        for _ in range(1 + twice):
            sim.resume()
    sim.post(B, 300)
    sim.run(10)
    assert sim.heard(A) == whole(900)
    assert sim.heard(B) == whole(700)
    assert sim.finals() == [(A, 0, "played", 900), (B, 0, "played", 700)]


@slow
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 500), st.integers(0, 300), st.integers(-200, 1400)), min_size=1, max_size=5
    ),
    delay=delays,
    lags=lag_lists,
)
def test_resuming_earlier_repeats_exactly_the_span_that_was_asked_for(steps, delay, lags):
    sim = Sim(delay=delay, lags=lags)
    sim.post(A, 4000)
    expected, position = [], 0
    for before, lasts, back in steps:
        sim.run(before / 1000)
        if sim.finals():
            break
        sim.pause()
        sim.run(lasts / 1000 + delay)
        # What was heard until then is what was told.
        told = next(p.heard_ms for _, p in reversed(sim.reports) if p.state == "paused")
        cut = position + len(sim.heard(A)) - len(expected)
        expected.extend(range(position, cut))
        if cut >= whole(4000)[-1]:
            break
        assert cut == pytest.approx(told * 8, abs=1) or cut < told * 8  # it may have been heard further before
        sim.resume(from_ms=cut / 8 - back)
        position = min(cut, max(0, int(cut - back * 8 + 1e-6)))
    sim.resume()
    sim.run(12)
    expected.extend(range(position, 4000 * 8))
    assert sim.heard(A) == expected
    assert [state for _, _, state, _ in sim.finals()] == ["played"]


@slow
@given(
    runs=st.lists(st.integers(0, 300), min_size=1, max_size=6),
    victims=st.lists(st.sampled_from(["A0", "A1", "B0", "C0"]), min_size=1, max_size=6),
    delay=delays,
    lags=lag_lists,
)
def test_no_abort_costs_another_part_a_sample(runs, victims, delay, lags):
    sim = Sim(delay=delay, lags=lags)
    parts = {"A0": (A, 0), "A1": (A, 1), "B0": (B, 0), "C0": (C, 0)}
    for key in parts.values():
        sim.post(key[0], 250, part=key[1])
    aborted = set()
    for ms, victim in zip(itertools.cycle(runs), victims, strict=False):
        sim.run(ms / 1000)
        sim.abort(*parts[victim])
        aborted.add(parts[victim])
    sim.run(5)
    check_reports(sim)
    for key in parts.values():
        heard = sim.heard(*key)
        if key in aborted:
            assert heard == list(range(len(heard)))
        else:
            assert heard == whole(250)


@slow
@given(
    steps=st.lists(actions, min_size=3, max_size=20),
    delay=st.sampled_from([0.02, 0.08]),
    jitters=st.lists(st.floats(0, 0.04), min_size=1, max_size=7),
    lags=lag_lists,
)
def test_a_way_that_takes_now_longer_now_shorter_costs_no_more_than_its_jitter_at_each_clear(
    steps, delay, jitters, lags
):
    sim = Sim(delay=delay, jitters=jitters, lags=lags)
    drive(sim, steps)
    check_reports(sim)
    # Audio that came late sounded late: at a clear the clock is ahead of the ear by the jitter at most, and
    # what the marks' lag is taken for, by as much again.
    slack = (sim.clears() + 1) * int(2 * max(jitters) * RATE + 2)
    for key, samples in sim.samples.items():
        heard = sim.heard(*key)
        jumps = [b - a - 1 for a, b in itertools.pairwise([-1, *heard])]
        assert sum(abs(jump) for jump in jumps) <= slack
        state, told = next((s, h) for u, p, s, h in sim.finals() if (u, p) == key)
        if state == "played":
            assert len(set(heard)) >= len(samples) - slack
        else:
            assert told * 8 == pytest.approx(len(set(heard)), abs=slack)


@slow
@given(
    at=st.integers(50, 1800),
    detected_ms=st.integers(100, 2000),
    delay=delays,
    jitters=st.lists(st.floats(0, 0.03), max_size=5),
    lags=lag_lists,
    word_ms=st.integers(80, 700),
)
def test_a_false_interruption_costs_little_silence_and_at_most_one_word(at, detected_ms, delay, jitters, lags, word_ms):
    sim = Sim(delay=delay, jitters=jitters, lags=lags)
    sim.post(A, 3000)
    sim.run(at / 1000)
    sim.pause()
    sim.run(detected_ms / 1000)
    told = next(p.heard_ms for _, p in reversed(sim.reports) if p.state == "paused")
    word = int(told // word_ms) * word_ms  # the start of the word that was cut
    sim.resume(from_ms=word)
    sim.run(6)
    [silence] = [gap for gap in sim.gaps() if gap > 45]
    assert silence - detected_ms <= 300
    heard = sim.heard(A)
    [(last, again)] = [(a, b) for a, b in itertools.pairwise(heard) if b != a + 1] or [(0, 1)]
    jitter = max(jitters, default=0) * RATE
    assert last + 1 - again <= word_ms * 8 + 2 * jitter + 2  # repeated
    assert again - last - 1 <= 2 * jitter + 2  # lost
    assert heard[-1] == 3000 * 8 - 1
