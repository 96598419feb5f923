"""When the caller has finished."""

from __future__ import annotations

from uuid import uuid4

import pytest
from turn_calls import Call, played, utterance

from dialog.agent.turns import Endpointing
from dialog.agent.turns.signals import (
    Close,
    EndpointingResolved,
    Final,
    Finalize,
    Infer,
    Interim,
    LineDown,
    LineUp,
    NoTranscript,
    PartOpened,
    ReplyEnded,
    SayRequested,
    SpeechStarted,
    SpeechStopped,
    TurnJudged,
    TurnModelFailed,
    Unanswered,
)
from dialog.errors import ConfigurationError

LOCAL = Endpointing(mode="local", wait_s=0.5, unfinished_s=1.5)


def test_an_utterance_that_sounds_unfinished_is_joined_with_the_next():
    call = Call()
    first, second = utterance("my number is"), utterance("212 555 0199")
    assert call.feed(Final(first)) == []
    assert call.feed(Final(second), after=0.8) == [Infer(second.uuid, (first, second))]


def test_but_it_is_not_waited_for_longer_than_an_unfinished_sentence_takes():
    call = Call()
    said = utterance("my number is")
    call.feed(Final(said))
    assert call.taking.deadline == pytest.approx(call.now + 1.0)
    assert call.tick() == [Infer(said.uuid, (said,))]


def test_a_number_read_in_groups_is_one_utterance():
    call = Call()
    groups = [utterance(text) for text in ("my number is", "five five five", "one two three", "four four seven seven")]
    for group in groups[:-1]:
        assert call.feed(Final(group), after=0.8) == []
    assert call.feed(Final(groups[-1]), after=0.8) == [Infer(groups[-1].uuid, tuple(groups))]


def test_a_caller_who_goes_on_is_waited_for_longer():
    call = Call()
    first, second = utterance("I would like"), utterance("a table")
    call.feed(Final(first))
    call.feed(SpeechStarted(), after=0.9)
    assert call.wait(1.0) == []
    call.feed(Interim(utterance("a", second.uuid)))
    assert call.feed(Final(second), after=0.5) == [Infer(second.uuid, (first, second))]


def test_a_cough_while_it_is_waited_for_the_rest_takes_no_more_than_the_wait():
    call = Call()
    said = utterance("I would like")
    call.feed(Final(said))
    call.feed(SpeechStarted(), after=0.5)
    call.feed(SpeechStopped(), after=0.2)
    assert call.taking.deadline == pytest.approx(call.now + 1.5)
    assert call.tick() == [Infer(said.uuid, (said,))]


def test_noise_that_never_stops_does_not_keep_an_unfinished_utterance():
    call = Call()
    said = utterance("I would like")
    call.feed(Final(said))
    call.feed(SpeechStarted(), after=0.5)
    assert call.tick() == [Infer(said.uuid, (said,))]
    assert call.now == pytest.approx(105.5)


def test_what_was_typed_is_complete():
    call = Call()
    said = utterance("my number is")
    assert call.feed(Final(said, complete=True)) == [Infer(said.uuid, (said,))]


def test_the_agent_waits_with_its_own_speech_for_the_rest_of_the_sentence():
    call = Call()
    call.feed(Final(utterance("I would like")))
    assert call.feed(SayRequested(uuid4())) == []
    assert not call.taking.listening


@pytest.mark.parametrize("down", [True, False])
def test_an_unfinished_utterance_is_not_lost_with_the_line(down):
    call = Call()
    said = utterance("my number is")
    call.feed(Final(said))
    if down:
        call.feed(LineDown())
        assert call.feed(LineUp()) == [Infer(said.uuid, (said,))]
    else:
        assert call.feed(Close()) == [Unanswered((said,))]


def test_an_endless_sentence_is_answered_at_last():
    call = Call()
    for _ in range(100):
        if call.feed(Final(utterance("and then there was also this one and"))):
            break
    assert len(call.decided(Infer)[0].utterances) < 70


# -- local: silence ends utterances -------------------------------------------------------------------


def test_silence_ends_a_finished_sentence_and_the_stt_is_asked_for_the_words():
    call = Call(endpointing=LOCAL)
    said = utterance("a table for two")
    call.feed(SpeechStarted())
    call.feed(Interim(said), after=1.0)
    call.feed(SpeechStopped(), after=0.1)
    assert call.taking.deadline == pytest.approx(call.now + 0.5)
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(said), after=0.1) == [Infer(said.uuid, (said,))]


