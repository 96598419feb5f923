"""Calls of the emulated Twilio account, as its REST API shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from dialog.testing.callee import CalledPhone
from dialog.testing.twilio_requests import now

__all__ = ["FINAL", "CallUpdate", "EmulatedCall", "call_json"]

FINAL = ("completed", "busy", "failed", "no-answer", "canceled")
"""The states of a call that is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUpdate:
    """What the gateway did to a call."""

    call_sid: str
    status: str = ""
    """``completed`` or ``canceled``: the call is over."""
    twiml: str = ""
    """The document that the call goes on with: its stream stops."""
    url: str = ""
    """Where that document is to be fetched."""


@dataclass(slots=True, kw_only=True)
class EmulatedCall:
    """A call resource."""

    sid: str
    status: str = "in-progress"
    from_: str = "+15551230001"
    to: str = "+15551230002"
    direction: str = "inbound"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    form: dict[str, str] = field(default_factory=dict[str, str])
    """The request that placed it."""
    phone: CalledPhone | None = None
    """The telephone that was called."""
    answered_by: str | None = None
    requested: list[str] = field(default_factory=list[str])
    """The gateway's addresses that were called back for it."""
    updates: list[CallUpdate] = field(default_factory=list[CallUpdate])
    on_update: Callable[[CallUpdate], object] | None = None


def call_json(account_sid: str, call: EmulatedCall) -> dict[str, Any]:
    """What Twilio tells of it."""
    uri = f"/2010-04-01/Accounts/{account_sid}/Calls/{call.sid}"
    return {
        "sid": call.sid,
        "account_sid": account_sid,
        "parent_call_sid": None,
        "to": call.to,
        "to_formatted": call.to,
        "from": call.from_,
        "from_formatted": call.from_,
        "phone_number_sid": "PN" + "0" * 32,
        "status": call.status,
        "start_time": now(),
        "end_time": now() if call.status in FINAL else None,
        "duration": "1" if call.status in FINAL else None,
        "price": None,
        "price_unit": "USD",
        "direction": call.direction,
        "answered_by": call.answered_by,
        "api_version": "2010-04-01",
        "forwarded_from": None,
        "group_sid": None,
        "caller_name": None,
        "queue_time": "0",
        "trunk_sid": None,
        "date_created": format_datetime(call.created),
        "date_updated": now(),
        "uri": f"{uri}.json",
        "subresource_uris": {"recordings": f"{uri}/Recordings.json"},
    }
