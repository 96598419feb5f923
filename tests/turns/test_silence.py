"""Silences, the longest a call may last, and goodbyes."""

from __future__ import annotations

from uuid import uuid4

import pytest
from turn_calls import Call, played, utterance

from dialog.agent.turns import BargeIn, Silence
from dialog.agent.turns.signals import (
    Aborted,
    Backchannel,
    Close,
    Cut,
    Digit,
    Drop,
    Eager,
    End,
    EndCancelled,
    EndRequested,
    EndWithdrawn,
    Final,
    Idle,
    Infer,
    Interim,
    LineDown,
    LineUp,
    NearEnd,
    PartOpened,
    ReplyEnded,
    SayRequested,
    Speak,
    SpeechStarted,
    SpeechStopped,
    ToolEnded,
    ToolStarted,
    Unanswered,
)
from dialog.errors import ConfigurationError


def quiet_call(**options) -> Call:
    call = Call(silence=Silence(**{"idle_s": 5.0, "max_duration_s": None, **options}))
    call.feed(LineUp())
    return call


def test_silences_are_counted_and_the_last_ends_the_call():
    call = quiet_call(idle_count=2)
    assert call.wait(16.0) == [Idle(1), Idle(2), End("idle")]
    assert call.wait(60.0) == []


def test_without_prompts_the_first_silence_ends_it():
    assert quiet_call(idle_count=0).wait(5.0) == [End("idle")]


def test_before_the_first_stream_there_is_no_silence():
    call = Call(silence=Silence(idle_s=5.0))
    assert call.taking.deadline is None


def test_silence_begins_when_what_was_said_was_heard():
    call = quiet_call()
    turn = call.says()
    assert call.wait(20.0) == []
    call.feed(played(turn, 2000, "played"))
    assert call.taking.deadline == pytest.approx(call.now + 5.0)


def test_a_prompt_is_heard_before_the_next_silence_begins():
    call = quiet_call()
    call.wait(5.0)
    turn = call.says()
    call.feed(played(turn, 2000, "played"), after=2.0)
    assert call.taking.deadline == pytest.approx(call.now + 5.0)
    assert call.tick() == [Idle(2)]


@pytest.mark.parametrize("act", [Digit("5"), Interim(utterance("hm"))])
def test_words_and_keys_begin_the_count_anew(act):
    call = quiet_call()
    assert call.wait(6.0) == [Idle(1)]
    call.feed(act)
    call.wait(11.5)
    assert call.decided(Idle)[:2] == [Idle(1), Idle(1)]


def test_a_voice_stops_the_clock_and_not_the_count():
    call = quiet_call()
    assert call.wait(6.0) == [Idle(1)]
    call.feed(SpeechStarted())
    assert call.wait(4.0) == []
    call.feed(SpeechStopped())
    assert Idle(2) not in call.wait(4.9)
    assert Idle(2) in call.wait(0.2)


def test_a_caller_who_waits_for_a_tool_is_not_idle():
    call = quiet_call()
    call.feed(ToolStarted("a"))
    assert call.taking.deadline is None
    call.feed(ToolEnded("a"), after=60.0)
    assert call.taking.deadline == pytest.approx(call.now + 5.0)


def test_nobody_is_idle_while_the_line_is_down():
    call = quiet_call()
    call.feed(LineDown())
    assert call.taking.deadline is None
    call.feed(LineUp(), after=60.0)
    assert call.taking.deadline == pytest.approx(call.now + 5.0)


# -- how long a call may last -------------------------------------------------------------------------


def test_the_longest_call_is_announced_and_ended():
    call = quiet_call(idle_s=None, max_duration_s=1800.0, warn_before_s=60.0)
    assert call.wait(1740.0) == [NearEnd(60.0)]
    assert call.wait(60.0) == [End("max_duration")]
    assert call.taking.deadline is None


def test_it_ends_whatever_is_being_said_and_counts_from_the_first_stream():
    call = quiet_call(idle_s=None, max_duration_s=100.0, warn_before_s=None)
    call.feed(LineDown(), after=30.0)
    call.feed(LineUp(), after=30.0)
    call.reply_heard_to(900)
    assert call.wait(40.0) == [End("max_duration")]


def test_once_the_call_ends_words_wait_and_the_agent_may_still_speak():
    call = quiet_call(idle_count=0)
    call.wait(5.0)
    said = utterance("hello?")
    assert call.feed(Final(said)) == []
    assert call.feed(Eager(utterance("hello?"))) == []
    turn = uuid4()
    call.wait(20.0)
    assert call.feed(SayRequested(turn)) == [Speak(turn)]
    assert Unanswered((said,)) in call.feed(Close())


