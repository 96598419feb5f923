"""Exotel's messages of a media stream, from the carrier's end.

Source: Exotel, AgentStream, "WebSocket protocol".
"""

from __future__ import annotations

from base64 import b64encode

from dialog.audio.convert import Converter
from dialog.message import MULAW_8K, AudioFormat
from dialog.testing.dialects import Dialect, Heard, StreamFacts, heard, json_text, understood

__all__ = ["ExotelDialect"]


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
        said = heard(understood(text))
        if facts.stream_id.encode() not in (text.encode() if isinstance(text, str) else text):
            raise ValueError("a message of another stream")
        if said.kind != "media":
            return said
        if len(said.data) % 320:
            raise ValueError(f"{len(said.data)} bytes of audio are no multiple of 320")
        return said._replace(data=self._from_server.process(said.data))
