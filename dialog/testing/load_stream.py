"""The media stream of a caller of a load: no task, queue or timer of its own while it runs.

Frames leave with the beat of all callers, and what comes is handled in the step that read it. Marks are
echoed with the next beat after they were played, so up to 20 ms late.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

import aiohttp

from dialog.net.websocket import WebSocket
from dialog.testing.carrier_stream import FRAME_MS, CarrierStream, StreamEnd
from dialog.testing.load_metronome import Metronome
from dialog.testing.load_speech import SharedMicrophone

__all__ = ["LoadStream"]

_MAX_MESSAGE = 4 * 1024 * 1024
_UNREAD_LIMIT = 200_000
"""Bytes that a server has not read (10 s of audio); further audio is discarded."""
_CLOSE_TIMEOUT_S = 2.0
_LISTEN_EVERY = 5
"""What was heard is looked at with every fifth frame; its times are as exact as with each."""


class LoadStream(CarrierStream):
    """One stream over an upgraded connection; :meth:`run` returns when it is over."""

    def __init__(
        self, response: aiohttp.ClientResponse, metronome: Metronome, microphone: SharedMicrophone, **facts: Any
    ) -> None:
        """``facts`` are those of :class:`CarrierStream`."""
        super().__init__(**facts)
        connection = response.connection
        assert connection is not None
        self._transport = connection.transport
        self._metronome = metronome
        self._microphone = microphone
        self._socket = WebSocket(response, self._receive, max_message=_MAX_MESSAGE, ping_s=None)
        self._giving_up: asyncio.TimerHandle | None = None

    async def run(self) -> StreamEnd:
        """Open the stream, carry media until either side ends it, close the socket."""
        self._send_connected()
        self._send_start()
        self.started.set()
        self._metronome.join(self)
        try:
            await self._socket.wait_closed()
        finally:
            self._metronome.leave(self)
            if self._giving_up is not None:
                self._giving_up.cancel()
            await self.close()
            self.close_code = self._socket.close_code or 0
            self.close_reason = self._socket.reason
        self._listener.ticked(self.now_ms())
        return self._end

    def stop(self) -> None:
        """End the stream as the carrier does when the call ends or moves on: ``stop``, then close."""
        if self._giving_up is not None or self._socket.closed:
            return
        self._metronome.leave(self)
        self._end = "stopped"
        self._send_stop()
        self._socket.start_closing()
        self._giving_up = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._socket.abort)

    def drop(self) -> None:
        """Tear the connection (TCP reset) without a word."""
        self._metronome.leave(self)
        self._end = "dropped"
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.abort()

    async def close(self) -> None:
        """Close the socket, in good order if the server takes part within two seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._socket.close()

    def tick(self, due: float) -> None:
        """Send the frame of ``due``."""
        payload, _ = self._microphone.take((due - self._epoch) * 1000.0)
        self._chunk += 1
        if self._socket.unwritten > _UNREAD_LIMIT:
            self._listener.warned(31930, "the server does not read: caller audio is discarded")
        else:
            self._send(self._media((self._chunk - 1) * FRAME_MS, payload))
        if self.buffer.next_mark_ms is not None:
            self._echo_due()
        if not self._chunk % _LISTEN_EVERY:
            self._listener.ticked(self.now_ms())

    def _send(self, text: str | bytes) -> None:
        self._socket.send(text)
