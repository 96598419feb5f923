"""Calls as they are looked up, folded from their events."""

from __future__ import annotations

from uuid import uuid4

import pytest

from dialog.calls import events as ev
from dialog.calls.publish import CallEvents
from dialog.message import CallMetadata
from dialog.server.console.board import Board
from dialog.server.live import LiveSessions


def told(events: CallEvents) -> CallMetadata:
    """A call that starts and ends."""
    call = CallMetadata(call_id=uuid4(), carrier="twilio", carrier_call_id="CA1", from_="+15550100", to="+15550101")
    events.publish(call, ev.StreamChanged(seq=0, at_s=0.0, state="live", generation=1))
    events.publish(call, ev.CallEnded(seq=1, at_s=1.0, reason="caller_hangup"))
    return call


@pytest.mark.parametrize("kept", [1, 3])
def test_a_recording_that_comes_late_does_not_bring_a_call_back_to_life(kept):
    events = CallEvents()
    sessions, board = LiveSessions(events, lambda _: "", keep_ended=kept), Board(lambda _: "")
    events.on(lambda notice: board.take(notice.call, notice.event))
    first = told(events)
    for _ in range(150):  # more than a board keeps of those that have ended
        told(events)
    last = told(events)
    for call in (first, last):
        events.publish(call, ev.RecordingReady(seq=2, at_s=60.0, url="https://carrier.example/1.wav"))
    assert sessions.live == ()
    assert board.rows == {}
    assert sessions.get(first.call_id) is None
    assert sessions.get(last.call_id).recordings == ["https://carrier.example/1.wav"]
