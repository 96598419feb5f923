"""A closed list of sentences, written as patterns with slots: all that a small recogniser listens for.

::

    Grammar(
        patterns=("what are your opening hours on {day}", "goodbye and thank you"),
        slots={"day": ("monday", "tuesday")},
    )

stands for three sentences. Sentences of three words and more, which begin differently, are told
apart best.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["Grammar"]

_SLOT = re.compile(r"\{([a-z_]+)\}")
_WORDS = re.compile(r"[a-z]+(?:'[a-z]+)*(?: [a-z]+(?:'[a-z]+)*)*")
_LIMIT = 5000
"""Sentences in one grammar: beyond it, recognition is neither quick nor dependable."""


class Grammar(Struct, frozen=True):
    """The sentences that are understood.

    Args:
        patterns: Sentences in lower-case words, with ``{name}`` where a slot stands.
        slots: What each slot may be, one or more words each.
        pronunciations: Further ways to say a word, in the phones of the CMU dictionary
            (``"S IH K S"``): for accents, and for words that the dictionary lacks.

    Raises:
        ConfigurationError: A sentence has capitals, digits or punctuation, a slot is unknown or
            empty, or there are no or too many sentences.
    """

    patterns: tuple[str, ...]
    slots: dict[str, tuple[str, ...]] = {}
    pronunciations: dict[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ConfigurationError("a grammar needs at least one sentence")
        for pattern in self.patterns:
            for name in _SLOT.findall(pattern):
                if not self.slots.get(name):
                    raise ConfigurationError(f"grammar: slot {{{name}}} of {pattern!r} has no values")
            _check_words(_SLOT.sub("slot", pattern), pattern)
        for name, values in self.slots.items():
            for value in values:
                _check_words(value, f"{{{name}}}: {value}")
        count = sum(1 for _ in zip(self._expand(), range(_LIMIT + 1), strict=False))
        if count > _LIMIT:
            raise ConfigurationError(f"grammar: more than {_LIMIT} sentences; give it fewer slots or patterns")

    @staticmethod
    def of(phrases: Sequence[str] | Grammar) -> Grammar:
        """A grammar of plain sentences; a grammar stays as it is."""
        return phrases if isinstance(phrases, Grammar) else Grammar(tuple(phrases))

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every sentence, in the order of the patterns and without repetition."""
        return tuple(dict.fromkeys(self._expand()))

    @property
    def words(self) -> frozenset[str]:
        """Every word that occurs."""
        parts = [_SLOT.sub(" ", pattern) for pattern in self.patterns]
        parts += [value for pattern in self.patterns for name in _SLOT.findall(pattern) for value in self.slots[name]]
        return frozenset(word for part in parts for word in part.split())

    def jsgf(self) -> str:
        """The grammar in the Java Speech Grammar Format, slots as rules of their own."""
        lines = ["#JSGF V1.0;", "grammar sentences;"]
        lines += [f"<{name}> = {' | '.join(values)} ;" for name, values in self.slots.items() if values]
        patterns = " | ".join(_SLOT.sub(r"<\1>", pattern) for pattern in self.patterns)
        return "\n".join([*lines, f"public <sentence> = {patterns} ;", ""])

    def _expand(self) -> Iterator[str]:
        for pattern in self.patterns:
            names = _SLOT.findall(pattern)
            pieces = _SLOT.sub("{}", pattern)
            for values in product(*(self.slots[name] for name in names)):
                yield pieces.format(*values)


def _check_words(text: str, shown: str) -> None:
    if not _WORDS.fullmatch(text):
        raise ConfigurationError(
            f"grammar: {shown!r} must be lower-case words with single spaces, without digits or punctuation"
        )
