"""Tells the echo of our own voice, which the caller's line brings back as speech, from the caller. Pure."""

from __future__ import annotations

import re
from collections import deque
from difflib import SequenceMatcher
from math import inf
from typing import Protocol

from dialog.message import Utterance

__all__ = ["Echo", "OwnSpeech"]

_KEPT_S = 60.0
"""Longer than what one utterance can be the echo of."""
_KEPT_TEXTS = 300
_KEPT_STRETCHES = 8
_SHORTEST = 3
"""Words that an utterance needs to be dropped: a caller who repeats one or two of ours answers."""
_ALIKE = 0.75
"""How many of its words must be ours, in our order."""
_EARLY_MS = 50.0
"""So much later than it began we may be told that we are heard."""
_NEAR_MS = 500.0
"""So exact are the times of words: ours are told four times a second, the recogniser's are near the truth."""
_LATE_MS = 1000.0
"""Where the recogniser knows no times, an utterance counts as said when its words came: so much later, at most."""
_KEPT_MS = 15_000.0
"""Longer than any audio that is heard again is old."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class Echo:
    """What was heard of us and when; times in ms on the call's audio clock.

    Args:
        discard_ms: An utterance may end so long after our own speech and still be its echo.
    """

    def __init__(self, discard_ms: float = 400.0) -> None:
        self._discard_ms = discard_ms
        self._ours: deque[tuple[float, str]] = deque(maxlen=_KEPT_TEXTS)
        self._stretches: deque[tuple[float, float]] = deque(maxlen=_KEPT_STRETCHES)
        """From when to when we were heard."""

    @property
    def active(self) -> bool:
        """Whether we have spoken at all, and said what."""
        return bool(self._ours)

    def set_speaking(self, speaking: bool, text: str, at_ms: float) -> None:
        """See :meth:`dialog.stt.stt.STT.set_speaking`."""
        from_ms, until_ms = self._stretches[-1] if self._stretches else (0.0, -inf)
        if speaking and until_ms < at_ms - self._discard_ms:
            self._stretches.append((at_ms, inf))
        elif speaking or until_ms == inf:
            self._stretches[-1] = (from_ms, inf if speaking else at_ms)
        if text:
            self._ours.append((at_ms, text))
            while self._ours[0][0] < at_ms - _KEPT_S * 1000.0:
                self._ours.popleft()

    def repeats(self, utterance: Utterance, *, timed: bool = True) -> bool:
        """Whether all that was said so far can be our echo; the words that come will tell.

        ``timed``: when it was said is known, and not only when its words came.
        """
        late_ms = 0.0 if timed else _LATE_MS
        return self._overlaps(utterance, late_ms) and self._alike(utterance, late_ms)

    def is_echo(self, utterance: Utterance, *, timed: bool = True) -> bool:
        """Whether a finished utterance is our echo."""
        late_ms = 0.0 if timed else _LATE_MS
        if not self._overlaps(utterance, late_ms) or not self._alike(utterance, late_ms, at_least=_SHORTEST):
            return False
        # Who answers with our words begins after us, which is all that can be told without times.
        return timed or any(utterance.at_ms <= until_ms + self._discard_ms for _, until_ms in self._stretches)

    def _overlaps(self, utterance: Utterance, late_ms: float) -> bool:
        """It began while we were heard, not before, and ended soon enough."""
        begins_ms, ends_ms = utterance.at_ms + _EARLY_MS, utterance.end_ms - self._discard_ms - late_ms
        return any(from_ms <= begins_ms and ends_ms <= until_ms for from_ms, until_ms in self._stretches)

    def _alike(self, utterance: Utterance, late_ms: float, *, at_least: int = 1) -> bool:
        """It has so many words at least, and most of them are ours."""
        said = _words(utterance.data)
        if len(said) < at_least:
            return False
        needed = _ALIKE * len(said)
        from_ms = utterance.at_ms - self._discard_ms - _NEAR_MS - late_ms
        until_ms = utterance.end_ms + _NEAR_MS
        near: list[str] = []
        for at_ms, text in reversed(self._ours):
            if at_ms < from_ms:
                break
            if at_ms <= until_ms:
                near.append(text)
        told = " ".join(reversed(near)).casefold()
        # More is looked at only when enough of them are ours: a caller who says something else waits for this.
        if sum([word in told for word in said]) < needed:
            return False
        ours = _WORD.findall(told)
        if _in_common(said, ours) < needed:
            return False
        matcher = SequenceMatcher(None, said, ours, autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
        return same >= needed


class _Told(Protocol):
    def set_speaking(self, speaking: bool, text: str, at_ms: float) -> None: ...


class OwnSpeech:
    """The last seconds of what was heard of us, for a recogniser that takes over."""

    def __init__(self) -> None:
        self._told: deque[tuple[bool, str, float]] = deque()

    def add(self, speaking: bool, text: str, at_ms: float) -> None:
        """What every recogniser is told; see :meth:`dialog.stt.stt.STT.set_speaking`."""
        self._told.append((speaking, text, at_ms))
        while self._told[0][2] < at_ms - _KEPT_MS:
            self._told.popleft()

    def tell(self, stt: _Told) -> None:
        """Tell ``stt`` all of it."""
        for told in self._told:
            stt.set_speaking(*told)


def _in_common(some: list[str], others: list[str]) -> int:
    """How many words are in both, whatever their order."""
    left: dict[str, int] = {}
    for word in others:
        left[word] = left.get(word, 0) + 1
    count = 0
    for word in some:
        if left.get(word):
            left[word] -= 1
            count += 1
    return count


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
