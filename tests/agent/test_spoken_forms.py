"""Numbers, dates, money, phone numbers and addresses as English words."""

from __future__ import annotations

import pytest

from dialog.agent.shaping import SpokenForms, TokenShaper
from dialog.agent.shaping.numbers import cardinal, decade, ordinal, year


def said(*texts: str) -> str:
    shaper = TokenShaper((SpokenForms,))
    pieces = [piece for text in texts for piece in shaper.feed(text)] + list(shaper.flush())
    return "".join(piece.spoken for piece in pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # money
        ("It is $5 now", "It is five dollars now"),
        ("$5.50, $1, $0.99 or $1.01", "five dollars and fifty cents, one dollar, ninety-nine cents or one dollar and one cent"),
        ("£2.01 and €1,250", "two pounds and one penny and one thousand two hundred fifty euros"),
        ("$5 million or $1.5M", "five million dollars or one point five million dollars"),
        ("$5-10 or 5 € or 20 USD", "five to ten dollars or five euros or twenty dollars"),
        ("-$5 and US$30", "minus five dollars and US thirty dollars"),
        # times
        ("At 7:30 pm.", "At seven thirty p m."),
        ("at 7:00, 7:05 a.m. or 19:30", "at seven o'clock, seven oh five a m. or nineteen thirty"),
        ("5pm, 5 p.m. on", "five p m, five p m. on"),
        ("from 9-5", "from nine to five"),
        # phone numbers
        ("(555) 123-4567", "five five five, one two three, four five six seven"),
        ("+1 555 123 4567.", "plus one, five five five, one two three, four five six seven."),
        ("555-1234", "five five five, one two three four"),
        ("call 5551234567", "call five five five, one two three, four five six seven"),
        # dates
        ("January 5, 2025", "January fifth, twenty twenty-five"),
        ("Jan. 5 or Mar 3rd", "January fifth or March third"),
        ("on 5 January 2025", "on the fifth of January twenty twenty-five"),
        ("2025-01-05", "January fifth, twenty twenty-five"),
        ("12/24/2025 or 24/12/2025", "December twenty-fourth, twenty twenty-five or December twenty-fourth, twenty twenty-five"),
        ("in 1998, the 1990s, since 2005", "in nineteen ninety-eight, the nineteen nineties, since two thousand five"),
        ("2025-13-05 people", "two zero two five, one three, zero five people"),
        # numbers
        ("21st, 112th, 3rd", "twenty-first, one hundred twelfth, third"),
        ("12,345 and 1,000,000", "twelve thousand three hundred forty-five and one million"),
        ("3.50 and 1.2.3", "three point five zero and one point two point three"),
        ("007 and 1234567", "zero zero seven and one two three, four five six seven"),
        ("5% or 5.5 %", "five percent or five point five percent"),
        ("-5, #5, +5", "minus five, number five, plus five"),
        ("1/2, 3/4, 24/7", "one half, three quarters, twenty-four seven"),
        ("10 km, 1 kg, 5 ft, 60 km/h", "ten kilometers, one kilogram, five feet, sixty kilometers per hour"),
        ("90°F or 20 °C", "ninety degrees Fahrenheit or twenty degrees Celsius"),
        ("10k users", "ten thousand users"),
        ("5 people at 5 in May", "five people at five in May"),
        # addresses
        ("info@example.com.", "info at example dot com."),
        ("j.doe_42@my-host.co.uk", "j dot doe underscore forty-two at my dash host dot co dot uk"),
        ("See https://example.com/a-b/, ok", "See example dot com slash a dash b, ok"),
        ("www.example.com", "w w w dot example dot com"),
        ("example.com", "example dot com"),
        # what is none of them
        ("A4, B2B, v2.0, 3D, covid19", "A4, B2B, v2.0, 3D, covid19"),
        ("well-known.Next e.g. a.m. @home x_y", "well-known.Next e.g. a.m. @home x_y"),
        ("1. First\n2. Second", "1. First\n2. Second"),
        ("May I have a $ or a https word, Mar", "May I have a $ or a https word, Mar"),
    ],
)  # fmt: skip
def test_it_is_said_like_this(text, expected):
    assert said(text) == expected
    assert said(*text) == expected, "and character by character"


def test_an_amount_waits_for_its_cents_and_no_longer():
    shaper = TokenShaper((SpokenForms,))
    assert [piece.spoken for piece in shaper.feed("It is")] == ["It is"]
    assert [piece.spoken for piece in shaper.feed(" $")] == [" "]
    assert not shaper.feed("5")
    assert not shaper.feed(".")
    assert not shaper.feed("50")
    assert [piece.spoken for piece in shaper.feed(" each")] == ["five dollars and fifty cents each"]


def test_the_span_of_a_number_is_what_was_written():
    shaper = TokenShaper((SpokenForms,))
    (piece,) = shaper.feed("It is $5.50 each")
    rewritten = [(run.start, run.end) for run in piece.runs if run.rewritten]
    assert rewritten == [(6, 11)]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety-nine"),
        (100, "one hundred"),
        (1001, "one thousand one"),
        (2_000_000_000, "two billion"),
        (999_999_999_999_999, None),
        (10**15, "one " + " ".join(["zero"] * 15)),
    ],
)
def test_cardinals(number, words):
    if words is None:
        assert cardinal(number).startswith("nine hundred ninety-nine trillion nine hundred")
    else:
        assert cardinal(number) == words


def test_ordinals_and_years():
    assert [ordinal(number) for number in (1, 2, 5, 8, 9, 12, 20, 100)] == [
        "first", "second", "fifth", "eighth", "ninth", "twelfth", "twentieth", "one hundredth",
    ]  # fmt: skip
    assert [year(number) for number in (1900, 1905, 2000, 2009, 2010)] == [
        "nineteen hundred", "nineteen oh five", "two thousand", "two thousand nine", "twenty ten",
    ]  # fmt: skip
    assert [decade(number) for number in (1990, 2010)] == ["nineteen nineties", "twenty tens"]