def test_an_unfinished_sentence_gets_more_silence():
    call = Call(endpointing=LOCAL)
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    call.feed(Interim(utterance("a table and")), after=0.3)
    assert call.taking.deadline == pytest.approx(call.now - 0.3 + 1.5)


def test_words_that_may_lack_the_last_ones_are_asked_for_before_they_are_judged():
    call = Call(endpointing=LOCAL)
    call.feed(SpeechStarted())
    said = utterance("a table and")
    call.feed(Interim(said), after=1.0)
    call.feed(SpeechStopped(), after=0.5)
    stopped = call.now
    assert call.tick() == [Finalize("the caller paused")]
    assert call.now == pytest.approx(stopped + 0.5)
    whole = utterance("a table and a cake", said.uuid)
    assert call.feed(Final(whole), after=0.1) == [Infer(said.uuid, (whole,))]


def test_and_what_is_unfinished_then_gets_more_silence():
    call = Call(endpointing=LOCAL)
    call.feed(SpeechStarted())
    said = utterance("a table and")
    call.feed(Interim(said), after=1.0)
    call.feed(SpeechStopped(), after=0.5)
    stopped = call.now
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(said), after=0.1) == []
    assert call.tick() == [Infer(said.uuid, (said,))]
    assert call.now == pytest.approx(stopped + 1.5)


def test_a_caller_who_goes_on_within_the_wait_is_not_interrupted():
    call = Call(endpointing=LOCAL)
    call.feed(SpeechStarted())
    call.feed(Interim(utterance("a table for two")), after=1.0)
    call.feed(SpeechStopped(), after=0.1)
    assert call.feed(SpeechStarted(), after=0.4) == []
    assert call.wait(2.0) == []


def test_without_interims_the_words_are_asked_for_and_judged_then():
    call = Call(endpointing=LOCAL)
    first, second = utterance("my number is"), utterance("212 555 0199")
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(first), after=0.1) == []
    call.feed(SpeechStarted(), after=0.3)
    call.feed(SpeechStopped(), after=1.0)
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(second), after=0.1) == [Infer(second.uuid, (first, second))]


def test_a_cough_after_an_unfinished_sentence_does_not_lose_it():
    call = Call(endpointing=LOCAL)
    said = utterance("my number is")
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    call.tick()
    call.feed(Final(said), after=0.1)
    call.feed(SpeechStarted(), after=0.3)
    call.feed(SpeechStopped(), after=0.3)
    assert call.wait(3.0) == [Finalize("the caller paused"), Infer(said.uuid, (said,))]


def test_what_the_stt_ends_by_itself_waits_for_the_silence():
    call = Call(endpointing=LOCAL)
    first, second = utterance("a table for two"), utterance("on sunday")
    call.feed(SpeechStarted())
    assert call.feed(Final(first), after=1.0) == []
    assert call.feed(Final(second), after=1.0) == []
    call.feed(SpeechStopped(), after=0.1)
    assert call.tick() == [Infer(second.uuid, (first, second))]


def test_a_short_word_that_the_vad_missed_still_opens_a_turn():
    call = Call(endpointing=LOCAL)
    said = utterance("yes")
    call.feed(Interim(said))
    assert call.tick() == [Finalize("the caller paused")]
    assert call.feed(Final(said), after=0.1) == [Infer(said.uuid, (said,))]


def test_auto_means_what_the_engine_found_out():
    call = Call()
    call.feed(EndpointingResolved("local"))
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=1.0)
    assert call.tick() == [Finalize("the caller paused")]


# -- whatever the STT does ----------------------------------------------------------------------------


def test_words_that_the_provider_never_ends_are_asked_for_when_the_silence_is_long():
    call = Call()
    said = utterance("what are your opening hours")
    call.feed(SpeechStarted())
    call.feed(Interim(said), after=1.0)
    call.feed(SpeechStopped(), after=0.1)
    assert call.tick() == [Finalize("no final utterance came")]
    assert call.now == pytest.approx(103.6)
    assert call.feed(Final(said), after=0.3) == [Infer(said.uuid, (said,))]


def test_the_same_words_again_do_not_move_the_deadline():
    call = Call()
    said = utterance("hello")
    call.feed(Interim(said))
    deadline = call.taking.deadline
    call.feed(Interim(said), after=1.0)
    assert call.taking.deadline == deadline
    call.feed(Interim(utterance("hello there", said.uuid)), after=1.0)
    assert call.taking.deadline == pytest.approx(call.now + 5.0)


