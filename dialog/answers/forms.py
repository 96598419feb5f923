"""Several questions that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dialog.answers.answer import Answer
from dialog.errors import ConfigurationError

__all__ = ["Form", "Question"]


class Question(Struct, frozen=True):
    """One question of a form."""

    name: str
    """Under which the answer is kept."""
    prompt: str
    answer: Answer[Any]
    confirm: bool = False
    """The answer is read back, and the caller has to agree."""


class Form:
    """Questions that are asked one after the other; the answers together are a dict by their names.

    Args:
        questions: In their order.
        summary: Read back at the end with the answers in the places of their names, to be confirmed:
            ``"{street} in {city}"``; empty: nothing is.

    Raises:
        ConfigurationError: There are no questions, two have one name, or ``summary`` names another.
    """

    def __init__(self, *questions: Question, summary: str = "") -> None:
        names = [question.name for question in questions]
        if not names or len(set(names)) != len(names):
            raise ConfigurationError(f"a form needs questions with different names, got {names}")
        self.questions: tuple[Question, ...] = questions
        self.summary: str = summary
        try:
            self.readback(dict.fromkeys(names, ""), raw=True)
        except (KeyError, IndexError, ValueError) as exc:
            raise ConfigurationError(f"summary {summary!r} names what is not asked: {exc}") from exc

    def readback(self, values: Mapping[str, Any], *, raw: bool = False) -> str:
        """The summary of ``values``, as it is said to the caller."""
        said = {each.name: "" if raw else each.answer.readback(values[each.name]) for each in self.questions}
        return self.summary.format_map(said)

    def masked(self, values: Mapping[str, Any]) -> str:
        """What of ``values`` may be told to those who need not know them."""
        return ", ".join(f"{each.name}: {each.answer.masked(values[each.name])}" for each in self.questions)
