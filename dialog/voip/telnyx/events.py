"""The webhooks of Telnyx's Call Control, typed and validated.

Unknown fields are ignored and missing ones have defaults, because Telnyx adds and leaves out some without notice.

Source: Telnyx API v2, Call Control, callbacks.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct, field

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata
from dialog.net.malformed import UNDECODABLE

__all__ = ["CallEvent", "Payload", "RecordingURLs", "TranscriptionData", "decode_event", "delivered_to", "metadata_of"]

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


class _Meta(Struct, frozen=True):
    delivered_to: str = ""


class _Delivery(Struct, frozen=True):
    meta: _Meta = _Meta()


_decoder: Final = msgspec.json.Decoder(_Envelope, strict=False)
_delivery: Final = msgspec.json.Decoder(_Delivery)
_raw_decoder: Final = msgspec.json.Decoder(_RawEnvelope)


def decode_event(text: str) -> CallEvent:
    """The event in the body of a webhook.

    Raises:
        RemoteProtocolError: It is not one.
    """
    try:
        return _decoder.decode(text).data
    except UNDECODABLE as exc:
        raise RemoteProtocolError(f"Telnyx sent a malformed webhook: {exc}") from exc


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
