"""What the caller's speech does to a reply."""

from __future__ import annotations

import pytest
from turn_calls import Call, played, utterance

from dialog.agent.turns import BACKCHANNELS, BargeIn
from dialog.agent.turns.signals import (
    Aborted,
    Backchannel,
    Close,
    Cut,
    Drop,
    EndpointingResolved,
    Final,
    Infer,
    Interim,
    PartOpened,
    Pause,
    ReplyEnded,
    Resume,
    SpeechStarted,
    SpeechStopped,
)
from dialog.errors import ConfigurationError

LISTENER = BargeIn(backchannels=BACKCHANNELS)
AFTER_SENTENCE = BargeIn(mode="after_sentence")
DISABLED = BargeIn(mode="disabled")


# -- how long a voice, how many words -----------------------------------------------------------------


def test_a_short_voice_pauses_nothing():
    call = Call(barge_in=BargeIn(min_speech_ms=300))
    call.reply_heard_to(900)
    assert call.feed(SpeechStarted()) == []
    assert call.taking.deadline == pytest.approx(call.now + 0.3)
    call.feed(SpeechStopped(), after=0.2)
    assert call.wait(1.0) == []


def test_a_longer_one_does_when_it_has_lasted():
    call = Call(barge_in=BargeIn(min_speech_ms=300))
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted(age_s=0.1))
    assert call.taking.deadline == pytest.approx(call.now + 0.2)
    assert call.tick() == [Pause(said.uuid, "speech lasts")]


def test_words_cut_a_reply_that_no_voice_has_paused():
    call = Call(barge_in=BargeIn(min_speech_ms=300))
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    assert call.feed(Interim(utterance("stop")), after=0.1) == [Cut(said.uuid, "caller spoke")]
    assert call.wait(0.5) == []


def test_a_voice_that_lasts_does_not_pause_what_began_to_be_protected():
    call = Call(barge_in=BargeIn(min_speech_ms=300))
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    call.feed(PartOpened(said.uuid, 1, allow_interrupt=False))
    assert call.wait(1.0) == []


def test_a_paused_reply_goes_on_when_a_part_that_must_be_heard_out_begins():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(SpeechStarted())
    assert call.feed(PartOpened(said.uuid, 1, allow_interrupt=False)) == [
        Resume(said.uuid, false_alarm=False, reason="not to be interrupted")
    ]


def test_noise_that_does_not_end_pauses_a_new_reply_no_more():
    call = Call()
    call.feed(SpeechStarted())
    said = utterance("hello")
    call.wait(10.0)
    call.taking.feed(SpeechStarted(age_s=10.0), call.now)
    assert call.feed(Final(said)) == [Infer(said.uuid, (said,))]


# -- greeting, thinking, speaking, one message --------------------------------------------------------


def test_the_greeting_has_its_own_rules():
    call = Call(greeting=DISABLED)
    call.says(greeting=True)
    assert call.feed(SpeechStarted()) == []
    assert call.feed(Interim(utterance("hello"))) == []


def test_so_has_a_reply_of_which_nothing_was_heard():
    call = Call(thinking=BargeIn(min_words=3))
    said = call.reply_heard_to(0)
    more = utterance("and on sunday")
    assert call.feed(Interim(utterance("and on", more.uuid))) == []
    call.feed(Interim(more))
    assert call.decided(Drop) == [Drop(said.uuid, "caller spoke")]


def test_a_reply_that_is_heard_has_those_of_replies():
    call = Call(thinking=DISABLED)
    said = call.reply_heard_to(900)
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]


def test_while_a_tool_works_after_a_preamble_the_agent_thinks_again():
    call = Call(thinking=DISABLED)
    said = call.reply_heard_to(900)
    call.feed(played(said.uuid, 1200, "played"))
    assert call.feed(SpeechStarted()) == []


def test_a_message_may_bring_its_own_rules():
    call = Call()
    call.says(barge_in=DISABLED)
    assert call.feed(SpeechStarted()) == []
    assert call.feed(Interim(utterance("wait"))) == []


def test_the_rules_are_those_of_the_part_that_is_heard():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(PartOpened(said.uuid, 1, barge_in=DISABLED))
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]
    call.wait(3.0)
    call.feed(played(said.uuid, 1200, "played"))
    assert call.feed(SpeechStarted()) == []


# -- after the sentence -------------------------------------------------------------------------------


def test_after_sentence_pauses_nothing_and_cuts_at_the_end_of_the_sentence():
    call = Call(barge_in=AFTER_SENTENCE)
    said = call.reply_heard_to(900)
    assert call.feed(SpeechStarted()) == []
    assert call.feed(Interim(utterance("wait"))) == [Cut(said.uuid, "caller spoke", at="sentence")]
    question = utterance("wait a moment")
    assert call.feed(Final(question)) == []
    assert call.feed(played(said.uuid, 2500, "cut"), after=2.0) == [Infer(question.uuid, (question,))]


