"""What the caller said to a model that hears: its words are often known long after the turn that answers them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from msgspec.structs import replace

from dialog.agent.draft import Draft
from dialog.message import Utterance
from dialog.recent import Recent

__all__ = ["CallerWords"]

_REMEMBERED = 64


class CallerWords:
    """Knows of every utterance whether it has ended, what was said, and which turn answers it."""

    def __init__(self) -> None:
        self._words: Recent[UUID, str] = Recent(_REMEMBERED)
        self._told: Recent[UUID, None] = Recent(_REMEMBERED)
        """Utterances that turn taking knows of."""
        self._doubtful: Recent[UUID, Utterance] = Recent(_REMEMBERED)
        self._typed: set[UUID] = set()
        self._drafts: Recent[UUID, tuple[Draft, tuple[UUID, ...]]] = Recent(_REMEMBERED)
        """Of every turn: the utterances that it answers."""

    @property
    def owed(self) -> bool:
        """The words of some utterance are still to come."""
        return any(uuid not in self._words for uuid in (*self._told, *self._doubtful))

    def text(self, uuid: UUID) -> str:
        """What was said, as far as it is known."""
        return self._words.get(uuid, "")

    def worded(self, utterances: tuple[Utterance, ...]) -> tuple[Utterance, ...]:
        """The same, with their words as far as they are known by now."""
        return tuple(replace(each, data=self._words.get(each.uuid, each.data)) for each in utterances)

    # -- utterances

    def typed(self, utterance: Utterance) -> None:
        """One that the model does not hear, unless its words came from the model."""
        if utterance.uuid not in self._words:
            self._typed.add(utterance.uuid)
            self._words[utterance.uuid] = utterance.data.strip()

    def take_typed(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Those that the model has to be told."""
        typed = [each for each in utterances if each.uuid in self._typed]
        self._typed.difference_update(each.uuid for each in typed)
        return typed

    def tell(self, uuid: UUID) -> None:
        """Turn taking is told that this one has ended."""
        self._told[uuid] = None

    def is_told(self, uuid: UUID) -> bool:
        """Whether it was."""
        return uuid in self._told

    def doubt(self, utterance: Utterance) -> None:
        """It was said over a reply, and nobody knows yet whether it is words or a cough."""
        self._doubtful[utterance.uuid] = utterance

    # -- words

    def come(self, uuid: UUID, text: str) -> bool:
        """The words of an utterance; whether they were waited for, to know what to do about it."""
        self._words[uuid] = text
        return self._doubtful.pop(uuid, None) is not None

    def answered(self, turn: UUID, draft: Draft, utterances: Iterable[Utterance]) -> None:
        """A turn answers these."""
        self._drafts[turn] = (draft, tuple(each.uuid for each in utterances))

    def questions(self, uuid: UUID) -> list[tuple[UUID, Draft]]:
        """Put the words of an utterance where it was answered; the turns whose question is other now."""
        changed: list[tuple[UUID, Draft]] = []
        for turn, (draft, answered) in self._drafts.items():
            if uuid in answered and not (draft.state == "dropped" and not draft.started):
                draft.hear(" ".join(filter(None, map(self.text, answered))))
                changed.append((turn, draft))
        return changed
