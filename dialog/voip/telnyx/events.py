"""The webhooks of Telnyx's Call Control and Messaging, typed and validated.

Unknown fields are ignored and missing ones have defaults, because Telnyx adds and leaves out some without notice.

Source: Telnyx API v2, Call Control, callbacks; Messaging, receiving webhooks.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct, field

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata, ReceivedSMS
from dialog.net.malformed import UNDECODABLE

__all__ = [
    "CallEvent",
    "Payload",
    "RecordingURLs",
    "TranscriptionData",
    "decode_event",
    "decode_message",
    "delivered_to",
    "metadata_of",
]

_REASONS: Final = {
    "user_busy": "busy",
    "busy": "busy",
    "timeout": "no_answer",
    "no_answer": "no_answer",
    "originator_cancel": "canceled",
    "call_rejected": "failed",
    "not_found": "failed",
    "unspecified": "failed",
}


class RecordingURLs(Struct, frozen=True):
    """Where a recording can be fetched for some minutes."""

    wav: str | None = None
    mp3: str | None = None


class TranscriptionData(Struct, frozen=True):
    """The words of a ``call.transcription``."""

    transcript: str = ""
    confidence: float | None = None
    is_final: bool = False
    transcription_track: str = ""


class Payload(Struct, frozen=True, kw_only=True):
    """What a webhook tells of its call; which fields come depends on the event."""

    call_control_id: str = ""
    call_leg_id: str = ""
    call_session_id: str = ""
    connection_id: str = ""
    from_: str = field(name="from", default="")
    to: str = ""
    direction: str | None = None
    client_state: str | None = None
    hangup_cause: str | None = None
    hangup_source: str | None = None
    sip_hangup_cause: str | None = None
    result: str | None = None
    """Of the answering-machine detection."""
    recording_urls: RecordingURLs | None = None
    failure_reason: str | None = None
    """Of a stream, or a recording."""
    reason: str | None = None
    status: str | None = None
    """Of a file that was played: ``completed`` if it came to its end …"""
    media_url: str | None = None
    """… and where it was; empty of one that came with its command."""
    transcription_data: TranscriptionData | None = None

    def __repr__(self) -> str:
        return f"<Payload {self.call_control_id}>"

    @property
    def end_reason(self) -> str:
        """Why a call that was placed reached nobody."""
        return _REASONS.get(self.hangup_cause or "", "failed")


class CallEvent(Struct, frozen=True, kw_only=True):
    """One webhook."""

    id: str = ""
    """The same whenever it is delivered again."""
    event_type: str
    occurred_at: str = ""
    payload: Payload = Payload()

    def __repr__(self) -> str:
        return f"<CallEvent {self.event_type}>"

    @property
    def leaves_alone(self) -> bool:
        """The caller is there, and hears nothing from now on: no stream any more, or no music."""
        if self.event_type == "call.playback.ended":
            return self.payload.status == "completed"
        return self.event_type in ("streaming.stopped", "streaming.failed")


class _Envelope(Struct, frozen=True):
    data: CallEvent


class _Header(Struct, frozen=True):
    name: str
    value: str


class _Headers(Struct, frozen=True):
    custom_headers: list[_Header] | None = None


class _Raw(Struct, frozen=True):
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _RawEnvelope(Struct, frozen=True):
    data: _Raw


class _Party(Struct, frozen=True):
    phone_number: str


class _Medium(Struct, frozen=True):
    url: str | None = None


class _Message(Struct, frozen=True, kw_only=True):
    id: str
    from_: _Party = field(name="from")
    to: tuple[_Party, ...]
    text: str | None = None
    media: tuple[_Medium, ...] | None = None


class _MessageEvent(Struct, frozen=True):
    event_type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")


class _MessageEnvelope(Struct, frozen=True):
    data: _MessageEvent


class _Meta(Struct, frozen=True):
    delivered_to: str = ""


class _Delivery(Struct, frozen=True):
    meta: _Meta = _Meta()


_decoder: Final = msgspec.json.Decoder(_Envelope, strict=False)
_delivery: Final = msgspec.json.Decoder(_Delivery)
_raw_decoder: Final = msgspec.json.Decoder(_RawEnvelope)
_message_events: Final = msgspec.json.Decoder(_MessageEnvelope)
_messages: Final = msgspec.json.Decoder(_Message)
_RECEIVED: Final = "message.received"


def decode_event(text: str) -> CallEvent:
    """The event in the body of a webhook.

    Raises:
        RemoteProtocolError: It is not one.
    """
    try:
        return _decoder.decode(text).data
    except UNDECODABLE as exc:
        raise RemoteProtocolError(f"Telnyx sent a malformed webhook: {exc}") from exc


def decode_message(text: str) -> ReceivedSMS | None:
    """The text message in the body of a webhook; ``None`` if it tells of one of ours that was sent.

    Raises:
        RemoteProtocolError: It is malformed.
    """
    try:
        event = _message_events.decode(text).data
        if event.event_type != _RECEIVED:
            return None
        message = _messages.decode(event.payload)
        values = msgspec.json.decode(event.payload, type=dict[str, Any])
    except UNDECODABLE as exc:
        raise RemoteProtocolError(f"Telnyx sent a malformed message: {exc}") from exc
    if not (message.id and message.to):
        raise RemoteProtocolError("Telnyx sent a malformed message: it has no id, or is to nobody")
    return ReceivedSMS(
        message_sid=message.id,
        from_=message.from_.phone_number,
        to=message.to[0].phone_number,
        text=message.text or "",
        media=tuple(each.url for each in message.media or () if each.url),
        parameters=tuple((name, value) for name, value in values.items() if isinstance(value, str)),
    )


def delivered_to(body: bytes) -> str:
    """The URL that Telnyx has sent a webhook to; empty if its body does not say."""
    try:
        return _delivery.decode(body).meta.delivered_to
    except UNDECODABLE:
        return ""


def metadata_of(call_id: UUID, text: str) -> CallMetadata:
    """What a webhook tells of its call: its text values and custom SIP headers are the parameters.

    Raises:
        RemoteProtocolError: It is malformed.
    """
    payload = decode_event(text).payload
    raw = _raw_decoder.decode(text).data.payload
    values = msgspec.json.decode(raw, type=dict[str, Any])
    try:
        headers = msgspec.json.decode(raw, type=_Headers).custom_headers or []
    except msgspec.ValidationError:
        headers = []  # of a kind that is not documented
    return CallMetadata(
        call_id=call_id,
        carrier="telnyx",
        carrier_call_id=payload.call_control_id,
        account_id=payload.connection_id,
        from_=payload.from_,
        to=payload.to,
        direction="outbound" if payload.direction == "outgoing" else "inbound",
        parameters=(
            *((name, value) for name, value in values.items() if isinstance(value, str) and name != "client_state"),
            *((header.name, header.value) for header in headers),
        ),
    )
