"""The fleet of the example: a gateway without any code, and a worker, joined by a real NATS."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from test_examples_run import EXAMPLES, ROOT, House, exchange

from dialog.testing.nats_server import NatsServer


@asynccontextmanager
async def role(house: House, directory: Path, *arguments: str):
    """One of the README's commands, once it says that it takes calls; told to stop at the end."""
    environ = {key: value for key, value in os.environ.items() if key not in house.settings()}
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-u", "-m", "dialog", *arguments],
        cwd=directory,
        env={**environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            while "takes" not in (line := (await process.stdout.readline()).decode()):
                house.output += line
                assert line, house.output
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            house.output += (await process.stdout.read()).decode()
            assert await process.wait() == 0, house.output
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_fleet_holds_a_conversation(tmp_path: Path) -> None:
    async with House() as house, NatsServer() as nats:
        shutil.copy(EXAMPLES / "nats_fleet" / "agent.py", tmp_path)
        lines = {**house.settings(), "NATS_URL": nats.url}
        (tmp_path / ".env").write_text("".join(f'{key}="{value}"\n' for key, value in lines.items()))
        async with (
            role(house, tmp_path, "worker", "agent:on_voip", "--processes", "2"),
            role(house, tmp_path, "gateway", "--leave-s", "0"),
        ):
            caller = await exchange(house)
            house.twilio.end_call(caller.call_sid)
        house.check_log()
        first, _ = house.openai.exchanges
        assert [message["content"] for message in first.messages] == [
            "You are a clock.",
            "Good evening, who is there?",
            "what time is it",
        ]
