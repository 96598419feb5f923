"""Nodes of one machine, joined by sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import ClassVar, cast

from dialog.errors import RemoteProtocolError
from dialog.scope import CallScope
from dialog.workers.fabric import Fabric
from dialog.workers.frames import MAX_FRAME, Frame, decode_frame

__all__ = ["SocketFabric"]

logger = logging.getLogger(__name__)

_MAX_WAITING = 16_000_000
"""Bytes that a node may leave unread; then it is as good as dead."""
_CLOSE_S = 1.0


class _Connection(asyncio.BufferedProtocol):
    """Cuts what it reads into frames."""

    def __init__(self, fabric: SocketFabric, peer: str) -> None:
        self.peer = peer
        self.transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self._fabric = fabric
        self._buffer = bytearray(65_536)
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        if self._filled == len(self._buffer):
            self._buffer = self._buffer + bytes(len(self._buffer))  # the loop may still hold a view of the old one
        return memoryview(self._buffer)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        at, view = 0, memoryview(self._buffer)
        try:
            while self._filled - at >= 4:
                size = int.from_bytes(view[at : at + 4])
                if size > MAX_FRAME:
                    raise RemoteProtocolError(f"a frame of {size} bytes")  # noqa: TRY301
                if self._filled - at - 4 < size:
                    break
                frame = decode_frame(view[at + 4 : at + 4 + size])
                at += 4 + size
                self._fabric.deliver(self.peer, frame)
        except RemoteProtocolError as exc:
            logger.error("node %s broke the protocol, its connection is closed: %s", self.peer, exc)  # noqa: TRY400
            if self.transport is not None:
                self.transport.abort()
            at = self._filled
        finally:
            view.release()
        if at:
            rest = self._filled - at
            self._buffer[:rest] = self._buffer[at : self._filled]
            self._filled = rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._fabric.lost(self, "its connection broke" if exc else "its connection has ended")


class SocketFabric(Fabric):
    """Sockets to other processes of this machine, one for each node."""

    silence_s: ClassVar[float] = 2.0
    """A process that dies is noticed at once by its socket; one that is silent is blocked, and may come back."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self._connections: dict[str, _Connection] = {}

    async def connect(self, peer: str, sock: socket.socket) -> None:
        """Talk to ``peer`` over a connected stream socket, which belongs to the fabric from here on."""
        CallScope.adopt(None)  # the connection belongs to no call, whoever asked for it
        connection = _Connection(self, peer)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
        self._connections[peer] = connection

    def announce(self, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Fabric`."""
        for peer in self._connections:
            self.send(peer, frame)

    def disconnect(self, peer: str) -> None:
        """Leave a node at once."""
        connection = self._connections.pop(peer, None)
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    def lost(self, connection: _Connection, reason: str) -> None:
        """A connection is over."""
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]
            if self.receiver is not None:
                self.receiver.gone(connection.peer, reason)

    async def close(self) -> None:
        """See :class:`~dialog.workers.fabric.Fabric`."""
        self._flush()
        connections = list(self._connections.values())
        self._connections.clear()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()
        waits = [asyncio.create_task(connection.closed.wait()) for connection in connections]
        if waits:
            _, late = await asyncio.wait(waits, timeout=_CLOSE_S)
            for wait in late:
                wait.cancel()
            if late:
                await asyncio.wait(late)
            for connection in connections:
                # One that has written what waited, and is closed, cannot be aborted any more.
                if connection.transport is not None and not connection.closed.is_set():
                    connection.transport.abort()

    def _transmit(self, to: str, packet: bytearray) -> None:
        connection = self._connections.get(to)
        if connection is None or connection.transport is None or connection.transport.is_closing():
            return
        connection.transport.write(packet)
        if connection.transport.get_write_buffer_size() > _MAX_WAITING:
            logger.error("node %s reads nothing: %d bytes wait for it", to, _MAX_WAITING)
            connection.transport.abort()