def test_a_call_that_does_not_end_goes_on():
    call = quiet_call(idle_count=0)
    call.wait(5.0)
    said = utterance("hello?")
    call.feed(Final(said))
    assert call.feed(EndCancelled()) == [Infer(said.uuid, (said,))]


# -- goodbye ------------------------------------------------------------------------------------------


def goodbye(call: Call, ms: float = 900, *, allow_interrupt: bool = True):
    said = call.reply_heard_to(ms, allow_interrupt=allow_interrupt, text="that was all")
    call.feed(EndRequested("agent_hangup", said.uuid))
    call.feed(ReplyEnded(said.uuid))
    return said.uuid


def test_a_goodbye_is_heard_to_its_end():
    call = Call()
    turn = goodbye(call)
    assert call.wait(10.0) == []
    assert call.feed(played(turn, 2000, "played")) == [End("agent_hangup")]


def test_with_nothing_to_say_the_call_ends_at_once():
    call = Call()
    assert call.feed(EndRequested("agent_hangup")) == [End("agent_hangup")]
    assert call.feed(EndRequested("agent_hangup", uuid4())) == [End("agent_hangup")]


def test_without_a_turn_all_that_is_queued_is_heard():
    call = Call()
    one, two = call.says(), uuid4()
    call.feed(SayRequested(two))
    assert call.feed(EndRequested("agent_hangup")) == []
    assert call.feed(played(one, 2000, "played")) == [Speak(two)]
    call.feed(PartOpened(two, 0))
    call.feed(ReplyEnded(two))
    assert call.feed(played(two, 2000, "played")) == [End("agent_hangup")]


def test_a_caller_who_speaks_over_the_goodbye_wants_to_go_on():
    call = Call()
    turn = goodbye(call)
    question = utterance("wait, one more thing")
    assert call.feed(Final(question)) == [Cut(turn, "caller spoke"), EndWithdrawn("agent_hangup")]
    assert call.feed(played(turn, 1000, "cut")) == [Infer(question.uuid, (question,))]


def test_so_does_one_who_speaks_before_it():
    call = Call()
    turn = goodbye(call, 0)
    assert call.feed(Interim(utterance("wait"))) == [Drop(turn, "caller spoke"), EndWithdrawn("agent_hangup")]


def test_a_tool_that_was_still_running_does_not_end_the_call_that_goes_on():
    call = Call()
    said = call.reply_heard_to(900)
    call.feed(Final(utterance("wait, one more thing")))
    assert call.feed(EndRequested("agent_hangup", said.uuid)) == [EndWithdrawn("agent_hangup")]


@pytest.mark.parametrize("text", ["Bye!", "okay, thank you, bye", "you too"])
def test_a_goodbye_in_turn_does_not_interrupt(text):
    call = Call()
    turn = goodbye(call)
    farewell = utterance(text)
    assert call.feed(Final(farewell)) == [Backchannel(farewell, "farewell")]
    assert call.feed(played(turn, 2000, "played")) == [End("agent_hangup")]


def test_a_goodbye_that_must_be_heard_out_ends_the_call_whatever_is_said():
    call = Call()
    turn = goodbye(call, allow_interrupt=False)
    call.feed(Final(utterance("wait, one more thing")))
    assert call.feed(played(turn, 2000, "played")) == [End("agent_hangup")]
    silent = Call(barge_in=BargeIn(mode="disabled"))
    turn = goodbye(silent)
    silent.feed(Final(utterance("wait, one more thing")))
    assert silent.feed(played(turn, 2000, "played"))[-1] == End("agent_hangup")


def test_a_goodbye_that_the_agent_aborts_still_ends_the_call():
    call = Call()
    turn = goodbye(call)
    call.feed(Aborted())
    assert call.feed(played(turn, 1000, "cut")) == [End("agent_hangup")]


def test_a_line_that_breaks_before_the_goodbye_was_heard_withdraws_it():
    call = Call()
    turn = goodbye(call, 0)
    decisions = call.feed(LineDown())
    assert decisions[:2] == [Drop(turn, "line down"), EndWithdrawn("agent_hangup")]


def test_settings_out_of_range_are_refused():
    for options in ({"idle_s": 0.0}, {"max_duration_s": -1.0}, {"idle_count": -1}, {"warn_before_s": -1.0}):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            Silence(**options)
