"""A client's WebSocket: aiohttp opens it, and from then on frames go straight between transport and owner.

The upgrade is an ordinary request of an aiohttp session (TLS, redirects, refusals). After it the bytes
come here without a queue, a future or a task in between; see :mod:`dialog.net.frames`.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextvars import copy_context
from os import urandom
from typing import Any, Final, cast

import aiohttp

from dialog.net.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    FrameError,
    FrameReader,
    accept_key,
    close_payload,
    encode_frame,
)

__all__ = ["WebSocket", "connect"]

_ABNORMAL: Final = 1006
_MESSAGES: Final = (TEXT, BINARY)


async def connect(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
    """Upgrade a connection; give the result to :class:`WebSocket`.

    Raises:
        aiohttp.WSServerHandshakeError: The server refused, or did not speak the protocol.
        aiohttp.ClientError: There was no connection.
    """
    key = b64encode(urandom(16)).decode()
    response = await session.get(
        url,
        headers={
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
            **headers,
        },
        read_until_eof=False,
    )
    answer = response.headers
    if response.status != 101:
        wrong = "Invalid response status"
    elif answer.get("Upgrade", "").lower() != "websocket" or answer.get("Connection", "").lower() != "upgrade":
        wrong = "Invalid upgrade or connection header"
    elif answer.get("Sec-WebSocket-Accept", "") != accept_key(key):
        wrong = "Invalid challenge response"
    elif response.connection is None:
        wrong = "The connection is gone"
    else:
        return response
    response.close()
    raise aiohttp.WSServerHandshakeError(
        response.request_info, response.history, message=wrong, status=response.status, headers=answer
    )


class WebSocket:
    """An upgraded connection. ``receive`` takes its messages, in the context that made it.

    Args:
        response: What :func:`connect` returned.
        receive: Called with every text or binary message; what it raises ends the connection.
        max_message: Largest message in bytes.
        ping_s: After so long without a byte the peer is pinged; half of it later it is given up.
    """

    __slots__ = (
        "_closing",
        "_context",
        "_heard_at",
        "_loop",
        "_over",
        "_ping_s",
        "_pinged",
        "_reader",
        "_receive",
        "_response",
        "_timer",
        "_transport",
        "close_code",
        "error",
        "reason",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        receive: Callable[[str | bytes], object],
        *,
        max_message: int,
        ping_s: float | None,
    ) -> None:
        connection = response.connection
        assert connection is not None
        assert connection.transport is not None
        self._response = response
        self._transport = connection.transport
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._reader = FrameReader(self._frame, masked=False, max_message=max_message)
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._heard_at = self._loop.time()
        self._ping_s = ping_s
        self._pinged = False
        self._timer: asyncio.TimerHandle | None = None
        self.close_code: int | None = None
        """With what the peer closed; 1006 when the connection broke."""
        self.reason = ""
        """What the peer said to its code."""
        self.error: BaseException | None = None
        """Why it ended, if neither side closed it in good order."""
        # Frames leave in the step that sends them, not behind everything else that the loop has just read.
        self._transport.set_write_buffer_limits(high=0)
        self._watch()
        assert connection.protocol is not None
        # aiohttp hands the bytes behind an upgrade to a parser like this one; so it does with its own.
        connection.protocol.set_parser(cast("Any", self), cast("Any", self))

    @property
    def closed(self) -> bool:
        """Nothing comes any more."""
        return self._over.done()

    @property
    def unwritten(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def send(self, data: str | bytes) -> int:
        """Write a text or binary message and return :attr:`unwritten`; what a closed connection is given is lost."""
        if isinstance(data, str):
            self._write(TEXT, data.encode())
        else:
            self._write(BINARY, data)
        return self._transport.get_write_buffer_size()

    async def wait_closed(self) -> None:
        """Wait until nothing comes any more.

        Raises:
            Exception: What ``receive`` raised.
        """
        await asyncio.shield(self._over)

    def start_closing(self) -> None:
        """Ask the peer to close; :meth:`wait_closed` tells when it has."""
        if not self._over.done():
            self._write_close(1000)

    def abort(self) -> None:
        """Cut the connection."""
        self._end(_ABNORMAL)

    async def close(self) -> None:
        """Close in good order: returns when the peer has answered, so bound it; then the transport is closed."""
        try:
            if not self._over.done():
                self._write_close(1000)
                await self.wait_closed()
        finally:
            self._end(_ABNORMAL)

    # What aiohttp calls.

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes came."""
        self._heard_at = self._loop.time()
        try:
            self._context.run(self._reader.feed, data)
        except FrameError as exc:
            self.error = exc
            self._write_close(exc.code)
            self._end(exc.code)
        except Exception as exc:  # the owner's: it learns of it where it waits
            if not self._over.done():
                self._over.set_exception(exc)
            self._end(_ABNORMAL)
        return False, b""

    def feed_eof(self) -> None:
        """The connection is gone."""
        self._end(_ABNORMAL)

    def set_exception(self, exc: BaseException, _cause: object = None) -> None:
        """The connection broke."""
        self.error = self.error or exc
        self._end(_ABNORMAL)

    def _frame(self, opcode: int, payload: str | bytes) -> None:
        if opcode in _MESSAGES:
            self._receive(payload)
        elif isinstance(payload, str):
            raise TypeError("a control frame holds bytes")
        elif opcode == PING:
            self._write(PONG, payload)
        elif opcode == CLOSE:
            self.reason = payload[2:].decode()
            code = int.from_bytes(payload[:2]) if payload else 1005
            self._write_close(1000 if code == 1005 else code)
            self._end(code)

    def _watch(self) -> None:
        """Look whether the peer is alive, when it may have been silent for long enough."""
        self._timer = None
        if self._ping_s is None or self._over.done():
            return
        now = self._loop.time()
        silent = now - self._heard_at
        if silent < self._ping_s - 1e-3:
            self._pinged = False
            wait = self._ping_s - silent
        elif not self._pinged:
            self._pinged = True
            self._write(PING, b"")
            wait = self._ping_s / 2
        else:
            self.error = TimeoutError("no answer to a ping")
            self._end(_ABNORMAL)
            return
        self._timer = self._loop.call_later(wait, self._watch)

    def _write(self, opcode: int, payload: bytes) -> None:
        if not self._closing and not self._transport.is_closing():
            self._transport.write(encode_frame(opcode, payload, masked=True))

    def _write_close(self, code: int) -> None:
        self._write(CLOSE, close_payload(code))
        self._closing = True

    def _end(self, code: int) -> None:
        """Nothing more is read; the first reason counts."""
        if self.close_code is None:
            self.close_code = code
        self._closing = True
        self._reader.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._over.done():
            self._over.set_result(None)
        if code == _ABNORMAL:
            self._transport.abort()  # nobody takes what is not written yet
        self._response.close()
