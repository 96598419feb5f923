"""Figures that stay small, add up across processes, and are judged by conditions."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import ConfigurationError
from dialog.testing.load_figures import QUANTILES, Distribution, Figures
from dialog.testing.load_limits import FIGURE_NAMES, Limit
from dialog.testing.load_metronome import LATE_MS
from dialog.testing.load_report import void_reason

values = st.lists(st.floats(min_value=0.02, max_value=1e6), min_size=1, max_size=200)


def distribution(numbers) -> Distribution:
    out = Distribution()
    for number in numbers:
        out.add(number)
    return out


@given(values, st.floats(min_value=0.01, max_value=1.0))
def test_a_percentile_is_exact_to_one_per_cent(numbers, q):
    exact = sorted(numbers)[max(1, math.ceil(q * len(numbers))) - 1]
    assert distribution(numbers).quantile(q) == pytest.approx(exact, rel=0.0102)


@given(values, values)
def test_distributions_add_up(some, others):
    together = distribution(some)
    together.merge(distribution(others))
    both = distribution(some + others)
    assert together.buckets == both.buckets
    assert (together.count, together.least, together.most) == (both.count, both.least, both.most)
    assert together.mean == pytest.approx(both.mean)


def test_nothing_has_no_percentile_and_zero_counts_as_very_little():
    assert Distribution().quantile(0.5) is None
    assert Distribution().mean is None
    assert distribution([0.0, 0.0, 5.0]).quantile(0.5) <= 0.01


def test_a_distribution_stays_small_however_much_it_counts():
    many = distribution(n * 0.37 for n in range(1, 200_000))
    assert many.count == 199_999
    assert len(many.buckets) < 700
    assert many.between(0, math.inf) == many.count


def test_the_time_axis_gets_coarser_instead_of_longer():
    figures = Figures()
    for second in range(3000):
        figures.took_up(second)
        figures.replied(second, 400 + second)
        figures.over(second, "done" if second % 10 else "cut", "" if second % 10 else "media socket closed with 1006")
    assert len(figures.moments) <= 240
    assert figures.interval_s == 16.0
    assert sum(moment.dialled for moment in figures.moments) == 3000
    assert sum(moment.failed for moment in figures.moments) == 300 == figures.failed
    assert sum(moment.reply.count for moment in figures.moments) == 3000
    assert (figures.live, figures.live_most) == (0, 1)
    assert figures.statuses == {"done": 2700, "cut": 300}
    assert figures.errors == {"media socket closed with 1006": 300}


def test_kinds_of_errors_are_bounded():
    figures = Figures()
    for number in range(1000):
        figures.took_up(0.0)
        figures.over(0.0, "refused", f"error {number}")
    assert len(figures.errors) <= 41
    assert sum(figures.errors.values()) == 1000


def test_figures_of_processes_add_up_also_when_one_ran_longer():
    one, other = Figures(), Figures()
    for second in range(0, 400, 2):
        one.took_up(second)
        one.over(second, "done", "")
    other.took_up(3)
    other.lag.add(7.0)
    other.replied(5, 250.0)
    sent = msgspec.msgpack.encode(other)
    for _ in range(2):  # a snapshot is merged again and again
        together = Figures()
        received = msgspec.msgpack.decode(sent, type=Figures)
        together.merge(received)
        together.merge(one)
        assert together.dialled == 201
        assert together.live == 1
        assert together.interval_s == one.interval_s == 2.0
        assert sum(moment.dialled for moment in together.moments) == 201
        assert together.moments[2].reply.count == 1
        assert together.value("max_lag_ms") == 7.0
        assert msgspec.msgpack.encode(received) == sent


def test_every_figure_that_a_limit_may_name_has_a_value():
    figures = Figures()
    for name in FIGURE_NAMES:
        value = figures.value(name)
        assert value == 0.0 or (value is None and (name.startswith(tuple(QUANTILES)) or name == "failed_percent"))
    with pytest.raises(ConfigurationError, match="speed"):
        figures.value("speed")


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("p95_reply_ms>1500", False),
        ("p95_reply_ms > 450.5", True),
        ("p50_reply_ms<=300", True),
        ("failed>0", True),
        ("failed_percent>=50", True),
        ("failed_percent>50", False),
        ("dead_air!=0", False),
        ("ended<2", False),
        ("max_gaps_ms>0", True),  # never measured: nobody can say that it holds
    ],
)
def test_a_limit_tells_whether_it_is_broken_and_by_what(text, broken):
    figures = Figures()
    for status in ("done", "cut"):
        figures.took_up(0.0)
        figures.over(0.0, status, "" if status == "done" else "cut")
    figures.replied(1.0, 300.0)
    figures.replied(1.0, 500.0)
    limit = Limit.parse(text)
    assert bool(limit.broken(figures)) is broken
    if broken:
        assert limit.broken(figures).startswith(f"{limit}: it ")


@pytest.mark.parametrize(
    "text", ["", "p95_reply_ms", "speed>1", "p96_reply_ms>1", "failed>", "failed>1.2.3", "failed=>1"]
)
def test_a_limit_that_means_nothing_is_refused_before_anything_is_dialled(text):
    with pytest.raises(ConfigurationError):
        Limit.parse(text)


def test_a_generator_that_is_late_voids_its_figures():
    figures = Figures()
    for _ in range(1000):
        figures.lag.add(1.0)
    figures.lag.add(5000.0)  # once is no habit
    assert void_reason(figures) == ""
    for _ in range(50):
        figures.lag.add(LATE_MS + 10)
    assert "late by 30 ms" in void_reason(figures)
    assert "1 of the generator's processes died" in void_reason(Figures(), lost=1)
