"""The life of a call, step by step and whatever the order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.message import CallEnd, StreamStarted, StreamStopped
from dialog.voip.lifecycle import (
    Accepted,
    CallSettings,
    Closed,
    End,
    HangingUp,
    Joined,
    Lifecycle,
    Ordered,
    Requested,
    Returned,
    Stopped,
    Tick,
    Withdrawn,
)


def life(*happenings):
    """Feed ``(seconds, happening)`` and return the machine and what it said."""
    machine = Lifecycle(CallSettings(), 0.0)
    said = []
    for now, happening in happenings:
        said += machine.feed(happening, now)
    return machine, [describe(outcome) for outcome in said]


def describe(outcome):
    match outcome:
        case StreamStarted(generation=generation, resumed=resumed):
            return f"started {generation} {resumed}".strip()
        case StreamStopped(reason=reason):
            return f"stopped {reason}"
        case CallEnd(reason=reason, detail=detail):
            return f"ended {reason}" + (f" ({detail})" if detail == "unconfirmed" else "")


@pytest.mark.parametrize(
    ("happenings", "expected"),
    [
        ([(1, Joined(1)), (5, Stopped())], ["started 1", "stopped ended", "ended caller_hangup"]),
        ([(1, Joined(1)), (5, Stopped()), (5, Closed())], ["started 1", "stopped ended", "ended caller_hangup"]),
        ([(1, Joined(1)), (5, Closed()), (10, Tick())], ["started 1", "stopped lost", "ended lost"]),
        ([(1, Joined(1)), (5, Closed()), (9.9, Tick())], ["started 1", "stopped lost"]),
        (
            [(1, Joined(1)), (5, Closed()), (6, Joined(2)), (99, Tick())],
            ["started 1", "stopped lost", "started 2 reconnected"],
        ),
        (
            [(1, Joined(1)), (5, Closed()), (9, Requested()), (12, Tick()), (18, Requested()), (19, Tick())],
            ["started 1", "stopped lost", "ended lost"],
        ),
        (  # somebody else is to be asked while the caller is on the way back
            [
                (1, Joined(1)),
                (2, Ordered("consult", 30)),
                (3, Stopped()),
                (3, Accepted("consult", 30)),
                (4, Returned("transfer_failed")),
                (5, Ordered("consult", 30)),
                (6, Joined(2)),
                (7, Stopped()),
                (7, Accepted("consult", 30)),
                (8, Returned("transfer_failed")),
                (9, Joined(3)),
            ],
            [
                "started 1",
                "stopped moving",
                "started 2 transfer_failed",
                "stopped moving",
                "started 3 transfer_failed",
            ],
        ),
        (  # the first stream comes when the call was told to go elsewhere already
            [(1, Ordered("transfer", 20)), (1, Accepted("transfer", 20)), (2, Joined(1)), (3, Stopped()), (23, Tick())],
            ["started 1", "stopped moving", "ended transferred (unconfirmed)"],
        ),
        (  # ... or nobody was there, and it is the caller who is back
            [
                (1, Ordered("transfer", 20)),
                (1, Accepted("transfer", 20)),
                (2, Returned("transfer_failed")),
                (3, Joined(1)),
                (4, Stopped()),
            ],
            ["started 1 transfer_failed", "stopped ended", "ended caller_hangup"],
        ),
        ([(60, Tick())], ["ended never_connected"]),
        ([(59, Requested()), (60, Tick())], ["ended never_connected"]),
        ([(1, Joined(1)), (500, Tick())], ["started 1"]),
        (
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Accepted("transfer", 30)), (4, Stopped()), (34, Tick())],
            ["started 1", "stopped moving", "ended transferred (unconfirmed)"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (3, Stopped()),
                (4, Accepted("transfer", 30)),
                (33.9, Tick()),
            ],
            ["started 1", "stopped moving"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (2, Accepted("transfer", 30)),
                (3, Stopped()),
                (30, Returned("transfer_failed")),
                (35, Tick()),
                (39, Joined(2)),
            ],
            ["started 1", "stopped moving", "started 2 transfer_failed"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (2, Accepted("transfer", 30)),
                (3, Stopped()),
                (30, Returned("transfer_failed")),
                (40, Tick()),
            ],
            ["started 1", "stopped moving", "ended lost"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("digits", 15)),
                (2, Accepted("digits", 15)),
                (3, Closed()),
                (4, Joined(2)),
                (5, Stopped()),
            ],
            ["started 1", "stopped moving", "started 2 digits_sent", "stopped ended", "ended caller_hangup"],
        ),
        (
            [(1, Joined(1)), (2, Ordered("digits", 15)), (2, Accepted("digits", 15)), (3, Stopped()), (18, Tick())],
            ["started 1", "stopped moving", "ended lost"],
        ),
        (
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Withdrawn("transfer")), (4, Stopped())],
            ["started 1", "stopped ended", "ended caller_hangup"],
        ),
        (
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Stopped()), (4, Withdrawn("transfer"))],
            ["started 1", "stopped moving", "ended caller_hangup"],
        ),
        (  # what came of it is over before the carrier's answer is here
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (3, Stopped()),
                (4, Returned("transfer_failed")),
                (5, Joined(2)),
                (6, Accepted("transfer", 30)),
                (7, Stopped()),
            ],
            ["started 1", "stopped moving", "started 2 transfer_failed", "stopped ended", "ended caller_hangup"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("digits", 15)),
                (3, Stopped()),
                (4, Requested()),
                (5, Joined(2)),
                (6, Accepted("digits", 15)),
                (7, Stopped()),
            ],
            ["started 1", "stopped moving", "started 2 digits_sent", "stopped ended", "ended caller_hangup"],
        ),
        (  # its answer was lost: the stream stopped because the carrier did it
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (3, Stopped()),
                (4, Withdrawn("transfer", in_doubt=True)),
                (5, Returned("transfer_failed")),
                (6, Joined(2)),
                (7, Stopped()),
            ],
            ["started 1", "stopped moving", "started 2 transfer_failed", "stopped ended", "ended caller_hangup"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 30)),
                (3, Stopped()),
                (4, Withdrawn("transfer", in_doubt=True)),
                (33, Tick()),
            ],
            ["started 1", "stopped moving", "ended transferred (unconfirmed)"],
        ),
        (
            [
                (1, Joined(1)),
                (2, Ordered("digits", 15)),
                (3, Withdrawn("digits", in_doubt=True)),
                (4, Stopped()),
                (5, Joined(2)),
                (6, Stopped()),
            ],
            ["started 1", "stopped moving", "started 2 digits_sent", "stopped ended", "ended caller_hangup"],
        ),
        (  # ... but not for ever
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Withdrawn("transfer", in_doubt=True)), (9, Stopped())],
            ["started 1", "stopped ended", "ended caller_hangup"],
        ),
        (  # the socket broke while the carrier refused: the caller is still there
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Closed()), (4, Withdrawn("transfer")), (5, Joined(2))],
            ["started 1", "stopped moving", "started 2 reconnected"],
        ),
        (
            [(1, Joined(1)), (2, Ordered("transfer", 30)), (3, Closed()), (4, Withdrawn("transfer")), (9, Tick())],
            ["started 1", "stopped moving", "ended lost"],
        ),
        (
            [(1, Joined(1)), (2, HangingUp()), (3, Stopped()), (4, End("agent_hangup"))],
            ["started 1", "stopped ended", "ended agent_hangup"],
        ),
        ([(1, Joined(1)), (2, HangingUp()), (3, Closed())], ["started 1", "stopped ended", "ended agent_hangup"]),
        ([(1, Joined(1)), (2, Joined(2))], ["started 1", "stopped lost", "started 2 reconnected"]),
        ([(1, Joined(2)), (2, Joined(2)), (3, Joined(1))], ["started 2"]),
        ([(1, End("rejected")), (2, Joined(1)), (3, End("again"))], ["ended rejected"]),
        (
            [
                (1, Joined(1)),
                (2, Ordered("transfer", 9)),
                (2, Accepted("transfer", 9)),
                (3, Stopped()),
                (4, End("transferred")),
                (12, Tick()),
            ],
            ["started 1", "stopped moving", "ended transferred"],
        ),
    ],
)
def test_what_the_agent_hears_of_a_call(happenings, expected):
    assert life(*happenings)[1] == expected


def test_every_absence_has_a_deadline():
    assert life()[0].deadline == 60
    assert life((1, Joined(1)))[0].deadline is None
    assert life((1, Joined(1)), (2, Closed()))[0].deadline == 7
    assert (
        life((1, Joined(1)), (2, Ordered("digits", 15)), (2, Accepted("digits", 15)), (4, Stopped()))[0].deadline == 19
    )
    assert life((1, End("x")))[0].deadline is None


def test_a_refusal_says_why():
    machine, _ = life((1, Joined(1)))
    assert machine.refusal(2) == ""
    assert "generation 1" in machine.refusal(1)
    machine.feed(End("x"), 2)
    assert machine.refusal(2) == "the call has ended"


happenings = st.one_of(
    st.builds(Joined, st.integers(1, 6)),
    st.builds(Stopped),
    st.builds(Closed),
    st.builds(Ordered, st.sampled_from(["transfer", "digits"]), st.floats(0.1, 60)),
    st.builds(Accepted, st.sampled_from(["transfer", "digits"]), st.floats(0.1, 60)),
    st.builds(Withdrawn, st.sampled_from(["transfer", "digits"]), st.booleans()),
    st.builds(HangingUp),
    st.builds(Requested),
    st.builds(Returned, st.sampled_from(["transfer_failed", "reconnected"])),
    st.builds(End, st.just("test")),
    st.builds(Tick),
)


@given(steps=st.lists(st.tuples(st.floats(0, 20), happenings), max_size=40))
def test_a_call_ends_exactly_once_and_its_streams_alternate(steps):
    machine = Lifecycle(CallSettings(), 0.0)
    now = 0.0
    said = []
    for pause, happening in steps:
        now += pause
        before = machine.state
        outcomes = machine.feed(happening, now)
        said += outcomes
        assert before != "ended" or not outcomes
        assert (machine.deadline is None) == (machine.state in ("live", "ended"))
    for _ in range(50):  # whatever state it is in, time alone ends it once the stream is gone
        if machine.state == "live":
            said += machine.feed(Closed(), now)
        if machine.deadline is None:
            break
        now = machine.deadline
        said += machine.feed(Tick(), now)
    assert machine.state == "ended"
    assert isinstance(said[-1], CallEnd)
    assert sum(isinstance(outcome, CallEnd) for outcome in said) == 1
    live = False
    generation = 0
    for outcome in said:
        if isinstance(outcome, StreamStarted):
            assert not live
            assert outcome.generation > generation
            generation, live = outcome.generation, True
        elif isinstance(outcome, StreamStopped):
            assert live
            live = False
    assert not live
