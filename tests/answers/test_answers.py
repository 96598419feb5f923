"""Answers found in what is said and typed in."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog import answers
from dialog.agent.shaping.numbers import cardinal
from dialog.answers.words import digits_in, number_in
from dialog.errors import ConfigurationError

FRIDAY = date(2026, 11, 27)


def today() -> date:
    return FRIDAY


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes.", True), ("yeah, sure", True), ("that's right", True), ("of course", True), ("no problem", True),
        ("No", False), ("nope, sorry", False), ("that is not right", False), ("that's not quite correct", False),
        ("I don't think so", False), ("not really", False),
        ("yes and no", None), ("maybe", None), ("", None), ("I know", None), ("the night", None),
    ],
)  # fmt: skip
def test_yes_or_no(text, value):
    assert answers.YesNo().said(text) is value


def test_yes_and_no_are_keys_one_and_two():
    assert [answers.YesNo().pressed(key) for key in "123"] == [True, False, None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42), ("forty-two", 42), ("two hundred and five", 205), ("a hundred", 100), ("fifteen hundred", 1500),
        ("one thousand two hundred thirty four", 1234), ("1,200 please", 1200), ("two million and one", 2000001),
        ("we are four people", 4), ("four, no, five", 5), ("three point one four", 3.14), ("minus seven", -7),
        ("2.5", 2.5), ("one oh five", 105), ("twenty twenty six", 2026), ("oh, three", 3), ("the second", 2),
        ("four or five", None), ("none of them", None), ("", None), ("oh dear", None),
    ],
)  # fmt: skip
def test_numbers_as_they_are_said(text, value):
    assert number_in(text) == value


@given(st.integers(0, 999_999_999))
def test_every_number_is_understood_as_it_is_spoken(number):
    assert number_in(cardinal(number)) == number
    assert number_in(str(number)) == number
    assert number_in(f"it is {number:,} I think") == number


@given(st.text("0123456789", min_size=1, max_size=20))
def test_digits_read_out_one_by_one_or_as_numerals_come_back(digits):
    words = " ".join(cardinal(int(digit)) for digit in digits)
    assert digits_in(words) == digits
    assert digits_in(" ".join(digits)) == digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("four two double seven", "4277"), ("triple zero one", "0001"), ("oh four two", "042"),
        ("twelve thirty four", "1234"), ("555-0123", "5550123"), ("five five five, oh one two three", "5550123"),
        ("eight hundred four two", "8042"), ("it's 12 34 56", "123456"), ("one two three hundred", "12300"),
    ],
)  # fmt: skip
def test_digits_in_groups(text, digits):
    assert digits_in(text) == digits


def test_a_number_has_its_bounds_and_is_whole():
    people = answers.Number(1, 12)
    assert people.said("for twelve") == 12
    assert people.said("thirteen") is None
    assert people.said("two point five") is None
    assert answers.Number(whole=False).said("two point five") == 2.5
    assert (people.keys, people.pressed("7"), people.pressed("77")) == (2, 7, None)
    assert people.hint == "Please say a number from 1 to 12."
    with pytest.raises(ConfigurationError):
        answers.Number(3, 1)


@pytest.mark.parametrize("text", ["9" * 5000, "nine " * 5000, "9" * 400 + " point five"])
def test_what_has_more_digits_than_any_number_is_none(text):
    assert answers.Number().said(text) is None
    assert answers.Number(whole=False).said(text) is None
    assert answers.Choice(["red", "blue"]).said(text) is None


def test_a_day_beyond_the_calendar_is_none():
    assert answers.Date().said(f"in {'9' * 5000} days") is None


def test_a_choice_by_name_by_another_word_by_number_and_by_key():
    what = answers.Choice(
        {"sales": ["buy", "new order"], "support": ["help", "broken"], "large salad": [], "salad": []}
    )
    assert what.said("I would like to buy something") == "sales"
    assert what.said("it's broken!") == "support"
    assert what.said("the large salad please") == "large salad"
    assert what.said("just a salad") == "salad"
    assert what.said("the second one") == "support"
    assert what.said("suport") == "support"
    assert what.said("sales or support") is None
    assert what.said("number nine") is None
    assert [what.pressed(key) for key in "1290"] == ["sales", "support", None, None]
    assert what.hint == "Please say sales, support, large salad or salad."
    with pytest.raises(ConfigurationError):
        answers.Choice([])


def test_digits_have_their_length():
    code = answers.Digits(4)
    assert code.said("one two three four") == "1234"
    assert code.said("one two three") is None
    assert (code.pressed("1234"), code.pressed("12*4"), code.pressed("123")) == ("1234", None, None)
    assert (code.readback("1234"), code.masked("1234")) == ("1 2 3 4", "4 digits")
    with pytest.raises(ConfigurationError):
        answers.Digits(0)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", date(2026, 11, 27)), ("tomorrow please", date(2026, 11, 28)),
        ("the day after tomorrow", date(2026, 11, 29)), ("in three days", date(2026, 11, 30)),
        ("in a week", date(2026, 12, 4)), ("two weeks from now", date(2026, 12, 11)),
        ("on Saturday", date(2026, 11, 28)), ("Friday", date(2026, 12, 4)), ("this friday", date(2026, 11, 27)),
        ("next Tuesday", date(2026, 12, 1)), ("next Saturday", date(2026, 12, 5)),
        ("May third", date(2027, 5, 3)), ("the third of May", date(2027, 5, 3)), ("3 May", date(2027, 5, 3)),
        ("May 3rd, 2028", date(2028, 5, 3)), ("the twenty first of June twenty twenty seven", date(2027, 6, 21)),
        ("December twenty-fifth", date(2026, 12, 25)), ("friday the fourth of december", date(2026, 12, 4)),
        ("the fifth", date(2026, 12, 5)), ("the 28th", date(2026, 11, 28)), ("29 February", date(2028, 2, 29)),
        ("2027-05-03", date(2027, 5, 3)), ("5/3/2027", date(2027, 5, 3)), ("25.12.2026", date(2026, 12, 25)),
        ("the thirty first of April", None), ("may I ask something", None), ("soon", None), ("", None),
    ],
)  # fmt: skip
def test_dates_as_they_are_said(text, day):
    assert answers.Date(today=today).said(text) == day


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("the third of May nineteen eighty five", date(1985, 5, 3)), ("May 3rd 85", date(1985, 5, 3)),
        ("March first two thousand five", date(2005, 3, 1)), ("yesterday", date(2026, 11, 26)),
        ("last Friday", date(2026, 11, 20)), ("December first", date(2025, 12, 1)), ("tomorrow", None),
        ("the second of June nineteen oh five", date(1905, 6, 2)),
    ],
)  # fmt: skip
def test_days_that_are_past(text, day):
    assert answers.Date(past=True, today=today).said(text) == day


def test_a_date_has_bounds_keys_and_is_read_back_with_its_weekday():
    visit = answers.Date(earliest=FRIDAY, latest=date(2026, 12, 24), today=today)
    assert visit.said("yesterday") is None
    assert visit.said("on the 25th of December") is None
    assert visit.pressed("12012026") == date(2026, 12, 1)
    assert visit.pressed("13012026") is None
    assert answers.Date(month_first=False, today=today).said("5/3/27") == date(2027, 3, 5)
    assert visit.readback(date(2026, 12, 1)) == "Tuesday, December 1, 2026"
    with pytest.raises(ConfigurationError):
        answers.Date(earliest=date(2026, 12, 2), latest=date(2026, 12, 1))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("my name is ada lovelace", "Ada Lovelace"), ("This is Ada.", "Ada"), ("Ada Lovelace", "Ada Lovelace"),
        ("uh, it's Jean-Luc O'Neill", "Jean-Luc O'Neill"), ("a d a", "Ada"), ("McArthur", "McArthur"),
        ("yes", None), ("what", None), ("I am 42", None), ("", None), ("José García", "José García"),
    ],
)  # fmt: skip
def test_names(text, name):
    assert answers.Name().said(text) == name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("two one two five five five oh one two three", "+12125550123"), ("it's (212) 555-0123", "+12125550123"),
        ("plus four four two oh seven nine four six oh nine five eight", "+442079460958"),
        ("+44 20 7946 0958", "+442079460958"), ("five five five", None), ("nothing", None),
    ],
)  # fmt: skip
def test_telephone_numbers(text, number):
    assert answers.Phone("US").said(text) == number


def test_telephone_numbers_are_typed_in_and_read_back():
    phone = answers.Phone("US")
    assert phone.pressed("2125550123") == "+12125550123"
    assert phone.pressed("*442079460958") == "+442079460958"
    assert phone.pressed("12*3") is None
    assert phone.readback("+12125550123") == "2 1 2, 5 5 5, 0 1 2 3"
    assert phone.readback("+442079460958") == "plus 4 4, 2 0, 7 9 4 6, 0 9 5 8"
    assert phone.masked("+12125550123") == "a number ending in 0 1 2 3"
    with pytest.raises(ConfigurationError, match="XX"):
        answers.Phone("XX")


@pytest.mark.parametrize(
    ("text", "mail"),
    [
        ("ada dot smith at example dot com", "ada.smith@example.com"), ("ada@example.com.", "ada@example.com"),
        ("my email is ada underscore l at mail dot example dot org", "ada_l@mail.example.org"),
        ("a d a four two at example dot co dot uk", "ada42@example.co.uk"), ("Write to Bob at Example dot com", "bob@example.com"),
        ("ada example dot com", None), ("at at at", None), ("", None),
    ],
)  # fmt: skip
def test_mail_addresses(text, mail):
    assert answers.Email().said(text) == mail


def test_a_mail_address_is_read_back_in_words_and_masked():
    assert answers.Email().readback("ada.smith-1@example.com") == "ada dot smith dash 1 at example dot com"
    assert answers.Email().masked("ada.smith@example.com") == "a...@example.com"


def test_the_number_of_a_card_has_a_check_digit():
    number = answers.CardNumber()
    assert number.said("four two four two, four two four two, four two four two, four two four two") == "4242" * 4
    assert number.said("4242 4242 4242 4241") is None
    assert number.pressed("4242424242424242") == "4242424242424242"
    assert number.readback("4242424242424242") == number.masked("4242424242424242") == "a card ending in 4 2 4 2"


@given(st.text("0123456789", min_size=12, max_size=18))
def test_of_ten_last_digits_one_is_right(digits):
    right = [last for last in "0123456789" if answers.CardNumber().pressed(digits + last)]
    assert len(right) == 1


@pytest.mark.parametrize(
    ("text", "expiry"),
    [
        ("oh four twenty eight", "04/28"), ("April 2028", "04/28"), ("four twenty eight", "04/28"), ("12/30", "12/30"),
        ("december thirty", "12/30"), ("11 26", "11/26"), ("10 26", None), ("13 28", None), ("04 80", None), ("soon", None),
    ],
)  # fmt: skip
def test_until_when_a_card_is_valid(text, expiry):
    found = answers.CardExpiry(today=today).said(text)
    assert (found and str(found)) == expiry


def test_forms_name_their_questions():
    form = answers.address()
    values = {"street": "12 Harbour Street", "city": "Boston", "postcode": "02110"}
    assert form.readback(values) == "12 Harbour Street, Boston, 0 2 1 1 0"
    card = {"number": "4242424242424242", "expiry": answers.Expiry(4, 2028), "code": "123"}
    assert answers.card().masked(card) == "number: a card ending in 4 2 4 2, expiry: April 2028, code: 3 digits"
    question = form.questions[0]
    with pytest.raises(ConfigurationError):
        answers.Form(question, question)
    with pytest.raises(ConfigurationError):
        answers.Form(question, summary="{nothing}")


@pytest.mark.parametrize(
    ("text", "street"),
    [
        ("twelve Harbour Street", "12 Harbour Street"), ("12 Harbour Street.", "12 Harbour Street"),
        ("it's one two five Fifth Avenue", "125 Fifth Avenue"), ("Harbour Street", None), ("twelve", None),
    ],
)  # fmt: skip
def test_streets(text, street):
    assert answers.address().questions[0].answer.said(text) == street


def test_postal_codes():
    code = answers.address().questions[2].answer
    assert (code.said("oh two one one oh"), code.said("SW1A 1AA"), code.said("Boston")) == ("02110", "SW1A1AA", None)


@given(st.text(max_size=60))
def test_whatever_is_said_is_an_answer_or_none(text):
    kinds = [
        answers.YesNo(), answers.Number(), answers.Number(whole=False), answers.Choice(["one", "two"]), answers.Digits(4),
        answers.Date(today=today), answers.Name(), answers.Phone(), answers.Email(), answers.CardNumber(),
        answers.CardExpiry(today=today), answers.Text(), *(each.answer for each in answers.address().questions),
    ]  # fmt: skip
    for kind in kinds:
        value = kind.said(text)
        if value is not None:
            assert isinstance(kind.readback(value), str)
            assert isinstance(kind.masked(value), str)
