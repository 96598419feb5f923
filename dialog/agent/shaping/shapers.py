"""From the streamed text of a part to the pieces that its voice is given."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol

from dialog.agent.shaping.characters import Characters
from dialog.agent.shaping.filters import Chain, FilterFactory, split_stretch
from dialog.agent.shaping.markdown import Markdown
from dialog.agent.shaping.pieces import Piece, Stretch, make_piece
from dialog.agent.shaping.sentences import find_boundary
from dialog.agent.shaping.spoken import SpokenForms

__all__ = ["SentenceShaper", "Shaper", "TokenShaper", "default_filters", "shaper_for"]


class Shaper(Protocol):
    """Turns streamed text into pieces; pure, one per part."""

    def feed(self, text: str) -> tuple[Piece, ...]:
        """Take the next characters; return the pieces that are ready."""
        ...

    def flush(self) -> tuple[Piece, ...]:
        """No more text comes: return the rest."""
        ...


_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"')\]]*\s*\Z|\n\s*\Z")


class TokenShaper:
    """Passes text on as it comes, through the filters: for voices that find the clauses themselves."""

    __slots__ = ("_chain", "_end", "_silent")

    def __init__(self, filters: Sequence[FilterFactory] = ()) -> None:
        self._chain = Chain(filters)
        self._end = 0
        """Where the last piece ended."""
        self._silent: list[Stretch] = []
        """What is not spoken, before the next piece."""

    def feed(self, text: str) -> tuple[Piece, ...]:
        """One piece, or none if everything is held back or not spoken."""
        return self._pieces(self._chain.feed(text)) if text else ()

    def flush(self) -> tuple[Piece, ...]:
        """What the filters held back."""
        return self._pieces(self._chain.flush())

    def _pieces(self, stretches: Sequence[Stretch]) -> tuple[Piece, ...]:
        if len(stretches) == 1 and not self._silent:
            text, start, end, rewritten = stretches[0]
            if text and not rewritten and start == self._end:
                self._end = end
                return (Piece(text, start, end, _ends_sentence(text)),)
        if not any(stretch[0] for stretch in stretches):
            self._silent.extend(stretches)
            return ()
        piece = make_piece([*self._silent, *stretches], self._end, ends_sentence=False)
        self._silent.clear()
        self._end = piece.end
        return (Piece(piece.spoken, piece.start, piece.end, _ends_sentence(piece.spoken), piece.runs),)


def _ends_sentence(text: str) -> bool:
    # Ten tokens come for every one that ends something: look at the pattern only then.
    return not text.isalnum() and not text[1:].isalnum() and _SENTENCE_END.search(text) is not None


class SentenceShaper:
    """Holds text until a sentence is whole; only the first piece may be a clause, to be heard sooner.

    Args:
        filters: What the text passes through.
        first_clause_chars: The first piece may end with a clause of so many characters.
        first_join_chars: It may also end before "and", "because" and the like after so many.
        max_chars: A longer sentence is cut at a blank.
    """

    def __init__(
        self,
        filters: Sequence[FilterFactory] = (),
        *,
        first_clause_chars: int = 24,
        first_join_chars: int = 40,
        max_chars: int = 300,
    ) -> None:
        self._chain = Chain(filters)
        self._first_clause_chars = first_clause_chars
        self._first_join_chars = first_join_chars
        self._max_chars = max_chars
        self._stretches: deque[Stretch] = deque()
        self._buffer = ""
        """What the stretches say."""
        self._looked = 0
        """How far there is no boundary."""
        self._end = 0
        self._first = True

    def feed(self, text: str) -> tuple[Piece, ...]:
        """Take text; return every sentence that it completes."""
        return self._pieces(self._chain.feed(text)) if text else ()

    def flush(self) -> tuple[Piece, ...]:
        """Return what is left."""
        pieces = self._pieces(self._chain.flush())
        if not self._buffer.strip():
            return pieces
        return (*pieces, self._take(len(self._buffer), ends_sentence=True))

    def _pieces(self, stretches: Sequence[Stretch]) -> tuple[Piece, ...]:
        if not stretches:
            return ()
        self._stretches.extend(stretches)
        self._buffer += "".join(stretch[0] for stretch in stretches)
        pieces: list[Piece] = []
        while (cut := self._cut()) is not None:
            pieces.append(self._take(cut[0], ends_sentence=cut[1]))
        return tuple(pieces)

    def _cut(self) -> tuple[int, bool] | None:
        """Where the next piece ends, and whether its sentence does."""
        window = self._buffer[: self._max_chars]
        while True:
            kind, at = find_boundary(window, self._looked, clauses=self._first)
            if kind == "sentence":
                return at, True
            if (kind == "clause" and at >= self._first_clause_chars) or (
                kind == "join" and at >= self._first_join_chars
            ):
                return at, False
            self._looked = at
            if kind in ("wait", "end"):
                break
        if len(self._buffer) > self._max_chars:
            space = window.rfind(" ")
            return (space + 1 if space > 0 else self._max_chars), False
        return None

    def _take(self, size: int, *, ends_sentence: bool) -> Piece:
        self._buffer = self._buffer[size:]
        self._looked = 0
        self._first = False
        taken: list[Stretch] = []
        while size > 0:
            stretch = self._stretches.popleft()
            if len(stretch[0]) > size:
                stretch, rest = split_stretch(stretch, size)
                self._stretches.appendleft(rest)
            taken.append(stretch)
            size -= len(stretch[0])
        piece = make_piece(taken, self._end, ends_sentence=ends_sentence)
        self._end = piece.end
        return piece


def default_filters(*, normalizes: bool = True) -> tuple[FilterFactory, ...]:
    """What every reply passes through unless the agent's settings say otherwise.

    Args:
        normalizes: The voice reads numbers, dates and the like by itself.
    """
    return (Markdown, Characters) if normalizes else (Markdown, Characters, SpokenForms)


def shaper_for(
    text: Literal["tokens", "sentences"],
    filters: Sequence[FilterFactory] | None = None,
    *,
    normalizes: bool = True,
) -> Shaper:
    """A new shaper for a voice that takes its text like this.

    Args:
        text: What the voice's capabilities say.
        filters: What the text passes through, in this order; ``None``: :func:`default_filters`.
        normalizes: What the voice's capabilities say.
    """
    chosen = default_filters(normalizes=normalizes) if filters is None else filters
    return TokenShaper(chosen) if text == "tokens" else SentenceShaper(chosen)
