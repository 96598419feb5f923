"""The base of all kinds of answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar

__all__ = ["Answer", "Text"]

T = TypeVar("T")


class Answer(ABC, Generic[T]):
    """A kind of answer: finds a value in words, or in keys."""

    hint: str = ""
    """Said when an answer was not understood: what would be."""
    keys: int = 0
    """So many keys are an answer, at most; 0: it cannot be typed in."""
    patient: ClassVar[bool] = False
    """Callers read it out in pieces, and are given time between them."""

    @abstractmethod
    def said(self, text: str) -> T | None:
        """The value in what the caller said; ``None``: there is none, or more than one."""

    def pressed(self, keys: str) -> T | None:
        """The value that the caller has typed in; ``None``: that is none."""
        return self.said(keys) if self.keys else None

    def readback(self, value: T) -> str:
        """How ``value`` is said to the caller, to be confirmed."""
        return str(value)

    def masked(self, value: T) -> str:
        """How ``value`` is told to those who need not know it."""
        return self.readback(value)


class Text(Answer[str]):
    """Whatever the caller says, in their own words."""

    def __init__(self, accept: Callable[[str], bool] = bool) -> None:
        """``accept`` says whether a text will do."""
        self._accept = accept

    def said(self, text: str) -> str | None:
        """The text, without spaces around it."""
        stripped = text.strip()
        return stripped if stripped and self._accept(stripped) else None
