"""What the call log and webhooks take by themselves, and whether they lose anything.

``python benchmarks/call_log.py [alone|kills|outage] [--calls 200] [--seconds 30] [--runs 20] [--url postgresql://…]``

- ``alone``: events as of 200 calls, without the calls; the receiver's time included. What they add to calls over real
  sockets is measured by ``events.py``.
- ``kills``: a process that writes as fast as it can is killed with -9, over and over; acknowledged events that are
  not in the database afterwards.
- ``outage``: messages that a receiver gets which was down meanwhile, how fast, and whether in their order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from uuid import UUID, uuid4

from aiohttp import web
from call_log_app import Calls

from dialog import CallEvents, CallLog, WebhookEndpoint, Webhooks
from dialog.calls import events as ev
from dialog.calls.delivery.retries import Retries
from dialog.loop import new_event_loop
from dialog.message import CallMetadata

APP = Path(__file__).with_name("call_log_app.py")


def fresh_url(directory: str) -> str:
    return f"sqlite:///{directory}/{uuid4().hex}.db"


class Receiver:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._runner: web.AppRunner | None = None

    async def up(self, port: int = 0) -> int:
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        return self._runner.addresses[0][1]

    async def down(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        return web.Response()


# By itself.


async def alone(seconds: float, rate: float, url: str, hook: str) -> dict[str, float]:
    """The same events without the calls: what the log and the webhooks take by themselves."""
    events = CallEvents()
    log = CallLog(url)
    async with log, Webhooks(log, WebhookEndpoint(name="far", url=hook)) as webhooks:
        log.follow(events)
        load = Calls(events, 200, length=200)
        for _ in range(200):
            load.step()
        await log.flush()
        while await webhooks.waiting():
            await asyncio.sleep(0.1)
        before, began, first = time.process_time(), time.monotonic(), log.status.written
        steps = 0
        while (took := time.monotonic() - began) < seconds:
            while steps < took * rate / 3:
                load.step()
                steps += 1
            await asyncio.sleep(0.02)
        await log.flush()
        used, written = time.process_time() - before, log.status.written - first
    return {"cpu": used / took, "events": written / took, "us": used / written * 1e6}


# Kills.


def kills(runs: int, url: str) -> None:
    lost = acknowledged = 0
    with tempfile.TemporaryDirectory() as directory:
        url = url or fresh_url(directory)
        for _ in range(runs):
            last = _run_and_kill(url)
            kept = asyncio.run(_kept(url, list(last)))
            acknowledged += sum(seq + 1 for seq in last.values())
            lost += sum(len(set(range(seq + 1)) - kept[call]) for call, seq in last.items())
    verdict = "MISSED" if lost else "reached"
    print(f"{runs} kills: {acknowledged} acknowledged events, {lost} of them lost (to reach: none) {verdict}")


def _run_and_kill(url: str) -> dict[str, int]:
    process = subprocess.Popen([sys.executable, str(APP), url], stdout=subprocess.PIPE)
    last: dict[str, int] = {}
    assert process.stdout is not None
    until = None
    for line in process.stdout:
        if not line.endswith(b"\n"):
            break
        last |= json.loads(line)["last"]
        until = until or time.monotonic() + random.uniform(0.2, 1.5)
        if time.monotonic() >= until:
            process.kill()
            until = float("inf")
    process.wait()
    return last


async def _kept(url: str, calls: list[str]) -> dict[str, set[int]]:
    async with CallLog(url, lost_after_s=3600) as log:
        return {call: {event.seq for event in await log.events(UUID(call))} for call in calls}


# An outage.


async def outage(calls: int, url: str) -> None:
    events, receiver = CallEvents(), Receiver()
    port = await receiver.up()
    await receiver.down()
    log = CallLog(url)
    endpoint = WebhookEndpoint(name="far", url=f"http://127.0.0.1:{port}/", events=("*",))
    webhooks = Webhooks(log, endpoint, retries=Retries(first_s=0.5, limit_s=2.0))
    async with log, webhooks:
        log.follow(events)
        for _ in range(calls):
            call = CallMetadata(call_id=uuid4(), carrier="memory")
            for seq in range(20):
                events.publish(call, ev.DigitPressed(seq=seq, at_s=0.0, digit="1"))
        await log.flush()
        waiting = (await webhooks.waiting())["far"]
        await receiver.up(port)
        began = time.monotonic()
        while await webhooks.waiting():
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
    orders: dict[str, list[int]] = {}
    for body in receiver.bodies:
        data = json.loads(body)["data"]
        orders.setdefault(data["call_id"], []).append(data["seq"])
    whole = sum(list(dict.fromkeys(order)) == list(range(20)) for order in orders.values())
    print(
        f"{waiting} messages waited, {len(receiver.bodies)} came in {took:.1f} s ({waiting / took:.0f} a second); "
        f"{whole} of {calls} calls complete and in order (to reach: all) {'reached' if whole == calls else 'MISSED'}"
    )
    await receiver.down()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=["alone", "kills", "outage"], default="alone")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    if options.what == "kills":
        kills(options.runs, options.url)
    else:
        with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=new_event_loop) as runner:
            if options.what == "outage":
                runner.run(outage(options.calls, options.url or fresh_url(directory)))
            else:
                runner.run(_alone(options, directory))


async def _alone(options: argparse.Namespace, directory: str) -> None:
    receiver = Receiver()
    port = await receiver.up()
    for rate in (100.0, 400.0):
        url = options.url or fresh_url(directory)  # one of its own: the calls of the one before have lost their process
        figures = await alone(options.seconds, rate, url, f"http://127.0.0.1:{port}/")
        print("{events:.0f} events/s: {cpu:.2%} of a core, {us:.0f} us an event".format(**figures))
    await receiver.down()


if __name__ == "__main__":
    main()
