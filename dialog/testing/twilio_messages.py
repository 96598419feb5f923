"""Text messages of the emulated Twilio account, and which ones it takes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from dialog.testing.twilio_requests import E164, RestRefusal, now

__all__ = ["EmulatedMessage", "message_json", "new_message"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMessage:
    """A message resource."""

    sid: str
    to: str
    from_: str
    """Empty while a messaging service has not chosen the sender."""
    body: str
    messaging_service_sid: str = ""
    status: str = "queued"


def new_message(
    form: Mapping[str, str], *, senders: AbstractSet[str] | None, unsubscribed: AbstractSet[str]
) -> EmulatedMessage:
    """The message that a request asks for.

    Raises:
        RestRefusal: Twilio would not take it.
    """
    service = form.get("MessagingServiceSid", "")
    message = EmulatedMessage(
        sid="SM" + secrets.token_hex(16),
        to=form.get("To", ""),
        from_=form.get("From", ""),
        body=form.get("Body", ""),
        messaging_service_sid=service,
        # With a service the sender is chosen later.
        status="accepted" if service else "queued",
    )
    fault = _fault(message, senders, unsubscribed)
    if fault is not None:
        raise RestRefusal(400, *fault)
    return message


def message_json(account_sid: str, message: EmulatedMessage) -> dict[str, Any]:
    """What Twilio tells of it."""
    base = f"/2010-04-01/Accounts/{account_sid}/Messages/{message.sid}"
    return {
        "sid": message.sid,
        "account_sid": account_sid,
        "api_version": "2010-04-01",
        "body": message.body,
        "date_created": now(),
        "date_sent": None,
        "date_updated": now(),
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": message.from_ or None,
        "messaging_service_sid": message.messaging_service_sid or None,
        "num_media": "0",
        "num_segments": "0" if message.messaging_service_sid else "1",
        "price": None,
        "price_unit": None,
        "status": message.status,
        "subresource_uris": {"media": f"{base}/Media.json"},
        "to": message.to,
        "uri": f"{base}.json",
    }


def _fault(
    message: EmulatedMessage, senders: AbstractSet[str] | None, unsubscribed: AbstractSet[str]
) -> tuple[int, str] | None:
    to, from_ = message.to, message.from_
    if not to:
        return 21604, "A 'To' phone number is required."
    if not E164.fullmatch(to):
        return 21211, f"Invalid 'To' Phone Number: {to}"
    if not from_ and not message.messaging_service_sid:
        return 21603, "A 'From' phone number is required."
    if from_ and senders is not None and from_ not in senders:
        return 21606, f"The 'From' phone number provided ({from_}) is not a valid message-capable Twilio number."
    if not message.body:
        return 21602, "Message body is required."
    if len(message.body) > 1600:
        return 21617, "The concatenated message body exceeds the 1600 character limit"
    if to in unsubscribed:
        return 21610, "Attempt to send to unsubscribed recipient"
    return None
