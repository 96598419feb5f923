"""Words of the caller, compared by what was said and not by how it was written down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dialog.message import Utterance

__all__ = ["FAREWELLS", "consists_of", "joined", "same_words", "spoken"]

FAREWELLS: tuple[str, ...] = (
    "bye",
    "bye-bye",
    "goodbye",
    "good bye",
    "good night",
    "have a good day",
    "have a nice day",
    "have a great day",
    "see you",
    "see you then",
    "see you later",
    "take care",
    "thanks",
    "thanks a lot",
    "thank you",
    "thank you very much",
    "thank you so much",
    "very much",
    "you too",
    "same to you",
    "okay",
    "ok",
    "alright",
    "all right",
    "great",
    "perfect",
    "cheers",
)
"""What English speakers say over a goodbye without wanting the call to go on."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def spoken(text: str) -> tuple[str, ...]:
    """The words of ``text`` without case and punctuation; a hyphen parts words."""
    return tuple(_WORD.findall(text.lower().replace("\u2019", "'")))


def joined(utterances: Sequence[Utterance]) -> str:
    """What several utterances say together."""
    return " ".join(utterance.data.strip() for utterance in utterances)


def same_words(one: Sequence[Utterance], other: Sequence[Utterance]) -> bool:
    """Whether both say the same, however each was cut into utterances."""
    return spoken(joined(one)) == spoken(joined(other))


def consists_of(text: str, phrases: tuple[str, ...]) -> bool:
    """Whether ``text`` is made of nothing but ``phrases``, in any order and number."""
    words = spoken(text)
    if not words or not phrases:
        return False
    known = _phrases(phrases)
    reachable = [True] + [False] * len(words)
    for end in range(1, len(words) + 1):
        reachable[end] = any(
            reachable[end - len(phrase)] and words[end - len(phrase) : end] == phrase
            for phrase in known
            if len(phrase) <= end
        )
    return reachable[-1]


@lru_cache(maxsize=64)
def _phrases(phrases: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(words for words in map(spoken, phrases) if words)
