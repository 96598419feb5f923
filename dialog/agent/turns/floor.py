"""Which turn may speak: one at a time, the caller's utterances before the agent's own wishes."""

from __future__ import annotations

from collections import deque
from uuid import UUID

from dialog.agent.turns.settings import TurnSettings
from dialog.agent.turns.signals import Cut, Decision, Drop, Infer, Overflow, Speak, Unanswered
from dialog.message import Playback, Utterance

__all__ = ["Floor"]

_MAX_WAITING_CHARS = 4000
_MAX_SAYS = 32


class _Turn:
    """The turn that has the floor."""

    __slots__ = ("cut_at", "ended", "heard", "open", "own", "protected", "turn", "utterances")

    def __init__(self, turn: UUID, utterances: tuple[Utterance, ...]) -> None:
        self.turn = turn
        self.utterances = utterances
        self.own = not utterances
        """The agent began it."""
        self.open: dict[int, bool] = {}
        """Parts without a final playback, and whether each may be interrupted."""
        self.protected = 0
        """How many of them may not be interrupted."""
        self.heard = False
        self.ended = False
        """No further part comes."""
        self.cut_at: float | None = None

    @property
    def over(self) -> bool:
        return self.ended and not self.open


class Floor:
    """At most one turn speaks or prepares to; every utterance waits until it is answered.

    A turn holds the floor from its start until its last part was heard, cut or lost, so replies never
    overlap. Utterances that wait are answered together.
    """

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._turn: _Turn | None = None
        self._waiting: list[Utterance] = []
        self._says: deque[tuple[UUID, bool]] = deque()
        self.down: bool = False
        """Media has stopped: what the caller said is answered when it flows again."""
        self.closed: bool = False

    @property
    def turn(self) -> UUID | None:
        """The turn that has the floor."""
        return self._turn.turn if self._turn else None

    @property
    def interruptible(self) -> bool:
        """Some turn has the floor and nothing of it is protected."""
        turn = self._turn
        return turn is not None and turn.cut_at is None and not turn.protected

    @property
    def deadline(self) -> float | None:
        """When to stop waiting for what was heard of a cut turn."""
        turn = self._turn
        if turn is None or turn.cut_at is None or turn.protected or not self._waiting:
            return None
        return turn.cut_at + self._settings.settle_s

    def wait(self, utterance: Utterance) -> list[Decision]:
        """Queue an utterance for the next answer; the oldest words go if there are too many."""
        self._waiting.append(utterance)
        lost = 0
        while len(self._waiting) > 1 and sum(len(u.data) for u in self._waiting) > _MAX_WAITING_CHARS:
            lost += len(self._waiting.pop(0).data)
        return [Overflow(lost, _MAX_WAITING_CHARS)] if lost else []

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

    def next(self, now: float, *, caller_busy: bool) -> list[Decision]:
        """Give the floor on, if it is free: to the caller's utterances, else to the agent's own turns."""
        turn = self._turn
        if self.closed or (turn is not None and not self._released(turn, now)):
            return []
        self._turn = None
        if caller_busy:
            return []
        if self._waiting and not self.down:
            utterances = tuple(self._waiting)
            self._waiting.clear()
            self._turn = _Turn(utterances[-1].uuid, utterances)
            return [Infer(self._turn.turn, utterances)]
        if self._says:
            turn_id, allow_interrupt = self._says.popleft()
            self._turn = _Turn(turn_id, ())
            if not allow_interrupt:
                # Its part opens only when it speaks; until then it is protected as a whole.
                self._turn.open[-1] = False
                self._turn.protected = 1
            return [Speak(turn_id)]
        return []

    def part_opened(self, turn_id: UUID, part: int, *, allow_interrupt: bool) -> None:
        """A part of the turn begins; parts of other turns are none of ours."""
        turn = self._turn
        if turn is None or turn.turn != turn_id or part in turn.open:
            return
        self._forget_part(turn, -1)
        turn.open[part] = allow_interrupt
        turn.protected += not allow_interrupt

    def reply_ended(self, turn_id: UUID) -> None:
        """The turn will open no more parts."""
        turn = self._turn
        if turn is not None and turn.turn == turn_id:
            turn.ended = True
            self._forget_part(turn, -1)

    def played(self, playback: Playback, *, words: bool) -> None:
        """Take note of what was heard."""
        turn = self._turn
        if turn is None or turn.turn != playback.uuid:
            return
        turn.heard = turn.heard or words
        if playback.final:
            self._forget_part(turn, playback.part)

    def yield_to_caller(self, now: float, reason: str) -> list[Decision]:
        """The caller's words claim the floor: cut what is being heard, drop what was not.

        A turn with a protected part goes on with that part alone.
        """
        turn = self._turn
        if turn is None or turn.cut_at is not None:
            return []
        if turn.heard or turn.protected or turn.own:
            turn.cut_at = now
            turn.ended = True
            return [Cut(turn.turn, reason)]
        self._turn = None
        self._waiting[:0] = turn.utterances
        return [Drop(turn.turn, reason)]

    def abort(self, now: float, reason: str) -> list[Decision]:
        """Give up the running turn and the queued ones, as far as they may be interrupted."""
        decisions: list[Decision] = []
        turn = self._turn
        if turn is not None and turn.cut_at is None:
            turn.cut_at = now
            turn.ended = True
            decisions.append(Cut(turn.turn, reason))
        return decisions + self._drop_says(reason)

    def line_down(self, now: float, reason: str) -> list[Decision]:
        """Media has stopped: give up what is being said; what was not answered yet is answered later."""
        self.down = True
        return self.yield_to_caller(now, reason) + self._drop_says(reason)

    def line_up(self) -> None:
        """Media flows again."""
        self.down = False

    def close(self) -> list[Decision]:
        """The call is over: nobody speaks any more."""
        self.closed = True
        decisions: list[Decision] = []
        if self._turn is not None:
            decisions.append(Cut(self._turn.turn, "call ended"))
        decisions += [Drop(turn, "call ended") for turn, _ in self._says]
        if self._waiting:
            decisions.append(Unanswered(tuple(self._waiting)))
        self._turn = None
        self._says.clear()
        self._waiting.clear()
        return decisions

    def _drop_says(self, reason: str) -> list[Decision]:
        decisions: list[Decision] = [Drop(turn, reason) for turn, allow in self._says if allow]
        self._says = deque((turn, allow) for turn, allow in self._says if not allow)
        return decisions

    def _released(self, turn: _Turn, now: float) -> bool:
        if turn.over:
            return True
        deadline = self.deadline
        return deadline is not None and now >= deadline

    @staticmethod
    def _forget_part(turn: _Turn, part: int) -> None:
        if not turn.open.pop(part, True):
            turn.protected -= 1
