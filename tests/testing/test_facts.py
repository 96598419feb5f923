"""The facts of what an agent says, and whether they come from anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.testing.facts import facts_in, figures_in, squashed, unfounded


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("a table for two at half past seven", ["2", "30", "7"]),
        ("twenty-five guests, twenty five chairs", ["25", "25"]),
        ("seven thirty", ["7", "30"]),
        ("ten five", ["10", "5"]),
        ("two hundred and fifty five euros", ["255"]),
        ("one hundred", ["100"]),
        ("fifty thousand two hundred", ["50200"]),
        ("1,250 people, 19:30, $12.50", ["1250", "19", "30", "12", "50"]),
        ("five five five zero one", ["5", "5", "5", "0", "1"]),
        ("on the twenty-third of june, at noon", ["23", "12"]),
        ("one second please, in the second half", ["1"]),
        ("a quarter to eight, and a quarter of the menu", ["15", "8"]),
        ("nothing at all, and so on", []),
        ("007", ["7"]),
    ],
)
def test_figures_are_read_as_people_say_them(text, figures):
    assert figures_in(text) == figures


def test_days_months_and_addresses_are_facts():
    text = "On Friday or Saturdays in June, you may write to desk@luigis.example or see www.luigis.example/menu."
    assert facts_in(text) == {"friday", "saturday", "june", "desk@luigis.example", "www.luigis.example/menu"}


@pytest.mark.parametrize(
    ("said", "sources", "invented"),
    [
        ("Your table for two at 7:30 pm is booked.", ["two people", "booked at 19:30"], []),
        ("We are open until ten.", ["open from 17:00 to 22:00"], []),
        ("One moment please.", [], []),
        ("That is 18 dollars.", ["The lunch menu is eighteen dollars."], []),
        ("That is eighty dollars.", ["The lunch menu is eighteen dollars."], ["80"]),
        ("On Monday, of course.", ["are you open on tuesday"], ["monday"]),
        ("Write to boss@luigis.example.", ["write to desk@luigis.example"], ["boss@luigis.example"]),
        ("At half past nine.", ["at 930"], []),
    ],
)
def test_what_comes_from_nowhere_is_invented(said, sources, invented):
    assert unfounded(said, sources) == invented


@pytest.mark.parametrize(
    "said",
    [
        "The code is 4711.",
        "it is four, seven, one, one",
        "4 7 - 1 1",
        "4-7-1-1!",
        "it's four seven 11",
    ],
)
def test_a_secret_is_found_however_it_is_read_out(said):
    assert squashed("4711") in squashed(said)


@given(st.integers(min_value=0, max_value=999_999))
def test_a_number_is_itself_in_digits_and_with_commas(number):
    assert figures_in(f"it is {number}.") == [str(number)]
    assert figures_in(f"it is {number:,} then") == [str(number)]


@given(st.text())
def test_any_text_can_be_read_and_founds_itself(text):
    assert unfounded(text, [text]) == []
    assert squashed(squashed(text)) == squashed(text)
