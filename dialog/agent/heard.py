"""From milliseconds that were heard to the words of the reply that were heard."""

from __future__ import annotations

import re

from dialog.agent.shaping import Piece
from dialog.message import Word

__all__ = ["HeardMap", "SpeechRate"]

_WORD = re.compile(r"\S+")
_NOT_A_WORD = re.compile(r"[^\w]+")


class SpeechRate:
    """Characters a voice speaks per second, learnt from the parts it has finished."""

    def __init__(self, chars_per_s: float = 15.0) -> None:
        self.chars_per_s: float = chars_per_s

    def learn(self, chars: int, ms: float) -> None:
        """A part of ``chars`` characters took ``ms``."""
        if chars >= 10 and ms >= 500:
            self.chars_per_s += 0.3 * (chars * 1000.0 / ms - self.chars_per_s)


class _TimedWord:
    __slots__ = ("end", "end_ms", "middle_ms", "start_ms")

    def __init__(self, start_ms: float, end_ms: float, end: int) -> None:
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.middle_ms = (start_ms + end_ms) / 2
        self.end = end
        """Where the word ends in the reply's text."""


class HeardMap:
    """What of one part's text its audio speaks, as far as pieces and word timings tell.

    A word counts as heard when half of it was. A piece that is spoken otherwise than it is written
    ("$5" as "five dollars") counts as a whole. Without timings the position is estimated from the
    voice's rate, or from the share of the audio once all of it is known.
    """

    def __init__(self, rate: SpeechRate) -> None:
        self._rate = rate
        self._pieces: list[Piece] = []
        self._spoken = ""
        self._cursor = 0
        self._timed: list[_TimedWord] = []
        self._source_end = 0

    @property
    def timed(self) -> bool:
        """Word timings have come."""
        return bool(self._timed)

    def post(self, piece: Piece) -> None:
        """The voice was given ``piece``."""
        self._pieces.append(piece)
        self._spoken += piece.spoken
        self._source_end = piece.end

    def align(self, words: tuple[Word, ...]) -> None:
        """The voice told when it speaks these words.

        They are looked for in the text in their order, without regard to case and punctuation; a word
        that is not found (a normalised number, markup) leaves its neighbours to tell.
        """
        for word in words:
            needle = _NOT_A_WORD.sub("", word.text).casefold()
            if not needle:
                continue
            match = self._find(needle)
            if match is None:
                continue
            self._cursor = match[1]
            self._timed.append(_TimedWord(word.start_ms, word.end_ms, self._source_position(match[1])))

    def heard(self, heard_ms: float, total_ms: float | None) -> int:
        """How many characters of the reply's text were heard; ``total_ms``: all audio of the part, once known."""
        if heard_ms <= 0 or not self._pieces:
            return 0
        if self._timed:
            end = 0
            for word in self._timed:
                if word.middle_ms > heard_ms:
                    break
                end = word.end
            return end
        if heard_ms < 250:
            # Too little for a word, as far as anybody can tell.
            return 0
        if total_ms:
            chars = len(self._spoken) * min(1.0, heard_ms / total_ms)
        else:
            chars = heard_ms / 1000.0 * self._rate.chars_per_s
        return self._source_position(self._word_end(int(chars)))

    def word_start_ms(self, heard_ms: float) -> float:
        """Where the word starts that is being spoken at ``heard_ms``; without timings ``heard_ms`` itself."""
        for word in self._timed:
            if word.start_ms <= heard_ms < word.end_ms:
                return word.start_ms
        return heard_ms

    def sentence_end_ms(self, after_ms: float, limit_ms: float) -> float | None:
        """Where the first sentence ends at or after ``after_ms``; ``None``: not before ``limit_ms``, or unknown."""
        for word in self._timed:
            if after_ms <= word.end_ms <= limit_ms and self._ends_sentence(word.end):
                return word.end_ms
        return None

    def _ends_sentence(self, end: int) -> bool:
        return any(
            piece.ends_sentence and len(piece.spoken.rstrip()) + piece.start <= end <= piece.end
            for piece in self._pieces
        )

    def _find(self, needle: str) -> tuple[int, int] | None:
        """The first word from the cursor on that is ``needle``; looks a few words ahead, not further."""
        for index, match in enumerate(_WORD.finditer(self._spoken, self._cursor)):
            if index >= 8:
                return None
            word = _NOT_A_WORD.sub("", match[0]).casefold()
            if word == needle:
                return match.span()
            at = match[0].casefold().find(needle)
            if at >= 0 and index == 0:
                # The voice split what is one word for us ("well-known"): take the part of it.
                return match.start() + at, match.start() + at + len(needle)
        return None

    def _word_end(self, chars: int) -> int:
        """The end of the last whole word within ``chars`` spoken characters."""
        if chars >= len(self._spoken):
            return len(self._spoken)
        end = 0
        for match in _WORD.finditer(self._spoken):
            if match.end() > chars:
                break
            end = match.end()
        return end

    def _source_position(self, spoken_end: int) -> int:
        """Where the reply's text stands after ``spoken_end`` spoken characters."""
        position = 0
        for piece in self._pieces:
            end = position + len(piece.spoken)
            if spoken_end < end:
                if len(piece.spoken) == piece.end - piece.start:
                    return piece.start + max(0, spoken_end - position)
                whole = spoken_end >= position + len(piece.spoken.rstrip())
                return piece.end if whole else piece.start
            position = end
        return self._source_end
