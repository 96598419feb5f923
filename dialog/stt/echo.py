"""Tells the echo of our own voice, which the caller's line brings back as speech, from the caller. Pure."""

from __future__ import annotations

import re
from collections import deque
from difflib import SequenceMatcher

from dialog.message import Utterance

__all__ = ["Echo"]

_KEPT_WORDS = 300
_SHORTEST = 3
"""Words that an utterance needs to be dropped: a caller who repeats one or two of ours answers."""
_ALIKE = 0.75
"""How many of its words must be ours, in our order."""
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class Echo:
    """What we say and when; times in ms on the call's audio clock.

    Args:
        discard_ms: An utterance may end so long after our own speech and still be its echo.
    """

    def __init__(self, discard_ms: float) -> None:
        self._discard_ms = discard_ms
        self._ours: deque[str] = deque(maxlen=_KEPT_WORDS)
        self._speaking = False
        self._from_ms = 0.0
        self._until_ms = float("-inf")
        self.active = False
        """Whether we have spoken at all, and said what."""

    def set_speaking(self, speaking: bool, text: str, now_ms: float) -> None:
        """From ``now_ms`` on we say ``text`` (more of it, if we speak already), or nothing any more."""
        if speaking and not self._speaking and now_ms > self._until_ms + self._discard_ms:
            self._ours.clear()
            self._from_ms = now_ms
        if self._speaking and not speaking:
            self._until_ms = now_ms
        self._speaking = speaking
        self._ours.extend(_words(text))
        self.active = bool(self._ours)

    def repeats(self, utterance: Utterance) -> bool:
        """Whether all that was said so far can be our echo; the words that come will tell."""
        return self._overlaps(utterance) and self._alike(_words(utterance.data))

    def is_echo(self, utterance: Utterance) -> bool:
        """Whether a finished utterance is our echo."""
        if not self._overlaps(utterance):
            return False
        heard = _words(utterance.data)
        return len(heard) >= _SHORTEST and self._alike(heard)

    def _overlaps(self, utterance: Utterance) -> bool:
        if utterance.at_ms < self._from_ms:
            return False  # the caller spoke first
        return self._speaking or utterance.end_ms <= self._until_ms + self._discard_ms

    def _alike(self, heard: list[str]) -> bool:
        if not heard:
            return False
        matcher = SequenceMatcher(None, heard, list(self._ours), autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
        return same >= _ALIKE * len(heard)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
