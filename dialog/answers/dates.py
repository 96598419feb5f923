"""Dates as they are said: "tomorrow", "next Friday", "the third of May", "5/3/2027"."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, timedelta
from typing import ClassVar, Final

from dialog.answers.answer import Answer
from dialog.answers.words import plain, stretches
from dialog.errors import ConfigurationError

__all__ = ["Date"]

_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_UNITS: Final = {"day": 1, "days": 1, "week": 7, "weeks": 7, "fortnight": 14}
_NUMERIC: Final = re.compile(r"\b(\d{1,4})[-/.](\d{1,2})[-/.](\d{2,4})\b")
_FARTHEST: Final = 150
"""No birthday is longer ago, in years."""


class Date(Answer[date]):
    """A day. What leaves the year open means the next such day, or with ``past`` the last one.

    Args:
        past: It is over: a birthday.
        earliest: No day before this one.
        latest: No day after this one.
        month_first: What "5/3" and eight keys mean: the third of May, else the fifth of March.
        today: Tells which day it is, where the caller is.

    Raises:
        ConfigurationError: ``earliest`` is after ``latest``.
    """

    hint = "Please say a date, like the third of May."
    keys = 8
    patient: ClassVar[bool] = True

    def __init__(
        self,
        *,
        past: bool = False,
        earliest: date | None = None,
        latest: date | None = None,
        month_first: bool = True,
        today: Callable[[], date] = date.today,
    ) -> None:
        if earliest is not None and latest is not None and earliest > latest:
            raise ConfigurationError(f"no date is from {earliest} to {latest}")
        self._past = past
        self._earliest = earliest
        self._latest = latest
        self._month_first = month_first
        self._today = today

    def said(self, text: str) -> date | None:
        """The day that was said."""
        found = self._numeric(text) or self._relative(plain(text)) or self._named(plain(text))
        return found if found is not None and self._fits(found) else None

    def pressed(self, keys: str) -> date | None:
        """Eight keys: month, day and year, or day, month and year."""
        if len(keys) != 8 or not keys.isdecimal():
            return None
        first, second, year = int(keys[:2]), int(keys[2:4]), int(keys[4:])
        found = _date(year, first, second) if self._month_first else _date(year, second, first)
        return found if found is not None and self._fits(found) else None

    def readback(self, value: date) -> str:
        """With the day of the week."""
        return f"{_DAYS[value.weekday()].title()}, {_MONTHS[value.month - 1].title()} {value.day}, {value.year}"

    def _fits(self, day: date) -> bool:
        today = self._today()
        if self._past and not today.year - _FARTHEST <= day.year <= today.year:
            return False
        if self._past and day > today:
            return False
        return (self._earliest is None or day >= self._earliest) and (self._latest is None or day <= self._latest)

    def _numeric(self, text: str) -> date | None:
        match = _NUMERIC.search(text)
        if match is None:
            return None
        one, two, three = (int(group) for group in match.groups())
        if len(match[1]) == 4:
            return _date(one, two, three)
        year = three if len(match[3]) == 4 else self._century(three)
        month, day = (one, two) if self._month_first else (two, one)
        return _date(year, month, day) or _date(year, day, month)

    def _century(self, year: int) -> int:
        this = self._today().year
        full = this - this % 100 + year
        if self._past:
            return full if full <= this else full - 100
        return full

    def _relative(self, words: list[str]) -> date | None:
        today, said = self._today(), " ".join(words)
        for phrase, days in (
            ("day after tomorrow", 2),
            ("day before yesterday", -2),
            ("tomorrow", 1),
            ("yesterday", -1),
            ("today", 0),
            ("tonight", 0),
        ):
            if phrase in said:
                return today + timedelta(days)
        unit = next((index for index, word in enumerate(words) if word in _UNITS), None)
        if unit is not None and ("in" in words or "from now" in said or "ago" in words):
            groups = stretches(words[:unit])
            with suppress(OverflowError, ValueError):  # beyond the calendar, or more digits than int() takes
                days = (int("".join(groups[-1])) if groups else 1) * _UNITS[words[unit]]
                return today + timedelta(-days if "ago" in words else days)
        weekday = next((word for word in words if word in _DAYS), None)
        if weekday is None or any(word in _MONTHS for word in words):
            return None
        return self._weekday(today, _DAYS.index(weekday), words)

    def _weekday(self, today: date, weekday: int, words: list[str]) -> date:
        ahead = (weekday - today.weekday()) % 7
        if self._past or "last" in words:
            return today - timedelta((today.weekday() - weekday) % 7 or 7)
        if "next" in words:  # the one of next week, which begins on Monday
            return today + timedelta(7 - today.weekday() + weekday)
        return today + timedelta(ahead if "this" in words else ahead or 7)

    def _named(self, words: list[str]) -> date | None:
        """Month, day and perhaps year; or a day of the month alone."""
        at = next((index for index, word in enumerate(words) if word in _MONTHS and not _is_modal(words, index)), None)
        if at is None:
            groups = [group for stretch in stretches(words) for group in stretch]
            alone = len(groups) == 1 and "the" in words and len(groups[0]) <= 2
            return self._day_of_month(int(groups[0])) if alone else None
        month = _MONTHS.index(words[at]) + 1
        before = [group for stretch in stretches(words[:at]) for group in stretch]
        after = [group for stretch in stretches(words[at + 1 :]) for group in stretch]
        if before and len(before[-1]) <= 2:
            day, rest = before[-1], after
        elif after:
            day, rest = after[0], after[1:]
        else:
            return None
        if len(day) > 2:
            return None
        year = _year(rest)
        if year is None:
            return self._nearest(month, int(day))
        return _date(year if year >= 100 else self._century(year), month, int(day))

    def _nearest(self, month: int, day: int) -> date | None:
        today = self._today()
        # A 29th of February may be years away.
        years = range(today.year, today.year - 9, -1) if self._past else range(today.year, today.year + 9)
        for year in years:
            found = _date(year, month, day)
            if found is not None and (found <= today if self._past else found >= today):
                return found
        return None

    def _day_of_month(self, day: int) -> date | None:
        today = self._today()
        step = -1 if self._past else 1
        for months in range(12):
            index = today.year * 12 + today.month - 1 + step * months
            found = _date(index // 12, index % 12 + 1, day)
            if found is not None and (found <= today if self._past else found >= today):
                return found
        return None


def _is_modal(words: list[str], index: int) -> bool:
    """Whether "may" is no month: "may I come"; "march" likewise has a number beside it."""
    if words[index] not in ("may", "march"):
        return False
    around = [*words[max(0, index - 2) : index], *words[index + 1 : index + 3]]
    return not stretches(around)


def _year(groups: list[str]) -> int | None:
    """A year in the groups in which it was said: 2027, 20 27, 19 85, 19 0 5."""
    digits = "".join(groups)
    if len(digits) == 4 or (len(digits) == 2 and len(groups) == 1):
        return int(digits)
    return None


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
