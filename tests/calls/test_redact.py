"""What must not be kept is masked, wherever it was said, and however much of it."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.calls import events as ev
from dialog.calls.redact import Redaction, _luhn
from dialog.errors import ConfigurationError

CARD = "4111 1111 1111 1111"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPOKEN = {str(digit): name for digit, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"my card is {CARD}", "my card is [card]"),
        ("4111-1111-1111-1111.", "[card]."),
        ("It is 4111111111111111", "It is [card]"),
        (f"{CARD}, 12/27, 123", "[digits]"),
        ("4111 1111 1111 1112", "[digits]"),
        (" ".join(SPOKEN[d] for d in CARD.replace(" ", "")), "[card]"),
        ("call me at +49 171 1234567 please", "call me at [phone] please"),
        ("(415) 555-0100", "[phone]"),
        ("five five five, oh one two three", "[phone]"),
        ("write to John.Doe+x@mail.example.com!", "write to [email]!"),
        ("john at example dot com", "[email]"),
        ("a table for 2 at 7:30 on 2026-11-28", "a table for 2 at 7:30 on 2026-11-28"),
        ("look at the menu", "look at the menu"),
        ("order ORD12345678", "order ORD12345678"),
        ("one or two", "one or two"),
    ],
)
def test_numbers_and_addresses_are_found_in_what_is_said(text, masked):
    assert Redaction().text(text) == masked


@pytest.mark.parametrize("length", range(3, 20))
def test_of_an_unfinished_number_nothing_is_left_in_an_interim(length):
    text = f"my card is {CARD[:length]}".rstrip()
    masked = Redaction().text(text, complete=False)
    digits = sum(map(str.isdigit, CARD[:length]))
    assert sum(map(str.isdigit, masked)) <= (digits if digits < 3 else 0)


@given(st.text(alphabet="0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_every_card_is_masked_however_it_is_written(digits, gap):
    card = digits + str(next(check for check in range(10) if _luhn(digits + str(check))))
    assert Redaction(("card",)).text(f"so {gap.join(card)} it is") == "so [card] it is"


@given(st.text(max_size=60))
def test_masking_twice_changes_nothing_more(text):
    redaction = Redaction()
    masked = redaction.text(text)
    assert redaction.text(masked) == masked


def test_interim_final_and_heard_words_are_masked_alike():
    redaction, turn = Redaction(), uuid4()
    interim = ev.CallerSaid(seq=0, at_s=0, turn=turn, text="my card is 4111 1111 11", final=False)
    final = ev.CallerSaid(seq=1, at_s=0, turn=turn, text=f"my card is {CARD}", final=True)
    cut = ev.AgentSaid(
        seq=2, at_s=0, turn=turn, part=0, text=f"So it is {CARD}.", heard="So it is 4111 11", state="cut", heard_ms=9
    )
    assert redaction.masked(interim).text == "my card is [phone]"
    assert redaction.masked(final).text == "my card is [card]"
    assert (redaction.masked(cut).text, redaction.masked(cut).heard) == ("So it is [card].", "So it is [digits]")


def test_arguments_and_results_of_tools_stay_json():
    redaction, turn = Redaction(), uuid4()
    arguments = {"card": 4111111111111111, "who": {"mail": ["a@b.example"]}, "people": 2, "sure": True}
    started = ev.ToolStarted(seq=0, at_s=0, turn=turn, call_id="1", name="pay", arguments=json.dumps(arguments))
    masked = redaction.masked(started)
    assert json.loads(masked.arguments) == {"card": "[card]", "who": {"mail": ["[email]"]}, "people": 2, "sure": True}
    ended = ev.ToolEnded(
        seq=1, at_s=0, turn=turn, call_id="1", name="pay", result=f"paid with {CARD}", state="ok", took_s=1
    )
    assert redaction.masked(ended).result == "paid with [card]"
    harmless = ev.ToolStarted(seq=0, at_s=0, turn=turn, call_id="1", name="book", arguments='{ "people": 2 }')
    assert redaction.masked(harmless) is harmless


def test_what_is_nested_deeper_than_anybody_means_is_masked_as_text():
    for deep in ("[" * 100_000, "[" * 900 + f'"{CARD}"' + "]" * 900, '{"a":' * 50_000 + f'"{CARD}"'):
        event = ev.ToolStarted(seq=0, at_s=0, turn=uuid4(), call_id="1", name="pay", arguments=deep)
        assert CARD not in Redaction().masked(event).arguments


def test_a_word_of_any_length_is_looked_through_in_one_pass():
    # A picture that a tool has answered with: where every character began a search of its own, this took minutes.
    long = "aGVsbG8w" * 25_000
    assert Redaction().text(f"{long} ann@example.com {'9' * 200_000}") == f"{long} [email] [digits]"


def test_keys_are_masked_where_all_digits_are():
    pressed = ev.DigitPressed(seq=0, at_s=0, digit="4")
    assert Redaction().masked(pressed) is pressed
    assert Redaction(("digits",)).masked(pressed).digit == "[digits]"
    assert Redaction(("digits",)).text("4111, and then 1111") == "[digits], and then [digits]"


def test_own_patterns_have_names():
    redaction = Redaction((), patterns={"policy": r"\bP-\d{6}\b"})
    assert redaction.text("policy P-123456, phone 5550100123") == "policy [policy], phone 5550100123"


@pytest.mark.parametrize(("mask", "patterns"), [(("names",), {}), ((), {"x": "("}), ((), {"x": "a*"})])
def test_what_cannot_work_is_refused(mask, patterns):
    with pytest.raises(ConfigurationError):
        Redaction(mask, patterns=patterns)
