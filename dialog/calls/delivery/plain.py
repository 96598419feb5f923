"""Webhook messages in Dialog's own shape: the events as they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from dialog.calls.events import CallEnded, CallStarted
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport

__all__ = ["DEFAULTS", "plain_messages"]

DEFAULTS = ("call.started", "call.ended", "call.recording")
_encode = msgspec.json.Encoder().encode


def plain_messages(notice: Notice, report: SessionReport | None) -> Iterator[tuple[str, str, bytes]]:
    """The message of an event: its id, type and body.

    ``{"type", "id", "created_at", "data": {"call_id", …}}``, with the event's own fields in ``data``; at the end of a
    call also its parties, costs, and the session report without its events.
    """
    call, event = notice.call, notice.event
    kind = str(type(event).__struct_config__.tag)
    data: dict[str, Any] = {"call_id": call.call_id, **msgspec.to_builtins(event)}
    del data["type"]
    if isinstance(event, CallStarted | CallEnded):
        data |= {
            "carrier": call.carrier,
            "carrier_call_id": call.carrier_call_id,
            "from": call.from_,
            "to": call.to,
            "direction": call.direction,
        }
    if isinstance(event, CallEnded) and report is not None:
        data |= {
            "started_at": report.started_at,
            "duration_s": report.duration_s,
            "cost_usd": report.metrics.cost_usd,
            "report": msgspec.structs.replace(report, events=()),
        }
    message_id = f"evt_{call.call_id.hex}_{event.seq}"
    at = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="milliseconds")
    body = {"type": kind, "id": message_id, "created_at": at, "data": data}
    yield message_id, kind, _encode(body)
