"""The roles of a fleet as processes, started by their commands."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from ports import free_port
from steady import steady_clock

from dialog.voip.call import Call, CallSettings
from dialog.voip.memory import MemoryLine, memory_call
from dialog.workers.fleet import Fleet
from dialog.workers.hosting import HostingSettings

ROOT = Path(__file__).parents[2]
APPS = ROOT / "tests" / "workers" / "apps"
CLOCK = steady_clock(4.0)


async def until(true, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


class Role:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as response:
            return response.status, await response.text()

    async def reaches(self, path: str, status: int) -> str:
        """Ask until the answer has this status."""
        async with asyncio.timeout(20):
            while (answer := await self.get(path))[0] != status:
                await asyncio.sleep(0.02)
        return answer[1]

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def role(
    name: str, *arguments: str, env: dict[str, str] | None = None, says: str = "takes"
) -> AsyncIterator[Role]:
    """A command, once it is at work."""
    port = free_port()
    at = ("--health-port", str(port)) if name == "worker" else ("--host", "127.0.0.1", "--port", str(port))
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", name, *arguments, *at],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        cwd=APPS,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while says.encode() not in await process.stdout.readline():
                assert not process.stdout.at_eof()
        yield Role(process, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def fleet(url: str, **options) -> AsyncIterator[Fleet]:
    """The gateway's side, in this process."""
    made = Fleet(url, hosting=HostingSettings(admit_s=1.0), **options)
    await made.start()
    try:
        async with hanging_up(made):
            yield made
    finally:
        await made.close()


@asynccontextmanager
async def hanging_up(made: Fleet) -> AsyncIterator[None]:
    """End all calls before anything else goes: a worker that is killed leaves processes, which finish theirs."""
    try:
        yield
    finally:
        for hosted in made.host.calls:
            await hosted.voip.hangup()
        await until(lambda: not made.host.calls)


async def ring(made: Fleet) -> tuple[Call, MemoryLine]:
    taken = []
    call, line = memory_call(
        lambda voip: taken.append(made.take(voip)), clock=CLOCK, settings=CallSettings(settle_s=0.2)
    )
    try:
        await asyncio.wait_for(asyncio.shield(taken[0]), 20)
    except BaseException:
        call.end("no_worker")
        raise
    return call, line


async def asked(line: MemoryLine, digit: str) -> str:
    """Press a key, and read what is said then."""
    before = len(line.heard_audio)
    line.press(digit)
    await until(lambda: len(line.heard_audio) >= before + 160)
    return line.heard_audio[before:].decode().strip()
