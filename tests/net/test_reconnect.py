import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import ConfigurationError
from dialog.net.reconnect import Backoff, Reconnect, close_is_retryable, status_is_retryable


def test_which_failures_are_worth_a_retry():
    assert not any(status_is_retryable(status) for status in (400, 401, 402, 403, 404))
    assert all(status_is_retryable(status) for status in (408, 429, 500, 502, 503))
    assert all(close_is_retryable(code) for code in (None, 1000, 1006, 1011, 1012, 1013))
    assert not close_is_retryable(1008)


def test_waits_double_up_to_the_limit():
    policy = Reconnect(Backoff(jitter=0, give_up_s=100), 0.0)
    assert [policy.lost(0.0) for _ in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]


def test_it_gives_up_when_an_outage_lasts_too_long():
    policy = Reconnect(Backoff(jitter=0, give_up_s=10), 0.0)
    assert policy.lost(9.0) == 0.25
    assert policy.lost(9.3) == 0.5
    assert policy.lost(9.9) is None


def test_a_stable_connection_ends_an_outage_and_a_short_one_does_not():
    policy = Reconnect(Backoff(jitter=0, give_up_s=10, stable_s=5), 0.0)
    policy.lost(0.0)
    policy.connected(1.0)
    assert policy.lost(2.0) == 0.5
    policy.connected(3.0)
    assert policy.lost(100.0) == 0.25


def test_what_cannot_help_is_not_tried():
    assert Reconnect(Backoff(), 0.0).lost(0.0, retryable=False) is None


def test_retry_after_is_honoured_up_to_the_limit():
    policy = Reconnect(Backoff(jitter=0, give_up_s=100), 0.0)
    assert policy.lost(0.0, at_least_s=3.0) == 3.0
    assert policy.lost(0.0, at_least_s=3600.0) == 8.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=40), st.floats(0, 1, exclude_max=True))
def test_every_wait_is_within_bounds_and_attempts_end(steps, jitter):
    backoff = Backoff()
    policy, now = Reconnect(backoff, 0.0, randomness=lambda: jitter), 0.0
    for connects, passing in steps:
        now += passing
        if connects:
            policy.connected(now)
        wait = policy.lost(now)
        if wait is None:
            break
        assert backoff.first_s * 0.8 - 1e-9 <= wait <= backoff.limit_s * 1.2
        now += wait
    assert now <= backoff.give_up_s + 3 * 40


def test_nonsense_is_refused():
    with pytest.raises(ConfigurationError):
        Backoff(first_s=9, limit_s=1)
