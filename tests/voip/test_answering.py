"""Who takes a call that is placed, decided exactly once, with or without a verdict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import ConfigurationError
from dialog.voip.answering import Answering, MachineDetection

MESSAGE = MachineDetection(when_machine="leave_message", message="Please call us back.")


def test_without_detection_it_is_not_known_who_answers():
    answering = Answering(None)
    told = answering.answered(1.0)
    assert (told.who, told.then) == ("unknown", "go_on")
    assert answering.deadline is None
    assert answering.verdict("machine", greeting_over=True) is None


def test_a_verdict_in_time_counts():
    answering = Answering(MachineDetection())
    assert answering.answered(10.0) is None
    assert answering.deadline == 16.0
    told = answering.verdict("machine", greeting_over=False)
    assert (told.who, told.then, told.assumed) == ("machine", "hang_up", False)
    assert answering.deadline is None
    assert answering.tick(20.0) is None


def test_a_verdict_may_come_before_the_answer_is_told():
    answering = Answering(MachineDetection())
    assert answering.verdict("human", greeting_over=False).who == "human"
    assert answering.answered(1.0) is None
    assert answering.deadline is None


def test_a_message_is_left_when_the_greeting_is_over():
    answering = Answering(MESSAGE)
    answering.answered(0.0)
    assert answering.deadline == 45.0, "a greeting may take long"
    told = answering.verdict("machine", greeting_over=True)
    assert (told.then, told.message, told.greeting_over) == ("leave_message", "Please call us back.", True)
    assert "call us" not in repr(told)


def test_no_message_is_left_for_a_fax():
    answering = Answering(MESSAGE)
    answering.answered(0.0)
    told = answering.verdict("fax", greeting_over=False)
    assert (told.then, told.message) == ("hang_up", "")


@pytest.mark.parametrize(("assume", "then"), [("human", "go_on"), ("machine", "hang_up")])
def test_a_carrier_that_does_not_know_leaves_it_to_the_assumption(assume, then):
    answering = Answering(MachineDetection(assume=assume))
    answering.answered(0.0)
    told = answering.verdict("unknown", greeting_over=False)
    assert (told.who, told.then, told.assumed) == (assume, then, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"when_machine": "leave_message"},
        {"message": "hello"},
        {"verdict_s": 0},
        {"verdict_s": 60},
    ],
)
def test_what_contradicts_itself_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        MachineDetection(**wrong)


@given(
    st.sampled_from([None, MachineDetection(), MESSAGE, MachineDetection(assume="machine", verdict_s=3.0)]),
    st.lists(
        st.one_of(
            st.just("answered"),
            st.tuples(st.sampled_from(["human", "machine", "fax", "unknown"]), st.booleans()),
            st.floats(0, 30),
        ),
        max_size=12,
    ),
)
def test_whatever_comes_in_whatever_order_something_is_decided_once(detection, happenings):
    answering, now, told = Answering(detection), 0.0, []
    for happening in happenings:
        if happening == "answered":
            told.append(answering.answered(now))
        elif isinstance(happening, tuple):
            told.append(answering.verdict(happening[0], greeting_over=happening[1]))
        else:
            now += happening
            told.append(answering.tick(now))
    told.append(answering.answered(now))
    told.append(answering.tick(now + 60.0))
    decided = [one for one in told if one is not None]
    assert [one.late for one in decided] in ([False], [False, True])
    assert all(one.then == "go_on" for one in decided if one.late)
