"""Processes that write to the call log are killed with -9: what was acknowledged is there, and is delivered."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from uuid import UUID

import pytest
from receiving import receiver

from dialog.calls import events as ev
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.webhooks import Webhooks
from dialog.calls.store.log import CallLog

ROOT = Path(__file__).parents[2]
APP = ROOT / "benchmarks" / "call_log_app.py"


class Acknowledged:
    """What the processes were told to be safe."""

    def __init__(self) -> None:
        self.last: dict[str, int] = {}
        self.ended: set[str] = set()

    def take(self, line: bytes) -> None:
        told = json.loads(line)
        self.last |= told["last"]
        self.ended |= set(told["ended"])


async def run_and_kill(url: str, acknowledged: Acknowledged, lines: int, hook: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(APP),
        url,
        "--calls",
        "10",
        "--rate",
        "600",
        "--hook",
        hook,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        limit=2**22,
    )
    try:
        async with asyncio.timeout(40):
            for _ in range(lines):
                acknowledged.take(await process.stdout.readline())
            while not acknowledged.ended:  # a slow machine: no call had come to its end yet
                acknowledged.take(await process.stdout.readline())
            process.kill()
            # What it had said before it died counts as well, but for a line that was cut.
            for line in (await process.stdout.read()).splitlines(keepends=True):
                if line.endswith(b"\n"):
                    acknowledged.take(line)
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(180)
async def test_what_was_acknowledged_survives_kill_9_and_is_delivered(url):
    chance, acknowledged = random.Random(7), Acknowledged()
    async with receiver() as far:
        for _ in range(3):
            await run_and_kill(url, acknowledged, chance.randint(4, 10), far.url)
        assert acknowledged.last
        assert acknowledged.ended
        async with asyncio.timeout(40), CallLog(url, lost_after_s=3600) as log:
            for call_id, last in acknowledged.last.items():
                kept = [event.seq for event in await log.events(UUID(call_id))]
                assert kept[: last + 1] == list(range(last + 1)), "an acknowledged event is lost"
            for call_id in acknowledged.ended:
                assert (await log.call(UUID(call_id))).end_reason == "caller_hangup"
                assert isinstance((await log.events(UUID(call_id)))[-1], ev.CallEnded)
            # What the killed processes had leased comes after their leases; here somebody gives those back.
            async with log.engine.begin() as connection:
                await connection.exec_driver_sql("UPDATE outbox_chains SET next_at = '2026-01-01 00:00:00', owner = ''")
            endpoint = WebhookEndpoint(name="far", url=far.url, events=("*",), concurrency=16)
            async with Webhooks(log, endpoint) as webhooks:
                while await webhooks.waiting():
                    await asyncio.sleep(0.05)
        told: dict[str, list[int]] = {}
        for message in far.taken:
            seqs = told.setdefault(message["data"]["call_id"], [])
            if message["data"]["seq"] not in seqs:  # some come twice: that is the promise
                seqs.append(message["data"]["seq"])
        for call_id, last in acknowledged.last.items():
            assert told[call_id][: last + 1] == list(range(last + 1)), (
                "an acknowledged event was not delivered in order"
            )
