"""What events, call log and webhooks add to the processor time of calls over real sockets.

``python benchmarks/events.py [--calls 200] [--seconds 15] [--rounds 6]``

One server has all the calls, with emulated providers as in ``run.py``; two a second end and as many begin, as they do
where 200 calls last for a hundred seconds. The events of the calls go nowhere, into a call log on SQLite, nowhere, and
into one whose webhooks are delivered to the load's process, window by window. Every window with a log is compared with
the two without one around it: whatever else changes in the course of minutes is in both.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from contextlib import suppress

import uvloop
from aiohttp import web
from emulators import LightCaller, World, now, settle
from run import Server, busy_s, isolate, prefer, serving

SETTLE_S = 2.0
TARGET = 0.03
LASTS_S = 100.0


class Receiver:
    """Takes webhooks."""

    def __init__(self) -> None:
        self.taken = 0

    async def open(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/", self._take)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        self.taken += 1
        return web.Response()


class Calls:
    """So many at any time, of which none lasts for ever."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server
        self._live: list[LightCaller] = []
        self._next = 1
        self.ended = 0

    async def begin(self, calls: int) -> None:
        self._live += await self._dial(calls, over_s=calls * 0.05)

    async def come_and_go(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(LASTS_S / len(self._live))
            self._live.pop(0).hang_up()
            self.ended += 1
            self._live += await self._dial(1, over_s=0.0)

    def end(self) -> None:
        for caller in self._live:
            caller.hang_up()

    async def _dial(self, calls: int, *, over_s: float) -> list[LightCaller]:
        first, self._next = self._next, self._next + calls
        return await settle(
            self._world, self._server.url, calls, first=first, over_s=over_s, barge_in=True, turn_s=5.0, turns=None
        )


async def switch(server: Server, mode: str) -> int:
    """Let the events go there; returns how many were written before."""
    stdin, stdout = server.process.stdin, server.process.stdout
    assert stdin is not None
    assert stdout is not None
    stdin.write(f"{mode}\n")
    stdin.flush()
    while (line := (await asyncio.to_thread(stdout.readline)).split())[:2] != ["MODE", mode]:
        if not line:
            raise RuntimeError("the server has ended")
    await asyncio.sleep(SETTLE_S)
    return int(line[2])


async def window(server: Server, seconds: float) -> tuple[float, float]:
    """The share of a core that the server takes, and the cores that other programs take."""
    used, began, busy, own = sum(server.cpus_s()), now(), busy_s(), os.times()
    await asyncio.sleep(seconds)
    took, served, after = now() - began, sum(server.cpus_s()) - used, os.times()
    load = after.user + after.system - own.user - own.system
    return served / took, max(0.0, busy_s() - busy - served - load) / took


async def measure(calls: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """For each mode the ratios of its windows to those without a log around them."""
    receiver = Receiver()
    runner = await receiver.open()
    found: dict[str, list[float]] = {"log": [], "webhooks": []}
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {"BENCH_LOG": directory, "BENCH_HOOK": f"http://127.0.0.1:{runner.addresses[0][1]}/"}
        async with serving("events_server.py") as (world, server):
            talking = Calls(world, server)
            await talking.begin(calls)
            churn = asyncio.create_task(talking.come_and_go())
            try:
                await switch(server, "none")
                before, others = await window(server, seconds)
                for mode in ("log", "webhooks") * rounds:
                    await switch(server, mode)
                    share, more = await window(server, seconds)
                    written = await switch(server, "none") / (seconds + SETTLE_S)
                    after, most = await window(server, seconds)
                    others = max(others, more, most)
                    found[mode].append(share / ((before + after) / 2))
                    print(
                        f"  {before:.1%}, {mode} {share:.1%}, {after:.1%} of a core: {found[mode][-1] - 1:+.2%}, "
                        f"{written:.0f} events a second",
                        file=sys.stderr,
                        flush=True,
                    )
                    before = after
            finally:
                churn.cancel()
                with suppress(asyncio.CancelledError):
                    await churn
                talking.end()
            print(
                f"{calls} calls, {len(found['log'])} windows of {seconds:g} s each, {talking.ended} calls ended, "
                f"{world.figures.failed} failed, {receiver.taken} webhooks came, other programs took up to "
                f"{others:.2f} cores"
            )
    await runner.cleanup()
    return found


def show(found: dict[str, list[float]]) -> None:
    """The middle of all windows decides; how far they lie apart tells how much that is worth."""
    print("\n| events go to | CPU added, median | mean ± standard error | windows from … to | to reach | |")
    print("|---|---:|---:|---:|---|---|")
    for mode, ratios in found.items():
        added = sorted(ratio - 1 for ratio in ratios)
        middle, mean = statistics.median(added), statistics.mean(added)
        error = statistics.stdev(added) / len(added) ** 0.5 if len(added) > 1 else float("nan")
        name = "call log" if mode == "log" else "call log and webhooks"
        verdict = "reached" if middle < TARGET else "MISSED"
        print(
            f"| {name} | {middle:+.2%} | {mean:+.2%} ± {error:.2%} | {added[0]:+.2%} … {added[-1]:+.2%} "
            f"| < {TARGET:.0%} | {verdict} |"
        )


async def main(arguments: argparse.Namespace) -> None:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    prefer(os.getpid())
    show(await measure(arguments.calls, arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=6)
    parsed = parser.parse_args()
    isolate()
    uvloop.run(main(parsed))