def test_a_sentence_that_does_not_end_is_cut_where_it_is():
    call = Call(barge_in=AFTER_SENTENCE)
    said = call.reply_heard_to(900)
    question = utterance("wait a moment")
    call.feed(Final(question))
    assert call.wait(5.0) == [
        Cut(said.uuid, "the sentence did not end"),
        Infer(question.uuid, (question,)),
    ]


def test_of_what_was_not_heard_no_sentence_is_finished():
    call = Call(barge_in=AFTER_SENTENCE)
    said = call.reply_heard_to(0)
    assert call.feed(Interim(utterance("wait"))) == [Drop(said.uuid, "caller spoke")]
    own = Call(barge_in=AFTER_SENTENCE)
    turn = own.says(0)
    assert own.feed(Interim(utterance("wait"))) == [Cut(turn, "caller spoke")]


def test_abort_does_not_wait_for_the_sentence():
    call = Call(barge_in=AFTER_SENTENCE)
    said = call.reply_heard_to(900)
    call.feed(Interim(utterance("wait")))
    assert call.feed(Aborted()) == [Cut(said.uuid, "aborted")]


# -- backchannels -------------------------------------------------------------------------------------


def test_a_backchannel_pauses_the_reply_and_it_goes_on_at_once():
    call = Call(barge_in=LISTENER)
    said = call.reply_heard_to(900)
    hum = utterance("Uh-huh.")
    call.feed(SpeechStarted())
    assert call.feed(Interim(utterance("uh-huh", hum.uuid)), after=0.3) == [
        Resume(said.uuid, false_alarm=True, reason="backchannel")
    ]
    assert call.feed(Final(hum), after=0.2) == []
    assert call.taking.turn == said.uuid
    assert call.tick() == [Backchannel(hum, "backchannel")]


def test_a_backchannel_that_goes_on_was_none():
    call = Call(barge_in=LISTENER)
    said = call.reply_heard_to(900)
    uuid = utterance("").uuid
    assert call.feed(Interim(utterance("yeah", uuid))) == []
    assert call.feed(Interim(utterance("yeah but listen", uuid))) == [Cut(said.uuid, "caller spoke")]


def test_what_is_said_as_the_reply_ends_answers_it():
    call = Call(barge_in=LISTENER)
    said = call.reply_heard_to(900)
    call.feed(ReplyEnded(said.uuid))
    answer = utterance("yeah")
    assert call.feed(Final(answer)) == []
    assert call.feed(played(said.uuid, 1500, "played"), after=0.6) == [Infer(answer.uuid, (answer,))]


def test_when_nobody_speaks_it_is_an_answer():
    call = Call(barge_in=LISTENER)
    said = call.reply_heard_to(900)
    call.feed(ReplyEnded(said.uuid))
    call.feed(played(said.uuid, 1500, "played"))
    answer = utterance("okay")
    assert call.feed(Final(answer)) == [Infer(answer.uuid, (answer,))]


def test_several_are_all_noted():
    call = Call(barge_in=LISTENER)
    call.reply_heard_to(900)
    one, two, three = utterance("mhm"), utterance("right"), utterance("wait, no")
    call.feed(Final(one))
    call.feed(Final(two), after=0.5)
    call.feed(Final(three), after=0.5)
    assert call.decided(Backchannel) == [Backchannel(one, "backchannel"), Backchannel(two, "backchannel")]
    assert len(call.decided(Cut)) == 1


def test_none_is_lost_when_the_call_ends():
    call = Call(barge_in=LISTENER)
    said = call.reply_heard_to(900)
    hum = utterance("mhm")
    call.feed(Final(hum))
    assert call.feed(Close()) == [Backchannel(hum, "backchannel"), Cut(said.uuid, "call ended")]


def test_backchannels_are_words_like_others_by_default():
    call = Call()
    said = call.reply_heard_to(900)
    assert call.feed(Interim(utterance("uh-huh"))) == [Cut(said.uuid, "caller spoke")]


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigurationError, match="mode must be one of"):
        BargeIn(mode="later")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="min_speech_ms"):
        BargeIn(min_speech_ms=-1)
    with pytest.raises(ConfigurationError, match="backchannels"):
        BargeIn(backchannels="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="backchannels"):
        BargeIn(backchannels=("yes", " "))


def test_a_voice_whose_words_are_told_only_at_its_end_holds_the_reply_as_long_as_it_lasts():
    call = Call()
    call.feed(EndpointingResolved("provider", tells_words=False))
    said = call.reply_heard_to(900)
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]
    assert call.wait(6.0) == []
    call.feed(SpeechStopped())
    decisions = call.feed(Final(utterance("no wait, six people")), after=0.3)
    assert isinstance(decisions[0], Cut)
