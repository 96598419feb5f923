"""The facts of a text that can be checked without understanding it: figures, days, months, addresses.

English number words count as figures, and times and prices as the figures that they are made of, so that "half past
seven", "7:30 pm" and "19:30" agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["facts_in", "figures_in", "squashed", "unfounded"]

_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16,
    "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
"""Without "first" and "second", which are mostly no figures."""
_NUMBERS: dict[str, int] = {
    **{word: value for value, word in enumerate(_UNITS)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
}
_SCALES = {"thousand": 1000, "million": 1_000_000}
_CLOCK = {"noon": 12, "midday": 12, "midnight": 0, "half": 30, "quarter": 15}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january", "february", "march", "april", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
"""Without "may", which is mostly no month."""
_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w|\b(?:https?://|www\.)\S*\w", re.IGNORECASE)
_TOKEN = re.compile(r"\d{1,3}(?:,\d{3})+|\d+|[a-z]+", re.IGNORECASE)
_CLOCK_PHRASE = re.compile(r"\b(half|quarter)(?= (?:past|to|after|before|an? hour)\b| past\b)", re.IGNORECASE)


def facts_in(text: str) -> set[str]:
    """The facts of ``text``: figures, days, months, mail and web addresses, all in small letters."""
    found = {match[0].casefold() for match in _MAIL.finditer(text)}
    text = _MAIL.sub(" ", text)
    words = {word.casefold() for word in re.findall(r"[A-Za-z]+", text)}
    found |= {day for day in (*_DAYS, *_MONTHS) if day in words or f"{day}s" in words}
    return found | set(figures_in(text))


def figures_in(text: str) -> list[str]:
    """The figures of ``text`` in their order, as whole numbers: of "twenty-five at 7:30" 25, 7 and 30."""
    clock = {match.start() for match in _CLOCK_PHRASE.finditer(text)}
    figures: list[str] = []
    number = _Number()
    for token in _TOKEN.finditer(text):
        word = token[0].casefold()
        if number.takes(word):
            continue
        figures += number.over()
        if number.takes(word):
            continue
        if word[0].isdigit():
            figures.append(str(int(word.replace(",", ""))))
        elif word in ("noon", "midday", "midnight") or token.start() in clock:
            figures.append(str(_CLOCK[word]))
    return figures + number.over()


class _Number:
    """A number in words, word by word."""

    def __init__(self) -> None:
        self._value: int | None = None
        self._thousands = 0

    def takes(self, word: str) -> bool:
        """Whether ``word`` begins the number, or belongs to it."""
        value = _NUMBERS.get(word, _ORDINALS.get(word))
        if self._value is None:
            self._value = value
            return value is not None
        if value is not None:
            tail = self._value % 100
            if not tail:
                joins = value < 100 and bool(self._value or self._thousands)
            else:
                joins = tail >= 20 and not tail % 10 and 0 < value < 10
            self._value += value if joins else 0
            return joins
        if word == "hundred" and self._value < 100:
            self._value *= 100
            return True
        if word in _SCALES:
            self._thousands, self._value = self._thousands + self._value * _SCALES[word], 0
            return True
        return word == "and" and self._value >= 100

    def over(self) -> list[str]:
        """The number, if there is one; the next word begins another."""
        value, thousands = self._value, self._thousands
        self._value, self._thousands = None, 0
        return [] if value is None else [str(thousands + value)]


def unfounded(text: str, sources: Iterable[str]) -> list[str]:
    """The facts of ``text`` that are in none of ``sources``, sorted.

    "One" is no fact. A time of day stands for itself and for the other half of the day, 24 hours or 12, and 0 is
    that there is nothing.
    """
    known: set[str] = set()
    for source in sources:
        known |= facts_in(source)
    for figure in [figure for figure in known if figure.isdigit()]:
        value = int(figure)
        if value <= 12:
            known.add(str(value + 12))
        elif value <= 24:
            known.add(str(value - 12))
        if 3 <= len(figure) <= 4 and value % 100 < 60:  # 1930, as one reads out 19:30
            known |= {str(value // 100), str(value % 100)}
    return sorted(facts_in(text) - known - {"0", "1"})


def squashed(text: str) -> str:
    """Letters and digits alone, numbers in words as digits: what is left of a secret however it is read out."""

    def digits(match: re.Match[str]) -> str:
        word = match[0].casefold()
        return str(_NUMBERS[word]) if word in _NUMBERS else word

    # Forty-two is 42, four two as well.
    text = re.sub(
        rf"\b({'|'.join(_TENS)})[ -]({'|'.join(_UNITS[1:10])})\b",
        lambda match: str(_NUMBERS[match[1].casefold()] + _NUMBERS[match[2].casefold()]),
        text,
        flags=re.IGNORECASE,
    )
    text = re.sub(r"[A-Za-z]+", digits, text)
    return re.sub(r"[^a-z0-9]", "", text.casefold())
