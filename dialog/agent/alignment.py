"""Words of the reply, words of the voice and the time of the audio: which belongs to which. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

from dialog.agent.shaping.pieces import Piece, Run

__all__ = ["Clock", "Letters", "Unit", "find_units", "runs_of", "word_end"]

# A character of Chinese, Japanese or Korean is a word; elsewhere blanks part words.
_CJK = "\u2e80-\u2fff\u3040-\u30ff\u3100-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}][^\w\s]*|[^\s{_CJK}]+")


# From the first letter to the last.
_LETTERS = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class Unit(Struct, gc=False):
    """Words of the reply that are heard together or not at all, and what of the spoken text they are."""

    source_end: int
    start: int
    end: int


class Letters:
    """The letters and digits of the spoken text, folded, and where each stands in it."""

    def __init__(self) -> None:
        self.text: str = ""
        self.places: list[int] = []
        self._length = 0
        self._starts: set[int] = set()
        self._ends: set[int] = set()

    def take(self, spoken: str) -> None:
        """``spoken`` has grown."""
        new: list[str] = []
        blank = not self._length or not spoken[self._length - 1].isalnum()
        for place in range(self._length, len(spoken)):
            char = spoken[place]
            if not char.isalnum():
                if not blank and char not in "'\u2019":
                    self._ends.add(len(self.places))
                    blank = True
                continue
            if blank or "\u2e80" <= char <= "\uffff":
                self._starts.add(len(self.places))
                self._ends.add(len(self.places))
            for folded in filter(str.isalnum, char.casefold()):
                new.append(folded)
                self.places.append(place)
            blank = False
        self._length = len(spoken)
        self.text += "".join(new)

    def find(self, needle: str, at: int, limit: int) -> int:
        """Where ``needle`` stands from ``at`` on, beginning before ``limit``, or -1; a whole word if there is one."""
        found = at - 1
        while 0 <= (found := self.text.find(needle, found + 1)) < limit:
            if (found == at or found in self._starts) and self._whole(found + len(needle)):
                return found
        # The voice split what is one word for us, and this is the beginning of it.
        return at if self.text.startswith(needle, at) else -1

    def _whole(self, end: int) -> bool:
        return end in self._ends or end >= len(self.text)


class Clock:
    """When a place of the spoken text sounds."""

    def __init__(
        self, anchors: list[tuple[int, float]], weights: list[float], tail: tuple[float, float, float]
    ) -> None:
        self._places = [place for place, _ in anchors]
        self._times = [at_ms for _, at_ms in anchors]
        self._weights = weights
        self._last, self._last_ms = anchors[-1]
        self._ms_each, self._pause_from_ms, self._pause_ms = tail

    def at(self, place: int) -> float:
        """Milliseconds of the part's audio at which ``place`` is reached; they rise with it."""
        weights = self._weights
        if place >= self._last:
            at_ms = self._last_ms + (weights[place] - weights[self._last]) * self._ms_each
            return at_ms + self._pause_ms if at_ms > self._pause_from_ms else at_ms
        after = bisect_right(self._places, place)
        start, end, start_ms = self._places[after - 1], self._places[after], self._times[after - 1]
        share = (weights[place] - weights[start]) / (weights[end] - weights[start])
        return start_ms + (self._times[after] - start_ms) * share


def runs_of(pieces: Iterable[Piece]) -> list[Run]:
    """The stretches of all pieces."""
    runs: list[Run] = []
    for piece in pieces:
        if piece.runs:
            runs += piece.runs
        elif piece.spoken:
            size = len(piece.spoken)
            runs.append(Run(size, piece.start, piece.end, size != piece.end - piece.start))
    return runs


def find_units(spoken: str, runs: Sequence[Run]) -> list[Unit]:
    """The words of ``spoken``, where one stretch speaks several of them as one, and where they end in the reply."""
    units: list[Unit] = []
    index = run_at = 0
    """The run that is looked at, and where it begins in what is spoken."""
    together_until = 0
    pending: int | None = None
    for match in _WORD.finditer(spoken):
        start, end = match.span()
        together = start < together_until
        # Marks take time, too, but a pause: it is behind the word.
        word = _LETTERS.search(match[0])
        first, last = (start + word.start(), start + word.end()) if word else (start, end)
        while True:
            run_end = run_at + runs[index].size
            if runs[index].rewritten and run_end > start:
                together_until = max(together_until, run_end)
            if run_end >= end:
                break
            index, run_at = index + 1, run_end
        run = runs[index]
        source_end = run.end if run.rewritten else run.start + end - run_at
        if run_end == end and index + 1 < len(runs):
            # Marks behind a word that are not spoken belong to it: the rest of a link.
            source_end = max(source_end, runs[index + 1].start)
        if together and units and pending is None:
            units[-1].end = last
            units[-1].source_end = max(units[-1].source_end, source_end)
            continue
        begin = first if pending is None else pending
        pending = None
        if source_end <= (units[-1].source_end if units else 0):
            pending = begin  # the beginning of a stretch that another piece completes
        else:
            units.append(Unit(source_end, begin, last))
    return units


def word_end(source: str, at: int) -> int:
    """The end of the word that ``at`` is in, or of the one before if less than half of it is before ``at``."""
    at = len(source[:at].rstrip())
    for match in _WORD.finditer(source, max(0, source.rfind(" ", 0, at))):
        start, end = match.span()
        if start >= at:
            break
        if end >= at:
            if not any(char.isalnum() for char in source[at:end]) or 2 * at > start + end:
                return end
            return len(source[:start].rstrip())
    return at
