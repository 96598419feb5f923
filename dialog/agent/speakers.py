"""Several people at the caller's end: who said what, as a model is told it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from dialog.message import Utterance

__all__ = ["Speakers"]

_UNKNOWN = "unknown"


class Speakers:
    """Who was heard in a call. Once there are several, their words are labelled.

    ``[speaker 0] A table, please. [speaker 1] For four.``

    One speaker alone needs no label, and what recognisers call him is nobody's business.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def text(self, utterances: Sequence[Utterance]) -> str:
        """What these utterances say, one after another, with labels where they are needed."""
        for utterance in utterances:
            self._known.update(utterance.speakers)
        if len(self._known) < 2:
            return " ".join([utterance.data.strip() for utterance in utterances])
        stretches = [stretch for utterance in utterances for stretch in _stretches(utterance)]
        if all(speaker == _UNKNOWN for speaker, _ in stretches):
            return " ".join(text for _, text in stretches)
        return " ".join(
            f"[speaker {speaker}] {' '.join(text for _, text in said)}"
            for speaker, said in groupby(stretches, key=itemgetter(0))
        )

    @staticmethod
    def same(one: Sequence[Utterance], other: Sequence[Utterance]) -> bool:
        """Whether the same people speak in both, in the same order."""
        return _order(one) == _order(other)


def _order(utterances: Iterable[Utterance]) -> list[str]:
    stretches = (stretch for utterance in utterances for stretch in _stretches(utterance))
    return [speaker for speaker, _ in groupby(stretches, key=itemgetter(0))]


def _stretches(utterance: Utterance) -> Iterator[tuple[str, str]]:
    """Speaker and words, stretch by stretch."""
    speakers = utterance.speakers
    tokens = utterance.data.split()
    if len(speakers) < 2:
        yield (speakers[0] if speakers else _UNKNOWN), " ".join(tokens)
        return
    counts = [len(word.text.split()) for word in utterance.words]
    if sum(counts) != len(tokens):  # the text is written otherwise than its words: nobody knows whose is which
        yield " and ".join(speakers), " ".join(tokens)
        return
    at = 0
    for speaker, words in groupby(zip(utterance.words, counts, strict=True), key=lambda pair: pair[0].speaker):
        end = at + sum(count for _, count in words)
        yield speaker or _UNKNOWN, " ".join(tokens[at:end])
        at = end
