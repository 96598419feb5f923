"""The forms of Twilio's webhooks and callbacks, typed and validated.

Unknown fields are ignored, because Twilio adds some without notice; a missing or wrong-typed one is a
:class:`~dialog.errors.RemoteProtocolError` that names it.

Source: Twilio Voice, webhook requests and status callbacks; Recordings; Real-Time Transcriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct, field

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata, ReceivedSMS
from dialog.net.malformed import UNDECODABLE

__all__ = [
    "FINAL_STATUSES",
    "AfterForm",
    "AnsweredByForm",
    "CallStatus",
    "CallStatusForm",
    "ConferenceForm",
    "DialForm",
    "MessageForm",
    "NumberStatusForm",
    "RecordingForm",
    "StreamStatusForm",
    "TranscriptionData",
    "TranscriptionForm",
    "VoiceForm",
    "decode_form",
    "decode_transcription_data",
    "message_of",
    "metadata_of",
]

CallStatus: TypeAlias = Literal[
    "queued", "initiated", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled"
]
"""States of a call; the last five are final."""

FINAL_STATUSES: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})


class _Form(Struct, frozen=True, rename="pascal", kw_only=True):
    """All carry AccountSid, which is compared before they are decoded."""


class VoiceForm(_Form, frozen=True, kw_only=True):
    """The voice webhook: a call wants to know what to do."""

    account_sid: str
    call_sid: str
    from_: str = field(name="From", default="")
    to: str = ""
    call_status: str = "ringing"
    direction: str = "inbound"
    api_version: str = ""
    caller_name: str = ""
    forwarded_from: str = ""
    answered_by: str = ""

    def __repr__(self) -> str:
        return f"<VoiceForm {self.call_sid} {self.direction} {self.call_status}>"


def metadata_of(call_id: UUID, form: VoiceForm, fields: Sequence[tuple[str, str]]) -> CallMetadata:
    """What a voice webhook tells of its call."""
    return CallMetadata(
        call_id=call_id,
        carrier="twilio",
        carrier_call_id=form.call_sid,
        account_id=form.account_sid,
        from_=form.from_,
        to=form.to,
        direction="outbound" if form.direction.startswith("outbound") else "inbound",
        parameters=tuple(fields),
    )


class AfterForm(_Form, frozen=True, kw_only=True):
    """The ``<Connect action>``: a stream has ended, what now?"""

    call_sid: str = ""
    call_status: str = ""
    stream_sid: str = ""


class DialForm(_Form, frozen=True, kw_only=True):
    """The ``<Dial action>``: the dialled leg was not reached, or its conversation is over."""

    call_sid: str = ""
    dial_call_status: str = ""
    dial_call_sid: str = ""
    call_status: str = ""


class NumberStatusForm(_Form, frozen=True, kw_only=True):
    """Progress of a dialled number; ``call_sid`` is the new leg's."""

    call_sid: str = ""
    call_status: str
    parent_call_sid: str = ""


class CallStatusForm(_Form, frozen=True, kw_only=True):
    """Progress of the call, where a status callback is configured."""

    call_sid: str
    call_status: str
    sequence_number: int = 0
    timestamp: str = ""
    call_duration: str = ""
    sip_response_code: str = ""


class ConferenceForm(_Form, frozen=True, kw_only=True):
    """Progress of a conference: ``conference-start``, ``participant-leave`` and so on."""

    conference_sid: str = ""
    status_callback_event: str
    call_sid: str = ""
    participant_label: str = ""


class MessageForm(_Form, frozen=True, kw_only=True):
    """A text message has come in."""

    message_sid: str
    from_: str = field(name="From")
    to: str
    body: str = ""
    num_media: int = 0

    def __repr__(self) -> str:
        return f"<MessageForm {self.message_sid}>"


class AnsweredByForm(_Form, frozen=True, kw_only=True):
    """The verdict of the asynchronous answering-machine detection."""

    call_sid: str = ""
    answered_by: str
    machine_detection_duration: str = ""


class StreamStatusForm(_Form, frozen=True, kw_only=True):
    """``stream-started``, ``stream-stopped`` or ``stream-error``."""

    call_sid: str = ""
    stream_event: str
    stream_sid: str = ""
    stream_name: str = ""
    stream_error: str = ""
    timestamp: str = ""


class RecordingForm(_Form, frozen=True, kw_only=True):
    """Progress of a recording: ``in-progress``, ``completed`` or ``absent``."""

    call_sid: str = ""
    recording_status: str
    recording_sid: str = ""
    recording_url: str = ""
    recording_duration: str = ""
    recording_channels: str = ""
    recording_track: str = ""
    recording_start_time: str = ""
    recording_source: str = ""
    error_code: str = ""


class TranscriptionForm(_Form, frozen=True, kw_only=True):
    """An event of a real-time transcription; which fields come depends on the event."""

    call_sid: str = ""
    transcription_event: str
    transcription_sid: str = ""
    timestamp: str = ""
    sequence_id: int = 0
    language_code: str = ""
    track: str = ""
    transcription_engine: str = ""
    transcription_data: str = ""
    """JSON in a string; see :func:`decode_transcription_data`."""
    final: bool = False
    stability: str = ""
    transcription_error: str = ""
    transcription_error_code: str = ""

    def __repr__(self) -> str:
        return f"<TranscriptionForm {self.transcription_event} {self.track}>"


class TranscriptionData(Struct, frozen=True):
    """The words of a ``transcription-content`` event."""

    transcript: str = ""
    confidence: float | None = None


_FormT = TypeVar("_FormT", bound=_Form)


def decode_form(form: type[_FormT], fields: Sequence[tuple[str, str]]) -> _FormT:
    """The typed form in the decoded fields of a webhook; of a repeated field, the first counts.

    Raises:
        RemoteProtocolError: A field that the form needs is missing, empty or has the wrong type.
    """
    values = dict(reversed(fields))
    try:
        decoded = msgspec.convert(values, form, strict=False)
    except msgspec.ValidationError as exc:
        raise RemoteProtocolError(f"Twilio sent a malformed {form.__name__}: {exc}") from exc
    for info in msgspec.structs.fields(form):
        if info.required and not values.get(info.encode_name):
            raise RemoteProtocolError(f"Twilio sent a malformed {form.__name__}: {info.encode_name} is empty")
    return decoded


def message_of(fields: Sequence[tuple[str, str]]) -> ReceivedSMS:
    """The text message of a webhook.

    Raises:
        RemoteProtocolError: It lacks what it needs.
    """
    form = decode_form(MessageForm, fields)
    values = dict(reversed(fields))
    return ReceivedSMS(
        message_sid=form.message_sid,
        from_=form.from_,
        to=form.to,
        text=form.body,
        media=tuple(values.get(f"MediaUrl{number}", "") for number in range(min(form.num_media, 10))),
        parameters=tuple(fields),
    )


_transcription_data = msgspec.json.Decoder(TranscriptionData, strict=False)


def decode_transcription_data(text: str) -> TranscriptionData:
    """The words in the JSON string that a ``transcription-content`` callback carries.

    Raises:
        RemoteProtocolError: It is not such JSON.
    """
    try:
        return _transcription_data.decode(text)
    except UNDECODABLE as exc:
        raise RemoteProtocolError(f"Twilio sent malformed TranscriptionData: {exc}") from exc
