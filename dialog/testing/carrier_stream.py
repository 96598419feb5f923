"""A media stream from the carrier's end, but for its transport: what is sent, what becomes of what comes.

Facts: Twilio Media Streams, "WebSocket messages": ``connected`` and ``start``, then one media message
for every 20 ms, marks echoed when played, ``stop`` before the carrier closes. A message that is not
understood is dropped (Twilio's warning 31951). How the messages look is the dialect's.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from base64 import b64encode
from typing import Literal, Protocol

from dialog.clock import Clock
from dialog.testing.dialects import Dialect, StreamFacts, TwilioDialect
from dialog.testing.media import Cleared, PlaybackBuffer

__all__ = ["FRAME_BYTES", "FRAME_MS", "SILENT_FRAME", "SILENT_PAYLOAD", "CarrierStream", "Listener", "StreamEnd"]

FRAME_MS = 20
FRAME_BYTES = 160
SILENT_FRAME = b"\xff" * FRAME_BYTES
SILENT_PAYLOAD = b64encode(SILENT_FRAME).decode()

StreamEnd = Literal["stopped", "dropped", "closed"]
"""We sent ``stop``; we tore the connection; the server closed it (or it broke)."""


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
        from_: str = "",
        to: str = "",
        dialect: Dialect | None = None,
    ) -> None:
        self.stream_sid = stream_sid
        self.buffer: PlaybackBuffer = PlaybackBuffer()
        self.started: asyncio.Event = asyncio.Event()
        self.close_code: int = 0
        self.close_reason: str = ""
        self._listener = listener
        self._clock = clock
        self._epoch = epoch
        self._dialect = TwilioDialect() if dialect is None else dialect
        self._facts = StreamFacts(
            account_id=account_sid, call_id=call_sid, stream_id=stream_sid, parameters=parameters, from_=from_, to=to
        )
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
        self._send(self._dialect.dtmf(self._facts, self._number(), digit))

    # What is sent.

    @abstractmethod
    def _send(self, text: str | bytes) -> None:
        """Send a message, after those before it; never waits."""

    def _number(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send_connected(self) -> None:
        text = self._dialect.connected()
        if text:
            self._send(text)

    def _send_start(self) -> None:
        self._send(self._dialect.start(self._facts, self._number()))

    def _media(self, timestamp_ms: int, payload: str) -> str:
        """The message of the frame whose ``chunk`` was counted already."""
        return self._dialect.media(self._facts, self._number(), self._chunk, timestamp_ms, payload)

    def _send_stop(self) -> None:
        self._send(self._dialect.stop(self._facts, self._number()))

    def _echo(self, name: str) -> None:
        self._send(self._dialect.mark(self._facts, self._number(), name))

    # What comes.

    def _receive(self, message: str | bytes) -> None:
        now = self.now_ms()
        try:
            heard = self._dialect.read(self._facts, message)
        except ValueError as exc:
            self._listener.warned(31951, str(exc))
            answer = self._dialect.refused(self._facts, str(exc))
            if answer:
                self._send(answer)
            return
        if heard.kind == "media":
            if heard.data.startswith((b"RIFF", b"ID3")):
                self._listener.warned(31951, "the payload starts with a file header, which is played as a click")
            self.buffer.feed(heard.data, now)
            self._listener.arrived(now, heard.data)
        elif heard.kind == "mark":
            self.buffer.mark(heard.name, now)
            self._echo_due()
        else:
            self._listener.ticked(now)  # what was played until now was heard
            cleared = self.buffer.clear(now)
            self._listener.cleared(now, cleared)
            for name in cleared.marks if self._dialect.echoes_cleared else ():
                self._echo(name)
            answer = self._dialect.cleared(self._facts, self._sequence + 1)
            if answer:
                self._number()
                self._send(answer)
            self._marks_changed()

    def _echo_due(self, late_ms: float = 0.0) -> None:
        """Echo the marks whose audio was played ``late_ms`` ago."""
        for name in self.buffer.due_marks(self.now_ms() - late_ms):
            self._echo(name)
        self._marks_changed()

    def _marks_changed(self) -> None:  # noqa: B027  # who keeps no timer need not know
        """Other marks wait now: for who keeps a timer for the next."""
