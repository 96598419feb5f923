"""Where the servers of the tests are, and how they are started."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dialog.mcp.server import MCPServer

HERE = Path(__file__).parent


def stdio(script: str = "kitchen", **options) -> MCPServer:
    """A server that is a process of ours."""
    return MCPServer(command=sys.executable, args=[str(HERE / f"{script}.py")], **{"name": script, **options})


@asynccontextmanager
async def http(port: int, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The kitchen, over HTTP in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "kitchen.py"),
        str(port),
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)  # another process: there is nothing to wait for
                else:
                    writer.close()
                    await writer.wait_closed()
                    break
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process brings about."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
