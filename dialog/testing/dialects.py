"""How carriers write the messages of a media stream, from the carrier's end.

Audio is 8000 Hz mu-law on the caller's side of it; a dialect that carries something else converts.

Sources: Twilio Media Streams, "WebSocket messages"; Telnyx, "Stream call media over WebSocket".
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
    "Heard",
    "Incoming",
    "StreamFacts",
    "TelnyxDialect",
    "TwilioDialect",
    "heard",
    "json_text",
    "understood",
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


class Incoming(Struct):
    """A message of the server's, as Twilio has it."""

    event: str
    stream_sid: str = msgspec.field(name="streamSid", default="")
    media: _Media | None = None
    mark: _Mark | None = None


_decoder = msgspec.json.Decoder(Incoming)


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
        incoming = understood(text)
        if incoming.stream_sid != facts.stream_id:
            raise ValueError(f"{incoming.event} for stream {incoming.stream_sid or '(none)'}")
        return heard(incoming)


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
        said = heard(understood(text))
        return said._replace(data=self._from_server.process(said.data)) if said.data else said

    def refused(self, facts: StreamFacts, problem: str) -> str:
        """See :class:`Dialect`."""
        error = {"code": 100003, "title": "malformed_frame", "detail": problem[:200]}
        return json_text({"event": "error", "stream_id": facts.stream_id, "payload": error})


def _format(codec: str, sample_rate: int) -> AudioFormat:
    return {"PCMU": MULAW_8K, "PCMA": ALAW_8K}.get(codec) or AudioFormat("s16le", sample_rate)


def understood(text: str | bytes) -> Incoming:
    """A message of the server's in JSON.

    Raises:
        ValueError: It is none.
    """
    if isinstance(text, bytes):
        raise ValueError("binary message")  # noqa: TRY004  # of the protocol, not of Python
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as exc:
        raise ValueError(f"invalid message: {exc}") from exc


def heard(incoming: Incoming) -> Heard:
    """What a message says, in Twilio's words and those that are like them.

    Raises:
        ValueError: Nothing that is understood.
    """
    if incoming.event == "media" and incoming.media is not None:
        return Heard("media", data=incoming.media.payload)
    if incoming.event == "mark" and incoming.mark is not None and incoming.mark.name:
        return Heard("mark", name=incoming.mark.name)
    if incoming.event == "clear":
        return Heard("clear")
    raise ValueError(f"unknown or incomplete event {incoming.event!r}")
