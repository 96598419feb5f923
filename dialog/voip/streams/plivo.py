"""Plivo's audio streams.

Source: Plivo, Audio Streaming, "Stream events" and "Send audio to a call". Whether ``stop`` is sent, and whether
a clear gives back pending checkpoints, is not documented: neither is needed.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Any, ClassVar, Final, TypeAlias

import msgspec
from msgspec import Struct, field

from dialog.message import MULAW_8K, AudioFormat
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped, StreamEvent
from dialog.voip.streams.dialect import Dialect, audio_format_of, texts

__all__ = ["PlivoDialect"]


class _Message(Struct, frozen=True, rename="camel", tag_field="event"):
    """Every message names its event."""


class _Format(Struct, frozen=True, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000


class _StartDetail(Struct, frozen=True, rename="camel"):
    call_id: str
    stream_id: str
    account_id: str = ""
    media_format: _Format = _Format()


class _Start(_Message, frozen=True, tag="start"):
    start: _StartDetail
    extra_headers: Any = field(name="extra_headers", default=None)


class _MediaDetail(Struct, frozen=True, gc=False):
    payload: bytes
    track: str = "inbound"


class _Media(_Message, frozen=True, gc=False, tag="media"):
    media: _MediaDetail


class _Played(_Message, frozen=True, tag="playedStream"):
    name: str


class _DtmfDetail(Struct, frozen=True):
    digit: str


class _Dtmf(_Message, frozen=True, tag="dtmf"):
    dtmf: _DtmfDetail


class _Stop(_Message, frozen=True, tag="stop"):
    pass


_Any: TypeAlias = _Start | _Media | _Played | _Dtmf | _Stop
_KNOWN: Final = frozenset({"start", "media", "playedStream", "dtmf", "stop"})
_decoder: Final[msgspec.json.Decoder[_Any]] = msgspec.json.Decoder(_Any, strict=False)
_PAIR: Final = re.compile(r"\s*([\w.-]+)\s*[=:]\s*([^;,{}]*)")


class PlivoDialect(Dialect):
    """``start`` comes first; what is played is confirmed by checkpoints."""

    carrier: ClassVar[str] = "plivo"

    def __init__(self) -> None:
        super().__init__()
        self._format = MULAW_8K
        self._at_ms = 0.0
        """Of the caller's next audio, which is taken for continuous: what Plivo's timestamps count from is not said."""
        self._content = b""

    @staticmethod
    def recognises(message: dict[str, Any]) -> bool:
        """See :class:`Dialect`."""
        start = message.get("start")
        return isinstance(start, dict) and "streamId" in start and "callId" in start

    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`Dialect`."""
        message = self._decode(_decoder, _KNOWN, text)
        if isinstance(message, _Media):
            self._expect("media")
            media = message.media
            if media.track != "inbound":
                return ()
            at_ms = self._at_ms
            self._at_ms += self._format.ms(len(media.payload))
            return (Audio(media.payload, at_ms),)
        if message is None:
            return ()
        if isinstance(message, _Start):
            return (self._started(message),)
        self._expect("a message")
        if isinstance(message, _Played):
            return (Marked(message.name),)
        if isinstance(message, _Dtmf):
            return (Pressed(message.dtmf.digit),)
        return (Stopped(),)

    def media(self, audio: bytes) -> bytes:
        """See :class:`Dialect`."""
        return b'{"event":"playAudio","media":{%b"payload":"%b"}}' % (self._content, b2a_base64(audio, newline=False))

    def mark(self, name: str) -> bytes:
        """See :class:`Dialect`."""
        return msgspec.json.encode({"event": "checkpoint", "streamId": self.stream_id, "name": name})

    def clear(self) -> bytes:
        """See :class:`Dialect`."""
        return msgspec.json.encode({"event": "clearAudio", "streamId": self.stream_id})

    def _started(self, message: _Start) -> StreamStart:
        detail, spoken = message.start, message.start.media_format
        audio_format = audio_format_of(self.carrier, spoken.encoding, spoken.sample_rate)
        self._opened(detail.stream_id, audio_format)
        self._format = audio_format
        self._content = _content(audio_format)
        parameters = _headers(message.extra_headers)
        return StreamStart(
            carrier=self.carrier,
            carrier_call_id=detail.call_id,
            account_id=detail.account_id,
            stream_id=detail.stream_id,
            from_=parameters.get("from", ""),
            to=parameters.get("to", ""),
            parameters=parameters,
            audio_format=audio_format,
        )


def _content(audio_format: AudioFormat) -> bytes:
    kind = b"audio/x-mulaw" if audio_format.encoding == "mulaw" else b"audio/x-l16"
    return b'"contentType":"%b","sampleRate":%d,' % (kind, audio_format.sample_rate)


def _headers(extra: object) -> dict[str, str]:
    """The ``extraHeaders`` of the ``<Stream>``: an object, or pairs in a text, with or without Plivo's prefix."""
    if isinstance(extra, str):
        pairs = [(match[1], match[2].strip()) for match in _PAIR.finditer(extra.replace('"', ""))]
    else:
        pairs = list(texts(extra).items())
    return {name.removeprefix("X-PH-"): value for name, value in pairs}
