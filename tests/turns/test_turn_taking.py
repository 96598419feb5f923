"""Turn taking, told as situations on a call."""

from __future__ import annotations

from uuid import uuid4

import pytest
from turn_calls import Call, played, utterance

from dialog.agent.turns import BargeIn, TurnSettings
from dialog.agent.turns.signals import (
    Aborted,
    Close,
    Cut,
    Drop,
    Final,
    Finalize,
    GoOn,
    Infer,
    Interim,
    LineDown,
    LineUp,
    NoTranscript,
    Overflow,
    PartOpened,
    Pause,
    ReplyEnded,
    Resume,
    SayRequested,
    Speak,
    SpeechStarted,
    SpeechStopped,
)
from dialog.errors import ConfigurationError


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
        Resume(said.uuid, false_alarm=False, reason="caller spoke"),
    ]


def test_what_claims_nothing_waits_until_the_reply_was_heard():
    call = Call()
    said, own = call.reply_heard_to(900), utterance("")
    assert call.feed(Final(own, complete=True, claims=False)) == []
    call.feed(ReplyEnded(said.uuid))
    assert call.feed(played(said.uuid, 2000, "played")) == [Infer(own.uuid, (own,))]


def test_a_cough_pauses_the_reply_and_it_goes_on():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=0.2)
    assert call.taking.deadline == pytest.approx(call.now + 0.6)
    assert call.tick() == [Resume(said.uuid, false_alarm=True, reason="no words came")]
    assert call.taking.turn == said.uuid


def test_noise_that_never_stops_holds_the_reply_two_seconds_at_most():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    assert call.tick() == [Resume(said.uuid, false_alarm=True, reason="no words came")]
    assert call.now == pytest.approx(102.0)


def test_a_cough_while_the_agent_thinks_kills_nothing():
    call = Call()
    said = call.reply_heard_to(0)
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]
    call.feed(SpeechStopped(), after=0.3)
    assert call.tick() == [Resume(said.uuid, false_alarm=True, reason="no words came")]
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
    assert call.tick() == [NoTranscript(words=False)]
    assert call.taking.deadline is None
    assert call.taking.listening


def test_words_without_a_final_do_not_silence_the_agent_for_ever():
    call = Call()
    first = call.reply_heard_to(0)
    call.feed(Interim(utterance("hm")))
    assert call.tick() == [Finalize("no final utterance came")]
    assert call.tick() == [NoTranscript(words=True), Infer(first.uuid, (first,))]


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
    assert call.feed(LineDown()) == [Cut(said.uuid, "line down", goes_on=True), Finalize("line down")]
    call.feed(played(said.uuid, 900, "lost"))
    assert call.feed(LineUp()) == [GoOn(said.uuid)]


def test_nothing_that_the_line_broke_off_goes_on_after_the_caller_has_spoken():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(played(said.uuid, 900, "lost"))
    assert call.feed(ReplyEnded(said.uuid)) == [], "the line is down, although nobody has said so yet"
    call.feed(LineDown())
    more = utterance("and on Mondays")
    call.feed(Final(more))
    assert call.feed(LineUp()) == [Cut(said.uuid, "the caller went on"), Infer(more.uuid, (more,))]


def test_what_was_cut_before_the_line_broke_does_not_go_on():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(Aborted())
    call.feed(LineDown())
    call.feed(played(said.uuid, 900, "lost"))
    assert call.feed(LineUp()) == []


def test_what_the_line_broke_off_is_given_up_where_it_is_not_wanted_any_more():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(LineDown())
    call.feed(played(said.uuid, 900, "lost"))
    assert call.feed(LineUp(goes_on=False)) == [Cut(said.uuid, "not wanted any more")]


def test_what_the_agent_wants_to_say_waits_for_the_line():
    call = Call()
    call.feed(LineDown())
    turn = uuid4()
    assert call.feed(SayRequested(turn)) == []
    assert call.feed(LineUp()) == [Speak(turn)]


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


def test_too_much_that_waits_for_an_answer_loses_its_oldest_words():
    call = Call()
    call.reply_heard_to(900, allow_interrupt=False)
    said = [utterance("word " * 300) for _ in range(4)]
    for one in said:
        call.feed(Final(one))
    assert call.decided(Overflow) == [Overflow(1500, 4000), Overflow(1500, 4000)]


def test_too_much_that_the_agent_wants_to_say_loses_the_oldest_that_may_be_interrupted():
    call = Call()
    call.says()
    wishes = [uuid4() for _ in range(33)]
    for number, wish in enumerate(wishes):
        call.feed(SayRequested(wish, allow_interrupt=number > 0))
    assert call.decided(Drop) == [Drop(wishes[1], "too much to say")]
