"""Streams of those that speak Twilio's protocol without its webhooks, SignalWire's cXML for instance.

Source: Twilio Media Streams, "WebSocket messages"; SignalWire, cXML ``<Stream>``.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dialog.message import MULAW_8K
from dialog.voip.carrier.start import StreamStart
from dialog.voip.carrier.stream import Audio, Marked, Pressed, Stopped, StreamEvent
from dialog.voip.streams.dialect import Dialect
from dialog.voip.twilio.messages import Dtmf, Mark, Media, Start, Stop
from dialog.voip.twilio.stream import TwilioStream

__all__ = ["CompatibleDialect"]


class CompatibleDialect(Dialect):
    """Twilio Media Streams, as :class:`~dialog.voip.twilio.stream.TwilioStream` reads and writes them."""

    carrier: ClassVar[str] = "compatible"

    def __init__(self) -> None:
        super().__init__()
        self._stream = TwilioStream()

    @staticmethod
    def recognises(message: dict[str, Any]) -> bool:
        """See :class:`Dialect`."""
        start = message.get("start")
        return isinstance(start, dict) and "callSid" in start and "streamSid" in message

    def receive(self, text: str | bytes) -> tuple[StreamEvent, ...]:
        """See :class:`Dialect`."""
        if self._stream.state == "new":  # its ``connected`` was read by whoever has recognised it
            self._stream.state = "connected"
        message = self._stream.receive(text)
        if isinstance(message, Media):
            return (Audio(message.media.payload, message.media.timestamp),)
        if isinstance(message, Mark):
            return (Marked(message.mark.name),)
        if isinstance(message, Start):
            return (self._started(message),)
        if isinstance(message, Dtmf):
            return (Pressed(message.dtmf.digit),)
        return (Stopped(),) if isinstance(message, Stop) else ()

    def media(self, audio: bytes) -> bytes:
        """See :class:`Dialect`."""
        return self._stream.media(audio)

    def mark(self, name: str) -> bytes:
        """See :class:`Dialect`."""
        return self._stream.mark(name)

    def clear(self) -> bytes:
        """See :class:`Dialect`."""
        return self._stream.clear()

    def _started(self, message: Start) -> StreamStart:
        self._opened(message.stream_sid, MULAW_8K)
        detail = message.start
        parameters = detail.custom_parameters
        return StreamStart(
            carrier=self.carrier,
            carrier_call_id=detail.call_sid,
            account_id=detail.account_sid,
            stream_id=message.stream_sid,
            from_=parameters.get("From", parameters.get("from", "")),
            to=parameters.get("To", parameters.get("to", "")),
            parameters=parameters,
        )
