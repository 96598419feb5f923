"""Calls as a gateway publishes them, made by hand."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

from dialog.calls import events as ev
from dialog.calls.publish import CallEvents
from dialog.message import CallMetadata
from dialog.usage import Usage

NUMBERS = {"from_": "+15551230001", "to": "+15551230002"}


class Caller:
    """One call, told event by event."""

    def __init__(self, events: CallEvents, **metadata) -> None:
        self.events = events
        self.metadata = CallMetadata(
            **{"call_id": uuid4(), "carrier": "twilio", "carrier_call_id": f"CA{uuid4().hex}", **NUMBERS, **metadata}
        )
        self.seq = 0

    @property
    def call_id(self) -> UUID:
        return self.metadata.call_id

    def tell(self, kind, **fields) -> None:
        self.events.publish(self.metadata, kind(seq=self.seq, at_s=self.seq / 2, **fields))
        self.seq += 1

    def start(self, started_at="2026-01-02T03:04:05.000+00:00") -> Caller:
        m = self.metadata
        self.tell(
            ev.CallStarted,
            call_id=m.call_id,
            carrier=m.carrier,
            carrier_call_id=m.carrier_call_id,
            from_=m.from_,
            to=m.to,
            direction=m.direction,
            started_at=started_at,
            agent="FrontDesk",
        )
        self.tell(ev.StreamChanged, state="live", generation=1)
        return self

    def turn(self, said="a table for two", reply="At what time?", *, tool=False) -> Caller:
        turn = uuid4()
        self.tell(ev.CallerSaid, turn=turn, text=said[:3], final=False)
        self.tell(ev.CallerSaid, turn=turn, text=said, final=True)
        if tool:
            self.tell(ev.ToolStarted, turn=turn, call_id="t1", name="book", arguments=json.dumps({"people": 2}))
            self.tell(ev.ToolEnded, turn=turn, call_id="t1", name="book", result="booked", state="ok", took_s=0.5)
        usage = Usage(model="gpt-4.1-mini", input_tokens=100, output_tokens=20)
        self.tell(ev.UsageReported, turn=turn, usage=usage, cost_usd=0.001)
        self.tell(ev.AgentSaid, turn=turn, part=0, text=reply, heard=reply, state="played", heard_ms=900)
        return self

    def end(self, reason="caller_hangup") -> Caller:
        self.tell(ev.StreamChanged, state="ended", generation=1)
        self.tell(ev.CallEnded, reason=reason)
        return self
