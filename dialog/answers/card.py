"""A payment card. What of it may be told to whom is in ``masked``: never more than the last four digits."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import ClassVar, Final

from msgspec import Struct

from dialog.answers.answer import Answer
from dialog.answers.forms import Form, Question
from dialog.answers.plain import Digits
from dialog.answers.words import digits_in, plain, stretches

__all__ = ["CardExpiry", "CardNumber", "Expiry", "card"]

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_VALID_YEARS: Final = 20
"""No card is valid for longer."""


class CardNumber(Answer[str]):
    """The number of a payment card: 13 to 19 digits whose check digit is right (ISO/IEC 7812)."""

    hint = "Please say or type in the digits on the front of the card."
    keys = 19
    patient: ClassVar[bool] = True

    def said(self, text: str) -> str | None:
        """The digits, if they can be the number of a card."""
        return self.pressed(digits_in(text))

    def pressed(self, keys: str) -> str | None:
        """The digits, if they can be the number of a card."""
        return keys if keys.isdecimal() and 13 <= len(keys) <= 19 and _check(keys) else None

    def readback(self, value: str) -> str:
        """The last four digits: the rest is nobody else's business in the room."""
        return f"a card ending in {' '.join(value[-4:])}"


class Expiry(Struct, frozen=True):
    """Until when a card is valid: to the end of that month."""

    month: int
    year: int

    def __str__(self) -> str:
        return f"{self.month:02}/{self.year % 100:02}"


class CardExpiry(Answer[Expiry]):
    """Month and year until which a card is valid, said as "oh four twenty eight", "April 2028", or typed: 0428.

    Args:
        today: Tells which day it is: a card that has expired is no answer.
    """

    hint = "Please say or type in two digits for the month and two for the year."
    keys = 4
    patient: ClassVar[bool] = True

    def __init__(self, *, today: Callable[[], date] = date.today) -> None:
        self._today = today

    def said(self, text: str) -> Expiry | None:
        """Month and year."""
        words = plain(text.replace("/", " "))
        month = next((number for number, name in enumerate(_MONTHS, 1) if name in words), None)
        if month is not None:
            year = "".join(group for stretch in stretches(words) for group in stretch)
            return self._checked(month, year)
        digits = re.sub(r"\D", "", text) or digits_in(text)
        if len(digits) in (3, 5):
            digits = f"0{digits}"
        return self._checked(int(digits[:2]), digits[2:]) if len(digits) in (4, 6) else None

    def pressed(self, keys: str) -> Expiry | None:
        """Four keys: MMYY."""
        return self._checked(int(keys[:2]), keys[2:]) if len(keys) == 4 and keys.isdecimal() else None

    def readback(self, value: Expiry) -> str:
        """The month by its name."""
        return f"{_MONTHS[value.month - 1].title()} {value.year}"

    def _checked(self, month: int, digits: str) -> Expiry | None:
        if len(digits) not in (2, 4) or not 1 <= month <= 12:
            return None
        today = self._today()
        year = int(digits) if len(digits) == 4 else today.year - today.year % 100 + int(digits)
        valid = (today.year, today.month) <= (year, month) and year <= today.year + _VALID_YEARS
        return Expiry(month, year) if valid else None


def card() -> Form:
    """A payment card in three questions: ``number``, ``expiry``, ``code``."""
    return Form(
        Question("number", "Please say or type in the number of the card.", CardNumber(), confirm=True),
        Question("expiry", "Until when is it valid?", CardExpiry()),
        Question("code", "And what is the security code?", Digits(minimum=3, maximum=4)),
    )


def _check(digits: str) -> bool:
    """The Luhn formula."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
