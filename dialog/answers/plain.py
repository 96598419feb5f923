"""Yes or no, a number, one of several, a code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import ClassVar, Final

from dialog.answers.answer import Answer
from dialog.answers.words import digits_in, number_in, plain
from dialog.errors import ConfigurationError

__all__ = ["Choice", "Digits", "Number", "YesNo"]

_YES: Final = re.compile(
    r"\b(?:yes|yeah|yep|yup|yea|sure|ok|okay|correct|right|certainly|absolutely|definitely|of course|exactly|"
    r"affirmative|please do|go ahead|i do|i will|i agree|that is it|that's it|true|fine|gladly)\b"
)
_NO: Final = re.compile(
    r"\b(?:no|nope|nah|not|never|wrong|incorrect|false|don't|do not|won't|can't|negative|neither)\b"
)
_NOT_RIGHT: Final = re.compile(
    r"\b(?:not|isn't|is not|that's not|don't)\b[\w' ]*?\b(?:right|correct|fine|ok|okay|sure|true)\b"
)
_NOT_A_PROBLEM: Final = re.compile(r"\b(?:no problem|not a problem|why not|no worries)\b")
_ALIKE: Final = 0.85
_NTH: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


class YesNo(Answer[bool]):
    """Yes or no; the keys 1 and 2."""

    hint = "Please say yes or no."
    keys = 1

    def said(self, text: str) -> bool | None:
        """``True`` for yes; ``None`` if it is neither, or both."""
        words = " ".join(word for word in plain(text) if word not in (",", "."))
        if _NOT_A_PROBLEM.search(words):
            return True
        if _NOT_RIGHT.search(words):
            return False
        yes, no = _YES.search(words) is not None, _NO.search(words) is not None
        return None if yes == no else yes

    def pressed(self, keys: str) -> bool | None:
        """1 is yes, 2 is no."""
        return {"1": True, "2": False}.get(keys)

    def readback(self, value: bool) -> str:
        """Yes, or no."""
        return "yes" if value else "no"


class Number(Answer[float]):
    """A number, whole unless ``whole=False``; it comes as ``int`` where it is one.

    Raises:
        ConfigurationError: ``minimum`` is above ``maximum``.
    """

    patient: ClassVar[bool] = False

    def __init__(self, minimum: float | None = None, maximum: float | None = None, *, whole: bool = True) -> None:
        if minimum is not None and maximum is not None and minimum > maximum:
            raise ConfigurationError(f"a number from {minimum:g} to {maximum:g} is none")
        self._minimum = minimum
        self._maximum = maximum
        self._whole = whole
        negative = minimum is not None and minimum < 0
        self.keys = 0 if negative or not whole else len(f"{maximum:.0f}") if maximum is not None else 15
        if minimum is not None and maximum is not None:
            self.hint = f"Please say a number from {minimum:g} to {maximum:g}."
        else:
            self.hint = "Please say a number."

    def said(self, text: str) -> float | None:
        """The number in it, if it is one that is asked for."""
        value = number_in(text)
        if value is None or (self._whole and value != int(value)):
            return None
        if self._minimum is not None and value < self._minimum:
            return None
        if self._maximum is not None and value > self._maximum:
            return None
        return value

    def readback(self, value: float) -> str:
        """As it is written."""
        return f"{value:.15g}"


class Choice(Answer[str]):
    """One of several, by name, by another word for it, or by its number: in words or as a key.

    Args:
        options: The names; or for each name the words that mean it, too.

    Raises:
        ConfigurationError: There are none.
    """

    def __init__(self, options: Sequence[str] | Mapping[str, Iterable[str]]) -> None:
        words: Mapping[str, Iterable[str]] = options if isinstance(options, Mapping) else dict.fromkeys(options, ())
        if not words:
            raise ConfigurationError("a choice needs options")
        self._names: tuple[str, ...] = tuple(words)
        self._phrases = {" ".join(plain(phrase)): name for name, others in words.items() for phrase in (name, *others)}
        self.keys = 1 if len(self._names) <= 9 else 2
        *others, last = list(words)
        self.hint = f"Please say {', '.join(others)}{' or ' if others else ''}{last}."

    def said(self, text: str) -> str | None:
        """The name of the one that was chosen."""
        words = " ".join(plain(text))
        found = {name for phrase, name in self._phrases.items() if _has(words, phrase)}
        # "a large salad" means neither the "salad" nor the "large" alone, if there is "large salad".
        if len(found) > 1:
            longest = max((phrase for phrase in self._phrases if _has(words, phrase)), key=len)
            found = {
                name
                for phrase, name in self._phrases.items()
                if _has(words, phrase) and (phrase == longest or not _has(longest, phrase))
            }
        if found:
            return found.pop() if len(found) == 1 else None
        alike = get_close_matches(words, self._phrases, 1, _ALIKE)
        return self._phrases[alike[0]] if alike else self._numbered(text)

    def pressed(self, keys: str) -> str | None:
        """The key is its number, from 1."""
        return self._nth(int(keys)) if keys.isdecimal() else None

    def _numbered(self, text: str) -> str | None:
        for number, word in enumerate(_NTH, 1):
            if re.search(rf"\b{word}\b", text.lower()):
                return self._nth(number)
        value = number_in(text)
        return self._nth(int(value)) if value is not None and value == int(value) else None

    def _nth(self, number: int) -> str | None:
        return self._names[number - 1] if 1 <= number <= len(self._names) else None


class Digits(Answer[str]):
    """Digits one after the other: an account number, a code. They may be said in groups.

    Args:
        length: So many exactly; or give
        minimum: the fewest, and
        maximum: the most.

    Raises:
        ConfigurationError: No number of digits would do.
    """

    patient: ClassVar[bool] = True

    def __init__(self, length: int | None = None, *, minimum: int = 1, maximum: int = 32) -> None:
        self._least = minimum if length is None else length
        self._most = maximum if length is None else length
        if not 1 <= self._least <= self._most:
            raise ConfigurationError(f"digits: from {self._least} to {self._most} of them are none")
        self.keys = self._most
        count = f"{self._least}" if self._least == self._most else f"{self._least} to {self._most}"
        self.hint = f"Please say or type in {count} digits."

    def said(self, text: str) -> str | None:
        """All digits in it, if there are as many as there should be."""
        digits = digits_in(text)
        return digits if self._least <= len(digits) <= self._most else None

    def pressed(self, keys: str) -> str | None:
        """The keys, if they are digits, and as many as there should be."""
        return keys if keys.isdecimal() and self._least <= len(keys) <= self._most else None

    def readback(self, value: str) -> str:
        """One by one."""
        return " ".join(value)

    def masked(self, value: str) -> str:
        """How many there are."""
        return f"{len(value)} digits"


def _has(words: str, phrase: str) -> bool:
    return f" {phrase} " in f" {words} "
