"""A media stream from the carrier's end, but for its transport: what is sent, what becomes of what comes.

Facts: Twilio Media Streams, "WebSocket messages": ``connected`` and ``start``, then one media message
for every 20 ms, marks echoed when played, ``stop`` before the carrier closes. A message that Twilio
does not understand is dropped (warning 31951).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from base64 import b64encode
from typing import Literal, Protocol

import msgspec

from dialog.clock import Clock
from dialog.testing.media import Cleared, PlaybackBuffer

__all__ = ["FRAME_BYTES", "FRAME_MS", "SILENT_FRAME", "SILENT_PAYLOAD", "CarrierStream", "Listener", "StreamEnd"]

FRAME_MS = 20
FRAME_BYTES = 160
SILENT_FRAME = b"\xff" * FRAME_BYTES
SILENT_PAYLOAD = b64encode(SILENT_FRAME).decode()

StreamEnd = Literal["stopped", "dropped", "closed"]
"""We sent ``stop``; we tore the connection; the server closed it (or it broke)."""


class _Media(msgspec.Struct):
    payload: bytes = b""


class _Mark(msgspec.Struct):
    name: str = ""


class _Incoming(msgspec.Struct):
    event: str
    stream_sid: str = msgspec.field(name="streamSid", default="")
    media: _Media | None = None
    mark: _Mark | None = None


_decoder = msgspec.json.Decoder(_Incoming)


class Listener(Protocol):
    """Who uses the stream."""

    def sent(self, at_ms: float, frame: bytes) -> None:
        """A frame of the caller left at that time of the call."""

    def arrived(self, now_ms: float, data: bytes) -> None:
        """Audio of the agent arrived."""

    def ticked(self, now_ms: float) -> None:
        """20 ms have passed."""

    def cleared(self, now_ms: float, cleared: Cleared) -> None:
        """The agent's side cleared the buffer."""

    def warned(self, code: int, detail: str) -> None:
        """What Twilio would write into the debugger."""

    def noted(self, name: str, detail: str) -> None:
        """Something worth a line happened."""


class CarrierStream(ABC):
    """One stream of a call; who extends it brings the transport (:meth:`_send`, :meth:`run`, :meth:`drop`)."""

    def __init__(
        self,
        listener: Listener,
        *,
        clock: Clock,
        epoch: float,
        account_sid: str,
        call_sid: str,
        stream_sid: str,
        parameters: dict[str, str],
    ) -> None:
        self.stream_sid = stream_sid
        self.buffer: PlaybackBuffer = PlaybackBuffer()
        self.started: asyncio.Event = asyncio.Event()
        self.close_code: int = 0
        self.close_reason: str = ""
        self._listener = listener
        self._clock = clock
        self._epoch = epoch
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._parameters = parameters
        self._end: StreamEnd = "closed"
        self._sequence = 0
        self._chunk = 0

    @property
    def end(self) -> StreamEnd:
        """How it ended, once it has."""
        return self._end

    def now_ms(self) -> float:
        """Milliseconds of the call."""
        return (self._clock.now() - self._epoch) * 1000.0

    @abstractmethod
    async def run(self) -> StreamEnd:
        """Open the stream, carry media until either side ends it, close the socket."""

    @abstractmethod
    async def close(self) -> None:
        """Close the socket of a stream that is not run."""

    @abstractmethod
    def stop(self) -> None:
        """End the stream as the carrier does when the call ends or moves on: ``stop``, then close."""

    @abstractmethod
    def drop(self) -> None:
        """Tear the connection (TCP reset) without a word."""

    def press(self, digit: str) -> None:
        """Send a key press."""
        self._send(
            f'{{"event":"dtmf","streamSid":"{self.stream_sid}","sequenceNumber":"{self._number()}",'
            f'"dtmf":{{"track":"inbound_track","digit":"{digit}"}}}}'
        )

    # What is sent.

    @abstractmethod
    def _send(self, text: str | bytes) -> None:
        """Send a message, after those before it; never waits."""

    def _number(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send_connected(self) -> None:
        self._send('{"event":"connected","protocol":"Call","version":"1.0.0"}')

    def _send_start(self) -> None:
        message = {
            "event": "start",
            "sequenceNumber": str(self._number()),
            "streamSid": self.stream_sid,
            "start": {
                "accountSid": self._account_sid,
                "streamSid": self.stream_sid,
                "callSid": self._call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self._parameters,
            },
        }
        self._send(msgspec.json.encode(message).decode())

    def _media(self, timestamp_ms: int, payload: str) -> str:
        """The message of the frame whose ``chunk`` was counted already."""
        return (
            f'{{"event":"media","sequenceNumber":"{self._number()}","streamSid":"{self.stream_sid}","media":'
            f'{{"track":"inbound","chunk":"{self._chunk}","timestamp":"{timestamp_ms}","payload":"{payload}"}}}}'
        )

    def _send_stop(self) -> None:
        self._send(
            f'{{"event":"stop","sequenceNumber":"{self._number()}","streamSid":"{self.stream_sid}",'
            f'"stop":{{"accountSid":"{self._account_sid}","callSid":"{self._call_sid}"}}}}'
        )

    def _echo(self, name: str) -> None:
        text = msgspec.json.encode(name).decode()
        self._send(
            f'{{"event":"mark","sequenceNumber":"{self._number()}","streamSid":"{self.stream_sid}",'
            f'"mark":{{"name":{text}}}}}'
        )

    # What comes.

    def _receive(self, message: str | bytes) -> None:
        now = self.now_ms()
        if isinstance(message, bytes):
            self._listener.warned(31951, "binary message")
            return
        try:
            incoming = _decoder.decode(message)
        except msgspec.DecodeError as exc:
            self._listener.warned(31951, f"invalid message: {exc}")
            return
        if incoming.stream_sid != self.stream_sid:
            self._listener.warned(31951, f"{incoming.event} for stream {incoming.stream_sid or '(none)'}")
        elif incoming.event == "media" and incoming.media is not None:
            data = incoming.media.payload
            if data.startswith((b"RIFF", b"ID3")):
                self._listener.warned(31951, "the payload starts with a file header, which is played as a click")
            self.buffer.feed(data, now)
            self._listener.arrived(now, data)
        elif incoming.event == "mark" and incoming.mark is not None and incoming.mark.name:
            self.buffer.mark(incoming.mark.name, now)
            self._echo_due()
        elif incoming.event == "clear":
            self._listener.ticked(now)  # what was played until now was heard
            cleared = self.buffer.clear(now)
            self._listener.cleared(now, cleared)
            for name in cleared.marks:
                self._echo(name)
            self._marks_changed()
        else:
            self._listener.warned(31951, f"unknown or incomplete event {incoming.event!r}")

    def _echo_due(self, late_ms: float = 0.0) -> None:
        """Echo the marks whose audio was played ``late_ms`` ago."""
        for name in self.buffer.due_marks(self.now_ms() - late_ms):
            self._echo(name)
        self._marks_changed()

    def _marks_changed(self) -> None:  # noqa: B027  # who keeps no timer need not know
        """Other marks wait now: for who keeps a timer for the next."""
