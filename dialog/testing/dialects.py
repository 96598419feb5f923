"""How carriers write the messages of a media stream, from the carrier's end.

Audio is 8000 Hz mu-law on the caller's side of it; a dialect that carries something else converts.

Sources: Twilio Media Streams, "WebSocket messages"; Telnyx, "Stream call media over WebSocket"; Plivo, Audio
Streaming, "Stream events"; Exotel, AgentStream, "WebSocket protocol".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from dialog.audio.convert import Converter
from dialog.message import ALAW_8K, MULAW_8K, AudioFormat

__all__ = [
    "Dialect",
    "ExotelDialect",
    "Heard",
    "PlivoDialect",
    "StreamFacts",
    "TelnyxDialect",
    "TwilioDialect",
    "json_text",
]


class StreamFacts(Struct, frozen=True, kw_only=True):
    """What a stream's messages tell of it."""

    account_id: str
    call_id: str
    stream_id: str
    parameters: dict[str, str]
    from_: str = ""
    to: str = ""


class Heard(NamedTuple):
    """What the server has said: play this, tell me when that was played, or be silent."""

    kind: Literal["media", "mark", "clear"]
    data: bytes = b""
    name: str = ""


class _Media(Struct):
    payload: bytes = b""


class _Mark(Struct):
    name: str = ""


class _Incoming(Struct):
    event: str
    stream_sid: str = msgspec.field(name="streamSid", default="")
    media: _Media | None = None
    mark: _Mark | None = None


_decoder = msgspec.json.Decoder(_Incoming)


def json_text(value: Any) -> str:
    """``value`` in JSON."""
    return msgspec.json.encode(value).decode()


class Dialect(ABC):
    """Writes and reads the messages of streams; it may keep what a stream's audio needs, so each has its own."""

    @abstractmethod
    def connected(self) -> str:
        """The first message of a socket; empty: there is none."""

    @abstractmethod
    def start(self, facts: StreamFacts, number: int) -> str:
        """The message that says whose stream it is."""

    @abstractmethod
    def media(self, facts: StreamFacts, number: int, chunk: int, timestamp_ms: int, payload: str) -> str:
        """A frame of the caller's audio."""

    @abstractmethod
    def dtmf(self, facts: StreamFacts, number: int, digit: str) -> str:
        """A key."""

    @abstractmethod
    def mark(self, facts: StreamFacts, number: int, name: str) -> str:
        """All before a mark was played."""

    @abstractmethod
    def stop(self, facts: StreamFacts, number: int) -> str:
        """The last message."""

    @abstractmethod
    def read(self, facts: StreamFacts, text: str | bytes) -> Heard:
        """What the server has said; none of them has binary messages.

        Raises:
            ValueError: Nothing that is understood; the message says why.
        """

    def payload(self, frame: bytes, ready: str) -> str:  # noqa: ARG002
        """The payload of a frame of mu-law, whose base64 is ``ready``."""
        return ready

    def cleared(self, facts: StreamFacts, number: int) -> str:  # noqa: ARG002
        """What answers a clear, besides the marks; empty: nothing."""
        return ""

    @property
    def echoes_cleared(self) -> bool:
        """A clear gives back the marks that wait."""
        return True

    def refused(self, facts: StreamFacts, problem: str) -> str:  # noqa: ARG002
        """What answers a message that is not understood; empty: nothing."""
        return ""


