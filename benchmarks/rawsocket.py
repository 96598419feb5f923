"""WebSocket and HTTP by hand on asyncio protocols: so cheap that the load generator is never what is measured.

Only what the benchmarks need: whole messages, no fragmentation, no extensions, trusted peers.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, data: bytes, *, masked: bool = False) -> bytes:
    """One WebSocket frame. A client's mask is zero, which leaves the data as they are."""
    size, bit = len(data), 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + data


def unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


class RawSocket(asyncio.Protocol):
    """Either end of a WebSocket; subclasses override :meth:`opened`, :meth:`message` and :meth:`lost`."""

    server = True
    request_line = b""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ready = False
        self.transport: asyncio.Transport

    def opened(self) -> None: ...

    def message(self, opcode: int, data: bytes) -> None: ...

    def lost(self) -> None: ...

    def send(self, data: bytes, opcode: int = 1) -> None:
        if not self.transport.is_closing():
            self.transport.write(frame(opcode, data, masked=not self.server))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        if not self._ready and not self._upgrade():
            return
        start, size = 0, len(buffer)
        while size - start >= 2:
            length, head = buffer[start + 1] & 0x7F, start + 2
            if length == 126:
                length, head = int.from_bytes(buffer[head : head + 2], "big"), head + 2
            elif length == 127:
                length, head = int.from_bytes(buffer[head : head + 8], "big"), head + 8
            masked = buffer[start + 1] & 0x80
            end = head + length + (4 if masked else 0)
            if end > size or head > size:
                break
            opcode = buffer[start] & 0x0F
            if masked:
                payload = unmask(bytes(buffer[head + 4 : end]), bytes(buffer[head : head + 4]))
            else:
                payload = bytes(buffer[head:end])
            start = end
            if opcode == 8:
                self.send(payload[:2], 8)
                self.transport.close()
            elif opcode == 9:
                self.send(payload, 10)
            elif opcode in (1, 2):
                self.message(opcode, payload)
        del buffer[:start]

    def _upgrade(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        self.request_line = head.split(b"\r\n", 1)[0]
        self._ready = True
        if self.server:
            key = next(
                line[18:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:")
            )
            accept = b64encode(sha1(key + _GUID).digest())
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        elif b" 101 " not in self.request_line:
            raise ConnectionError(f"handshake answered {self.request_line!r}")
        self.opened()
        return True


def upgrade(host: str, path: str, headers: dict[str, str]) -> bytes:
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode()


class RawHTTP(asyncio.Protocol):
    """A server for one kind of POST: ``handle`` gets the body and streams chunks with :meth:`chunk`."""

    def __init__(self, handle: Callable[["RawHTTP", bytes], None]) -> None:
        self._handle = handle
        self._buffer = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            if head.startswith(b"post"):
                self._handle(self, body)
            else:  # somebody connects ahead of time
                self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    @property
    def gone(self) -> bool:
        return self.transport.is_closing()

    def begin(self) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        if not self.gone:
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self) -> None:
        if not self.gone:
            self.transport.write(b"0\r\n\r\n")
