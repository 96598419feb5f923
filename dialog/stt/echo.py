"""Tells the echo of our own voice, which the caller's line brings back as speech, from the caller. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from math import inf

from dialog.message import Utterance

__all__ = ["Echo", "OwnSpeech"]

_KEPT_S = 60.0
"""Longer than what one utterance can be the echo of."""
_KEPT_TEXTS = 300
_KEPT_STRETCHES = 16
"""More than a minute of ours has, but for pauses that do not count."""
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
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


class OwnSpeech:
    """What the caller has heard of us within the last minute, and when; times in ms on the call's audio clock.

    Who follows the line writes it, recognisers read it when they have heard something: most of what is said is
    never asked for.
    """

    def __init__(self) -> None:
        self.look: Callable[[], None] | None = None
        """Called before :meth:`words` is read: whoever writes may put off :meth:`heard` until then."""
        self._words: deque[tuple[float, str]] = deque(maxlen=_KEPT_TEXTS)
        self._stretches: deque[tuple[float, float]] = deque(maxlen=_KEPT_STRETCHES)

    @property
    def stretches(self) -> Sequence[tuple[float, float]]:
        """From when to when we were heard, the oldest first; while we are, the last one has no end."""
        return self._stretches

    def sounds(self, sounding: bool, at_ms: float) -> None:
        """From ``at_ms`` on the caller hears us, or does not any more."""
        open_since, until_ms = self._stretches[-1] if self._stretches else (0.0, -inf)
        if sounding and until_ms < inf:
            self._stretches.append((at_ms, inf))
        elif not sounding and until_ms == inf:
            self._stretches[-1] = (open_since, at_ms)

    def heard(self, text: str, at_ms: float) -> None:
        """The caller has heard ``text`` at ``at_ms``, as it is spoken; later calls are about later times."""
        self._words.append((at_ms, text))
        while self._words[0][0] < at_ms - _KEPT_S * 1000.0:
            self._words.popleft()

    def words(self, from_ms: float, until_ms: float) -> str:
        """What was heard of us from ``from_ms`` to ``until_ms``."""
        if self.look is not None:
            self.look()
        near: list[str] = []
        for at_ms, text in reversed(self._words):
            if at_ms < from_ms:
                break
            if at_ms <= until_ms:
                near.append(text)
        return " ".join(reversed(near))


class Echo:
    """Tells which utterances repeat what the caller has heard of us.

    Args:
        discard_ms: An utterance may end so long after our own speech and still be its echo.
    """

    def __init__(self, discard_ms: float = 400.0) -> None:
        self._discard_ms = discard_ms

    def repeats(self, utterance: Utterance, own: OwnSpeech | None, *, timed: bool = True) -> bool:
        """Whether all that was said so far can be our echo; the words that come will tell.

        ``timed``: when it was said is known, and not only when its words came.
        """
        late_ms = 0.0 if timed else _LATE_MS
        return own is not None and self._overlaps(utterance, own, late_ms) and self._alike(utterance, own, late_ms)

    def is_echo(self, utterance: Utterance, own: OwnSpeech | None, *, timed: bool = True) -> bool:
        """Whether a finished utterance is our echo."""
        late_ms = 0.0 if timed else _LATE_MS
        if own is None or not self._overlaps(utterance, own, late_ms):
            return False
        if not self._alike(utterance, own, late_ms, at_least=_SHORTEST):
            return False
        # Who answers with our words begins after us, which is all that can be told without times.
        return timed or utterance.at_ms <= own.stretches[-1][1] + self._discard_ms

    def _overlaps(self, utterance: Utterance, own: OwnSpeech, late_ms: float) -> bool:
        """It began while we were heard, not before, and ended soon enough; a short pause of ours does not count."""
        begins_ms, ends_ms = utterance.at_ms + _EARLY_MS, utterance.end_ms - self._discard_ms - late_ms
        last_ms = begun_ms = -inf
        for from_ms, until_ms in reversed(own.stretches):
            if begun_ms - until_ms > self._discard_ms or last_ms == -inf:
                last_ms = until_ms
                if ends_ms > last_ms:
                    return False  # and those before ended even earlier
            if from_ms <= begins_ms:
                return True
            begun_ms = from_ms
        return False

    def _alike(self, utterance: Utterance, own: OwnSpeech, late_ms: float, *, at_least: int = 1) -> bool:
        """It has so many words at least, and most of them are ours."""
        said = _words(utterance.data)
        if len(said) < at_least:
            return False
        needed = _ALIKE * len(said)
        from_ms = utterance.at_ms - self._discard_ms - _NEAR_MS - late_ms
        told = own.words(from_ms, utterance.end_ms + _NEAR_MS).casefold()
        # More is looked at only when enough of them are ours: a caller who says something else waits for this.
        if sum([word in told for word in said]) < needed:
            return False
        ours = _WORD.findall(told)
        if _in_common(said, ours) < needed:
            return False
        matcher = SequenceMatcher(None, said, ours, autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
        return same >= needed


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
