"""The media stream protocol of Telnyx, without a socket: text in, events and text out.

Source: Telnyx, "Stream call media over WebSocket" and "Media streaming".
"""

from __future__ import annotations

import logging
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from dialog.audio.convert import Converter
from dialog.errors import RemoteProtocolError, UnsupportedFormat
from dialog.message import AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped, StreamEvent, Timestamp
from dialog.voip.carrier.undecodable import unknown_event
from dialog.voip.telnyx.order import Reorder

__all__ = ["Codec", "TelnyxStream", "audio_format_of", "decode_state", "encode_state"]

logger = logging.getLogger(__name__)

Codec: TypeAlias = Literal["PCMU", "PCMA", "L16"]

_ENCODINGS: Final[dict[str, Literal["mulaw", "alaw", "s16le"]]] = {"PCMU": "mulaw", "PCMA": "alaw", "L16": "s16le"}


def audio_format_of(codec: str, sample_rate: int) -> AudioFormat:
    """What a codec's samples are here. L16 is taken for little-endian, which Telnyx does not say.

    Raises:
        RemoteProtocolError: It is a codec that is not spoken here.
    """
    encoding = _ENCODINGS.get(codec.upper())
    if encoding is None:
        raise RemoteProtocolError(f"Telnyx streams {codec[:20]!r}; only {', '.join(_ENCODINGS)} are spoken here")
    return AudioFormat(encoding, sample_rate if encoding == "s16le" else 8000)


class _Connected(Struct, frozen=True, tag_field="event", tag="connected"):
    pass


class _Format(Struct, frozen=True):
    encoding: str = "PCMU"
    sample_rate: int = 8000
    channels: int = 1


class _StartDetail(Struct, frozen=True):
    call_control_id: str
    from_: str = field(name="from", default="")
    to: str = ""
    client_state: str | None = None
    custom_parameters: dict[str, str] | None = None
    media_format: _Format = _Format()


class _Start(Struct, frozen=True, tag_field="event", tag="start"):
    start: _StartDetail
    stream_id: str = ""


class _MediaDetail(Struct, frozen=True, gc=False):
    payload: bytes
    timestamp: Timestamp = 0
    chunk: int = 0
    track: str = "inbound"


class _Media(Struct, frozen=True, gc=False, tag_field="event", tag="media"):
    media: _MediaDetail
    stream_id: str = ""


class _MarkDetail(Struct, frozen=True):
    name: str


class _Mark(Struct, frozen=True, tag_field="event", tag="mark"):
    mark: _MarkDetail


class _DtmfDetail(Struct, frozen=True):
    digit: str


class _Dtmf(Struct, frozen=True, tag_field="event", tag="dtmf"):
    dtmf: _DtmfDetail


class _Stop(Struct, frozen=True, tag_field="event", tag="stop"):
    pass


class _ErrorDetail(Struct, frozen=True):
    code: int = 0
    title: str = ""
    detail: str = ""


class _Error(Struct, frozen=True, tag_field="event", tag="error"):
    payload: _ErrorDetail = _ErrorDetail()


_Message: TypeAlias = _Connected | _Start | _Media | _Mark | _Dtmf | _Stop | _Error
_KNOWN: Final = frozenset({"connected", "start", "media", "mark", "dtmf", "stop", "error"})
# Not strict: numbers come as strings.
_decoder: Final[msgspec.json.Decoder[_Message]] = msgspec.json.Decoder(_Message, strict=False)
_state: Final = msgspec.json.Decoder(dict[str, str])


def encode_state(parameters: Iterable[tuple[str, str]]) -> str:
    """What Telnyx gives back with every webhook and stream of a call, as it wants it: base64."""
    return b2a_base64(msgspec.json.encode(dict(parameters)), newline=False).decode()


def decode_state(text: str | None) -> dict[str, str]:
    """What :func:`encode_state` was given; nothing, if it was something else."""
    try:
        return _state.decode(b64decode(text or "", validate=True))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}


