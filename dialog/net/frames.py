"""WebSocket frames as bytes in both directions, without a socket.

A phone call is a hundred small frames a second. aiohttp makes a message object of each, wakes a task
for it through a future, and so goes once more round the loop; here a frame is handed over in the step
that read it. Extensions are not spoken: neither side of Dialog offers any.

Source: RFC 6455, sections 5 and 7.4.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import sha1
from random import getrandbits
from struct import Struct
from typing import Final

try:  # in C, where aiohttp was compiled, and three times as fast as what can be done here; but it is aiohttp's own
    from aiohttp._websocket.helpers import websocket_mask as _mask_in_place
except ImportError:

    def _mask_in_place(mask: bytes, data: bytearray) -> None:
        size = len(data)
        key = int.from_bytes((mask * (size // 4 + 1))[:size])
        data[:] = (int.from_bytes(data) ^ key).to_bytes(size)


__all__ = [
    "BINARY",
    "CLOSE",
    "PING",
    "PONG",
    "TEXT",
    "FrameError",
    "FrameReader",
    "accept_key",
    "close_payload",
    "encode_frame",
]

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION: Final = 0
_KNOWN: Final = frozenset((_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_SHORT: Final = Struct(">BB").pack
_MEDIUM: Final = Struct(">BBH").pack
_LONG: Final = Struct(">BBQ").pack
_HEAD: Final = Struct(">HH").unpack_from
_MASK: Final = Struct(">I").pack
_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
"""Codes that may travel; 3000 to 4999 belong to applications."""


class FrameError(Exception):
    """The peer broke the protocol: the connection is to be closed with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def encode_frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """One whole message as one frame; clients mask theirs."""
    size = len(payload)
    bit = 0x80 if masked else 0
    if size < 126:
        head = _SHORT(0x80 | opcode, bit | size)
    elif size < 65536:
        head = _MEDIUM(0x80 | opcode, bit | 126, size)
    else:
        head = _LONG(0x80 | opcode, bit | 127, size)
    if not masked:
        return head + payload
    mask, data = _MASK(getrandbits(32)), bytearray(payload)
    _mask_in_place(mask, data)
    return b"".join((head, mask, data))


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2) + reason.encode()[:123]


def accept_key(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that answers a ``Sec-WebSocket-Key`` (section 4.2.2)."""
    return b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def _nobody(_opcode: int, _message: str | bytes) -> None:
    """Take nothing any more."""


class FrameReader:
    """Cuts a stream of bytes into messages.

    Args:
        receive: Takes each message and control frame: its opcode, and a ``str`` for text, else ``bytes``.
        masked: Whether the peer masks, as clients must and servers must not.
        max_message: Largest message in bytes, its fragments together.
    """

    __slots__ = (
        "_buffer",
        "_fragments",
        "_head",
        "_masked",
        "_max",
        "_need",
        "_opcode",
        "_receive",
        "_stopped",
        "_usual",
    )

    def __init__(self, receive: Callable[[int, str | bytes], object], *, masked: bool, max_message: int) -> None:
        self._receive = receive
        self._masked = masked
        self._usual = 0x81FE if masked else 0x817E
        """How a text begins whose length is in the next two bytes …"""
        self._head = 8 if masked else 4
        """… and where its payload begins."""
        self._max = max_message
        self._buffer = bytearray()
        """The beginning of a frame."""
        self._need = 0
        """How long the buffer must be to go on."""
        self._opcode = _CONTINUATION
        """Of the message whose first fragments are here."""
        self._fragments = bytearray()
        self._stopped = False

    def stop(self) -> None:
        """Ignore what still comes, also what was fed already."""
        self._stopped = True
        self._receive = _nobody  # what reads and what is read for would else wait for the garbage collector
        self._buffer.clear()
        self._fragments.clear()

    def feed(self, data: bytes) -> None:
        """Hand over every message that ``data`` completes.

        Raises:
            FrameError: The peer broke the protocol; the reader has stopped.
        """
        if self._stopped:
            return
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        try:
            self._read(data)
        except FrameError:
            self.stop()
            raise

    def _read(self, data: bytes) -> None:
        start, size, masked = 0, len(data), self._masked
        while start < size and not self._stopped:
            if size - start >= 8:  # most are whole texts of more than 125 bytes
                kind, length = _HEAD(data, start)
                at = start + self._head
                end = at + length
                if kind == self._usual and end <= size and length <= self._max and not self._opcode:
                    payload: bytes | bytearray = data[at:end]
                    if masked:
                        payload = bytearray(payload)
                        _mask_in_place(data[at - 4 : at], payload)
                    start = end
                    self._receive(TEXT, _text(payload))
                    continue
            at = start + 2
            if at > size:
                self._keep(data, start, 2)
                return
            first, length = data[start], data[start + 1]
            if length >> 7 != masked:
                raise FrameError(1002, "a frame is masked and must not be, or is not and must be")
            length &= 0x7F
            if length > 125:
                width = 2 if length == 126 else 8
                at += width
                if at > size:
                    self._keep(data, start, 2 + width)
                    return
                length = int.from_bytes(data[at - width : at])
            self._check(first, length)
            if masked:
                at += 4
            end = at + length
            if end > size:
                self._keep(data, start, end - start)
                return
            payload = data[at:end]
            if masked:
                payload = bytearray(payload)
                _mask_in_place(data[at - 4 : at], payload)
            start = end
            self._take(first, bytes(payload))

    def _keep(self, data: bytes, start: int, need: int) -> None:
        self._buffer += data[start:]
        self._need = need

    def _check(self, first: int, length: int) -> None:
        """Look at the head of a frame before its payload is waited for."""
        opcode = first & 0x0F
        if first & 0x70 or opcode not in _KNOWN:
            raise FrameError(1002, f"a frame of the unknown kind {first:#04x}")
        if opcode >= CLOSE:
            if length > 125 or not first & 0x80:
                raise FrameError(1002, "a control frame is too long or fragmented")
        elif length + len(self._fragments) > self._max:
            raise FrameError(1009, f"a message is longer than {self._max} bytes")

    def _take(self, first: int, payload: bytes) -> None:
        """A frame that is not just a text."""
        opcode = first & 0x0F
        if opcode >= CLOSE:
            if opcode == CLOSE:
                _check_close(payload)
            self._receive(opcode, payload)
            return
        if (opcode == _CONTINUATION) != bool(self._opcode):
            raise FrameError(1002, "a fragment is out of order")
        if opcode == _CONTINUATION:
            opcode = self._opcode
            self._fragments += payload
            payload = b""
        if not first & 0x80:
            self._opcode = opcode
            self._fragments += payload
            return
        if self._opcode:
            self._opcode = _CONTINUATION
            payload = bytes(self._fragments)
            self._fragments.clear()
        self._receive(opcode, _text(payload) if opcode == TEXT else payload)


def _text(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise FrameError(1007, "a text is not UTF-8") from exc


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    if len(payload) == 1 or not (code in _CODES or 3000 <= code < 5000):
        raise FrameError(1002, f"a close frame with the impossible code {code}")
    _text(payload[2:])
