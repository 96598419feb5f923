"""Going on with a reply that another model began: what it is told, and how its words join the first one's. Pure."""

from __future__ import annotations

import msgspec

from dialog.llm.llm import Entry, LLMRequest

__all__ = ["INSTRUCTION", "Seam", "continued"]

INSTRUCTION = (
    "Your answer was cut off by a technical fault after the words above; the caller has heard them. "
    "Go on exactly where it stopped, with the very next word. Repeat nothing, and do not mention the fault."
)


def continued(request: LLMRequest, said: str) -> LLMRequest:
    """``request``, with the words that were said already as the model's own."""
    items = (
        *request.items,
        Entry(role="assistant", text=said, interrupted=True),
        Entry(role="system", text=INSTRUCTION),
    )
    return msgspec.structs.replace(request, items=items)


class Seam:
    """Joins the words of the next model to those that were said.

    A model that begins its answer anew, in the same words, is silenced until it comes to what was not
    said yet. Otherwise a space parts the two, unless one is there or punctuation follows.

    Args:
        said: What was said; not empty.
    """

    def __init__(self, said: str) -> None:
        self._said = said
        self._words = _spaced(said)
        self._held = ""
        self._joined = False

    def feed(self, text: str) -> str:
        """Return what of the model's next words is to be said now."""
        if self._joined:
            return text
        self._held += text
        held = _spaced(self._held)
        size = min(len(held), len(self._words))
        if held[:size].lower() != self._words[:size].lower():
            return self._join(self._held)
        if len(held) <= len(self._words):
            return ""  # so far it is what was said
        self._joined = True
        rest = held[len(self._words) :] + self._held[len(self._held.rstrip()) :]
        return rest.lstrip() if self._said[-1:].isspace() else rest

    def close(self) -> str:
        """Return what is left when the model has finished."""
        if self._joined or _spaced(self._held).lower() == self._words.lower():
            return ""
        return self._join(self._held)

    def _join(self, text: str) -> str:
        self._joined = True
        text = text.lstrip() if self._said[-1:].isspace() else text
        return " " + text if text[:1].isalnum() and not self._said[-1:].isspace() else text


def _spaced(text: str) -> str:
    return " ".join(text.split())
