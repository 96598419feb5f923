"""Webhook messages in Dialog's own shape: the events as they are, and when a conversation begins."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from dialog.calls.events import CallEnded, CallStarted, StreamChanged
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport

__all__ = ["DEFAULTS", "TAKEN", "plain_messages"]

DEFAULTS = ("call.started", "call.ended", "call.recording")
TAKEN = "call.taken"
"""What the event ``call.started`` is called here: a call that was placed may never be answered."""
_encode = msgspec.json.Encoder().encode


def plain_messages(notice: Notice, report: SessionReport | None) -> Iterator[tuple[str, str, bytes]]:
    """The message of an event: its id, type and body.

    ``{"type", "id", "created_at", "data": {"call_id", …}}``, with the event's own fields in ``data``; at the end of a
    call also its parties, costs, and the session report without its events. ``call.started`` comes with the first
    media, whoever has called whom.
    """
    call, event = notice.call, notice.event
    kind = str(type(event).__struct_config__.tag)
    data = notice.fields()
    del data["type"]
    parties = {
        "carrier": call.carrier,
        "carrier_call_id": call.carrier_call_id,
        "from": call.from_,
        "to": call.to,
        "direction": call.direction,
    }
    if isinstance(event, CallStarted):
        kind = TAKEN
    if isinstance(event, CallStarted | CallEnded):
        data |= parties
    if isinstance(event, CallEnded) and report is not None:
        data |= {
            "started_at": report.started_at,
            "duration_s": report.duration_s,
            "cost_usd": report.metrics.cost_usd,
            "report": msgspec.structs.replace(report, events=()),
        }
    message_id = f"evt_{call.call_id.hex}_{event.seq}"
    at = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="milliseconds")
    yield _message(kind, message_id, at, data)
    if isinstance(event, StreamChanged) and event.state == "live" and event.generation == 1:
        began = {"call_id": call.call_id, "seq": event.seq, "at_s": event.at_s, **parties, "started_at": at}
        yield _message("call.started", f"{message_id}_started", at, began)


def _message(kind: str, message_id: str, at: str, data: dict[str, Any]) -> tuple[str, str, bytes]:
    return message_id, kind, _encode({"type": kind, "id": message_id, "created_at": at, "data": data})
