"""Masks what must not be kept: numbers of phones and cards, mail addresses, and whatever patterns say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

import msgspec

from dialog.calls.events import (
    AgentSaid,
    AgentSpeaks,
    AgentTold,
    CallEnded,
    CallerSaid,
    CallEvent,
    DigitPressed,
    ErrorRaised,
    ToolEnded,
    ToolStarted,
    TransferChanged,
    Warned,
)
from dialog.errors import ConfigurationError

__all__ = ["Redactable", "Redaction"]

Redactable: TypeAlias = Literal["email", "card", "phone", "digits"]
T = TypeVar("T")

# Looked for from where a word begins, and elsewhere not further than a name can be long: what is in a long word of
# thousands of characters is found in one pass.
_NAME = r"(?:(?<![\w.+-])[\w.+-]+|[\w.+-]{1,64})"
_EMAIL = re.compile(_NAME + r"(?:@|\s+at\s+)[\w-]+(?:(?:\.|\s+dot\s+)[\w-]+)+", re.IGNORECASE)
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WORDS = {name: str(digit) for digit, name in enumerate(_NAMES)} | {"oh": "0"}
_DIGIT = rf"(?:\d|\b(?:{'|'.join(_WORDS)})\b)"
_RUN = re.compile(rf"(?<!\w)(?:\+\s?|\()?{_DIGIT}(?:[\s.,;()/-]{{0,4}}{_DIGIT})*(?!\w)", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")
_TOKEN = re.compile(rf"\d|{'|'.join(_WORDS)}", re.IGNORECASE)
_SUSPECT = re.compile(r"[\d@]|\bat\b|" + "|".join(rf"\b{word}\b" for word in _WORDS), re.IGNORECASE)

_PHONE = range(7, 16)
_CARD = range(13, 20)
_UNFINISHED = 3
"""So many digits at the end of words that are not complete may be the first of a number."""


class Redaction:
    """Replaces what it finds by its name in brackets: ``[card]``, ``[phone]``, ``[email]``, ``[digits]``.

    Numbers are found in figures and in English digits ("four one five …"). A number of 13 to 19 digits whose check
    digit is right is a card, one of 7 to 15 digits a phone, and a longer one several, or one that was misheard: it goes
    as ``[digits]``. Dates stay. At the end of words that are not complete yet (interims,
    what was heard of a reply that was cut) three digits are enough: they may be the first ones of such a number.

    Args:
        mask: What is masked. ``digits`` is every number of three digits or more, whatever it is, and the keys that
            the caller presses: for lines where cards are read out in pieces.
        patterns: Regular expressions of your own, by the name that replaces what they find.

    Raises:
        ConfigurationError: There is no such kind, or a pattern is malformed or finds nothing everywhere.
    """

    def __init__(
        self,
        mask: tuple[Redactable, ...] = ("email", "card", "phone"),
        *,
        patterns: Mapping[str, str] | None = None,
    ) -> None:
        unknown = [kind for kind in mask if kind not in get_args(Redactable)]
        if unknown:
            raise ConfigurationError(f"nothing masks {unknown[0]!r}: there are {', '.join(get_args(Redactable))}")
        self._mask = frozenset(mask)
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for name, pattern in (patterns or {}).items():
            try:
                compiled = re.compile(pattern)
            except re.error as exc:
                raise ConfigurationError(f"the pattern {name!r} is malformed: {exc}") from exc
            if compiled.match(""):
                raise ConfigurationError(f"the pattern {name!r} matches where there is nothing")
            self._patterns.append((name, compiled))

    def text(self, text: str, *, complete: bool = True) -> str:
        """``text`` without what is to be masked; ``complete``: no more of it comes."""
        for name, pattern in self._patterns:
            text = pattern.sub(f"[{name}]", text)
        if not _SUSPECT.search(text):
            return text
        if "email" in self._mask:
            text = _EMAIL.sub(self._mail, text)
        if self._mask & {"card", "phone", "digits"}:
            end = len(text.rstrip(" .,;-"))
            text = _RUN.sub(lambda found: self._number(found, last=not complete and found.end() >= end), text)
        return text

    def masked(self, event: CallEvent) -> CallEvent:
        """``event`` without what is to be masked; the same object if there is nothing."""
        match event:
            case CallerSaid():
                return _with(event, text=self.text(event.text, complete=event.final))
            case AgentSaid():
                heard = self.text(event.heard, complete=event.heard.rstrip() == event.text.rstrip())
                return _with(event, text=self.text(event.text), heard=heard)
            case AgentSpeaks():
                return _with(event, text=self.text(event.text, complete=False))
            case ToolStarted():
                return _with(event, arguments=self._json(event.arguments))
            case ToolEnded():
                return _with(event, result=self._json(event.result))
            case AgentTold() | ErrorRaised() | Warned():
                return _with(event, text=self.text(event.text))
            case CallEnded() | TransferChanged():
                return _with(event, detail=self.text(event.detail))
            case DigitPressed() if "digits" in self._mask:
                return _with(event, digit="[digits]")
            case _:
                return event

    def _mail(self, found: re.Match[str]) -> str:
        # "look at the menu" is no address: spoken ones need their "dot" or a real @.
        text = found.group()
        return "[email]" if "@" in text or re.search(r"\sdot\s", text, re.IGNORECASE) else text

    def _number(self, found: re.Match[str], *, last: bool) -> str:
        text = found.group()
        if _DATE.fullmatch(text):
            return text
        tokens = cast("list[str]", _TOKEN.findall(text))
        digits = "".join(_WORDS.get(token.lower(), token) for token in tokens)
        kind = ""
        if "card" in self._mask and len(digits) in _CARD and _luhn(digits):
            kind = "card"
        elif "phone" in self._mask and len(digits) in _PHONE:
            kind = "phone"
        elif len(digits) > _PHONE[-1] or (len(digits) >= _UNFINISHED and ("digits" in self._mask or last)):
            kind = "digits"
        return f"[{kind}]" if kind else text

    def _json(self, text: str) -> str:
        """JSON stays JSON; what is none is masked as text."""
        try:
            value: object = msgspec.json.decode(text)
            masked = self._value(value)
            return text if masked == value else msgspec.json.encode(masked).decode()
        except (msgspec.DecodeError, RecursionError):  # nested so deeply that nobody means it
            return self.text(text)

    def _value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            masked = self.text(str(value))
            return value if masked == str(value) else masked
        if isinstance(value, list):
            return [self._value(each) for each in cast("list[object]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, object]", value).items()
            return {self.text(name): self._value(each) for name, each in items}
        return value


def _with(event: T, **fields: Any) -> T:
    if all(getattr(event, name) == value for name, value in fields.items()):
        return event
    return cast("T", msgspec.structs.replace(cast("msgspec.Struct", event), **fields))


def _luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0
