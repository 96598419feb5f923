"""Which turn may speak: one at a time, the caller's utterances before the agent's own wishes."""

from __future__ import annotations

from collections import deque
from typing import Literal
from uuid import UUID

from dialog.agent.turns.decisions import Cut, Decision, Drop, GoOn, Infer, Overflow, Promote, Speak, Unanswered
from dialog.agent.turns.running import RunningTurn
from dialog.agent.turns.settings import BargeIn, Endpointing, TurnSettings
from dialog.agent.turns.signals import PartOpened
from dialog.agent.turns.speculation import Speculation
from dialog.message import Playback, Utterance

__all__ = ["Floor"]

_MAX_WAITING_CHARS = 4000
_MAX_SAYS = 32
_SENTENCE_S = 4.0
"""A turn that ends with its sentence has ended after this: the engine looks at most 3 s ahead."""


class Floor:
    """At most one turn speaks or prepares to; every utterance waits until it is answered.

    A turn holds the floor from its start until its last part was heard, cut or lost, so replies never
    overlap. Utterances that wait are answered together. A speculative turn holds nothing yet: it gets the
    floor by being promoted.
    """

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._turn: RunningTurn | None = None
        self._waiting: list[Utterance] = []
        self._says: deque[tuple[UUID, bool]] = deque()
        self._broken: list[UUID] = []
        """Turns that the line did not let finish, in their order: they go on when it is back."""
        self.speculation: Speculation = Speculation()
        self.down: bool = False
        """Media has stopped: what the caller said is answered when it flows again."""
        self.ending: bool = False
        """The call is being ended: what the caller still says is not answered."""
        self.closed: bool = False

    @property
    def turn(self) -> UUID | None:
        """The turn that has the floor."""
        return self._turn.turn if self._turn else None

    @property
    def free(self) -> bool:
        """Nobody speaks, prepares to, or waits to."""
        return self.silent and not self._waiting and self.speculation.running is None

    @property
    def silent(self) -> bool:
        """The agent has nothing to say."""
        return self._turn is None and not self._says and not self._broken

    @property
    def running(self) -> bool:
        """Some turn has the floor and has not been cut."""
        return self._turn is not None and not self._turn.cut

    @property
    def protected(self) -> bool:
        """Some of the turn that has the floor must be heard out."""
        return self._turn is not None and self._turn.protected

    @property
    def heard_out(self) -> bool:
        """The turn that has the floor has come to its own end."""
        return self._turn is not None and self._turn.over and not self._turn.cut

    @property
    def barge_in(self) -> BargeIn:
        """What the caller's speech does to the turn that has the floor."""
        return self._turn.barge_in(self._settings) if self._turn else self._settings.barge_in

    @property
    def endpointing(self) -> Endpointing | None:
        """How the turn that has the floor wants the end of the answer to be found."""
        return self._turn.endpointing if self._turn else None

    @property
    def deadline(self) -> float | None:
        """When to stop waiting for what was heard of a cut turn."""
        turn = self._turn
        if turn is None or not turn.cut:
            return None
        if turn.cut == "sentence":
            return turn.cut_at + _SENTENCE_S
        return turn.cut_at + self._settings.settle_s if self._waiting and not turn.protected else None

    def has(self, turn_id: UUID) -> bool:
        """Whether the turn speaks, prepares to, waits to, or is to go on."""
        running = self.speculation.running
        return (
            self.turn == turn_id
            or turn_id in self._broken
            or (running is not None and running.turn == turn_id)
            or any(turn == turn_id for turn, _ in self._says)
        )

    def wait(self, utterance: Utterance) -> list[Decision]:
        """Queue an utterance for the next answer; the oldest words go if there are too many."""
        self._waiting.append(utterance)
        return self._bound()

    def forget_waiting(self, more: tuple[Utterance, ...]) -> list[Decision]:
        """What waits for an answer, and ``more``, needs none."""
        forgotten = (*self._waiting, *more)
        self._waiting.clear()
        decisions = self.speculation.drop("discarded")
        return [*decisions, Unanswered(forgotten)] if forgotten else decisions

    def say(self, turn: UUID, *, allow_interrupt: bool) -> list[Decision]:
        """Queue a turn of the agent's own; the oldest that may be interrupted goes if there are too many."""
        dropped: list[Decision] = []
        if len(self._says) >= _MAX_SAYS:
            index = next((i for i, (_, allow) in enumerate(self._says) if allow), 0)
            victim = self._says[index][0]
            del self._says[index]
            dropped.append(Drop(victim, "too much to say"))
        self._says.append((turn, allow_interrupt))
        return dropped

    def release(self, now: float) -> None:
        """Take the floor from a turn that is over, or was cut and does not tell what was heard of it."""
        turn = self._turn
        if turn is None:
            return
        deadline = self.deadline
        if turn.over or (turn.cut == "now" and deadline is not None and now >= deadline):
            self._turn = None
            if turn.broken:
                self._broken.append(turn.turn)

    def next(self, *, caller_busy: bool) -> list[Decision]:
        """Give the floor on, if it is free: to the caller's utterances, else to the agent's own turns.

        What the line broke off goes on before these, unless the caller was faster.
        """
        if self.closed or self._turn is not None:
            return []
        answering = not self.down and not self.ending
        if caller_busy:
            return self.speculation.begin(tuple(self._waiting)) if answering else []
        if self._waiting and answering:
            return [*self._forget_broken("the caller went on"), *self._answer()]
        decisions = self.speculation.drop("nothing came of it")
        if self.down:
            return decisions
        if self._broken:
            broken, self._broken = self._broken, []
            return [*decisions, *(GoOn(turn) for turn in broken)]
        if self._says:
            turn_id, allow_interrupt = self._says.popleft()
            self._turn = RunningTurn(turn_id)
            if not allow_interrupt:
                self._turn.shield()
            decisions.append(Speak(turn_id))
        return decisions

    def part_opened(self, part: PartOpened) -> bool:
        """A part of a turn begins; whether that turn has the floor."""
        turn = self._find(part.turn)
        if turn is not None:
            turn.opened(part)
        return turn is not None and turn is self._turn

    def reply_ended(self, turn_id: UUID) -> None:
        """The turn will open no more parts."""
        turn = self._find(turn_id)
        if turn is not None:
            turn.end()

    def played(self, playback: Playback, *, words: bool) -> None:
        """Take note of what was heard. What is lost tells, before anything else does, that the line is down."""
        self.down = self.down or playback.state == "lost"
        turn = self._find(playback.uuid)
        if turn is not None:
            turn.played(playback, words=words)

    def yield_to_caller(self, now: float, reason: str, at: Literal["now", "sentence"] = "now") -> list[Decision]:
        """The caller's words claim the floor: cut what is being heard, drop what was not.

        A turn with a protected part goes on with that part alone.
        """
        turn = self._turn
        if turn is None or turn.cut == "now" or (turn.cut == "sentence" and at == "sentence"):
            return []
        if turn.heard or turn.protected or turn.own:
            current = turn.current
            inside = turn.heard and current is not None and current.allow_interrupt
            return self._cut(turn, now, reason, at if inside else "now")
        self._turn = None
        self._waiting[:0] = turn.utterances
        return [Drop(turn.turn, reason), *self._bound()]

    def abort(self, now: float, reason: str) -> list[Decision]:
        """Give up the running turn and the queued ones, as far as they may be interrupted."""
        decisions = self.speculation.drop(reason) + self._forget_broken(reason)
        turn = self._turn
        if turn is not None and turn.cut != "now":
            decisions += self._cut(turn, now, reason, "now")
        return decisions + self._drop_says(reason)

    def line_down(self, now: float, reason: str) -> list[Decision]:
        """Media has stopped: give up what is being said, until it flows again; what was not answered yet is later."""
        self.down = True
        decisions = self.speculation.drop(reason)
        if self._turn is not None:
            self._turn.breaks()
        return decisions + self.yield_to_caller(now, reason) + self._drop_says(reason)

    def line_up(self, *, goes_on: bool) -> list[Decision]:
        """Media flows again, and what it broke off is still worth saying, or is not."""
        self.down = False
        return [] if goes_on else self._forget_broken("not wanted any more")

    def expired(self, now: float) -> list[Decision]:
        """Stop a sentence that does not end."""
        turn = self._turn
        if turn is None or turn.cut != "sentence" or now < turn.cut_at + _SENTENCE_S:
            return []
        return self._cut(turn, now, "the sentence did not end", "now")

    def close(self) -> list[Decision]:
        """The call is over: nobody speaks any more."""
        self.closed = True
        decisions = self.speculation.drop("call ended")
        self._broken.clear()
        if self._turn is not None:
            decisions.append(Cut(self._turn.turn, "call ended"))
        decisions += [Drop(turn, "call ended") for turn, _ in self._says]
        if self._waiting:
            decisions.append(Unanswered(tuple(self._waiting)))
        self._turn = None
        self._says.clear()
        self._waiting.clear()
        return decisions

    def _answer(self) -> list[Decision]:
        utterances = tuple(self._waiting)
        self._waiting.clear()
        promoted, decisions = self.speculation.settle(utterances)
        if promoted is not None:
            self._turn = promoted
            return [Promote(promoted.turn, utterances)]
        self._turn = RunningTurn(utterances[-1].uuid, utterances)
        return [*decisions, Infer(self._turn.turn, utterances)]

    def _bound(self) -> list[Decision]:
        lost = 0
        while len(self._waiting) > 1 and sum(len(u.data) for u in self._waiting) > _MAX_WAITING_CHARS:
            lost += len(self._waiting.pop(0).data)
        return [Overflow(lost, _MAX_WAITING_CHARS)] if lost else []

    def _cut(self, turn: RunningTurn, now: float, reason: str, at: Literal["now", "sentence"]) -> list[Decision]:
        turn.cut = at
        turn.cut_at = now
        turn.end()
        return [Cut(turn.turn, reason, at, turn.broken)]

    def _forget_broken(self, reason: str) -> list[Decision]:
        broken, self._broken = self._broken, []
        if self._turn is not None and self._turn.broken:
            self._turn.broken = False
            broken.append(self._turn.turn)
        return [Cut(turn, reason) for turn in broken]

    def _drop_says(self, reason: str) -> list[Decision]:
        decisions: list[Decision] = [Drop(turn, reason) for turn, allow in self._says if allow]
        self._says = deque((turn, allow) for turn, allow in self._says if not allow)
        return decisions

    def _find(self, turn_id: UUID) -> RunningTurn | None:
        for turn in (self._turn, self.speculation.running):
            if turn is not None and turn.turn == turn_id:
                return turn
        return None
