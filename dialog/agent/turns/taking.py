"""The one place that decides who speaks.

Small machines know one thing each: :class:`Endpointer` whether the caller has finished,
:class:`Interruption` whether the line is held for the caller's voice, :class:`Floor` which turn may
speak, :class:`SilenceWatch` and :class:`Goodbye` whether the call is to go on. This one routes what
happens to them and keeps their promises together:

* at most one turn speaks; every utterance is answered, alone or together with its neighbours;
* a voice alone only pauses a reply; words cut it if some of it was heard, else drop it and answer
  both utterances together; no words, and it goes on from where it stopped;
* what may not be interrupted is heard out, and what the caller said meanwhile is answered after;
* a reply that was begun before the caller had finished is spoken only if they said just that.
"""

from __future__ import annotations

from uuid import UUID

from dialog.agent.turns import signals as sig
from dialog.agent.turns.endpointer import Endpointer
from dialog.agent.turns.floor import Floor
from dialog.agent.turns.interruption import Interruption, Murmur
from dialog.agent.turns.settings import TurnSettings
from dialog.agent.turns.signals import Decision, Signal
from dialog.agent.turns.silence import Goodbye, SilenceWatch
from dialog.agent.turns.wording import FAREWELLS, consists_of
from dialog.message import Utterance

__all__ = ["TurnTaking"]


