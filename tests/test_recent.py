"""A mapping that remembers the newest entries only."""

from __future__ import annotations

from dialog.recent import Recent


def test_the_oldest_entry_is_forgotten_when_there_are_more_than_the_limit():
    recent: Recent[str, int] = Recent(2)
    recent["a"], recent["b"], recent["c"] = 1, 2, 3
    assert recent == {"b": 2, "c": 3}


def test_an_entry_that_is_set_again_stays_where_it_was_and_costs_no_other():
    recent: Recent[str, int] = Recent(2)
    recent["a"], recent["b"], recent["a"] = 1, 2, 3
    assert recent == {"a": 3, "b": 2}
    recent["c"] = 4
    assert recent == {"b": 2, "c": 4}
