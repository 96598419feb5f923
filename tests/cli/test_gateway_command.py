"""``python -m dialog gateway`` from outside: a process that is started, dialled, and told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from ports import free_port

from dialog.testing.caller import Caller

ROOT = Path(__file__).parents[2]
TOKEN = "auth-token-of-the-test"
ACCOUNT = "AC" + "0" * 32

MAIN = f"""
from uuid import uuid4

from dialog import TwilioGateway, VoIP
from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import Message


def on_voip(voip):
    voip.post(Message(uuid=uuid4(), data=mulaw_encode(sine(300, 600)), done=True))


def make():
    made = TwilioGateway(account_sid="{ACCOUNT}", auth_token="{TOKEN}", base_url="http://127.0.0.1:9")
    made.on("voip", on_voip)
    return made


gateway = make()
number = 17
"""


@asynccontextmanager
async def command(directory: Path, *arguments: str, target: str = "main:gateway") -> AsyncIterator[tuple]:
    """The command, once it says where it takes calls: the process, and its address."""
    (directory / "main.py").write_text(MAIN)
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "gateway", target, "--host", "127.0.0.1", "--port", str(port)],
        *arguments,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while b"takes calls" not in await process.stdout.readline():
                assert not process.stdout.at_eof()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize(("target", "processes"), [("main:gateway", 1), ("main:make", 1), ("main:gateway", 2)])
async def test_a_gateway_takes_calls_and_leaves_without_cutting_one(tmp_path: Path, target, processes) -> None:
    options = ("--leave-s", "0", "--processes", str(processes))
    async with command(tmp_path, *options, target=target) as (process, url), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/ready") as response:
            assert response.status == 200
        async with Caller.dial(f"{url}/twilio", auth_token=TOKEN, account_sid=ACCOUNT) as caller:
            assert (await caller.listen()).duration_ms == pytest.approx(600, abs=60)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while True:
                    async with session.get(f"{url}/ready") as response:
                        if response.status == 503:
                            break
                    await asyncio.sleep(0.01)
            assert process.returncode is None
            await caller.hang_up()
        async with asyncio.timeout(15):
            assert await process.wait() == 0


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("main:number", "main:number is no gateway and makes none, but int"),
        (
            "main:on_voip",
            "main:on_voip makes nothing to serve: missing a required argument: 'voip' (a function that takes",
        ),
        ("main:on_void", "main has no 'on_void'; it has make, on_voip"),
        ("nowhere:gateway", "there is no module nowhere in"),
    ],
)
async def test_what_is_no_gateway_is_named(tmp_path: Path, target: str, complaint: str) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "gateway", target],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, error = await process.communicate()
    assert process.returncode == 1
    assert complaint in error.decode()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
async def test_the_processes_do_not_outlive_their_supervisor(tmp_path: Path, monkeypatch) -> None:
    sockets = tmp_path / "tmp"
    sockets.mkdir()
    monkeypatch.setenv("TMPDIR", str(sockets))
    async with command(tmp_path, "--leave-s", "0", "--processes", "2") as (process, _):
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) == 2
        (directory,) = sockets.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700, "nobody else may enter it"
        process.kill()
        async with asyncio.timeout(20):
            while any(map(alive, children)):
                await asyncio.sleep(0.02)
        assert not list(sockets.iterdir())


async def test_a_gateway_that_no_process_can_make_is_named(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "dialog", "gateway", "main:number", "--processes", "2", "--port", str(free_port())],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        _, error = await process.communicate()
    assert process.returncode == 1
    assert "main:number is no gateway and makes none, but int" in error.decode()
    assert "main:number cannot be served" in error.decode()
