"""A way between two ends of TCP that can be cut without either end being told."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from accepting import Accepting


class Cable:
    """Forwards to a port; while it is cut, nothing passes, and both ends believe that they are connected."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._through = asyncio.Event()
        self._through.set()
        self._door = Accepting(self._both)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._door.port}"

    def cut(self) -> None:
        """Let nothing pass."""
        self._through.clear()

    def mend(self) -> None:
        """Let everything pass, what was held up too."""
        self._through.set()

    async def start(self) -> None:
        await self._door.open()

    async def close(self) -> None:
        await self._door.close()

    async def _both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            return  # nobody is there
        ways = [asyncio.create_task(self._pass(reader, back)), asyncio.create_task(self._pass(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            back.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._through.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return  # an end has gone, and so does the other


@asynccontextmanager
async def cable(port: int):
    made = Cable(port)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
