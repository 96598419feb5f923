"""What a Line writes to: the sockets of the two shells, with as little between as possible.

A clear must overtake media that has not left yet, so neither wire lets much pile up below itself:
what the peer does not take stays in a queue here, where a clear can purge it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any, Final, Protocol

__all__ = ["CLOSE_S", "AiohttpWire", "AsgiWire", "Codec", "SocketWire"]

logger = logging.getLogger(__name__)

_QUEUED_S: Final = 10
"""So much audio may wait here: a peer that is so slow is lost."""
_MAX_CONTROL: Final = 1_000_000
"""And so many bytes of what is not audio."""
_POLL_S: Final = 0.02
_PING_S: Final = 10.0
_MISSED_PINGS: Final = 3
CLOSE_S: Final = 2.0
"""How long the peer may take to answer a close."""


class Codec(Protocol):
    """How the messages of a line look on its socket."""

    @property
    def binary(self) -> bool:
        """Audio travels in binary frames; everything else is text."""
        ...

    @property
    def audio_rate(self) -> int:
        """Bytes that a second of audio takes at most, as the line has it."""
        ...

    @property
    def max_written(self) -> int:
        """Bytes that may lie below us, as they travel, that the kernel has not taken or sent: about 300 ms."""
        ...

    @property
    def name(self) -> str:
        """Names the stream in the log."""
        ...

    def media(self, audio: bytes) -> bytes:
        """The message that plays ``audio``."""
        ...

    def mark(self, name: str) -> bytes:
        """The message that asks for an echo of ``name`` once all before it was played."""
        ...

    def clear(self) -> bytes:
        """The message that drops what was sent and not played."""
        ...


class SocketWire(ABC):
    """The common part: writing messages, the queue, purging. Nothing here raises or blocks."""

    __slots__ = ("_audio", "_codec", "_control", "_queue", "_queued", "close_code", "closed", "rtt_s")

    def __init__(self, codec: Codec) -> None:
        self.rtt_s = 0.0
        self.close_code = 1000
        """With what :meth:`close` closes; set by what went wrong first."""
        self.closed = False
        self._codec = codec
        self._audio = b"\x82" if codec.binary else b"\x81"
        """First byte of a frame that carries audio."""
        self._queue: deque[tuple[int, bytes]] = deque()
        """Messages with the bytes of audio in them; -1: a clear leaves it where it is."""
        self._queued = 0
        self._control = 0

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """Play ``data`` after what was sent before, and with ``mark`` ask for an echo of it then."""
        self._send(len(data), self._codec.media(data), self._codec.mark(mark) if mark else b"")

    def send_mark(self, name: str) -> None:
        """Ask for an echo of ``name`` once all audio before it was played."""
        self._send(0, self._codec.mark(name))

    def send_control(self, message: bytes) -> None:
        """Send a text that is neither audio nor about it, in its turn; a clear does not purge it."""
        self._send(-1, message)

    def send_clear(self) -> int:
        """Drop what is queued, then clear what was sent; returns the bytes of audio that never left."""
        if self.closed:
            return 0
        dropped = self._queued
        self._purge()
        self._clear(self._codec.clear())
        return dropped

    def close(self) -> None:
        """Close the socket; calling it again is harmless."""
        self.fail(1000)

    def fail(self, code: int) -> None:
        """Close the socket with a code, unless it is closed already."""
        if self.closed:
            return
        self.closed = True
        self.close_code = code
        self._purge()
        self._shut()

    def _purge(self) -> None:
        """Forget the audio that waits, and what is about it."""
        self._queue = deque(entry for entry in self._queue if entry[0] < 0)
        self._queued = 0

    def _enqueue(self, size: int, message: bytes) -> None:
        self._queue.append((size, message))
        if size < 0:
            self._control += len(message)
        else:
            self._queued += size
        if self._queued > _QUEUED_S * self._codec.audio_rate or self._control > _MAX_CONTROL:
            logger.error(
                "stream %s: the other side does not take what it is sent, %d bytes wait; giving the stream up",
                self._codec.name,
                self._queued + self._control,
            )
            self.fail(1011)

    def _dequeue(self) -> tuple[int, bytes]:
        size, message = self._queue.popleft()
        if size < 0:
            self._control -= len(message)
        else:
            self._queued -= size
        return size, message

    @abstractmethod
    def _send(self, size: int, message: bytes, mark: bytes = b"") -> None:
        """Send a message that holds ``size`` bytes of audio, -1 for control, and then a mark if there is one."""

    @abstractmethod
    def _clear(self, message: bytes) -> None:
        """Send the clear before anything else."""

    @abstractmethod
    def _shut(self) -> None:
        """Begin to close the socket with :attr:`close_code`."""


class AiohttpWire(SocketWire):
    """Writes whole frames to aiohttp's transport, in the caller's own step of the loop.

    No task stands between a line and its socket: a frame is on the transport when ``send_audio``
    returns. aiohttp does the opening handshake and the reading.
    """

    __slots__ = ("_loop", "_missed", "_patience", "_ping", "_pinged_at", "_poll", "_transport", "heard")

    def __init__(self, codec: Codec, transport: asyncio.Transport) -> None:
        super().__init__(codec)
        self.heard = True
        """Something came since the last ping; the reader sets it."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._poll: asyncio.TimerHandle | None = None
        self._ping: asyncio.TimerHandle | None = None
        self._pinged_at = 0.0
        self._missed = 0
        self._patience: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=0)  # a frame leaves in the step that sends it
        _bound_kernel_buffer(transport, codec.max_written)

    def start(self) -> None:
        """Begin to measure the round trip and to watch over the connection."""
        self._send_ping()

    def answer_ping(self, data: bytes) -> None:
        """Answer a ping of the peer's."""
        self._write(b"\x8a", data[:125])

    def receive_pong(self) -> None:
        """Take the answer to our ping."""
        if self._pinged_at:
            self.rtt_s = monotonic() - self._pinged_at
            self._pinged_at = 0.0

    def finish(self) -> None:
        """The reader is done: let go of everything, and close the connection if the peer has not."""
        for timer in (self._poll, self._ping, self._patience):
            if timer is not None:
                timer.cancel()
        if not self.closed:
            self.closed = True  # the peer went first
            self._queue.clear()
            self._write_close()
        self._transport.close()

    def _send(self, size: int, message: bytes, mark: bytes = b"") -> None:
        if self.closed:
            return
        if self._queue or self._transport.get_write_buffer_size() > self._codec.max_written:
            self._enqueue(size, message)
            if mark and not self.closed:
                self._enqueue(0, mark)
            if self._poll is None and not self.closed:
                self._poll = self._loop.call_later(_POLL_S, self._flush)
            return
        opcode = self._audio if size > 0 else b"\x81"
        if not mark:
            self._write(opcode, message)
        elif not self._transport.is_closing():  # one write: the system call is what a frame costs
            self._transport.write(_frame(opcode, message) + _frame(b"\x81", mark))

    def _clear(self, message: bytes) -> None:
        self._write(b"\x81", message)

    def _write(self, opcode: bytes, payload: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(_frame(opcode, payload))

    def _flush(self) -> None:
        self._poll = None
        while self._queue and self._transport.get_write_buffer_size() <= self._codec.max_written:
            size, message = self._dequeue()
            self._write(self._audio if size > 0 else b"\x81", message)
        if self._queue and not self._transport.is_closing():
            self._poll = self._loop.call_later(_POLL_S, self._flush)

    def _send_ping(self) -> None:
        self._missed = 0 if self.heard else self._missed + 1
        if self._missed >= _MISSED_PINGS:
            logger.warning("stream %s: nothing came for %g s, the connection is dead", self._codec.name, 3 * _PING_S)
            self._transport.abort()
            return
        self.heard = False
        self._pinged_at = monotonic()
        self._write(b"\x89", b"dialog")
        self._ping = self._loop.call_later(_PING_S, self._send_ping)

    def _shut(self) -> None:
        # The connection stays until the peer has answered the close: ending it at once while the peer
        # still sends would reset it, and the peer might never see the code.
        while self._queue:
            self._write(b"\x81", self._dequeue()[1])
        self._write_close()
        self._patience = self._loop.call_later(CLOSE_S, self._transport.close)

    def _write_close(self) -> None:
        self._write(b"\x88", self.close_code.to_bytes(2))


class AsgiWire(SocketWire):
    """Hands messages to an ASGI server through one task, because its ``send`` must be awaited."""

    __slots__ = ("_asgi_send", "_gone", "_wake")

    def __init__(self, codec: Codec, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]) -> None:
        super().__init__(codec)
        self._asgi_send = send
        self._wake: asyncio.Future[None] | None = None
        self._gone = False

    async def run(self) -> None:
        """Send what is queued until the wire is closed, then close the socket; the handler owns this."""
        try:
            await self._write()
        except Exception as exc:  # each server has its own way to say that the peer is gone
            logger.info("stream %s: its socket failed: %r", self._codec.name, exc)
            self.peer_closed()

    async def _write(self) -> None:
        while self._queue or not self.closed:
            if not self._queue:
                self._wake = asyncio.get_running_loop().create_future()
                await self._wake
                continue
            size, message = self._dequeue()
            if size > 0 and self._codec.binary:
                await self._asgi_send({"type": "websocket.send", "bytes": message})
            else:
                await self._asgi_send({"type": "websocket.send", "text": message.decode()})
        if not self._gone:
            await self._asgi_send({"type": "websocket.close", "code": self.close_code, "reason": ""})

    def peer_closed(self) -> None:
        """The peer has closed: nothing can be sent any more, not even a close."""
        self.closed = self._gone = True
        self._queue.clear()
        self._awake()

    def _send(self, size: int, message: bytes, mark: bytes = b"") -> None:
        if self.closed:
            return
        self._enqueue(size, message)
        if mark and not self.closed:
            self._enqueue(0, mark)
        self._awake()

    def _clear(self, message: bytes) -> None:
        self._queue.appendleft((0, message))
        self._awake()

    def _shut(self) -> None:
        self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _frame(opcode: bytes, payload: bytes) -> bytes:
    # RFC 6455, section 5.2: a server's frame is final, not masked, and not compressed here.
    size = len(payload)
    if size < 126:
        return b"%b%c%b" % (opcode, size, payload)
    if size < 65536:
        return b"%b\x7e%b%b" % (opcode, size.to_bytes(2), payload)
    return b"%b\x7f%b%b" % (opcode, size.to_bytes(8), payload)


def _bound_kernel_buffer(transport: asyncio.Transport, size: int) -> None:
    """Let the kernel hold back what the network does not take, instead of seconds of audio."""
    sock = transport.get_extra_info("socket")
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if sock is None or lowat is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, lowat, size)
    except OSError as exc:
        logger.debug("the kernel does not bound its send buffer: %r", exc)
