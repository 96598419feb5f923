"""Replies that are prepared before the caller has certainly finished."""

from __future__ import annotations

from uuid import uuid4

import pytest
from turn_calls import Call, played, utterance

from dialog.agent.turns import Endpointing
from dialog.agent.turns.signals import (
    Aborted,
    Close,
    Cut,
    Drop,
    Eager,
    EagerWithdrawn,
    Final,
    Finalize,
    Infer,
    Interim,
    LineDown,
    NoTranscript,
    PartOpened,
    Pause,
    Promote,
    ReplyEnded,
    SayRequested,
    Speak,
    SpeechStarted,
    SpeechStopped,
)

EARLY = Endpointing(mode="local", speculate_after_s=0.2)


def suggested(call, text="a table for two"):
    said = utterance(text)
    assert call.feed(Eager(said)) == [Infer(said.uuid, (said,), speculative=True)]
    return said


def test_an_eager_end_starts_a_reply_that_holds_no_floor():
    call = Call()
    suggested(call)
    assert call.taking.turn is None


def test_the_same_words_at_the_end_promote_it():
    call = Call()
    said = suggested(call)
    final = utterance("A table, for two.", said.uuid)
    assert call.feed(Final(final)) == [Promote(said.uuid, (final,))]
    assert call.taking.turn == said.uuid


def test_other_words_at_the_end_drop_it():
    call = Call()
    said = suggested(call)
    final = utterance("a table for ten", said.uuid)
    assert call.feed(Final(final)) == [
        Drop(said.uuid, "the caller said something else"),
        Infer(said.uuid, (final,)),
    ]


def test_a_withdrawn_end_drops_it_and_the_next_gets_another():
    call = Call()
    said = suggested(call)
    assert call.feed(EagerWithdrawn(said.uuid)) == [Drop(said.uuid, "eager end withdrawn")]
    assert call.feed(EagerWithdrawn(said.uuid)) == []
    more = utterance("a table for two on sunday", said.uuid)
    assert call.feed(Eager(more)) == [Infer(said.uuid, (more,), speculative=True)]
    assert call.feed(Final(more)) == [Promote(said.uuid, (more,))]


def test_more_words_drop_it():
    call = Call()
    said = suggested(call)
    assert call.feed(Interim(said)) == []
    assert call.feed(Interim(utterance("a table for two and", said.uuid))) == [Drop(said.uuid, "the caller said more")]


def test_a_voice_alone_does_not_drop_it():
    call = Call()
    said = suggested(call)
    assert call.feed(SpeechStarted()) == []
    assert call.feed(SpeechStopped(), after=0.2) == []
    assert call.feed(Final(said)) == [Promote(said.uuid, (said,))]


def test_an_eager_end_that_is_repeated_changes_nothing():
    call = Call()
    said = suggested(call)
    assert call.feed(Eager(said)) == []


def test_at_most_two_for_one_utterance():
    call = Call()
    said = suggested(call, "one")
    for text, replies in (("one more", 1), ("one more time", 0), ("one more time please", 0)):
        decisions = call.feed(Eager(utterance(text, said.uuid)))
        assert len([d for d in decisions if isinstance(d, Infer)]) == replies
    last = utterance("one more time please now", said.uuid)
    assert call.feed(Final(last)) == [Infer(said.uuid, (last,))]
    call.feed(ReplyEnded(said.uuid))
    suggested(call)


def test_what_sounds_unfinished_is_not_worth_a_reply():
    call = Call()
    assert call.feed(Eager(utterance("my number is"))) == []


def test_it_answers_everything_that_waits():
    call = Call()
    first = call.reply_heard_to(0)
    second = utterance("and on sundays")
    assert call.feed(Eager(second)) == [
        Drop(first.uuid, "caller spoke"),
        Infer(second.uuid, (first, second), speculative=True),
    ]
    assert call.feed(Final(second)) == [Promote(second.uuid, (first, second))]


def test_it_waits_until_what_was_cut_has_told_what_was_heard():
    call = Call()
    first = call.reply_heard_to(900)
    second = utterance("and on sundays")
    assert call.feed(Eager(second)) == [Cut(first.uuid, "caller spoke")]
    assert call.feed(played(first.uuid, 950, "cut")) == [Infer(second.uuid, (second,), speculative=True)]


def test_nothing_is_prepared_over_what_must_be_heard_out():
    call = Call()
    first = call.reply_heard_to(900, allow_interrupt=False)
    second = utterance("and on sundays")
    assert call.feed(Eager(second)) == [Cut(first.uuid, "caller spoke")]
    assert call.feed(Final(second)) == []
    assert call.feed(played(first.uuid, 950, "played")) == [Infer(second.uuid, (second,))]


def test_a_promoted_reply_keeps_what_it_has_prepared():
    call = Call()
    said = suggested(call)
    call.feed(PartOpened(said.uuid, 0, allow_interrupt=False))
    call.feed(ReplyEnded(said.uuid))
    call.feed(Final(said))
    assert call.feed(SpeechStarted()) == []  # it must be heard out
    assert call.feed(played(said.uuid, 900, "played")) == []
    assert call.taking.turn is None


