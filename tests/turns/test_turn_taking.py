"""Turn taking, told as situations on a call."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.agent.turns import BargeIn, TurnSettings, TurnTaking
from dialog.agent.turns.signals import (
    Aborted,
    Close,
    Cut,
    Drop,
    Final,
    Finalize,
    Infer,
    Interim,
    LineDown,
    PartOpened,
    Pause,
    Played,
    ReplyEnded,
    Resume,
    SayRequested,
    Speak,
    SpeechStarted,
    SpeechStopped,
    Tick,
)
from dialog.errors import ConfigurationError
from dialog.message import Playback, Utterance


def utterance(text: str, uuid: UUID | None = None) -> Utterance:
    return Utterance(uuid=uuid or uuid4(), data=text)


def played(turn: UUID, ms: float, state: str = "playing", part: int = 0) -> Played:
    return Played(Playback(uuid=turn, part=part, state=state, heard_ms=ms), words=ms >= 250)


class Call:
    """Feeds signals at a moving time and remembers what was decided."""

    def __init__(self, **options) -> None:
        self.taking = TurnTaking(TurnSettings(**options))
        self.now = 100.0
        self.decisions: list = []

    def feed(self, signal, after: float = 0.0) -> list:
        self.now += after
        new = list(self.taking.feed(signal, self.now))
        self.decisions += new
        return new

    def tick(self) -> list:
        """Let time pass up to the next deadline."""
        assert self.taking.deadline is not None
        self.now = max(self.now, self.taking.deadline)
        return self.feed(Tick())

    def reply_heard_to(self, ms: float, *, allow_interrupt: bool = True) -> Utterance:
        """A caller asked something and hears the reply up to ``ms``."""
        said = utterance("when do you open")
        assert self.feed(Final(said)) == [Infer(said.uuid, (said,))]
        self.feed(PartOpened(said.uuid, 0, allow_interrupt))
        if ms:
            self.feed(played(said.uuid, ms))
        return said


def test_a_final_utterance_starts_inference_under_its_own_uuid():
    call = Call()
    said = utterance("hello")
    assert call.feed(Final(said)) == [Infer(said.uuid, (said,))]


def test_empty_words_decide_nothing():
    call = Call()
    assert call.feed(Final(utterance("  "))) == []
    assert call.feed(Interim(utterance(""))) == []


def test_speech_over_a_reply_pauses_it_and_words_cut_it():
    call = Call()
    said = call.reply_heard_to(900)
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]
    assert call.feed(Interim(utterance("no wait"))) == [
        Cut(said.uuid, "caller spoke"),
        Resume(said.uuid, false_alarm=False),
    ]


def test_a_cough_pauses_the_reply_and_it_goes_on():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=0.2)
    assert call.taking.deadline == pytest.approx(call.now + 0.6)
    assert call.tick() == [Resume(said.uuid, false_alarm=True)]
    assert call.taking.turn == said.uuid


def test_noise_that_never_stops_holds_the_reply_two_seconds_at_most():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    assert call.tick() == [Resume(said.uuid, false_alarm=True)]
    assert call.now == pytest.approx(102.0)


def test_a_cough_while_the_agent_thinks_kills_nothing():
    call = Call()
    said = call.reply_heard_to(0)
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]
    call.feed(SpeechStopped(), after=0.3)
    assert call.tick() == [Resume(said.uuid, false_alarm=True)]
    assert not any(isinstance(decision, Drop | Cut) for decision in call.decisions)


def test_words_before_anything_was_heard_drop_the_reply_and_both_utterances_are_answered():
    call = Call()
    first = call.reply_heard_to(0)
    second = utterance("on sunday I mean")
    decisions = call.feed(Final(second))
    assert decisions == [Drop(first.uuid, "caller spoke"), Infer(second.uuid, (first, second))]


def test_a_plosive_on_the_line_is_not_heard_yet():
    call = Call()
    first = call.reply_heard_to(60)
    second = utterance("on sunday")
    assert call.feed(Final(second)) == [Drop(first.uuid, "caller spoke"), Infer(second.uuid, (first, second))]


def test_no_reply_starts_between_words_and_their_final():
    call = Call()
    first = call.reply_heard_to(0)
    assert call.feed(Interim(utterance("and"))) == [Drop(first.uuid, "caller spoke")]
    assert call.taking.turn is None
    last = utterance("and on monday")
    assert call.feed(Final(last)) == [Infer(last.uuid, (first, last))]


def test_the_next_reply_waits_for_what_was_heard_of_the_cut_one():
    call = Call()
    first = call.reply_heard_to(900)
    second = utterance("stop")
    assert call.feed(Final(second)) == [Cut(first.uuid, "caller spoke")]
    assert call.feed(played(first.uuid, 940, "cut")) == [Infer(second.uuid, (second,))]


def test_but_not_longer_than_a_tenth_of_a_second():
    call = Call()
    call.reply_heard_to(900)
    second = utterance("stop")
    call.feed(Final(second))
    started = call.now
    assert call.tick() == [Infer(second.uuid, (second,))]
    assert call.now - started == pytest.approx(0.1)


def test_min_words_keeps_a_short_noise_from_cutting():
    call = Call(barge_in=BargeIn(min_words=3))
    said = call.reply_heard_to(900)
    assert call.feed(Interim(utterance("uh huh"))) == []
    assert call.feed(Interim(utterance("uh huh but listen"))) == [Cut(said.uuid, "caller spoke")]


def test_what_may_not_be_interrupted_is_heard_out_and_the_caller_answered_after():
    call = Call()
    first = call.reply_heard_to(900, allow_interrupt=False)
    assert call.feed(SpeechStarted()) == []
    second = utterance("hello?")
    assert call.feed(Final(second)) == [Cut(first.uuid, "caller spoke")]  # cuts only what follows the notice
    assert call.feed(played(first.uuid, 2000, "played")) == [Infer(second.uuid, (second,))]


def test_several_utterances_during_a_notice_are_answered_together():
    call = Call()
    first = call.reply_heard_to(900, allow_interrupt=False)
    one, two = utterance("hello"), utterance("are you there")
    call.feed(Final(one))
    call.feed(Final(two))
    assert call.feed(played(first.uuid, 2000, "played")) == [Infer(two.uuid, (one, two))]


def test_with_interruption_disabled_replies_are_heard_out():
    call = Call(barge_in=BargeIn(mode="disabled"))
    first = call.reply_heard_to(900)
    second = utterance("hello")
    assert call.feed(SpeechStarted()) == []
    assert call.feed(Final(second)) == []
    call.feed(ReplyEnded(first.uuid))
    assert call.feed(played(first.uuid, 2000, "played")) == [Infer(second.uuid, (second,))]


def test_the_agent_speaks_by_itself_when_the_floor_is_free():
    call = Call()
    turn = uuid4()
    assert call.feed(SayRequested(turn)) == [Speak(turn)]
    other = uuid4()
    assert call.feed(SayRequested(other)) == []
    call.feed(PartOpened(turn, 0))
    call.feed(ReplyEnded(turn))
    assert call.feed(played(turn, 800, "played")) == [Speak(other)]


def test_the_callers_utterance_goes_before_the_agents_own_wishes():
    call = Call()
    said = call.reply_heard_to(900)
    wish = uuid4()
    call.feed(SayRequested(wish))
    question = utterance("what")
    call.feed(Final(question))
    assert call.feed(played(said.uuid, 950, "cut")) == [Infer(question.uuid, (question,))]


def test_the_agents_own_speech_waits_while_the_caller_is_in_the_middle_of_words():
    call = Call()
    call.feed(Interim(utterance("I would")))
    wish = uuid4()
    assert call.feed(SayRequested(wish)) == []


def test_a_replayed_speech_start_pauses_nothing():
    call = Call()
    call.reply_heard_to(900)
    assert call.feed(SpeechStarted(age_s=3.0)) == []


def test_a_voice_that_stopped_without_words_asks_for_a_final_once():
    call = Call()
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=0.5)
    assert call.tick() == [Finalize("no final utterance came")]
    assert call.tick() == []
    assert call.taking.deadline is None
    assert call.taking.listening


def test_words_without_a_final_do_not_silence_the_agent_for_ever():
    call = Call()
    first = call.reply_heard_to(0)
    call.feed(Interim(utterance("but")))
    assert call.tick() == [Finalize("no final utterance came")]
    assert call.tick() == [Infer(first.uuid, (first,))]


def test_a_new_reply_is_held_while_the_caller_is_speaking():
    call = Call()
    said = utterance("hello")
    call.feed(Final(said))
    call.feed(ReplyEnded(said.uuid))  # said nothing
    call.feed(SpeechStarted())
    turn = uuid4()
    assert call.feed(SayRequested(turn)) == [Speak(turn), Pause(turn, "caller is speaking")]


def test_abort_leaves_what_may_not_be_interrupted():
    call = Call()
    said = call.reply_heard_to(900)
    keep, lose = uuid4(), uuid4()
    call.feed(SayRequested(keep, allow_interrupt=False))
    call.feed(SayRequested(lose))
    assert call.feed(Aborted()) == [Cut(said.uuid, "aborted"), Drop(lose, "aborted")]
    assert call.feed(played(said.uuid, 900, "cut")) == [Speak(keep)]


def test_when_the_line_goes_down_everything_queued_goes_and_the_stt_is_asked_for_the_rest():
    call = Call()
    said = call.reply_heard_to(900)
    assert call.feed(LineDown()) == [Cut(said.uuid, "line down"), Finalize("line down")]


def test_after_close_nothing_is_decided():
    call = Call()
    said = call.reply_heard_to(900)
    assert call.feed(Close()) == [Cut(said.uuid, "call ended")]
    assert call.feed(Final(utterance("hello"))) == []


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigurationError, match="min_words"):
        BargeIn(min_words=0)
    with pytest.raises(ConfigurationError, match="hold_limit_s"):
        TurnSettings(hold_limit_s=-1)


# -- whatever the order of events ---------------------------------------------------------------------


class Machine:
    """An engine that does what it is told, at random moments, and checks the promises."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.taking = TurnTaking()
        self.now = 0.0
        self.unanswered: dict[UUID, Utterance] = {}
        self.answering: dict[UUID, tuple[Utterance, ...]] = {}
        self.live: dict[UUID, bool] = {}
        """Turns that may still report, and whether their part is open."""
        self.paused = False
        self.said: set[UUID] = set()

    def feed(self, signal) -> None:
        for decision in self.taking.feed(signal, self.now):
            self.do(decision)

    def do(self, decision) -> None:
        if isinstance(decision, Infer):
            assert decision.turn == decision.utterances[-1].uuid
            for utt in decision.utterances:
                assert utt.uuid in self.unanswered, "an utterance is answered once"
                del self.unanswered[utt.uuid]
            self.answering[decision.turn] = decision.utterances
            self.live[decision.turn] = False
        elif isinstance(decision, Speak):
            self.said.discard(decision.turn)
            self.live[decision.turn] = False
        elif isinstance(decision, Drop):
            self.said.discard(decision.turn)
            for utt in self.answering.pop(decision.turn, ()):
                self.unanswered[utt.uuid] = utt
            self.live.pop(decision.turn, None)
        elif isinstance(decision, Cut):
            assert decision.turn in self.live, "only a running turn is cut"
        elif isinstance(decision, Pause):
            assert not self.paused
            self.paused = True
        elif isinstance(decision, Resume):
            assert self.paused
            self.paused = False

    def step(self) -> None:
        self.now += self.data.draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
        choice = self.data.draw(st.integers(0, 10))
        turn = self.taking.turn
        if choice == 0:
            utt = utterance("some words")
            self.unanswered[utt.uuid] = utt
            self.feed(Final(utt))
        elif choice == 1:
            self.feed(Interim(utterance("some")))
        elif choice == 2:
            self.feed(SpeechStarted())
        elif choice == 3:
            self.feed(SpeechStopped())
        elif choice == 4:
            wish = uuid4()
            self.said.add(wish)
            self.feed(SayRequested(wish, self.data.draw(st.booleans())))
        elif choice == 5 and turn in self.live and not self.live[turn]:
            self.live[turn] = True
            self.feed(PartOpened(turn, 0, self.data.draw(st.booleans())))
        elif choice == 6 and turn in self.live:
            self.feed(played(turn, self.data.draw(st.sampled_from([100, 500]))))
        elif choice == 7 and turn in self.live and self.live[turn]:
            self.feed(played(turn, 900, self.data.draw(st.sampled_from(["played", "cut", "lost"]))))
            self.live[turn] = False
        elif choice == 8 and turn in self.live:
            self.feed(ReplyEnded(turn))
        else:
            self.feed(Tick())

    def settle(self) -> None:
        """Let everything in progress come to its end: the agent must be listening again."""
        for _ in range(100):
            self.now += 1.0
            turn = self.taking.turn
            if turn is not None:
                self.feed(ReplyEnded(turn))
                self.feed(played(turn, 900, "played"))
            self.feed(Tick())
            if self.taking.listening and self.taking.deadline is None and not self.unanswered and not self.said:
                return
        raise AssertionError("never listening again")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_utterance_is_lost_and_the_agent_always_listens_again(data):
    machine = Machine(data)
    for _ in range(data.draw(st.integers(1, 40))):
        machine.step()
    machine.settle()
    assert not machine.paused, "nothing stays paused"
    assert not machine.unanswered
