"""Connections to HTTP servers that stay open between requests, for requests whose latency is heard.

A request is written in the caller's own step of the loop, head and body at once, and its answer wakes
the caller once. Through aiohttp the same request goes three times round the loop and takes 0.2 ms more,
which every turn of a call would pay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextvars import Context
from typing import Final, NamedTuple, cast

from yarl import URL

from dialog.net import shared
from dialog.net.http1 import BadResponseError, ResponseReader

__all__ = ["HttpConnections", "HttpReply", "Origin", "connections"]

_KEEP_S: Final = 75.0
"""A caller may think for a while: the next turn should not pay for TCP and TLS again."""
_MAX_UNREAD: Final = 256 * 1024


class Origin(NamedTuple):
    """Where a connection leads to."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, url: URL) -> Origin:
        """The origin of an absolute ``http(s)`` URL."""
        assert url.raw_host is not None
        assert url.port is not None
        return cls(url.raw_host, url.port, url.scheme == "https")


class HttpReply:
    """An answer whose body is still coming."""

    __slots__ = ("_body", "_connection", "_error", "_reader", "_unread", "_waiter")

    def __init__(self, connection: _Connection, *, bodiless: bool) -> None:
        self._connection = connection
        self._reader = ResponseReader(bodiless=bodiless)
        self._body: deque[bytes] = deque()
        self._unread = 0
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._reader.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, whose names are compared without regard to case."""
        return self._reader.headers

    @property
    def done(self) -> bool:
        """All of the answer is here, though perhaps not read."""
        return self._reader.done

    async def read(self) -> bytes:
        """Return what came since the last time, ``b""`` at the end.

        Raises:
            BadResponseError: The answer is broken.
            OSError: The connection is.
        """
        while not self._body:
            if self._reader.done:
                return b""
            await self._news()
        data = self._body.popleft() if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._unread = 0
        self._connection.resume()
        return data

    async def begun(self) -> None:
        """Wait for status and headers.

        Raises:
            BadResponseError: The answer is broken.
            OSError: The connection is.
        """
        while not self._reader.headed:
            await self._news()

    def abort(self) -> None:
        """Stop the request, unless its answer is here as a whole."""
        self._connection.leave(self)

    def feed(self, data: bytes) -> None:
        """Bytes came from the connection."""
        try:
            body = self._reader.feed(data)
        except BadResponseError as exc:
            self.fail(exc)
            self._connection.leave(self)
            return
        if body:
            self._body.append(body)
            self._unread += len(body)
            if self._unread > _MAX_UNREAD:
                self._connection.pause()
        if self._reader.done:
            self._connection.finish(reusable=self._reader.reusable)
        self._wake()

    def eof(self, exc: Exception | None) -> None:
        """The connection is gone."""
        try:
            self._reader.eof()
        except BadResponseError as missing:
            self.fail(exc or missing)
        self._wake()

    def fail(self, error: Exception) -> None:
        """There will be no (more) answer."""
        self._error = error
        self._wake()

    def _news(self) -> asyncio.Future[None]:
        """Done when something has come."""
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection: at most one request at a time."""

    __slots__ = ("_owner", "_paused", "_reply", "_transport", "idle_since", "origin")

    def __init__(self, owner: HttpConnections, origin: Origin) -> None:
        self.origin = origin
        self.idle_since = 0.0
        self._owner = owner
        self._paused = False
        self._reply: HttpReply | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, *, bodiless: bool) -> HttpReply:
        if not self.usable or self._transport is None:
            raise ConnectionError("the server closed the connection at once")
        self._transport.write(request)  # before anything else: somebody waits for the answer
        self._reply = HttpReply(self, bodiless=bodiless)
        return self._reply

    def finish(self, *, reusable: bool) -> None:
        """The answer is here as a whole."""
        self._reply = None
        self.resume()
        if reusable and self.usable:
            self._owner.give_back(self)
        else:
            self.close()

    def leave(self, reply: HttpReply) -> None:
        """``reply`` is not wanted any more."""
        if self._reply is reply:
            self._reply = None
            self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Let the server wait until the body was read."""
        if not self._paused and self.usable and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.usable and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # a request leaves in the step that sends it
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._reply is None:
            self.close()  # nobody asked
        else:
            self._reply.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.eof(exc)


class HttpConnections:
    """The connections of an event loop; lease them with :func:`connections`."""

    def __init__(self) -> None:
        self.closed = False
        self._idle: dict[Origin, list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    async def request(self, origin: Origin, request: bytes, *, connect_s: float, bodiless: bool = False) -> HttpReply:
        """Send the bytes of a request, and return its answer once status and headers are there.

        Args:
            origin: The server.
            request: Head and body.
            connect_s: How long a new connection may take, TLS included.
            bodiless: It is a HEAD request.

        Raises:
            OSError: There is no connection, or it broke (:class:`TimeoutError`: not in time).
            BadResponseError: The answer is none.
        """
        connection = self._take(origin) or await self._connect(origin, connect_s)
        reply = connection.send(request, bodiless=bodiless)
        try:
            await reply.begun()
        except BaseException:
            reply.abort()
            raise
        return reply

    async def close(self) -> None:
        """Close all connections; calling it again is harmless."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle.clear()
        for connection in tuple(self._open):
            connection.close()

    def _take(self, origin: Origin) -> _Connection | None:
        waiting = self._idle.get(origin)
        while waiting:
            connection = waiting.pop()  # the newest is the least likely to be closed by the server
            if connection.usable:
                return connection
        return None

    async def _connect(self, origin: Origin, connect_s: float) -> _Connection:
        # It outlives the call that needs it first: it must not keep that call's context.
        task = asyncio.get_running_loop().create_task(self._open_one(origin), context=Context())
        try:
            async with asyncio.timeout(connect_s):
                return await task
        except BaseException:
            if task.done() and not task.cancelled() and task.exception() is None:
                self.give_back(task.result())  # it came a moment too late
            raise

    async def _open_one(self, origin: Origin) -> _Connection:
        if self.closed:
            raise ConnectionError("the connections were closed")
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self, origin),
            origin.host,
            origin.port,
            ssl=shared.ssl_context() if origin.tls else None,
        )
        return connection

    # What connections tell.

    def opened(self, connection: _Connection) -> None:
        """A connection was made."""
        self._open.add(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        waiting = self._idle.get(connection.origin)
        if waiting is not None and connection in waiting:
            waiting.remove(connection)

    def give_back(self, connection: _Connection) -> None:
        """A connection is free for another request."""
        if self.closed or not connection.usable:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._timer is None:
            self._timer = loop.call_later(_KEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        limit = loop.time() - _KEEP_S + 1e-3
        for origin, waiting in tuple(self._idle.items()):
            for connection in waiting:
                if connection.idle_since <= limit:
                    connection.close()
            self._idle[origin] = [each for each in waiting if each.idle_since > limit]
            if not self._idle[origin]:
                del self._idle[origin]
        oldest = min((each.idle_since for waiting in self._idle.values() for each in waiting), default=None)
        if oldest is not None:
            self._timer = loop.call_at(oldest + _KEEP_S, self._sweep)


def connections() -> shared.Lease[HttpConnections]:
    """Lease the connections of the running loop.

    Raises:
        RuntimeError: No event loop is running.
    """
    return shared.client("HTTP connections", HttpConnections, close=HttpConnections.close)
