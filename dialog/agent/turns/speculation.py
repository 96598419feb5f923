"""A reply that is prepared before the caller has certainly finished."""

from __future__ import annotations

from uuid import UUID

from dialog.agent.turns.decisions import Decision, Drop, Infer
from dialog.agent.turns.running import RunningTurn
from dialog.agent.turns.wording import same_words
from dialog.message import Utterance

__all__ = ["Speculation"]

_TRIES = 2
"""Replies that are begun in vain for one utterance: a caller who stops and goes on must not cost a dozen."""


class Speculation:
    """At most one reply at a time answers what the caller has probably said.

    It becomes the reply if that, word for word, is what they said.
    """

    def __init__(self) -> None:
        self.running: RunningTurn | None = None
        self._suggested: tuple[Utterance, ...] = ()
        self._said: tuple[Utterance, ...] = ()
        """What the running reply takes for the caller's words."""
        self._tries = 0

    def suggest(self, utterances: tuple[Utterance, ...]) -> list[Decision]:
        """The caller has probably said ``utterances``: begin once the floor is free."""
        if self.running is not None:
            if same_words(self._said, utterances):
                return []
            decisions = self.drop("the caller said more")
        else:
            decisions = []
        self._suggested = utterances
        return decisions

    def begin(self, waiting: tuple[Utterance, ...]) -> list[Decision]:
        """The floor is free: begin what was suggested, together with what waits for an answer."""
        suggested, self._suggested = self._suggested, ()
        if not suggested or self.running is not None or self._tries >= _TRIES:
            return []
        self._tries += 1
        self._said = suggested
        self.running = RunningTurn(suggested[-1].uuid, (*waiting, *suggested))
        return [Infer(self.running.turn, self.running.utterances, speculative=True)]

    def heard(self, said: tuple[Utterance, ...]) -> list[Decision]:
        """These are the caller's words by now: what was begun for others is given up."""
        if self._suggested and not same_words(self._suggested, said):
            self._suggested = ()
        if self.running is None or same_words(self._said, said):
            return []
        return self.drop("the caller said more")

    def withdraw(self, uuid: UUID) -> list[Decision]:
        """The caller has not finished the utterance after all."""
        if self._suggested and self._suggested[-1].uuid == uuid:
            self._suggested = ()
        if self.running is None or self.running.turn != uuid:
            return []
        return self.drop("eager end withdrawn")

    def settle(self, utterances: tuple[Utterance, ...]) -> tuple[RunningTurn | None, list[Decision]]:
        """The caller has finished: the turn that answers just this, else what becomes of it."""
        self._tries = 0
        self._suggested = ()
        running = self.running
        if running is None:
            return None, []
        if running.turn != utterances[-1].uuid or not same_words(running.utterances, utterances):
            return None, self.drop("the caller said something else")
        self.running = None
        running.utterances = utterances
        return running, []

    def drop(self, reason: str) -> list[Decision]:
        """Give it up."""
        self._suggested = ()
        running, self.running = self.running, None
        return [] if running is None else [Drop(running.turn, reason)]
