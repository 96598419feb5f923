"""The one place that decides who speaks.

Three small machines know one thing each: :class:`Endpointer` whether the caller has finished,
:class:`Interruption` whether the line is held for the caller's voice, :class:`Floor` which turn may
speak. This one routes what happens to them and keeps their promises together:

* at most one turn speaks; every utterance is answered, alone or together with its neighbours;
* a voice alone only pauses a reply; words cut it if some of it was heard, else drop it and answer
  both utterances together; no words, and it goes on from where it stopped;
* what may not be interrupted is heard out, and what the caller said meanwhile is answered after.
"""

from __future__ import annotations

from uuid import UUID

from dialog.agent.turns.endpointer import Endpointer
from dialog.agent.turns.floor import Floor
from dialog.agent.turns.interruption import Interruption
from dialog.agent.turns.settings import TurnSettings
from dialog.agent.turns.signals import (
    Aborted,
    Close,
    Decision,
    Final,
    Finalize,
    Interim,
    LineDown,
    LineUp,
    PartOpened,
    Pause,
    Played,
    ReplyEnded,
    Resume,
    SayRequested,
    Signal,
    SpeechStarted,
    SpeechStopped,
    Tick,
)

__all__ = ["TurnTaking"]


class TurnTaking:
    """Feed it what happens; do what it decides, in order; feed ``Tick`` when :attr:`deadline` comes.

    It holds no clock, mints no ids and touches no audio: ``now`` is seconds of one steady clock.
    """

    def __init__(self, settings: TurnSettings | None = None) -> None:
        self._settings = settings or TurnSettings()
        self._endpointer = Endpointer(self._settings)
        self._interruption = Interruption(self._settings)
        self._floor = Floor(self._settings)
        self._held_turn: UUID | None = None

    @property
    def deadline(self) -> float | None:
        """When to feed ``Tick`` next, at the latest."""
        times = [
            time
            for time in (self._endpointer.deadline, self._interruption.deadline, self._floor.deadline)
            if time is not None
        ]
        return min(times) if times else None

    @property
    def turn(self) -> UUID | None:
        """The turn that speaks or prepares to."""
        return self._floor.turn

    @property
    def closed(self) -> bool:
        """The call is over: nobody speaks any more."""
        return self._floor.closed

    @property
    def listening(self) -> bool:
        """Nobody's turn: the agent waits for the caller."""
        return self._floor.turn is None and not self._endpointer.words

    @property
    def caller_speaking(self) -> bool:
        """The caller's voice is on."""
        return self._endpointer.voice

    @property
    def expecting_words(self) -> bool:
        """Words came that no final utterance has confirmed yet."""
        return self._endpointer.words

    def feed(self, signal: Signal, now: float) -> tuple[Decision, ...]:
        """Take in what happened; return what to do about it."""
        if self._floor.closed:
            return ()
        decisions = self._handle(signal, now)
        decisions += self._next(now)
        return tuple(decisions)

    def _handle(self, signal: Signal, now: float) -> list[Decision]:
        if isinstance(signal, Played):
            self._floor.played(signal.playback, words=signal.words)
            return []
        if isinstance(signal, SpeechStarted):
            return self._speech_started(signal, now)
        if isinstance(signal, SpeechStopped):
            self._endpointer.stopped(now)
            self._interruption.stopped(now)
            return []
        if isinstance(signal, Interim):
            return self._interim(signal, now)
        if isinstance(signal, Final):
            return self._final(signal, now)
        if isinstance(signal, SayRequested):
            return self._floor.say(signal.turn, allow_interrupt=signal.allow_interrupt)
        if isinstance(signal, PartOpened):
            self._floor.part_opened(signal.turn, signal.part, allow_interrupt=signal.allow_interrupt)
            return self._release() if not signal.allow_interrupt and self._interruption.held else []
        if isinstance(signal, ReplyEnded):
            self._floor.reply_ended(signal.turn)
            return []
        if isinstance(signal, Aborted):
            return [*self._floor.abort(now, "aborted"), *self._release()]
        if isinstance(signal, LineDown):
            self._endpointer.stopped(now)  # the caller's voice is not heard any more
            return [*self._floor.line_down(now, "line down"), *self._release(), Finalize("line down")]
        if isinstance(signal, LineUp):
            self._floor.line_up()
            return []
        if isinstance(signal, Close):
            return [*self._floor.close(), *self._release()]  # whoever has the line next finds it open
        return self._tick(now) if isinstance(signal, Tick) else []

    def _speech_started(self, signal: SpeechStarted, now: float) -> list[Decision]:
        self._endpointer.started(now)
        if signal.age_s > self._settings.stale_edge_s:
            return []
        return self._hold(now, "speech started")

    def _interim(self, signal: Interim, now: float) -> list[Decision]:
        words = len(signal.utterance.data.split())
        if not words:
            return []
        self._endpointer.interim(now)
        return self._words(words, now)

    def _final(self, signal: Final, now: float) -> list[Decision]:
        self._endpointer.final()
        words = len(signal.utterance.data.split())
        if not words:
            return []
        # A reply is answered over by any final utterance: fewer words than ``min_words`` are still an answer.
        decisions = self._words(max(words, self._settings.barge_in.min_words), now)
        return decisions + self._floor.wait(signal.utterance)

    def _words(self, words: int, now: float) -> list[Decision]:
        if self._settings.barge_in.mode == "disabled" or words < self._settings.barge_in.min_words:
            return []
        return [*self._floor.yield_to_caller(now, "caller spoke"), *self._release()]

    def _hold(self, now: float, reason: str) -> list[Decision]:
        turn = self._floor.turn
        if turn is None or self._settings.barge_in.mode == "disabled" or not self._floor.interruptible:
            return []
        if not self._interruption.hold(now):
            return []
        self._held_turn = turn
        return [Pause(turn, reason)]

    def _release(self) -> list[Decision]:
        if not self._interruption.release() or self._held_turn is None:
            return []
        turn, self._held_turn = self._held_turn, None
        return [Resume(turn, false_alarm=False)]

    def _tick(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        if self._interruption.expired(now) and self._held_turn is not None:
            turn, self._held_turn = self._held_turn, None
            decisions.append(Resume(turn, false_alarm=True))
        if self._endpointer.expired(now):
            decisions.append(Finalize("no final utterance came"))
        return decisions

    def _next(self, now: float) -> list[Decision]:
        before = self._floor.turn
        decisions = self._floor.next(now, caller_busy=self._endpointer.words)
        if self._floor.turn == before:
            return decisions
        # What was held has gone with its turn: the line must not stay paused for the next one …
        decisions = self._release() + decisions
        if self._endpointer.voice:
            # … unless the caller is speaking already: then the new turn waits for words or silence.
            decisions += self._hold(now, "caller is speaking")
        return decisions
