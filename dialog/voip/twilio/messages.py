"""The messages of Media Streams in both directions, typed and validated.

Unknown fields are ignored everywhere, because Twilio adds some without notice; a missing or
wrong-typed one is a :class:`~dialog.errors.RemoteProtocolError` that names it. Numbers that Twilio
writes as strings (``"sequenceNumber":"3"``) arrive as numbers.

Source: Twilio Media Streams, WebSocket messages.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from dialog.net.malformed import UNDECODABLE
from dialog.voip.carrier.undecodable import unknown_event

__all__ = [
    "Connected",
    "Dtmf",
    "DtmfDetail",
    "Mark",
    "MarkDetail",
    "Media",
    "MediaDetail",
    "MediaFormat",
    "OutMark",
    "OutMedia",
    "OutMediaDetail",
    "Start",
    "StartDetail",
    "Stop",
    "StopDetail",
    "StreamMessage",
    "Unknown",
    "decode_stream_message",
]


class _Message(Struct, frozen=True, rename="camel", tag_field="event", gc=False):
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


class MediaDetail(Struct, frozen=True, rename="camel", gc=False):
    """Audio: ``payload`` bytes of mu-law at ``timestamp`` ms since the stream's start."""

    payload: bytes
    timestamp: Annotated[int, Meta(ge=-(10**15), le=10**15)] = 0
    chunk: int = 0
    track: str = "inbound"

    def __repr__(self) -> str:
        return f"<MediaDetail {len(self.payload)} bytes at {self.timestamp} ms>"


class Media(_Message, frozen=True, tag="media", gc=False):
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


class MarkDetail(Struct, frozen=True, rename="camel", gc=False):
    """Which mark: a name of our own."""

    name: str


class Mark(_Message, frozen=True, tag="mark", gc=False):
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


def decode_stream_message(text: str | bytes) -> StreamMessage:
    """The typed message in a text frame of Media Streams; audio comes out as bytes.

    Raises:
        RemoteProtocolError: It is not JSON, not an object with an ``event``, too deeply nested, or a
            field of a known event is missing, has the wrong type or is not base64.
    """
    try:
        return _decoder.decode(text)
    except UNDECODABLE as exc:
        return Unknown(unknown_event("Twilio", _KNOWN, text, exc))


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
