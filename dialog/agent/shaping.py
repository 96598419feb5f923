"""Cutting a streamed reply into the pieces that a voice takes well.

Every piece knows which characters of the reply it stands for, so that what was heard can be told in
the model's own words.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

from msgspec import Struct

__all__ = ["Piece", "SentenceShaper", "Shaper", "TokenShaper", "shaper_for"]


class Piece(Struct, frozen=True, gc=False):
    """Text for the voice, and the span ``start:end`` of the reply's text that it speaks."""

    spoken: str
    start: int
    end: int
    ends_sentence: bool

    def __repr__(self) -> str:
        return f"<Piece {self.start}:{self.end}>"


class Shaper(Protocol):
    """Turns streamed text into pieces; pure, one per part."""

    def feed(self, text: str) -> tuple[Piece, ...]:
        """Take the next characters; return the pieces that are ready."""
        ...

    def flush(self) -> tuple[Piece, ...]:
        """No more text comes: return the rest."""
        ...


_SENTENCE_END = re.compile(r"[.!?…。！？][\"')\]]*\s*$")  # noqa: RUF001  # full-width marks end sentences too


class TokenShaper:
    """Passes text on as it comes: for voices that find the clauses themselves."""

    def __init__(self) -> None:
        self._position = 0

    def feed(self, text: str) -> tuple[Piece, ...]:
        """One piece per call."""
        start = self._position
        self._position += len(text)
        # Ten tokens come for every one that ends something: look at the pattern only then.
        ends = not text.isalnum() and not text[1:].isalnum() and _SENTENCE_END.search(text) is not None
        return (Piece(text, start, self._position, ends),)

    def flush(self) -> tuple[Piece, ...]:
        """Nothing is ever held back."""
        return ()


# Words after which a full stop does not end a sentence.
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st no vs etc e.g i.e approx dept est inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec".split()  # noqa: E501, SIM905
)
_BOUNDARY = re.compile(r"[.!?…]+[\"')\]]*\s+|\n+|[。！？]")  # noqa: RUF001
_CLAUSE = re.compile(r"[,;:–—]\s+")  # noqa: RUF001  # dashes join clauses
_LAST_WORD = re.compile(r"([\w.]+)\.[\"')\]]*\s*$")


class SentenceShaper:
    """Holds text until a sentence is whole; only the first piece may be a clause, to be heard sooner."""

    def __init__(self, *, first_clause_chars: int = 24, max_chars: int = 300) -> None:
        self._first_clause_chars = first_clause_chars
        self._max_chars = max_chars
        self._buffer = ""
        self._position = 0
        self._first = True

    def feed(self, text: str) -> tuple[Piece, ...]:
        """Take text; return every sentence that it completes."""
        self._buffer += text
        pieces: list[Piece] = []
        while (cut := self._cut()) is not None:
            pieces.append(self._take(*cut))
        return tuple(pieces)

    def flush(self) -> tuple[Piece, ...]:
        """Return what is left."""
        if not self._buffer.strip():
            return ()
        return (self._take(len(self._buffer), True),)

    def _cut(self) -> tuple[int, bool] | None:
        sentence = self._sentence_end()
        clause = self._first_clause() if self._first else None
        if clause is not None and (sentence is None or clause < sentence):
            return clause, False
        if sentence is not None:
            return sentence, True
        if len(self._buffer) > self._max_chars:
            space = self._buffer.rfind(" ", 0, self._max_chars)
            return (space + 1 if space > 0 else self._max_chars), False
        return None

    def _sentence_end(self) -> int | None:
        for match in _BOUNDARY.finditer(self._buffer):
            head = self._buffer[: match.end()]
            word = _LAST_WORD.search(head)
            if head.strip() and (word is None or word[1].lower() not in _ABBREVIATIONS):
                return match.end()
        return None

    def _first_clause(self) -> int | None:
        ends = (match.end() for match in _CLAUSE.finditer(self._buffer))
        return next((end for end in ends if end >= self._first_clause_chars), None)

    def _take(self, size: int, ends_sentence: bool) -> Piece:
        spoken, self._buffer = self._buffer[:size], self._buffer[size:]
        start = self._position
        self._position += size
        self._first = False
        return Piece(spoken, start, self._position, ends_sentence)


def shaper_for(text: Literal["tokens", "sentences"]) -> Shaper:
    """A new shaper for a voice that takes its text like this."""
    return TokenShaper() if text == "tokens" else SentenceShaper()
