"""How much of a part's text its audio covers, for another voice to go on from there. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dialog.message import Word

__all__ = ["Coverage", "SpokenRate"]

_SEARCH = 40
"""How far behind the last word the next one is looked for, in characters."""
_CAUTION = 0.85
"""A clause is better said twice than not at all: the rate is only learnt."""
_BETWEEN = " \n\t.!?…;:,"
_CLAUSE = re.compile(r"[.!?…;:,](?=\s)|\n")


class SpokenRate:
    """Milliseconds of audio for a character of text, learnt from parts that were spoken to their end."""

    def __init__(self) -> None:
        self.ms_per_char: float = 1000.0 / 15.0
        self._learnt = False

    def learn(self, chars: int, audio_ms: float) -> None:
        """So long a text lasted so long."""
        if chars < 10 or audio_ms <= 0:
            return
        heard = audio_ms / chars
        self.ms_per_char = 0.7 * self.ms_per_char + 0.3 * heard if self._learnt else heard
        self._learnt = True


class Coverage:
    """What one voice was given to say of a part, and how far it got."""

    def __init__(self, text: str = "") -> None:
        self.text: str = text
        self.audio_ms: float = 0.0
        self._cursor = 0
        self._timed = False

    def timings(self, words: Iterable[Word]) -> None:
        """These words are spoken."""
        for word in words:
            self._timed = True
            at = self.text.find(word.text, self._cursor, self._cursor + len(word.text) + _SEARCH)
            if at >= 0:
                self._cursor = at + len(word.text)
            else:  # spoken otherwise than written: the next written word stands for it
                rest = self.text[self._cursor :]
                written = rest.split(maxsplit=1)
                self._cursor = len(self.text) - len(rest.lstrip()) + (len(written[0]) if written else 0)

    def rest(self, rate: SpokenRate) -> str:
        """The text that another voice has to say.

        By the times of the words, if they were told; else from the start of the first clause whose end the
        audio does not reach at the ``rate``.
        """
        if not self.audio_ms:
            return self.text
        if self._timed:
            return self._after(self._cursor)
        said = self.audio_ms / rate.ms_per_char * _CAUTION
        start = 0
        for clause in _CLAUSE.finditer(self.text):
            if clause.end() > said:
                break
            start = clause.end()
        return self._after(start)

    def _after(self, start: int) -> str:
        rest = self.text[start:]
        # What is left of a sentence but its full stop is nothing to say.
        return rest.lstrip(_BETWEEN) if any(char.isalnum() for char in rest) else ""
