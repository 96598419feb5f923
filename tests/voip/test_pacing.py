"""How fast calls are placed, in virtual time."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import ConfigurationError, LimitError
from dialog.testing.virtual import run_virtual
from dialog.voip.pacing import CallPacer, Pacer, Pacing


def run(pacer, calls):
    """Let all of them ask at once, and return when each was granted, with nobody ever ending."""
    for call in calls:
        pacer.ask(call)
    now, granted = 0.0, {}
    while True:
        for call in pacer.grant(now):
            granted[call] = now
        if pacer.deadline is None:
            return granted
        now = pacer.deadline


def test_calls_are_placed_in_their_order_so_many_a_second():
    granted = run(Pacer(Pacing(calls_per_s=4.0)), range(9))
    assert list(granted) == list(range(9))
    assert list(granted.values()) == [n / 4 for n in range(9)]


def test_a_call_waits_until_another_one_has_ended():
    pacer = Pacer(Pacing(calls_per_s=100.0, concurrency=2))
    assert list(run(pacer, range(3))) == [0, 1]
    assert pacer.deadline is None
    pacer.withdraw(0)
    assert pacer.deadline is not None
    assert pacer.grant(10.0) == (2,)


def test_gateways_that_share_an_account_have_an_equal_part_of_its_limits():
    pacer = Pacer(Pacing(calls_per_s=4.0, concurrency=7))
    pacer.sharers = 3
    granted = run(pacer, range(3))
    assert list(granted.values()) == pytest.approx([0.0, 0.75])
    pacer.sharers = 100
    assert run(Pacer(Pacing(concurrency=1)), range(2)).keys() == {0}
    pacer.sharers = 1
    assert pacer.grant(10.0) == (2,)


def test_a_pause_that_the_carrier_wants_is_kept_by_all_calls():
    pacer = Pacer(Pacing(calls_per_s=10.0))
    pacer.ask(1)
    assert pacer.grant(0.0) == (1,)
    pacer.refused(0.0, 7.0)
    pacer.ask(2)
    pacer.ask(1, again=True)
    assert pacer.deadline == 7.0
    assert pacer.grant(6.9) == ()
    assert pacer.grant(7.0) == (1,)
    assert pacer.grant(7.1) == (2,)


def test_a_carrier_whose_clock_is_wrong_stops_nobody_for_long():
    pacer = Pacer(Pacing(calls_per_s=10.0))
    pacer.refused(0.0, 1e9)
    pacer.ask(1)
    assert pacer.deadline == 3600.0


def test_pauses_grow_while_the_carrier_does_not_say_how_long_and_end_when_it_takes_a_call():
    pacer, now, pauses = Pacer(Pacing(calls_per_s=1000.0)), 0.0, []
    pacer.ask(1)
    pacer.grant(now)
    for _ in range(7):
        pacer.refused(now, None)
        pacer.ask(1, again=True)
        pauses.append(pacer.deadline - now)
        now = pacer.deadline
        assert pacer.grant(now) == (1,)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    pacer.accepted()
    pacer.refused(now, None)
    pacer.ask(1, again=True)
    assert pacer.deadline - now == 1


def test_more_than_may_wait_are_refused():
    pacer = Pacer(Pacing(waiting=2, concurrency=1))
    pacer.ask(1)
    pacer.ask(2)
    with pytest.raises(LimitError, match="Pacing"):
        pacer.ask(3)


@pytest.mark.parametrize("wrong", [{"calls_per_s": 0}, {"concurrency": 0}, {"wait_s": -1}, {"waiting": 0}])
def test_limits_are_positive(wrong):
    with pytest.raises(ConfigurationError):
        Pacing(**wrong)


@given(
    st.floats(0.5, 20),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["ask", "end", "refuse", "wait"]), st.floats(0, 3)), max_size=60),
)
def test_whatever_happens_the_limits_hold_and_nobody_is_forgotten(rate, concurrency, steps):
    pacer = Pacer(Pacing(calls_per_s=rate, concurrency=concurrency))
    now, number, granted, ended, not_before = 0.0, 0, [], set(), 0.0
    for step, amount in steps:
        if step == "ask":
            number += 1
            pacer.ask(number)
        elif step == "end" and pacer.active:
            call = min(pacer.active)
            ended.add(call)
            pacer.withdraw(call)
        elif step == "refuse":
            pacer.refused(now, amount)
            not_before = max(not_before, now + amount)
        else:
            now += amount
        for call in pacer.grant(now):
            if granted:
                assert now - granted[-1][1] >= 1 / rate - 1e-9
            assert now >= not_before
            granted.append((call, now))
        assert len(pacer.active) <= concurrency
    assert [call for call, _ in granted] == sorted(call for call, _ in granted)
    assert {call for call, _ in granted} | set(pacer.waiting) == set(range(1, number + 1))


def test_who_gives_up_waiting_takes_nobody_elses_turn():
    async def main(clock):
        pacer = CallPacer(Pacing(calls_per_s=1.0, concurrency=1, wait_s=5.0), clock)
        first = await pacer.turn()
        impatient = asyncio.create_task(pacer.turn())
        patient = asyncio.create_task(pacer.turn())
        await asyncio.sleep(1)
        impatient.cancel()
        await asyncio.wait([impatient])
        pacer.over(first)
        second = await patient
        assert (pacer.active, pacer.waiting) == (1, 0)
        with pytest.raises(LimitError, match="5 s"):
            await pacer.turn()
        pacer.over(second)
        assert (pacer.active, pacer.waiting) == (0, 0)

    run_virtual(main)