def test_a_promoted_reply_is_held_for_a_voice():
    call = Call()
    said = suggested(call)
    call.feed(Final(said))
    assert call.feed(SpeechStarted()) == [Pause(said.uuid, "speech started")]


def test_the_agents_own_speech_waits_for_what_comes_of_it():
    call = Call()
    said = suggested(call)
    wish = uuid4()
    assert call.feed(SayRequested(wish)) == []
    call.feed(Final(said))
    call.feed(PartOpened(said.uuid, 0))
    call.feed(ReplyEnded(said.uuid))
    assert call.feed(played(said.uuid, 900, "played")) == [Speak(wish)]


def test_words_that_come_to_nothing_drop_it():
    call = Call()
    said = suggested(call)
    assert call.wait(20.0) == [
        Finalize("no final utterance came"),
        NoTranscript(words=True),
        Drop(said.uuid, "nothing came of it"),
    ]


@pytest.mark.parametrize(
    ("signal", "reason"), [(Close(), "call ended"), (Aborted(), "aborted"), (LineDown(), "line down")]
)
def test_it_goes_with(signal, reason):
    call = Call()
    said = suggested(call)
    assert Drop(said.uuid, reason) in call.feed(signal)


# -- before the STT suggests it -----------------------------------------------------------------------


def test_stable_words_after_the_voice_are_worth_a_reply():
    call = Call(endpointing=EARLY)
    said = utterance("a table for two")
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    call.feed(Interim(said), after=0.26)
    stable = call.now
    assert call.tick() == [Infer(said.uuid, (said,), speculative=True)]
    assert call.now - stable == pytest.approx(0.2)
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(said), after=0.1) == [Promote(said.uuid, (said,))]


def test_not_while_the_words_still_change_or_the_voice_is_on():
    call = Call(endpointing=EARLY)
    said = utterance("a table")
    call.feed(SpeechStarted())
    call.feed(Interim(said), after=1.0)
    assert call.wait(1.0) == []
    call.feed(SpeechStopped())
    call.feed(Interim(utterance("a table for", said.uuid)), after=0.14)
    assert call.wait(0.14) == []
    more = utterance("a table for two", said.uuid)
    call.feed(Interim(more))
    assert call.wait(0.15) == []
    assert call.wait(0.06) == [Infer(said.uuid, (more,), speculative=True)]


@pytest.mark.parametrize("told", ["a table for", ""])
def test_words_that_may_lack_the_last_ones_are_asked_for_first(told):
    call = Call(endpointing=EARLY)
    said = utterance("a table for two")
    call.feed(SpeechStarted())
    if told:
        call.feed(Interim(utterance(told, said.uuid)), after=0.8)
    call.feed(SpeechStopped(), after=0.5)
    stopped = call.now
    assert call.tick() == [Finalize("the caller has probably finished")]
    assert call.now == pytest.approx(stopped + 0.2)
    assert call.feed(Final(said), after=0.1) == []
    assert call.tick() == [Infer(said.uuid, (said,), speculative=True)]
    assert call.now == pytest.approx(stopped + 0.3)
    assert call.tick() == [Promote(said.uuid, (said,))]
    assert call.now == pytest.approx(stopped + 0.5)


def test_a_caller_who_goes_on_after_they_were_asked_for_is_answered_to_all_of_it():
    call = Call(endpointing=EARLY)
    first, second = utterance("a table for two"), utterance("on sunday")
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    call.tick()
    call.feed(Final(first), after=0.1)
    assert call.tick() == [Infer(first.uuid, (first,), speculative=True)]
    call.feed(SpeechStarted(), after=0.1)
    assert call.wait(0.5) == []
    call.feed(SpeechStopped())
    assert call.tick() == [Finalize("the caller has probably finished")]
    assert call.feed(Final(second), after=0.1) == [Drop(first.uuid, "the caller said more")]
    assert call.tick() == [Infer(second.uuid, (first, second), speculative=True)]
    assert call.tick() == [Promote(second.uuid, (first, second))]


def test_an_stt_that_has_no_more_words_is_asked_once_early_and_once_at_the_end():
    call = Call(endpointing=EARLY)
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    assert call.wait(20.0) == [
        Finalize("the caller has probably finished"),
        Finalize("the caller paused"),
        NoTranscript(words=False),
    ]


def test_what_was_ended_and_waits_for_the_silence_is_worth_one_too():
    call = Call(endpointing=EARLY)
    said = utterance("a table for two")
    call.feed(SpeechStarted())
    call.feed(Final(said), after=1.0)
    call.feed(SpeechStopped(), after=0.1)
    assert call.tick() == [Infer(said.uuid, (said,), speculative=True)]
    assert call.tick() == [Promote(said.uuid, (said,))]
