"""How numbers, dates, times, money, phone numbers and units are said in English. Pure.

Each rule is a pattern that is tried where a number begins, and what its match is said as: a list of
``(characters, text)``; ``None`` as the text keeps them as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dialog.agent.shaping.numbers import cardinal, decade, digits, ordinal, year

__all__ = ["MONTH", "NUMBER_WORDS", "SHORT_MONTHS", "Says", "say_number"]

Says = list[tuple[int, str | None]]
_Rule = Callable[[re.Match[str]], Says | None]

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
SHORT_MONTHS: dict[str, str] = {name[:3]: name for name in _MONTHS if name != "May"} | {"Sept": "September"}
_MONTH_NAMES = "|".join(sorted([*_MONTHS, *SHORT_MONTHS], key=len, reverse=True))
_CURRENCIES = {
    "$": ("dollar", "cent"),
    "\u20ac": ("euro", "cent"),
    "\u00a3": ("pound", "penny"),
    "\u00a5": ("yen", ""),
    "USD": ("dollar", "cent"),
    "EUR": ("euro", "cent"),
    "GBP": ("pound", "penny"),
}
_SCALES = {
    "k": "thousand",
    "K": "thousand",
    "m": "million",
    "M": "million",
    "bn": "billion",
    "B": "billion",
    "thousand": "thousand",
    "million": "million",
    "billion": "billion",
    "trillion": "trillion",
}
_UNITS = {
    "km/h": "kilometer/s per hour",
    "km": "kilometer/s",
    "cm": "centimeter/s",
    "mm": "millimeter/s",
    "m": "meter/s",
    "mi": "mile/s",
    "mph": "mile/s per hour",
    "ft": "foot/feet",
    "kg": "kilogram/s",
    "mg": "milligram/s",
    "g": "gram/s",
    "lbs": "pound/s",
    "lb": "pound/s",
    "oz": "ounce/s",
    "ml": "milliliter/s",
    "l": "liter/s",
    "L": "liter/s",
    "KB": "kilobyte/s",
    "MB": "megabyte/s",
    "GB": "gigabyte/s",
    "TB": "terabyte/s",
    "Hz": "hertz/",
    "kHz": "kilohertz/",
    "MHz": "megahertz/",
    "GHz": "gigahertz/",
    "kW": "kilowatt/s",
    "kWh": "kilowatt hour/s",
    "W": "watt/s",
    "V": "volt/s",
    "ms": "millisecond/s",
    "secs": "second/s",
    "sec": "second/s",
    "mins": "minute/s",
    "min": "minute/s",
    "hrs": "hour/s",
    "hr": "hour/s",
    "h": "hour/s",
}
NUMBER_WORDS: tuple[str, ...] = (
    *(" " + month for month in (*_MONTHS, *SHORT_MONTHS)),
    *(
        f"{blank}{unit}"
        for unit in (*_UNITS, *_SCALES, *_CURRENCIES)
        for blank in ("", " ")
        if unit[0] not in "$\u00a5"
    ),
    *("am", "pm", "AM", "PM", " am", " pm", " AM", " PM", "a.m", "p.m", " a.m", " p.m"),
    *("st", *(f"{letter}d" for letter in "nr"), "th", "s", " of ", "%", " %"),
    *("\u00b0", "\u00b0C", "\u00b0F", " \u00b0C", " \u00b0F"),
)
"""What may follow a number and change how it is said."""
MONTH: re.Pattern[str] = re.compile(rf"(?:{'|'.join(sorted(SHORT_MONTHS, key=len, reverse=True))})\.?(?= \d)")
"""A short month before a number."""

_INTEGER = r"\d{1,3}(?:,\d{3})+(?!\d)|\d+"
_YEAR_BEFORE = re.compile(
    rf"\b(?:(?:in|since|of|year|from|until|till|by|before|after|during|spring|summer|fall|autumn|winter|{_MONTH_NAMES})\.?"
    r"|\d{1,2}(?:st|[nr]d|th)?,) \Z",
    re.IGNORECASE,
)
_MONTH_BEFORE = re.compile(rf"\b(?:{_MONTH_NAMES})\.? \Z")
_ITEM_BEFORE = re.compile(r"(?:\A|\n)[ \t]*\Z")
_FRACTIONS = {
    "1/2": "one half",
    "1/3": "one third",
    "2/3": "two thirds",
    "1/4": "one quarter",
    "3/4": "three quarters",
    "24/7": "twenty-four seven",
}


def _whole(number: str) -> str:
    """An integer as written."""
    plain = number.replace(",", "")
    if len(plain) > 1 and plain[0] == "0":
        return digits(plain)
    if "," not in number and len(plain) >= 7 and not plain.endswith("000"):
        # A number that nobody grouped is a reference: it is read in groups, digit by digit.
        return _grouped(plain)
    return cardinal(int(plain))


def _grouped(plain: str) -> str:
    groups = [plain[at : at + 3] for at in range(0, len(plain), 3)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2:] = [groups[-2] + groups[-1]]
    return ", ".join(digits(group) for group in groups)


def _decimal(number: str) -> str:
    """A number as written, with or without a fraction."""
    whole, *fractions = number.split(".")
    if len(fractions) > 1:
        return " point ".join(_whole(part) for part in (whole, *fractions))
    return _whole(whole) + "".join(f" point {digits(fraction)}" for fraction in fractions)


def _one(number: str) -> bool:
    return number == "1"


def _item(match: re.Match[str]) -> Says | None:
    """The number of an item in a list stays with its full stop."""
    before = match.string[max(0, match.start() - 24) : match.start()]
    return [(len(match[0]), None)] if _ITEM_BEFORE.search(before) else None


def _phone(match: re.Match[str]) -> Says | None:
    groups = re.findall(r"\d+", match[0])
    total = sum(map(len, groups))
    if not 7 <= total <= 15:
        return None
    if len(groups) == 1:
        if total not in (10, 11) or groups[0].endswith("000"):
            return None
        plain = groups[0]
        head = [plain[:-10]] if total == 11 else []
        groups = [*head, plain[-10:-7], plain[-7:-4], plain[-4:]]
        return [(len(match[0]), ", ".join(map(digits, groups)))]
    if match[0][0] != "+" and (len(groups[-1]) < 2 or any(len(group) > 5 for group in groups)):
        return None
    if len(groups) == 2 and all(len(group) == 4 and group[:2] in ("19", "20") for group in groups):
        return None  # two years
    says: Says = []
    at = 0
    for group in re.finditer(r"\d+", match[0]):
        mark = match[0][at : group.start()]
        if mark:
            says.append((len(mark), "plus " if mark[0] == "+" else ", " if at else ""))
        says.append((len(group[0]), digits(group[0])))
        at = group.end()
    return says


def _date(month: int, day: int, at_year: int | None) -> str | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{_MONTHS[month - 1]} {ordinal(day)}" + (f", {year(at_year)}" if at_year is not None else "")


def _iso_date(match: re.Match[str]) -> Says | None:
    said = _date(int(match[2]), int(match[3]), int(match[1]))
    return [(len(match[0]), said)] if said else None


def _slash_date(match: re.Match[str]) -> Says | None:
    first, second, at_year = int(match[1]), int(match[2]), int(match[3])
    if len(match[3]) == 2:
        at_year += 2000 if at_year < 70 else 1900
    said = _date(first, second, at_year) or _date(second, first, at_year)
    return [(len(match[0]), said)] if said else None


def _fraction(match: re.Match[str]) -> Says:
    said = _FRACTIONS.get(match[0]) or f"{_whole(match[1])} slash {_whole(match[2])}"
    return [(len(match[0]), said)]


def _half(match: re.Match[str]) -> str:
    half: str | None = match["half"]
    return f" {half.lower()} m" if half else ""


def _time(match: re.Match[str]) -> Says | None:
    hour, minute, second = int(match[1]), int(match[2]), match[3]
    if hour > 24 or minute > 59:
        return None
    said = cardinal(hour)
    if minute:
        said += f" oh {cardinal(minute)}" if minute < 10 else f" {cardinal(minute)}"
    elif not match["half"]:
        said += " o'clock" if 0 < hour <= 12 else " hundred"
    if second:
        said += f" and {cardinal(int(second))} seconds"
    return [(len(match[0]), said + _half(match))]


def _hour(match: re.Match[str]) -> Says | None:
    hour = int(match[1])
    return [(len(match[0]), cardinal(hour) + _half(match))] if hour <= 24 else None


def _money(match: re.Match[str]) -> Says:
    unit, small = _CURRENCIES[match["unit"] or match["code"]]
    number, fraction, scale = match["whole"], match["cents"], match["scale"]
    minus = "minus " if match["minus"] else ""
    if scale:
        said = f"{_decimal(number + (f'.{fraction}' if fraction else ''))} {_SCALES[scale]} {_plural(unit)}"
    elif fraction and small and len(fraction) == 2:
        cents = int(fraction)
        parts: list[str] = []
        if int(number.replace(",", "")) or not cents:
            parts.append(f"{_whole(number)} {unit if _one(number) else _plural(unit)}")
        if cents:
            parts.append(f"{cardinal(cents)} {small if cents == 1 else _plural(small)}")
        said = " and ".join(parts)
    elif fraction:
        said = f"{_decimal(f'{number}.{fraction}')} {_plural(unit)}"
    else:
        said = f"{_whole(number)} {unit if _one(number) else _plural(unit)}"
    return [(len(match[0]), minus + said)]


def _plural(unit: str) -> str:
    return {"penny": "pence", "yen": "yen"}.get(unit, f"{unit}s")


def _money_range(match: re.Match[str]) -> Says:
    return [(len(match[0]), f"{_decimal(match[2])} to {_decimal(match[3])} {_plural(_CURRENCIES[match[1]][0])}")]


def _sign(match: re.Match[str]) -> str:
    return {"-": "minus ", "\u2212": "minus ", "+": "plus "}.get(match["sign"] or "", "")


def _percent(match: re.Match[str]) -> Says:
    return [(len(match[0]), f"{_sign(match)}{_decimal(match['number'])} percent")]


def _degrees(match: re.Match[str]) -> Says:
    scale = {"C": " Celsius", "F": " Fahrenheit"}.get(match["scale"] or "", "")
    degrees = "degree" if _one(match["number"]) else "degrees"
    return [(len(match[0]), f"{_sign(match)}{_decimal(match['number'])} {degrees}{scale}")]


def _ordinal(match: re.Match[str]) -> Says:
    return [(len(match[0]), ordinal(int(match[1].replace(",", ""))))]


def _decade(match: re.Match[str]) -> Says:
    return [(len(match[0]), decade(int(match[1])))]


def _day_of_month(match: re.Match[str]) -> Says | None:
    """The day in "January 5"."""
    before = match.string[max(0, match.start() - 24) : match.start()]
    if not _MONTH_BEFORE.search(before) or not 1 <= int(match[1]) <= 31:
        return None
    return [(len(match[1]), ordinal(int(match[1])))]


def _day_before_month(match: re.Match[str]) -> Says | None:
    """The day in "5 January", and its month."""
    if not 1 <= int(match[1]) <= 31:
        return None
    before = match.string[max(0, match.start() - 24) : match.start()]
    the = "" if before.lower().endswith("the ") else "the "
    month = match[2]
    says: Says = [(len(match[1]), f"{the}{ordinal(int(match[1]))} of"), (1, None)]
    says.append((len(month), SHORT_MONTHS.get(month)))
    return says


def _year(match: re.Match[str]) -> Says | None:
    before = match.string[max(0, match.start() - 24) : match.start()]
    return [(4, year(int(match[0])))] if _YEAR_BEFORE.search(before) else None


def _unit(match: re.Match[str]) -> Says:
    head, _, tail = _UNITS[match["unit"]].partition("/")
    plural, _, per = tail.partition(" ")
    if head == "foot":
        name = head if _one(match["number"]) else plural
    else:
        name = head if _one(match["number"]) else head + plural
    return [(len(match[0]), f"{_sign(match)}{_decimal(match['number'])} {name}{f' {per}' if per else ''}")]


def _scaled(match: re.Match[str]) -> Says:
    return [(len(match[0]), f"{_decimal(match[1])} {_SCALES[match[2]]}")]


def _number(match: re.Match[str]) -> Says:
    sign = "number " if match["sign"] == "#" else _sign(match)
    return [(len(match[0]), sign + _decimal(match["number"]))]


_HALF = r"\s?(?P<half>[ap]|[AP])\.?[mM](?!\w)"
_SIGNED = rf"(?P<sign>[-+\u2212])?(?P<number>(?:{_INTEGER})(?:\.\d+)?)"
_SIGN = "[$\u20ac\u00a3\u00a5]"
_BY_LENGTH = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_MONEY_SCALES = "thousand|million|billion|trillion|bn|[kKmMB]"
_RULES: tuple[tuple[re.Pattern[str], _Rule], ...] = (
    (re.compile(r"\d{1,2}[.)](?=\s)"), _item),
    (re.compile(r"(\d{4})-(\d{2})-(\d{2})(?!\w)"), _iso_date),
    (re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?!\w)"), _slash_date),
    (
        re.compile(
            r"\+?(?:\(\d{2,5}\)|\d{1,5})(?:(?:[ .\-]|(?<=\)))\(?\d{2,5}\)?){1,6}(?![\w%\u00b0]|[.,:/\-]\d)"
            r"|\d{10,11}(?!\w)"
        ),
        _phone,
    ),
    (re.compile(rf"(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?(?:{_HALF}|(?![\w:]))"), _time),
    (re.compile(rf"(\d{{1,2}}){_HALF}"), _hour),
    (
        re.compile(
            rf"(?P<minus>[-\u2212])?(?:(?P<unit>{_SIGN})\s?)(?P<whole>{_INTEGER})(?:\.(?P<cents>\d+))?"
            rf"(?:\s?(?P<scale>{_MONEY_SCALES}))?(?P<code>(?!))?(?![\w]|[-\u2013]\$?\d)"
        ),
        _money,
    ),
    (
        re.compile(
            rf"(?P<minus>[-\u2212])?(?P<whole>{_INTEGER})(?:\.(?P<cents>\d+))?(?:\s?(?P<scale>{_MONEY_SCALES}))?"
            r"\s?(?:(?P<unit>[\u20ac\u00a3])|(?P<code>USD|EUR|GBP))(?!\w)"
        ),
        _money,
    ),
    (
        re.compile(rf"({_SIGN})((?:{_INTEGER})(?:\.\d+)?)[-\u2013]{_SIGN}?((?:{_INTEGER})(?:\.\d+)?)(?!\w)"),
        _money_range,
    ),
    (re.compile(rf"{_SIGNED}\s?%"), _percent),
    (re.compile(rf"{_SIGNED}\s?\u00b0(?P<scale>[CF])?(?!\w)"), _degrees),
    (re.compile(rf"({_INTEGER})(?:st|[nr]d|th)(?!\w)"), _ordinal),
    (re.compile(r"((?:1[5-9]|20)\d0)s(?!\w)"), _decade),
    (re.compile(r"(\d{1,2})(?![\w%\u00b0:/]|[.,]\d|[-\u2013]\d{3})"), _day_of_month),
    (re.compile(rf"(\d{{1,2}}) ({_MONTH_NAMES})(?!\w)"), _day_before_month),
    (re.compile(r"(?:1[5-9]|20)\d\d(?![\w%\u00b0:/]|[.,]\d)"), _year),
    (re.compile(rf"{_SIGNED}\s?(?P<unit>{_BY_LENGTH})(?!\w)"), _unit),
    (re.compile(rf"((?:{_INTEGER})(?:\.\d+)?)([kKM])(?!\w)"), _scaled),
    (re.compile(r"(\d+)/(\d+)(?![\w/])"), _fraction),
    (re.compile(rf"(?P<sign>[-+#\u2212])?(?P<number>(?:{_INTEGER})(?:\.\d+)*)(?!\w)"), _number),
)
_RANGE = re.compile(r"\s?[-\u2013]\s?(?=[$\u20ac\u00a3\u00a5]?\d)")


def say_number(text: str, at: int, end: int) -> Says:
    """How what begins with a number at ``at`` is said, or ``[]`` if it stays; ``text[end]`` may only be looked at."""
    for pattern, rule in _RULES:
        match = pattern.match(text, at)
        if match is None or match.end() > end:
            continue
        says = rule(match)
        if says is None:
            continue
        stop = at + sum(chars for chars, _ in says)
        link = _RANGE.match(text, stop)
        if link is not None and link.end() < end and rule is not _phone:
            says.append((len(link[0]), " to "))
        return says
    return []
