"""The media stream of a caller who speaks, listens and misbehaves as he is told.

There is no back-pressure: a server that does not read loses the caller's audio (warning 31930).
Source: Twilio Media Streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from base64 import b64encode
from collections import deque
from typing import TYPE_CHECKING

from dialog.clock import Clock
from dialog.testing.carrier_stream import (
    FRAME_BYTES,
    FRAME_MS,
    SILENT_FRAME,
    SILENT_PAYLOAD,
    CarrierStream,
    Listener,
    StreamEnd,
)
from dialog.testing.dialects import Dialect
from dialog.testing.faults import CallFaults

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["MediaStream", "Microphone"]

_OUTBOX_LIMIT = 500
"""Messages that wait for a server that does not read (10 s of audio); further audio is discarded."""
_CLOSE_TIMEOUT_S = 2.0


class Microphone:
    """What the caller says, cut into frames that are encoded once, when they are put in."""

    def __init__(self) -> None:
        self._frames: deque[tuple[str, bytes, asyncio.Future[float] | None]] = deque()

    @property
    def speaking(self) -> bool:
        """Whether something is still to be said."""
        return bool(self._frames)

    def put(self, audio: bytes) -> tuple[asyncio.Future[float], asyncio.Future[float]]:
        """Queue mu-law audio; the futures give the call's milliseconds at which its first and last frame start."""
        loop = asyncio.get_running_loop()
        first: asyncio.Future[float] = loop.create_future()
        last: asyncio.Future[float] = loop.create_future()
        size = max(len(audio), 1)
        for start in range(0, size, FRAME_BYTES):
            frame = audio[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff")
            future = first if start == 0 else last if start + FRAME_BYTES >= size else None
            self._frames.append((b64encode(frame).decode(), frame, future))
        if size <= FRAME_BYTES:
            first = last = self._frames[-1][2] or last
        return first, last

    def take(self, at_ms: float) -> tuple[str, bytes]:
        """The next frame, as base64 and as it is; silence if nothing is said."""
        if not self._frames:
            return SILENT_PAYLOAD, SILENT_FRAME
        payload, frame, future = self._frames.popleft()
        if future is not None and not future.done():
            future.set_result(at_ms)
        return payload, frame

    def clear(self) -> None:
        """Say no more; who waits for the end of what was to be said is cancelled."""
        for _, _, future in self._frames:
            if future is not None:
                future.cancel()
        self._frames.clear()


class MediaStream(CarrierStream):
    """One stream of a call, over an open socket; :meth:`run` returns when it is over."""

    def __init__(
        self,
        connection: ClientConnection,
        listener: Listener,
        *,
        clock: Clock,
        epoch: float,
        account_sid: str,
        call_sid: str,
        stream_sid: str,
        parameters: dict[str, str],
        microphone: Microphone,
        faults: CallFaults,
        from_: str = "",
        to: str = "",
        dialect: Dialect | None = None,
    ) -> None:
        super().__init__(
            listener,
            clock=clock,
            epoch=epoch,
            account_sid=account_sid,
            call_sid=faults.forged_call_sid or call_sid,
            stream_sid=stream_sid,
            parameters={**parameters, **dict(faults.forged_parameters)},
            from_=from_,
            to=to,
            dialect=dialect,
        )
        self._connection = connection
        self._microphone = microphone
        self._faults = faults
        self._outbox: deque[str | bytes] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self._origin = 0.0
        self._next = 0.0
        self._tick_timer: asyncio.TimerHandle | None = None
        self._mark_timer: asyncio.TimerHandle | None = None
        self._stalled_until = 0.0
        self._held: str | None = None
        self._marks_to_lose = faults.lose_marks

    async def run(self) -> StreamEnd:
        """Open the stream, carry media until either side ends it, close the socket."""
        self._open()
        writer = asyncio.create_task(self._write(), name="caller stream writer")
        try:
            await self._read()
        finally:
            self._halt()
            writer.cancel()
            await asyncio.wait([writer])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._connection.close()
            self._connection.transport.abort()  # whatever did not close in time; otherwise nothing
            self.close_code = self._connection.close_code or 0
            self.close_reason = self._connection.close_reason or ""
        if not writer.cancelled() and (error := writer.exception()) is not None:
            raise error
        self._listener.ticked(self.now_ms())
        return self._end

    async def close(self) -> None:
        """Close the socket of a stream that is not run."""
        await self._connection.close()

    def stop(self) -> None:
        """End the stream as the carrier does when the call ends or moves on: ``stop``, then close."""
        if self._stopping:
            return
        self._halt()
        self._end = "stopped"
        self._send_stop()
        self._stopping = True  # the last message: nothing is sent after it

    def drop(self) -> None:
        """Tear the connection (TCP reset) without a word."""
        self._halt()
        self._end = "dropped"
        sock: socket.socket | None = self._connection.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()

    def send_raw(self, data: str | bytes) -> None:
        """Send a message as it is: ``str`` as text, ``bytes`` as a binary message."""
        self._send(data)

    def stall(self, seconds: float, *, burst: bool) -> None:
        """Send no media for a while; with ``burst`` it all comes afterwards, else it is lost."""
        if burst:
            self._stalled_until = self._clock.now() + seconds
        else:
            missing = round(seconds * 1000 / FRAME_MS)
            self._chunk += missing
            self._next += missing * FRAME_MS / 1000

    def _open(self) -> None:
        if not self._faults.omit_connected:
            for _ in range(2 if self._faults.duplicate_connected else 1):
                self._send_connected()
        self._origin = self._next = self._clock.now()
        for _ in range(self._faults.media_before_start):
            self._frame()
        if self._faults.omit_start:
            return
        for _ in range(2 if self._faults.duplicate_start else 1):
            self._send_start()
        self.started.set()
        self._tick()

    def _halt(self) -> None:
        for timer in (self._tick_timer, self._mark_timer):
            if timer is not None:
                timer.cancel()
        self._tick_timer = self._mark_timer = None

    def _send(self, text: str | bytes) -> None:
        if not self._stopping:
            self._outbox.append(text)
            self._wake.set()

    def _tick(self) -> None:
        """Send the frames that are due, on absolute deadlines: a late tick catches up."""
        now = self._clock.now()
        if now >= self._stalled_until:
            while self._next <= now:
                self._frame()
                self._next += FRAME_MS / 1000
        self._listener.ticked((now - self._epoch) * 1000.0)
        self._tick_timer = self._clock.call_at(max(self._next, now + 0.001), self._tick)

    def _frame(self) -> None:
        at_ms = (self._next - self._epoch) * 1000.0
        payload, frame = self._microphone.take(at_ms)
        self._chunk += 1
        if len(self._outbox) >= _OUTBOX_LIMIT:
            self._listener.warned(31930, "the server does not read: caller audio is discarded")
            return
        self._listener.sent(at_ms, frame)
        text = self._media(round((self._next - self._origin) * 1000), self._dialect.payload(frame, payload))
        if self._faults.out_of_order:
            if self._held is None:
                self._held = text
                return
            self._send(text)
            text, self._held = self._held, None
        self._send(text)

    async def _write(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                while self._outbox:
                    await self._connection.send(self._outbox.popleft())
                if self._stopping:
                    await self._connection.close()
                    return
                self._wake.clear()
                await self._wake.wait()
        except ConnectionClosed:
            return  # the reader tells how it ended

    async def _read(self) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                message = await self._connection.recv()
                self._receive(message)
                if self._faults.read_delay_ms:
                    await self._clock.sleep(self._faults.read_delay_ms / 1000)
        except ConnectionClosed:
            return

    def _echo_due(self, late_ms: float = 0.0) -> None:
        super()._echo_due(late_ms + self._faults.mark_delay_ms)

    def _marks_changed(self) -> None:
        if self._mark_timer is not None:
            self._mark_timer.cancel()
            self._mark_timer = None
        due = self.buffer.next_mark_ms
        if due is not None:
            when = self._epoch + (due + self._faults.mark_delay_ms) / 1000.0
            # A hair later, so that rounding never finds it not due yet and spins.
            self._mark_timer = self._clock.call_at(when + 0.0005, self._echo_due)

    def _echo(self, name: str) -> None:
        if self._marks_to_lose:
            self._marks_to_lose -= 1
            self._listener.noted("mark lost", name)
            return
        super()._echo(name)
