"""Exotel's bidirectional streams (the Voicebot applet, AgentStream).

Source: Exotel, AgentStream, "WebSocket protocol" and "Working with the Stream and Voicebot Applet". How ``encoding``
is written differs between its pages; samples are 16 bits, little-endian.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any, ClassVar, Final, TypeAlias

import msgspec
from msgspec import Struct, field

from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped, StreamEvent, Timestamp
from dialog.voip.streams.dialect import Dialect, audio_format_of, texts

__all__ = ["ExotelDialect"]


class _Connected(Struct, frozen=True, tag_field="event", tag="connected"):
    pass


class _Format(Struct, frozen=True):
    encoding: str = "base64"
    sample_rate: int = 8000


class _StartDetail(Struct, frozen=True):
    call_sid: str
    stream_sid: str
    account_sid: str = ""
    from_: str = field(name="from", default="")
    to: str = ""
    custom_parameters: Any = None
    media_format: _Format = _Format()


class _Start(Struct, frozen=True, tag_field="event", tag="start"):
    start: _StartDetail


class _MediaDetail(Struct, frozen=True, gc=False):
    payload: bytes
    timestamp: Timestamp = 0


class _Media(Struct, frozen=True, gc=False, tag_field="event", tag="media"):
    media: _MediaDetail


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


_Any: TypeAlias = _Connected | _Start | _Media | _Mark | _Dtmf | _Stop
_KNOWN: Final = frozenset({"connected", "start", "media", "mark", "dtmf", "stop"})
_decoder: Final[msgspec.json.Decoder[_Any]] = msgspec.json.Decoder(_Any, strict=False)


class ExotelDialect(Dialect):
    """Twilio's messages in snake case, with 16-bit samples in multiples of 320 bytes."""

    carrier: ClassVar[str] = "exotel"
    grain: ClassVar[int] = 320

    @staticmethod
    def recognises(message: dict[str, Any]) -> bool:
        """See :class:`Dialect`."""
        start = message.get("start")
        return isinstance(start, dict) and "stream_sid" in start and "call_sid" in start

    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`Dialect`."""
        message = self._decode(_decoder, _KNOWN, text)
        if isinstance(message, _Media):
            self._expect("media")
            return (Audio(message.media.payload, message.media.timestamp),)
        if message is None or isinstance(message, _Connected):
            return ()
        if isinstance(message, _Start):
            return (self._started(message.start),)
        self._expect("a message")
        if isinstance(message, _Mark):
            return (Marked(message.mark.name),)
        if isinstance(message, _Dtmf):
            return (Pressed(message.dtmf.digit),)
        return (Stopped(),)

    def media(self, audio: bytes) -> bytes:
        """See :class:`Dialect`."""
        return b'{"event":"media","stream_sid":%b,"media":{"payload":"%b"}}' % (
            msgspec.json.encode(self.stream_id),
            b2a_base64(audio, newline=False),
        )

    def mark(self, name: str) -> bytes:
        """See :class:`Dialect`."""
        return msgspec.json.encode({"event": "mark", "stream_sid": self.stream_id, "mark": {"name": name}})

    def clear(self) -> bytes:
        """See :class:`Dialect`."""
        return msgspec.json.encode({"event": "clear", "stream_sid": self.stream_id})

    def _started(self, detail: _StartDetail) -> StreamStart:
        audio_format = audio_format_of(self.carrier, detail.media_format.encoding, detail.media_format.sample_rate)
        self._opened(detail.stream_sid, audio_format)
        return StreamStart(
            carrier=self.carrier,
            carrier_call_id=detail.call_sid,
            account_id=detail.account_sid,
            stream_id=detail.stream_sid,
            from_=detail.from_,
            to=detail.to,
            parameters=texts(detail.custom_parameters),
            audio_format=audio_format,
        )