class TwilioDialect(Dialect):
    """Twilio Media Streams."""

    def connected(self) -> str:
        """See :class:`Dialect`."""
        return '{"event":"connected","protocol":"Call","version":"1.0.0"}'

    def start(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return json_text(
            {
                "event": "start",
                "sequenceNumber": str(number),
                "streamSid": facts.stream_id,
                "start": {
                    "accountSid": facts.account_id,
                    "streamSid": facts.stream_id,
                    "callSid": facts.call_id,
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": facts.parameters,
                },
            }
        )

    def media(self, facts: StreamFacts, number: int, chunk: int, timestamp_ms: int, payload: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"media","sequenceNumber":"{number}","streamSid":"{facts.stream_id}","media":'
            f'{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}}}}'
        )

    def dtmf(self, facts: StreamFacts, number: int, digit: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"dtmf","streamSid":"{facts.stream_id}","sequenceNumber":"{number}",'
            f'"dtmf":{{"track":"inbound_track","digit":"{digit}"}}}}'
        )

    def mark(self, facts: StreamFacts, number: int, name: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"mark","sequenceNumber":"{number}","streamSid":"{facts.stream_id}",'
            f'"mark":{{"name":{json_text(name)}}}}}'
        )

    def stop(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"stop","sequenceNumber":"{number}","streamSid":"{facts.stream_id}",'
            f'"stop":{{"accountSid":"{facts.account_id}","callSid":"{facts.call_id}"}}}}'
        )

    def read(self, facts: StreamFacts, text: str | bytes) -> Heard:
        """See :class:`Dialect`."""
        incoming = _understood(text)
        if incoming.stream_sid != facts.stream_id:
            raise ValueError(f"{incoming.event} for stream {incoming.stream_sid or '(none)'}")
        return _heard(incoming)


class TelnyxDialect(Dialect):
    """Telnyx Media Streaming, in ``codec`` at ``sample_rate``; L16 is little-endian.

    ``sends``: what the caller's audio comes in, where that is not what was asked for.
    """

    def __init__(self, codec: str = "PCMU", sample_rate: int = 8000, *, sends: str = "") -> None:
        self.codec = sends or codec
        self.sample_rate = sample_rate
        self._to_server = Converter(MULAW_8K, _format(self.codec, sample_rate))
        self._from_server = Converter(_format(codec, sample_rate), MULAW_8K)

    def connected(self) -> str:
        """See :class:`Dialect`."""
        return '{"event":"connected","version":"1.0.0"}'

    def start(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`; the parameters are the ``client_state``, as it is."""
        return json_text(
            {
                "event": "start",
                "sequence_number": str(number),
                "stream_id": facts.stream_id,
                "start": {
                    "user_id": facts.account_id,
                    "call_control_id": facts.call_id,
                    "call_session_id": facts.call_id,
                    "from": facts.from_,
                    "to": facts.to,
                    "tags": [],
                    "client_state": facts.parameters.get("client_state"),
                    "custom_parameters": {},
                    "media_format": {"encoding": self.codec, "sample_rate": self.sample_rate, "channels": 1},
                },
            }
        )

    def media(self, facts: StreamFacts, number: int, chunk: int, timestamp_ms: int, payload: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"media","sequence_number":"{number}","stream_id":"{facts.stream_id}","media":'
            f'{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}}}}'
        )

    def dtmf(self, facts: StreamFacts, number: int, digit: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"dtmf","stream_id":"{facts.stream_id}","occurred_at":"2026-01-01T00:00:00Z",'
            f'"sequence_number":"{number}","dtmf":{{"digit":"{digit}"}}}}'
        )

    def mark(self, facts: StreamFacts, number: int, name: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"mark","sequence_number":"{number}","stream_id":"{facts.stream_id}",'
            f'"mark":{{"name":{json_text(name)}}}}}'
        )

    def stop(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"stop","sequence_number":"{number}","stream_id":"{facts.stream_id}",'
            f'"stop":{{"user_id":"{facts.account_id}","call_control_id":"{facts.call_id}"}}}}'
        )

    def payload(self, frame: bytes, ready: str) -> str:
        """See :class:`Dialect`."""
        return ready if self._to_server.identity else b64encode(self._to_server.process(frame)).decode()

    def read(self, facts: StreamFacts, text: str | bytes) -> Heard:  # noqa: ARG002  # it names no stream
        """See :class:`Dialect`."""
        heard = _heard(_understood(text))
        return heard._replace(data=self._from_server.process(heard.data)) if heard.data else heard

    def refused(self, facts: StreamFacts, problem: str) -> str:
        """See :class:`Dialect`."""
        error = {"code": 100003, "title": "malformed_frame", "detail": problem[:200]}
        return json_text({"event": "error", "stream_id": facts.stream_id, "payload": error})


class PlivoDialect(Dialect):
    """Plivo's audio streams, in mu-law or, above 8000 Hz, in 16-bit samples.

    ``echoes_cleared``: a clear gives back the checkpoints that wait, which Plivo does not document.
    """

    def __init__(self, sample_rate: int = 8000, *, echoes_cleared: bool = False) -> None:
        self.sample_rate = sample_rate
        self._l16 = sample_rate != 8000
        self._echoes_cleared = echoes_cleared
        wire = AudioFormat("s16le", sample_rate) if self._l16 else MULAW_8K
        self._to_server = Converter(MULAW_8K, wire)
        self._from_server = Converter(wire, MULAW_8K)

    def connected(self) -> str:
        """See :class:`Dialect`: there is none."""
        return ""

    def start(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return json_text(
            {
                "sequenceNumber": number,
                "event": "start",
                "start": {
                    "callId": facts.call_id,
                    "streamId": facts.stream_id,
                    "accountId": facts.account_id,
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": self._content, "sampleRate": self.sample_rate},
                },
                "extra_headers": json_text({f"X-PH-{name}": value for name, value in facts.parameters.items()}),
            }
        )

    def media(self, facts: StreamFacts, number: int, chunk: int, timestamp_ms: int, payload: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"sequenceNumber":{number},"streamId":"{facts.stream_id}","event":"media","media":{{"track":"inbound",'
            f'"timestamp":"{1735689600000 + timestamp_ms}","chunk":{chunk},"payload":"{payload}"}},"extra_headers":""}}'
        )

    def dtmf(self, facts: StreamFacts, number: int, digit: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"dtmf","sequenceNumber":{number},"streamId":"{facts.stream_id}",'
            f'"dtmf":{{"track":"inbound","digit":"{digit}","timestamp":"1735689600000"}}}}'
        )

    def mark(self, facts: StreamFacts, number: int, name: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"playedStream","sequenceNumber":{number},"streamId":"{facts.stream_id}",'
            f'"name":{json_text(name)}}}'
        )

    def stop(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return f'{{"event":"stop","sequenceNumber":{number},"streamId":"{facts.stream_id}"}}'

    def cleared(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return f'{{"event":"clearedAudio","sequenceNumber":{number},"streamId":"{facts.stream_id}"}}'

    @property
    def echoes_cleared(self) -> bool:
        """See :class:`Dialect`."""
        return self._echoes_cleared

    def payload(self, frame: bytes, ready: str) -> str:
        """See :class:`Dialect`."""
        return ready if self._to_server.identity else b64encode(self._to_server.process(frame)).decode()

    def read(self, facts: StreamFacts, text: str | bytes) -> Heard:
        """See :class:`Dialect`."""
        said = _plivo(text)
        if said.event == "playAudio":
            if said.media.content_type != self._content or said.media.sample_rate != self.sample_rate:
                raise ValueError(f"audio in {said.media.content_type} at {said.media.sample_rate}")
            return Heard("media", data=self._from_server.process(said.media.payload))
        if said.stream_id != facts.stream_id:
            raise ValueError(f"{said.event} for stream {said.stream_id or '(none)'}")
        if said.event == "checkpoint" and said.name:
            return Heard("mark", name=said.name)
        if said.event == "clearAudio":
            return Heard("clear")
        raise ValueError(f"unknown or incomplete event {said.event!r}")

    @property
    def _content(self) -> str:
        return "audio/x-l16" if self._l16 else "audio/x-mulaw"


class ExotelDialect(Dialect):
    """Exotel's bidirectional streams: 16-bit samples, in multiples of 320 bytes."""

    def __init__(self, sample_rate: int = 8000) -> None:
        self.sample_rate = sample_rate
        wire = AudioFormat("s16le", sample_rate)
        self._to_server = Converter(MULAW_8K, wire)
        self._from_server = Converter(wire, MULAW_8K)

    def connected(self) -> str:
        """See :class:`Dialect`."""
        return '{"event":"connected"}'

    def start(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return json_text(
            {
                "event": "start",
                "sequence_number": str(number),
                "stream_sid": facts.stream_id,
                "start": {
                    "stream_sid": facts.stream_id,
                    "call_sid": facts.call_id,
                    "account_sid": facts.account_id,
                    "from": facts.from_,
                    "to": facts.to,
                    "custom_parameters": facts.parameters,
                    "media_format": {
                        "encoding": "base64",
                        "sample_rate": str(self.sample_rate),
                        "bit_rate": "128kbps",
                    },
                },
            }
        )

    def media(self, facts: StreamFacts, number: int, chunk: int, timestamp_ms: int, payload: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"media","sequence_number":"{number}","stream_sid":"{facts.stream_id}","media":'
            f'{{"chunk":"{chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}}}}'
        )

    def dtmf(self, facts: StreamFacts, number: int, digit: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"dtmf","sequence_number":"{number}","stream_sid":"{facts.stream_id}",'
            f'"dtmf":{{"digit":"{digit}","duration":"100"}}}}'
        )

    def mark(self, facts: StreamFacts, number: int, name: str) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"mark","sequence_number":"{number}","stream_sid":"{facts.stream_id}",'
            f'"mark":{{"name":{json_text(name)}}}}}'
        )

    def stop(self, facts: StreamFacts, number: int) -> str:
        """See :class:`Dialect`."""
        return (
            f'{{"event":"stop","sequence_number":"{number}","stream_sid":"{facts.stream_id}",'
            f'"stop":{{"call_sid":"{facts.call_id}","account_sid":"{facts.account_id}","reason":"callended"}}}}'
        )

    def payload(self, frame: bytes, ready: str) -> str:  # noqa: ARG002
        """See :class:`Dialect`."""
        return b64encode(self._to_server.process(frame)).decode()

    def read(self, facts: StreamFacts, text: str | bytes) -> Heard:
        """See :class:`Dialect`."""
        heard = _heard(_understood(text))
        if facts.stream_id.encode() not in (text.encode() if isinstance(text, str) else text):
            raise ValueError("a message of another stream")
        if heard.kind != "media":
            return heard
        if len(heard.data) % 320:
            raise ValueError(f"{len(heard.data)} bytes of audio are no multiple of 320")
        return heard._replace(data=self._from_server.process(heard.data))


class _PlivoMedia(Struct, frozen=True, rename="camel"):
    content_type: str = ""
    sample_rate: int = 0
    payload: bytes = b""


class _Plivo(Struct, rename="camel"):
    event: str
    stream_id: str = ""
    name: str = ""
    media: _PlivoMedia = _PlivoMedia()


_plivo_decoder = msgspec.json.Decoder(_Plivo)


def _plivo(text: str | bytes) -> _Plivo:
    if isinstance(text, bytes):
        raise ValueError("binary message")  # noqa: TRY004  # of the protocol, not of Python
    try:
        return _plivo_decoder.decode(text)
    except msgspec.DecodeError as exc:
        raise ValueError(f"invalid message: {exc}") from exc


def _format(codec: str, sample_rate: int) -> AudioFormat:
    return {"PCMU": MULAW_8K, "PCMA": ALAW_8K}.get(codec) or AudioFormat("s16le", sample_rate)


def _understood(text: str | bytes) -> _Incoming:
    if isinstance(text, bytes):
        raise ValueError("binary message")  # noqa: TRY004  # of the protocol, not of Python
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as exc:
        raise ValueError(f"invalid message: {exc}") from exc


def _heard(incoming: _Incoming) -> Heard:
    if incoming.event == "media" and incoming.media is not None:
        return Heard("media", data=incoming.media.payload)
    if incoming.event == "mark" and incoming.mark is not None and incoming.mark.name:
        return Heard("mark", name=incoming.mark.name)
    if incoming.event == "clear":
        return Heard("clear")
    raise ValueError(f"unknown or incomplete event {incoming.event!r}")
