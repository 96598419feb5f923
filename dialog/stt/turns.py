"""The base of recognisers that tell, again and again, all that was said in the turn so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialog.message import Word
from dialog.stt.segments import Segment
from dialog.stt.streaming import StreamingSTT

__all__ = ["PlacedWords", "TurnSTT"]

_LONGEST_WORD_MS = 300.0
"""A word that is told after a pause did not begin with the pause."""

_SILENCE_MS = 500.0
"""Services end a turn after at least so much silence, or tell of it so late."""


class PlacedWords:
    """Gives the words of a turn times where the service tells none: when they were heard of first. Pure."""

    def __init__(self) -> None:
        self._words: list[Word] = []

    def place(self, texts: Sequence[str], until_ms: float, *, from_ms: float = float("-inf")) -> tuple[Word, ...]:
        """All words of the turn; the new ones were said between ``from_ms``, or the last known, and ``until_ms``."""
        words = self._words
        del words[len(texts) :]
        for index, known in enumerate(words):
            if known.text != texts[index]:  # revised: it was said where it was
                words[index] = Word(text=texts[index], start_ms=known.start_ms, end_ms=known.end_ms)
        new = texts[len(words) :]
        if new:
            from_ms = max(from_ms, words[-1].end_ms if words else from_ms, until_ms - _LONGEST_WORD_MS * len(new))
            each = max(0.0, until_ms - from_ms) / len(new)
            end_ms = max(until_ms, from_ms)
            words += [
                Word(text=text, start_ms=end_ms - each * left, end_ms=end_ms - each * (left - 1))
                for text, left in zip(new, range(len(new), 0, -1), strict=True)
            ]
        return tuple(words)

    def clear(self) -> None:
        """Another turn begins."""
        self._words.clear()


class TurnSTT(StreamingSTT):
    """A recogniser that tells the whole text of a turn with every message; see :class:`StreamingSTT`.

    A provider calls :meth:`_turn` with the text so far, and :meth:`_turn_ended` when the service thinks that
    the turn is over. Where the service tells no times, the audio that was sent by then stands in for them.
    """

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self._placed = PlacedWords()
        self._turn_from_ms = float("-inf")

    @property
    def _silent_ms(self) -> float:
        """Where it was silent, now that a turn has ended: the audio behind it may hold the next one already."""
        if self._finalizing is not None and self.finalize_with:
            return self._asked_ms
        return self._sent.until_ms - _SILENCE_MS

    def _forget(self) -> None:
        self._next_turn()

    def _turn_began(self, at_ms: float | None = None) -> None:
        """Speech began at ``at_ms``, or now."""
        self._next_turn()
        self._turn_from_ms = self._sent.until_ms if at_ms is None else at_ms
        self._speech_started(self._turn_from_ms)

    def _turn(
        self,
        text: str,
        *,
        until_ms: float | None = None,
        words: tuple[Word, ...] = (),
        language: str | None = None,
        last: bool = False,
    ) -> None:
        """All that was said in the turn up to ``until_ms`` (or until now), with its words if they have times."""
        text = text.strip()
        if not text and not last:
            return
        self._tells_words = self._knows_times = bool(words)
        placed = words or self._placed.place(
            text.split(), self._sent.until_ms if until_ms is None else until_ms, from_ms=self._turn_from_ms
        )
        start_ms = placed[0].start_ms if placed else self._safe_ms
        end_ms = until_ms
        if end_ms is None:
            end_ms = max(placed[-1].end_ms if placed else self._safe_ms, self._silent_ms if last else 0.0)
        confidences = [word.confidence for word in placed if word.confidence is not None]
        segment = Segment(
            text=text,
            start_ms=start_ms,
            end_ms=end_ms,
            words=placed,
            language=language,
            confidence=sum(confidences) / len(confidences) if confidences else None,
        )
        self._segment(segment, final=last, last=last)

    def _turn_ended(
        self,
        text: str,
        *,
        until_ms: float | None = None,
        words: tuple[Word, ...] = (),
        language: str | None = None,
    ) -> None:
        """The turn is over, and this was said in it."""
        self._turn(text, until_ms=until_ms, words=words, language=language, last=True)
        self._next_turn()

    def _next_turn(self) -> None:
        self._placed.clear()
        self._turn_from_ms = float("-inf")
