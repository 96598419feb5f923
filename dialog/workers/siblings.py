"""Gateway processes of one machine, each joined to each by a unix socket.

The sockets lie in a directory that is private to their user. A node's socket is there before its process: who
starts later connects to those that were started before, so that there is exactly one connection between two.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Final

from dialog.scope import CallScope
from dialog.voip.peers import Owner
from dialog.workers.peers import FabricPeers
from dialog.workers.sockets import SocketFabric

__all__ = ["Siblings", "listen"]

logger = logging.getLogger(__name__)

_NAME_S: Final = 5.0
"""How long a sibling may take to say who it is."""
_AGAIN_S: Final = 1.0
_LONGEST_NAME: Final = 100
_BACKLOG: Final = 256


def listen(directory: Path, node: str) -> socket.socket:
    """The socket at which ``node`` will hear its siblings; made by whoever starts it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(directory / node))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class Siblings(FabricPeers):
    """The other processes, over sockets; a process that dies is noticed at once.

    Args:
        node: Our own name.
        directory: Where the sockets are.
        listening: Ours, from :func:`listen`.
        older: Those that were started before us, and live.
    """

    def __init__(self, node: str, directory: Path, listening: socket.socket, older: tuple[str, ...] = ()) -> None:
        self._sockets = SocketFabric(node)
        super().__init__(self._sockets)
        self._sockets.receiver = self
        self._directory = directory
        self._listening = listening
        self._older = older
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: set[asyncio.Task[None]] = set()

    async def start(self, owner: Owner) -> None:
        """Connect to those that are there, and hear those that come."""
        await super().start(owner)
        CallScope.adopt(None)
        self._listening.setblocking(False)
        for node in self._older:
            await self._connect(node)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="accept siblings")

    async def close(self) -> None:
        """Say what is still to be said, and leave; calling it again is harmless."""
        tasks = [*self._greeting, *([self._accepting] if self._accepting is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._listening.close()
        await super().close()
        await self._sockets.close()

    async def _connect(self, node: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        name = self.node.encode()
        try:
            await loop.sock_connect(sock, str(self._directory / node))
            await loop.sock_sendall(sock, len(name).to_bytes() + name)
        except OSError as exc:
            sock.close()
            logger.info("sibling %s is not there (any more): %s", node, exc)
            return
        await self._join(node, sock)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listening)
            except OSError as exc:  # too many files are open, as a rule: whoever comes waits until some are closed
                logger.error("node %s cannot accept a sibling: %s", self.node, exc)  # noqa: TRY400
                await asyncio.sleep(_AGAIN_S)
                continue
            task = loop.create_task(self._greet(sock), name="greet a sibling")
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)

    async def _greet(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_NAME_S):
                size = (await self._read(sock, 1))[0]
                if size > _LONGEST_NAME:
                    raise ConnectionError(f"its name has {size} bytes")  # noqa: TRY301
                node = (await self._read(sock, size)).decode()
        except (OSError, TimeoutError, UnicodeDecodeError) as exc:
            sock.close()
            logger.warning("a sibling did not say who it is: %r", exc)
        except BaseException:
            sock.close()
            raise
        else:
            await self._join(node, sock)

    async def _join(self, node: str, sock: socket.socket) -> None:
        await self._sockets.connect(node, sock)
        self.came(node)
        logger.debug("sibling %s is there", node)

    async def _read(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
            if not piece:
                raise ConnectionError("it went away")
            data += piece
        return data
