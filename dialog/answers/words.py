"""Numbers in what is said: "forty-two", "four two", "double seven", "two thousand and five", "3.5"."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DIGITS", "ORDINALS", "digits_in", "number_in", "plain", "stretches"]

_ONES: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_NTHS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth",
)  # fmt: skip
_DECADES: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS: Final = {word: number for number, word in enumerate(_ONES)} | {"oh": 0, "o": 0, "nought": 0, "nil": 0}
_TENS: Final = {word: 10 * number for number, word in enumerate(_DECADES, 2)} | {"fourty": 40}
ORDINALS: Final = {word: number for number, word in enumerate(_NTHS, 1)} | {"twentieth": 20, "thirtieth": 30}
_SCALES: Final = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_LONGEST: Final = 100
"""Digits that a number may have."""
_REPEATS: Final = {"double": 2, "triple": 3, "treble": 3}
DIGITS: Final = frozenset("0123456789")
_TOKEN: Final = re.compile(r"\d+(?:st|nd|rd|th)\b|\d+|[a-z']+|[.,+]")
_CORRECTION: Final = frozenset(["no", "sorry", "actually", "mean", "rather", "wait", "correction"])
_LETTER_O: Final = frozenset(["o", "oh"])
"""Zeros when they stand among digits; else an exclamation."""


def plain(text: str) -> list[str]:
    """The words of ``text``, in lower case, numerals and the signs ``. , +`` on their own."""
    joined = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.lower().replace("\u2019", "'"))
    return _TOKEN.findall(joined.replace("-", " "))


def _is_number(word: str) -> bool:
    return word[0] in DIGITS or word in _UNITS or word in _TENS or word in _SCALES or word in ORDINALS


class _Group:
    """A cardinal as it is being said; ``add`` tells whether the next word still belongs to it."""

    def __init__(self) -> None:
        self.total = 0
        self.current = -1
        self.numeral = ""

    def add(self, word: str) -> bool:
        if self.numeral:
            return False
        if word[0] in DIGITS:
            if self.current >= 0 or self.total:
                return False
            self.numeral = re.sub(r"\D", "", word)
            return True
        if word in _SCALES:
            return self._scale(_SCALES[word])
        if word in _TENS:
            return self._put(_TENS[word], self.current < 0 or (self.current % 100 == 0 and self.current > 0))
        value = _UNITS.get(word, ORDINALS.get(word, 0))
        if self.current < 0:
            return self._put(value, fits=True)
        below = self.current % 100
        room = below >= 20 and below % 10 == 0 and 0 < value < 10
        return self._put(value, room or (below == 0 and self.current > 0 and value > 0))

    def _put(self, value: int, fits: bool) -> bool:
        if fits:
            self.current = max(self.current, 0) + value
        return fits

    def _scale(self, scale: int) -> bool:
        if self.current == 0 or (self.current < 0 and self.total):
            return False
        if scale == 100:
            if self.current >= 100:
                return False
            self.current = max(self.current, 1) * 100
            return True
        if self.total and self.total % scale == 0 and self.total // scale < 1000:
            return False
        self.total += max(self.current, 1) * scale
        self.current = -1
        return True

    @property
    def digits(self) -> str:
        return self.numeral or str(self.total + max(self.current, 0))


def stretches(words: list[str]) -> list[list[str]]:
    """The numbers in ``words``, each as the groups of digits in which it was said."""
    found: list[list[str]] = []
    groups: list[str] = []
    group: _Group | None = None
    repeat = 1
    plural = False  # the word before was "and", which may join "two hundred and five"

    def end_group() -> None:
        nonlocal group, repeat
        if group is not None:
            groups.append(group.digits * repeat)
            group, repeat = None, 1

    def end_stretch() -> None:
        nonlocal groups
        end_group()
        if groups:
            found.append(groups)
            groups = []

    for index, word in enumerate(words):
        following = words[index + 1] if index + 1 < len(words) else ""
        number = _is_number(word)
        if word in _LETTER_O and not groups and group is None and not (following and _is_number(following)):
            number = False  # "oh" alone
        if number:
            if group is None or (plural and word not in _UNITS and word not in _TENS) or not group.add(word):
                end_group()
                group = _Group()
                group.add(word)
        elif word in _REPEATS and following and _is_number(following):
            end_group()
            repeat = _REPEATS[word]
            continue
        elif word == "and" and group is not None and (group.total or group.current >= 100) and _is_number(following):
            plural = True
            continue
        elif word in ("a", "an") and following in _SCALES:
            continue
        elif word == "," and (groups or group is not None):
            end_group()
        else:
            end_stretch()
        plural = False
    end_stretch()
    return found


def digits_in(text: str) -> str:
    """All digits that were said, in their order: "double four two" is ``442``."""
    return "".join(group for groups in stretches(plain(text)) for group in groups)


def number_in(text: str) -> int | float | None:
    """The one number that was said, the last one if the caller corrects themselves; ``None``: there is none, or two."""
    words = plain(text)
    found: list[int | float] = []
    for piece in _pieces(words):
        value = _value(piece)
        if value is not None:
            found.append(value)
    if not found:
        return None
    if len(set(found)) > 1 and not _CORRECTION.intersection(words):
        return None
    return found[-1]


def _pieces(words: list[str]) -> list[list[str]]:
    """Runs of words that belong to one number, sign and fraction included."""
    pieces: list[list[str]] = [[]]
    for index, word in enumerate(words):
        inside = (
            _is_number(word)
            or word in ("minus", "negative", "and", "a", "an")
            or word in _REPEATS
            or (word in ("point", ".") and index + 1 < len(words) and _is_number(words[index + 1]))
        )
        if inside:
            pieces[-1].append(word)
        elif pieces[-1]:
            pieces.append([])
    return pieces


def _value(words: list[str]) -> int | float | None:
    point = next((index for index, word in enumerate(words) if word in ("point", ".")), len(words))
    whole, fraction = stretches(words[:point]), stretches(words[point + 1 :])
    if not whole and not fraction:
        return None
    digits = "".join(whole[-1]) if whole else "0"
    if len(digits) > _LONGEST:
        return None
    sign = -1 if words[0] in ("minus", "negative") else 1
    if fraction:
        return sign * float(f"{digits}.{''.join(fraction[0])}")
    return sign * int(digits)
