"""What Twilio sends: Media Streams messages and webhook forms, typed and validated.

Unknown fields are ignored everywhere, because Twilio adds some without notice; a missing or
wrong-typed one is a :class:`~dialog.errors.RemoteProtocolError` that names it. Numbers that Twilio
writes as strings (``"sequenceNumber":"3"``) arrive as numbers.

Source: Twilio Media Streams, WebSocket messages; Twilio Voice, webhook requests and callbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct, field

from dialog.errors import RemoteProtocolError

__all__ = [
    "AfterForm",
    "CallStatus",
    "CallStatusForm",
    "Connected",
    "DialForm",
    "Dtmf",
    "DtmfDetail",
    "Mark",
    "MarkDetail",
    "Media",
    "MediaDetail",
    "MediaFormat",
    "NumberStatusForm",
    "OutMark",
    "OutMedia",
    "OutMediaDetail",
    "RecordingForm",
    "Start",
    "StartDetail",
    "Stop",
    "StopDetail",
    "StreamMessage",
    "StreamStatusForm",
    "TranscriptionForm",
    "Unknown",
    "VoiceForm",
    "decode_form",
    "decode_stream_message",
    "decode_transcription_data",
]


# --- Media Streams, from Twilio -------------------------------------------------------------------


class _Message(Struct, frozen=True, rename="camel", tag_field="event"):
    """Every message names its event; the stream is named from ``start`` on."""


class Connected(_Message, frozen=True, tag="connected"):
    """The first message of a socket."""

    protocol: str = "Call"
    version: str = "1.0.0"


class MediaFormat(Struct, frozen=True, rename="camel"):
    """How audio is encoded; numbers are real numbers here. In practice ``audio/x-mulaw``, 8000 Hz, 1."""

    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class StartDetail(Struct, frozen=True, rename="camel"):
    """Which call the stream belongs to, and the values of its ``<Parameter>`` nouns."""

    account_sid: str
    call_sid: str
    stream_sid: str = ""
    tracks: tuple[str, ...] = ("inbound",)
    media_format: MediaFormat = MediaFormat()
    custom_parameters: dict[str, str] = field(default_factory=dict[str, str])


class Start(_Message, frozen=True, tag="start"):
    """The second message of a socket."""

    stream_sid: str
    start: StartDetail
    sequence_number: int = 0


class MediaDetail(Struct, frozen=True, rename="camel"):
    """Audio: ``payload`` bytes of mu-law at ``timestamp`` ms since the stream's start."""

    payload: bytes
    timestamp: int = 0
    chunk: int = 0
    track: str = "inbound"

    def __repr__(self) -> str:
        return f"<MediaDetail {len(self.payload)} bytes at {self.timestamp} ms>"


class Media(_Message, frozen=True, tag="media"):
    """A frame of the caller's audio, 20 ms in practice."""

    stream_sid: str
    media: MediaDetail
    sequence_number: int = 0


class DtmfDetail(Struct, frozen=True, rename="camel"):
    """A key: ``0-9 * # A-D``."""

    digit: str
    track: str = "inbound_track"

    def __repr__(self) -> str:
        return "<DtmfDetail>"


class Dtmf(_Message, frozen=True, tag="dtmf"):
    """The caller pressed a key."""

    stream_sid: str
    dtmf: DtmfDetail
    sequence_number: int = 0


class MarkDetail(Struct, frozen=True, rename="camel"):
    """Which mark: a name of our own."""

    name: str


class Mark(_Message, frozen=True, tag="mark"):
    """All media before the mark of that name was played, or dropped by a clear."""

    stream_sid: str
    mark: MarkDetail
    sequence_number: int = 0


class StopDetail(Struct, frozen=True, rename="camel"):
    """Which call the stream belonged to."""

    account_sid: str = ""
    call_sid: str = ""


class Stop(_Message, frozen=True, tag="stop"):
    """The last message of a socket."""

    stream_sid: str
    stop: StopDetail = StopDetail()
    sequence_number: int = 0


class Unknown(Struct, frozen=True):
    """An event that Twilio added after this was written."""

    event: str


StreamMessage: TypeAlias = Connected | Start | Media | Dtmf | Mark | Stop | Unknown
"""What :func:`decode_stream_message` returns."""

_KNOWN: Final = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})
# Not strict: numbers come as strings, and some bridges write real numbers.
_decoder: msgspec.json.Decoder[StreamMessage] = msgspec.json.Decoder(
    Connected | Start | Media | Dtmf | Mark | Stop, strict=False
)


class _Envelope(Struct):
    event: str


_envelope = msgspec.json.Decoder(_Envelope)


def decode_stream_message(text: str | bytes) -> StreamMessage:
    """The typed message in a text frame of Media Streams; audio comes out as bytes.

    Raises:
        RemoteProtocolError: It is not JSON, not an object with an ``event``, too deeply nested, or a
            field of a known event is missing, has the wrong type or is not base64.
    """
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        error: Exception = exc
    try:
        event = _envelope.decode(text).event
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise RemoteProtocolError(f"Twilio sent a malformed media stream message: {exc}") from exc
    if event not in _KNOWN:
        return Unknown(event)
    raise RemoteProtocolError(f"Twilio sent a malformed {event!r} message: {error}") from error


# --- Media Streams, to Twilio ---------------------------------------------------------------------


class OutMediaDetail(Struct, frozen=True):
    """Audio, in base64 on the wire."""

    payload: bytes

    def __repr__(self) -> str:
        return f"<OutMediaDetail {len(self.payload)} bytes>"


class OutMedia(Struct, frozen=True, rename="camel", tag_field="event", tag="media"):
    """Audio to play: bare mu-law samples at 8000 Hz. The hot path writes it without this struct."""

    stream_sid: str
    media: OutMediaDetail


class OutMark(Struct, frozen=True, rename="camel", tag_field="event", tag="mark"):
    """Comes back when all audio sent before it was played."""

    stream_sid: str
    mark: MarkDetail


# --- Webhooks -------------------------------------------------------------------------------------

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


_transcription_data = msgspec.json.Decoder(TranscriptionData, strict=False)


def decode_transcription_data(text: str) -> TranscriptionData:
    """The words in the JSON string that a ``transcription-content`` callback carries.

    Raises:
        RemoteProtocolError: It is not such JSON.
    """
    try:
        return _transcription_data.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        raise RemoteProtocolError(f"Twilio sent malformed TranscriptionData: {exc}") from exc
