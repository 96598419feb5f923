"""The process of ``call_log.py`` that is killed: many calls at once, whose events go into a call log.

``python benchmarks/call_log_app.py URL [--calls N] [--rate EVENTS_PER_S] [--hook URL]``. It prints one line per
acknowledgement: for every call the last event that was handed over before the log said that all are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from uuid import UUID, uuid4

from dialog.calls import events as ev
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.retries import Retries
from dialog.calls.delivery.webhooks import Webhooks
from dialog.calls.publish import CallEvents
from dialog.calls.store.log import CallLog
from dialog.message import CallMetadata
from dialog.usage import Usage


class Calls:
    """Calls that begin, go on and end, event by event."""

    def __init__(self, events: CallEvents, many: int, length: int = 12) -> None:
        self.events = events
        self.last: dict[UUID, int] = {}
        """The last event of every call, also of those that have ended."""
        self.ended: list[UUID] = []
        self._live: list[CallMetadata] = []
        self._many = many
        self._length = length

    def step(self) -> None:
        """Let something happen in some call."""
        if len(self._live) < self._many:
            call = CallMetadata(call_id=uuid4(), carrier="memory", from_="+15551230001", to="+15551230002")
            self._live.append(call)
            fields = {"carrier": "memory", "carrier_call_id": "", "from_": call.from_, "to": call.to}
            started = "2026-01-02T03:04:05.000+00:00"
            self._tell(
                call, ev.CallStarted, call_id=call.call_id, direction="inbound", started_at=started, agent="A", **fields
            )
            return
        call, turn = random.choice(self._live), uuid4()
        self._tell(call, ev.CallerSaid, turn=turn, text="a table for two, tomorrow at eight", final=True)
        self._tell(call, ev.UsageReported, turn=turn, usage=Usage(model="m", input_tokens=100, output_tokens=20))
        text = "I have booked a table for two people, tomorrow at eight."
        self._tell(call, ev.AgentSaid, turn=turn, part=0, text=text, heard=text, state="played", heard_ms=2000)
        if self.last[call.call_id] > self._length:
            self._tell(call, ev.CallEnded, reason="caller_hangup")
            self._live.remove(call)
            self.ended.append(call.call_id)

    def _tell(self, call: CallMetadata, kind: type, **fields: object) -> None:
        seq = self.last.get(call.call_id, -1) + 1
        self.last[call.call_id] = seq
        self.events.publish(call, kind(seq=seq, at_s=seq / 2, **fields))


async def run(url: str, calls: int, rate: float, hook: str) -> None:
    events = CallEvents()
    log = CallLog(url, batch_s=0.02, lost_after_s=3600)
    endpoints = [WebhookEndpoint(name="far", url=hook, events=("*",))] if hook else []
    async with log, Webhooks(log, *endpoints, retries=Retries(first_s=0.1, limit_s=1.0)):
        log.follow(events)
        load = Calls(events, calls)
        told = 0

        async def acknowledge() -> None:
            nonlocal told
            while True:
                last, ended = {str(call): seq for call, seq in load.last.items()}, len(load.ended)
                await log.flush()
                new = [str(call) for call in load.ended[told:ended]]
                told = ended
                print(json.dumps({"last": last, "ended": new}), flush=True)
                for call in new:
                    load.last.pop(UUID(call), None)
                await asyncio.sleep(0)

        task = asyncio.create_task(acknowledge())
        while not task.done():
            for _ in range(max(1, round(rate / 3 / 100))):
                load.step()
            await asyncio.sleep(0.01)
        await task


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--hook", default="")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.url, options.calls, options.rate, options.hook))
    except BrokenPipeError:
        sys.exit(0)
