"""Plivo's messages of a media stream, from the carrier's end.

Source: Plivo, Audio Streaming, "Stream events" and "Send audio to a call".
"""

from __future__ import annotations

from base64 import b64encode

import msgspec
from msgspec import Struct

from dialog.audio.convert import Converter
from dialog.message import MULAW_8K, AudioFormat
from dialog.testing.dialects import Dialect, Heard, StreamFacts, json_text

__all__ = ["PlivoDialect"]


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