def test_interims_in_answer_to_the_question_give_the_stt_time():
    call = Call()
    said = uuid4()
    call.feed(Interim(utterance("I", said)))
    call.tick()
    call.feed(Interim(utterance("I see", said)), after=0.9)
    assert call.taking.deadline == pytest.approx(call.now + 1.0)
    assert call.tick() == [NoTranscript(words=True)]


# -- judges -------------------------------------------------------------------------------------------


def test_a_turn_model_judges_instead():
    heard = []

    def model(said):
        heard.append(said.data)
        return 0.0 if "chess" in said.data else None

    call = Call(endpointing=Endpointing(turn_model=model))
    first, second = utterance("I play chess"), utterance("and go.")
    assert call.feed(Final(first)) == []
    assert call.feed(Final(second), after=0.2) == []
    assert call.tick() == [Infer(second.uuid, (first, second))]
    assert heard == ["I play chess", "I play chess and go."]


def test_a_turn_model_that_fails_costs_nothing_but_its_judgement():
    error = ZeroDivisionError()

    def model(_):
        raise error

    call = Call(endpointing=Endpointing(turn_model=model))
    said = utterance("hello")
    assert call.feed(Final(said)) == [Infer(said.uuid, (said,)), TurnModelFailed(error)]


def test_a_model_that_listens_shortens_the_wait_and_makes_it_longer():
    call = Call(endpointing=LOCAL)
    call.feed(SpeechStarted())
    call.feed(Interim(utterance("a table for two")), after=1.0)
    call.feed(SpeechStopped(), after=0.1)
    call.feed(TurnJudged(0.0))
    assert call.taking.deadline == pytest.approx(call.now + 1.5)
    call.feed(TurnJudged(1.0))
    assert call.taking.deadline == pytest.approx(call.now + 0.5)
    call.feed(TurnJudged(0.0, uuid4()))  # of an utterance that has passed
    assert call.taking.deadline == pytest.approx(call.now + 0.5)


def test_what_was_judged_is_forgotten_when_the_voice_starts_again():
    call = Call()
    call.feed(SpeechStarted())
    call.feed(SpeechStopped(), after=0.5)
    call.feed(TurnJudged(0.0))
    call.feed(SpeechStarted(), after=0.1)
    said = utterance("hello")
    assert call.feed(Final(said), after=0.5) == [Infer(said.uuid, (said,))]


# -- per message --------------------------------------------------------------------------------------


def test_a_question_may_ask_for_more_patience_with_its_answer():
    call = Call()
    turn = call.says(endpointing=Endpointing(unfinished_s=4.0, max_s=5.0))
    call.feed(played(turn, 2000, "played"))
    said = utterance("my number is")
    call.feed(Final(said))
    assert call.taking.deadline == pytest.approx(call.now + 3.5)
    assert call.tick() == [Infer(said.uuid, (said,))]
    call.feed(ReplyEnded(said.uuid))
    call.feed(Final(utterance("my name is")))
    assert call.taking.deadline == pytest.approx(call.now + 1.0)


def test_the_patience_ends_with_the_next_turn_and_not_with_the_next_part():
    call = Call()
    turn = call.says(endpointing=Endpointing(unfinished_s=4.0, max_s=5.0))
    call.feed(PartOpened(turn, 1))
    call.feed(played(turn, 2000, "played"))
    call.feed(played(turn, 2000, "played", part=1))
    call.feed(played(call.says(), 2000, "played"))
    call.feed(Final(utterance("my number is")))
    assert call.taking.deadline == pytest.approx(call.now + 1.0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigurationError, match="wait_s <= unfinished_s <= max_s"):
        Endpointing(wait_s=2.0)
    with pytest.raises(ConfigurationError, match="mode must be one of"):
        Endpointing(mode="clever")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="speculate_after_s"):
        Endpointing(speculate_after_s=-1.0)


def test_where_nobody_hears_the_voice_stop_words_that_stay_as_they_are_have_ended():
    call = Call()
    call.feed(EndpointingResolved("provider", tells_stops=False))
    said = utterance("what are your opening hours")
    call.feed(SpeechStarted())
    call.feed(Interim(said), after=1.0)
    call.feed(Interim(said), after=1.0)
    assert call.tick() == [Finalize("no final utterance came")]
    assert call.now == pytest.approx(101.0 + 3.0)