class TelnyxStream:
    """One stream, whose audio is given and taken in ``audio_format``."""

    __slots__ = ("_caller", "_order", "_state", "audio_format", "audio_rate", "max_written", "stream_id")

    binary: bool = False

    def __init__(self, audio_format: AudioFormat) -> None:
        self.audio_format = audio_format
        self.audio_rate: int = audio_format.size(1000)
        self.max_written: int = audio_format.size(1000) // 2  # 300 ms in base64, and what is around it
        self.stream_id: str = ""
        self._state: Literal["new", "started", "stopped"] = "new"
        self._caller: Converter | None = None
        """For the caller's audio, where Telnyx could not send it as it was asked."""
        self._order = Reorder()

    @property
    def name(self) -> str:
        """See :class:`~dialog.voip.wires.Codec`."""
        return self.stream_id

    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`~dialog.voip.carrier.stream.MediaStream`."""
        message = self._decode(text)
        if isinstance(message, _Media):
            self._expect("media")
            media = message.media
            if media.track != "inbound":
                return ()
            data = media.payload if self._caller is None else self._caller.process(media.payload)
            return self._order.put(media.chunk, Audio(data, media.timestamp))
        if message is None or isinstance(message, _Connected):
            return ()
        if isinstance(message, _Start):
            return (self._started(message),)
        if isinstance(message, _Error):
            error = message.payload
            logger.warning("stream %s: Telnyx reports %d %.80s", self.stream_id, error.code, error.title)
            return ()
        if isinstance(message, _Mark):
            self._expect("mark")
            return (Marked(message.mark.name),)
        if isinstance(message, _Dtmf):
            self._expect("dtmf")
            return (Pressed(message.dtmf.digit),)
        self._expect("stop")
        self._state = "stopped"
        return (*self._order.flush(), Stopped())

    def media(self, audio: bytes) -> bytes:
        """The message that plays ``audio`` after what was sent before."""
        return b'{"event":"media","media":{"payload":"%b"}}' % b2a_base64(audio, newline=False)

    def mark(self, name: str) -> bytes:
        """The message that asks to be told, by the same name, when all before it was played."""
        return b'{"event":"mark","mark":{"name":%b}}' % msgspec.json.encode(name)

    def clear(self) -> bytes:
        """The message that drops what was sent and not played; pending marks come back at once."""
        return b'{"event":"clear"}'

    def _started(self, message: _Start) -> StreamStart:
        if self._state != "new":
            raise RemoteProtocolError(f"Telnyx stream {self.stream_id}: start came twice")
        detail, spoken = message.start, message.start.media_format
        audio_format = audio_format_of(spoken.encoding, spoken.sample_rate)
        if spoken.channels != 1:
            raise RemoteProtocolError(f"Telnyx stream {message.stream_id}: {spoken.channels} channels instead of one")
        if audio_format != self.audio_format:
            try:
                self._caller = Converter(audio_format, self.audio_format)
            except UnsupportedFormat as exc:
                raise RemoteProtocolError(f"Telnyx stream {message.stream_id}: {exc}") from exc
        self._state = "started"
        self.stream_id = message.stream_id
        return StreamStart(
            carrier_call_id=detail.call_control_id,
            stream_id=message.stream_id,
            from_=detail.from_,
            to=detail.to,
            parameters={**(detail.custom_parameters or {}), **decode_state(detail.client_state)},
            audio_format=self.audio_format,
        )

    def _expect(self, event: str) -> None:
        if self._state != "started":
            when = "before start" if self._state == "new" else "after stop"
            raise RemoteProtocolError(f"Telnyx stream {self.stream_id or '(new)'}: {event} came {when}")

    def _decode(self, text: str | bytes) -> _Message | None:
        try:
            return _decoder.decode(text)
        except UNDECODABLE as exc:
            event = unknown_event("Telnyx", _KNOWN, text, exc)
        logger.debug("ignored a Telnyx stream message of the unknown event %.40r", event)
        return None
