"""English numbers in words."""

from __future__ import annotations

__all__ = ["cardinal", "decade", "digits", "ordinal", "year"]

_TEENS = (
    "ten",
    "eleven",
    "twelve",
    *(f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
)
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", *_TEENS)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_LARGEST = 10**15


def cardinal(number: int) -> str:
    """``1234`` as "one thousand two hundred thirty-four"; from 10^15 on digit by digit.

    ``number`` is not negative.
    """
    if number < 20:
        return _ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_ONES[ones]}" if ones else "")
    if number >= _LARGEST:
        return digits(str(number))
    scale, name = next(entry for entry in _SCALES if number >= entry[0])
    whole, rest = divmod(number, scale)
    return f"{cardinal(whole)} {name}" + (f" {cardinal(rest)}" if rest else "")


def ordinal(number: int) -> str:
    """``21`` as "twenty-first"."""
    words = cardinal(number)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last in _ORDINALS:
        last = _ORDINALS[last]
    elif last.endswith("y"):
        last = last[:-1] + "ieth"
    else:
        last += "th"
    return words[:cut] + last


def digits(text: str) -> str:
    """``"007"`` as "zero zero seven"."""
    return " ".join(_ONES[int(digit)] for digit in text)


def year(number: int) -> str:
    """``1998`` as "nineteen ninety-eight", ``2005`` as "two thousand five"."""
    century, rest = divmod(number, 100)
    if number < 1000 or number % 1000 < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def decade(number: int) -> str:
    """``1990`` as "nineteen nineties"."""
    words = year(number)
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
