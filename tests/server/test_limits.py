"""Limits that several processes keep together: whoever asks whom when, there are never more calls."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.server.limits import Limit, Limits


class House:
    """A process, and its calls."""

    def __init__(self, node: str, most: int | None, each: dict[str, int | None]) -> None:
        self.calls: Counter[str] = Counter()
        self.limits = Limits(most, each, lambda tenant: self.calls[tenant])
        self.limits.node = node


class Attempt:
    """One call that wants to be there: it has taken a place, and asks one process after the other."""

    def __init__(self, at: House, others: list[House], tenant: str) -> None:
        self.at = at
        self.tenant = tenant
        self.place = at.limits.take(tenant)
        self.asked = list(others)
        self.elsewhere: Counter[str] = Counter()

    def step(self) -> bool:
        """Ask the next one, or decide when all have answered; whether that is done."""
        if self.asked:
            self.elsewhere.update(self.asked.pop().limits.here(self.place.stamp))
            return False
        full = self.at.limits.reached(self.tenant, self.place.stamp, self.elsewhere)
        self.at.limits.give(self.place)
        if full is None:
            self.at.calls[self.tenant] += 1
        return True


@given(st.data())
def test_there_are_never_more_calls_than_allowed_and_the_last_place_is_taken(data) -> None:
    most = data.draw(st.integers(1, 4))
    each = {"a": data.draw(st.none() | st.integers(1, 3)), "b": None}
    houses = [House(f"node-{number}", most, each) for number in range(data.draw(st.integers(1, 4)))]
    running: list[Attempt] = []
    for _ in range(data.draw(st.integers(1, 60))):
        what = data.draw(st.sampled_from(["begin", "step", "step", "step", "end"]))
        if what == "begin":
            at = data.draw(st.sampled_from(houses))
            others = data.draw(st.permutations([house for house in houses if house is not at]))
            running.append(Attempt(at, others, data.draw(st.sampled_from(["a", "b"]))))
        elif what == "step" and running:
            attempt = data.draw(st.sampled_from(running))
            if attempt.step():
                running.remove(attempt)
        elif what == "end":
            at = data.draw(st.sampled_from(houses))
            at.calls = at.calls - Counter([next(iter(+at.calls), "a")])
        together = sum((house.calls for house in houses), Counter[str]())
        assert together.total() <= most
        assert each["a"] is None or together["a"] <= each["a"]
    for attempt in running:
        while not attempt.step():
            pass
    # Nobody is left who holds a place: one alone gets whatever is free.
    together, there = sum((house.calls for house in houses), Counter[str]()).total(), houses[0].calls["b"]
    alone = Attempt(houses[0], houses[1:], "b")
    while not alone.step():
        pass
    assert houses[0].calls["b"] - there == (1 if together < most else 0)


def test_of_two_that_take_the_last_place_at_once_one_has_it() -> None:
    one, two = (House(node, 1, {"a": None}) for node in ("one", "two"))
    here, there = Attempt(one, [two], "a"), Attempt(two, [one], "a")
    for _ in range(2):
        here.step()
        there.step()
    assert (one.calls["a"], two.calls["a"]) == (1, 0)


@pytest.mark.parametrize(("most", "each", "told"), [(2, None, Limit("", 2)), (9, 2, Limit("a", 2))])
def test_it_is_told_which_limit_is_reached(most, each, told) -> None:
    house = House("one", most, {"a": each, "b": None})
    house.calls["a"] = 1
    assert house.limits.reached("a", house.limits.stamp(), {}) is None
    assert house.limits.reached("a", house.limits.stamp(), {"a": 1}) == told


def test_what_is_not_limited_needs_nobody_to_be_asked() -> None:
    house = House("one", None, {"a": 1, "b": None})
    assert house.limits.matters("a")
    assert not house.limits.matters("b")