class TurnTaking:
    """Feed it what happens; do what it decides, in order; feed ``Tick`` when :attr:`deadline` comes.

    It holds no clock, mints no ids and touches no audio: ``now`` is seconds of one steady clock.
    """

    __slots__ = ("_endpointer", "_floor", "_goodbye", "_interruption", "_murmur", "_settings", "_silence", "_timely")

    def __init__(self, settings: TurnSettings | None = None) -> None:
        self._settings = settings or TurnSettings()
        self._endpointer = Endpointer(self._settings)
        self._interruption = Interruption(self._settings)
        self._floor = Floor(self._settings)
        self._silence = SilenceWatch(self._settings.silence)
        self._goodbye = Goodbye()
        self._murmur = Murmur()
        self._timely = False
        """The caller's voice started just then, and not in a replay."""

    @property
    def deadline(self) -> float | None:
        """When to feed ``Tick`` next, at the latest."""
        if self._floor.closed:
            return None
        machines = (self._endpointer, self._interruption, self._floor, self._silence, self._murmur)
        times = [machine.deadline for machine in machines]
        return min((time for time in times if time is not None), default=None)

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
        return self._floor.turn is None and not self._endpointer.busy

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
        if self._endpointer.faults:
            decisions += [sig.TurnModelFailed(error) for error in self._endpointer.faults]
            self._endpointer.faults.clear()
        self._silence.observe(now, quiet=self._quiet)
        return tuple(decisions)

    def _handle(self, signal: Signal, now: float) -> list[Decision]:
        match signal:
            case sig.Played():
                self._floor.played(signal.playback, words=signal.words)
            case sig.SpeechStarted():
                return self._speech_started(signal, now)
            case sig.SpeechStopped():
                self._endpointer.stopped(now - signal.age_s)
                self._interruption.stopped(now - signal.age_s)
            case sig.Interim():
                return self._interim(signal.utterance, now)
            case sig.Eager():
                return self._eager(signal.utterance, now)
            case sig.EagerWithdrawn():
                return self._floor.speculation.withdraw(signal.uuid)
            case sig.Final() if not signal.claims:
                return self._floor.wait(signal.utterance)
            case sig.Final():
                return self._final(signal.utterance, now, complete=signal.complete)
            case sig.Claimed():
                return self._claim(now)
            case sig.PartOpened():
                return self._part_opened(signal)
            case sig.ReplyEnded():
                self._floor.reply_ended(signal.turn)
            case sig.SayRequested():
                return self._floor.say(signal.turn, allow_interrupt=signal.allow_interrupt)
            case sig.Tick():
                return self._tick(now)
            case sig.TurnJudged():
                self._endpointer.judged(signal.probability, signal.uuid)
            case sig.EndpointingResolved():
                self._endpointer.resolve(signal.mode, tells_stops=signal.tells_stops)
                self._interruption.tells_words = signal.tells_words
            case _:
                return self._call(signal, now)
        return []

    def _call(self, signal: Signal, now: float) -> list[Decision]:
        """What happens to the call as a whole."""
        match signal:
            case sig.Digit():
                self._silence.caller_acted()
            case sig.ToolStarted():
                self._silence.tool_started(signal.call_id)
            case sig.ToolEnded():
                self._silence.tool_ended(signal.call_id)
            case sig.EndRequested():
                over = signal.turn is not None and not self._floor.has(signal.turn)
                return self._goodbye.request(signal.reason, signal.turn, over=over)
            case sig.EndCancelled():
                self._floor.ending = False
                self._silence.ended(ended=False)
            case sig.Aborted():
                return [*self._floor.abort(now, "aborted"), *self._interruption.release("aborted")]
            case sig.Discarded():
                return self._floor.forget_waiting(self._endpointer.forget())
            case sig.LineUp():
                self._silence.line_up(now)
                return self._floor.line_up(goes_on=signal.goes_on)
            case sig.LineDown():
                return self._line_down(now)
            case sig.Resumed():
                self._silence.resumed(now, signal.live_s, warned=signal.warned)
                return self._wait(signal.waiting)
            case sig.Close():
                return self._close()
            case _:
                pass
        return []

    def _speech_started(self, signal: sig.SpeechStarted, now: float) -> list[Decision]:
        self._endpointer.started(now, signal.age_s)
        self._timely = signal.age_s <= self._settings.stale_edge_s
        return self._hold(now, "speech started")

    def _interim(self, utterance: Utterance, now: float) -> list[Decision]:
        if not self._endpointer.interim(utterance, now):
            return []
        self._silence.caller_acted()
        decisions = self._floor.speculation.heard(self._endpointer.said)
        reason = self._not_meant(utterance.data)
        if reason:
            return decisions + self._interruption.release(reason, false_alarm=True)
        if len(utterance.data.split()) < self._floor.barge_in.min_words:
            return decisions
        return decisions + self._claim(now)

    def _eager(self, utterance: Utterance, now: float) -> list[Decision]:
        decisions = self._interim(utterance, now)
        if self._endpointer.words and self._endpointer.finished and not self._not_meant(utterance.data):
            decisions += self._floor.speculation.suggest(self._endpointer.said)
        return decisions

    def _final(self, utterance: Utterance, now: float, *, complete: bool) -> list[Decision]:
        if not utterance.data.strip() and not complete:
            self._endpointer.noted()
            return [] if self._endpointer.voice else self._interruption.release("those were no words", false_alarm=True)
        self._silence.caller_acted()
        reason = self._not_meant(utterance.data)
        if reason:
            self._endpointer.noted()
            decisions = self._interruption.release(reason, false_alarm=True)
            turn = self._floor.turn
            if reason == "backchannel" and turn is not None:
                return decisions + self._murmur.keep(turn, utterance, now)
            return [*decisions, sig.Backchannel(utterance, reason)]
        # A reply is answered over by any final utterance: fewer words than ``min_words`` are still an answer.
        decisions = self._claim(now)
        ended = self._endpointer.final(utterance, now, complete=complete)
        return decisions + (self._wait(ended) if ended else self._floor.speculation.heard(self._endpointer.said))

    def _wait(self, utterances: tuple[Utterance, ...]) -> list[Decision]:
        return [decision for utterance in utterances for decision in self._floor.wait(utterance)]

    def _not_meant(self, text: str) -> str:
        """Why the caller does not want to take the floor by saying this; empty if they do."""
        if not self._floor.running:
            return ""
        leaving = self._goodbye.follows(self._floor.turn)
        backchannels = self._floor.barge_in.backchannels
        if leaving and consists_of(text, FAREWELLS + backchannels):
            return "farewell"
        return "backchannel" if consists_of(text, backchannels) else ""

    def _claim(self, now: float) -> list[Decision]:
        """Words of the caller claim the floor."""
        mode = self._floor.barge_in.mode
        if mode == "disabled":
            return []
        turn = self._floor.turn
        heard_out = self._floor.protected
        decisions = self._floor.yield_to_caller(now, "caller spoke", "sentence" if mode == "after_sentence" else "now")
        if not decisions:
            return self._interruption.release("caller spoke")
        if turn is not None and not heard_out:
            decisions += self._goodbye.refused(turn)
        return [*self._murmur.declare("backchannel"), *decisions, *self._interruption.release("caller spoke")]

    def _part_opened(self, part: sig.PartOpened) -> list[Decision]:
        if not self._floor.part_opened(part):
            return []
        self._endpointer.asked(self._floor.endpointing)
        if self._floor.protected or self._floor.barge_in.mode != "immediate":
            return self._interruption.release("not to be interrupted")
        return []

    def _hold(self, now: float, reason: str) -> list[Decision]:
        turn = self._floor.turn
        if turn is None or not self._timely or not self._floor.running or self._floor.protected:
            return []
        return self._interruption.voice(turn, self._floor.barge_in, self._endpointer.voice_since, now, reason)

    def _line_down(self, now: float) -> list[Decision]:
        waiting = self._wait(self._endpointer.line_down(now))
        declared = self._murmur.declare("backchannel")
        turn = self._floor.turn
        decisions = [*waiting, *declared, *self._floor.line_down(now, "line down")]
        if turn is not None and self._floor.turn is None:  # it was dropped, and its question is answered later
            decisions += self._goodbye.refused(turn)
        return [*decisions, *self._interruption.release("line down"), sig.Finalize("line down")]

    def _close(self) -> list[Decision]:
        waiting = self._wait(self._endpointer.close())
        declared = self._murmur.declare("backchannel")
        # Whoever has the line next finds it open.
        return [*waiting, *declared, *self._floor.close(), *self._interruption.release("call ended")]

    def _tick(self, now: float) -> list[Decision]:
        decisions = self._interruption.expired(now)
        if self._interruption.lasted(now) and self._endpointer.voice:
            decisions += self._hold(now, "speech lasts")
        outcome = self._endpointer.expired(now)
        decisions += outcome.decisions
        if outcome.probably:
            decisions += self._floor.speculation.suggest(outcome.probably)
        decisions += self._wait(outcome.ended)
        decisions += self._floor.expired(now)
        decisions += self._murmur.expired(now)
        for decision in self._silence.expired(now):
            decisions += self._end(decision) if isinstance(decision, sig.End) else [decision]
        return decisions

    def _next(self, now: float) -> list[Decision]:
        before = self._floor.turn
        decisions: list[Decision] = []
        if self._floor.heard_out:
            answer = self._murmur.answer(before)
            if answer is not None:
                decisions += self._wait((answer,))
        self._floor.release(now)
        if self._goodbye.wished and self._said_goodbye:  # before anything else is begun
            decisions += [each for decision in self._goodbye.due() for each in self._end(decision)]
        for decision in self._floor.next(caller_busy=self._endpointer.busy):
            decisions.append(decision)
            if isinstance(decision, sig.GoOn):
                self._goodbye.goes_on(decision.turn)
            elif isinstance(decision, sig.Cut):
                decisions += self._goodbye.refused(decision.turn)
        turn = self._floor.turn
        if turn != before:
            if turn is not None:
                self._goodbye.begun(turn)
                self._endpointer.asked(self._floor.endpointing)
            # What was held has gone with its turn: the line must not stay paused for the next one …
            decisions = self._interruption.release("the turn is over") + decisions
            if self._endpointer.voice and now - self._endpointer.voice_since < self._settings.hold_limit_s:
                # … unless the caller is speaking already: then the new turn waits for words or silence.
                decisions += self._hold(now, "caller is speaking")
        return decisions

    @property
    def _said_goodbye(self) -> bool:
        turn = self._goodbye.turn
        return self._floor.silent if turn is None else not self._floor.has(turn)

    def _end(self, decision: Decision) -> list[Decision]:
        self._floor.ending = True
        self._silence.ended(ended=True)
        return [*self._floor.speculation.drop("the call ends"), decision]

    @property
    def _quiet(self) -> bool:
        endpointer, floor = self._endpointer, self._floor
        return not endpointer.voice and not endpointer.busy and not floor.down and floor.free
