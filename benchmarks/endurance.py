"""Ten thousand calls, one after another, to a gateway that keeps a call log, while lines and providers break.

``python benchmarks/endurance.py [--calls N]`` prints what the process held over time and the slope of each figure after
warm-up with its standard error, and writes ``build/endurance/endurance.svg``. Of a hundred calls five lose their media
socket, and now and then a recogniser's or a voice's connection is cut. It fails when a call is not accounted for, when
something is left, or when a figure rises.
"""

import argparse
import asyncio
import json
import math
import os
import random
import sqlite3
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from emulators import LightCaller, World
from run import Server, isolate, prefer

WARM_UP = 0.2
"""This share of the calls is warm-up."""
FIGURES = {"memory_mb": "MB", "descriptors": "", "tasks": "", "lag_p99_ms": "ms"}
_TITLES = {
    "memory_mb": "memory",
    "descriptors": "file descriptors",
    "tasks": "tasks",
    "lag_p99_ms": "lag of the event loop, 99th percentile of two seconds",
}
_TORN, _CUTS_EVERY_S = 0.05, 2.0


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """By least squares, per 1,000 calls, and its standard error; what neighbours have in common counts once."""
    xs, ys = [x / 1000 for x, _ in points], [y for _, y in points]
    n, mean_x, mean_y = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = [y - mean_y - rise * (x - mean_x) for x, y in zip(xs, ys, strict=True)]
    squares = sum(each * each for each in rest)
    alike = sum(a * b for a, b in pairwise(rest)) / squares if squares else 0.0
    independent = max(3.0, n * (1 - alike) / (1 + alike)) if alike > 0 else float(n)
    return rise, math.sqrt(squares / max(1.0, independent - 2) / spread * (n / independent)) if squares else 0.0


def drawn(samples: list[dict[str, float]]) -> str:
    """The figures over the calls, one above the other."""
    width, height, left = 900, 120, 90
    most = max(1.0, samples[-1]["ended"])
    parts = []
    for number, (name, unit) in enumerate(FIGURES.items()):
        top = 1.1 * max(1e-9, *(sample[name] for sample in samples))
        y = number * (height + 40) + 30
        line = " ".join(
            f"{left + width * sample['ended'] / most:.1f},{y + height * (1 - sample[name] / top):.1f}"
            for sample in samples
        )
        parts.append(
            f'<text x="{left}" y="{y - 8}" font-weight="600">{_TITLES[name]}</text>'
            f'<text x="{left - 8}" y="{y + 10}" text-anchor="end">{top:.4g} {unit}</text>'
            f'<text x="{left - 8}" y="{y + height}" text-anchor="end">0</text>'
            f'<rect x="{left}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#c8ccd4"/>'
            f'<polyline points="{line}" fill="none" stroke="#2f6fde" stroke-width="1.5"/>'
        )
    end = len(FIGURES) * (height + 40) + 10
    parts.append(f'<text x="{left + width}" y="{end}" text-anchor="end">{most:,.0f} calls</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {end + 20}" '
        'font-family="sans-serif" font-size="13" fill="#39404d"><rect width="100%" height="100%" fill="white"/>'
    )
    return f"{head}{''.join(parts)}</svg>\n"


class Endurance:
    """The calls and what breaks."""

    def __init__(self, world: World, server: Server, chance: random.Random) -> None:
        self.world = world
        self.server = server
        self.chance = chance
        self.torn = 0
        self.cut = 0

    async def call(self, number: int) -> None:
        caller = LightCaller(
            self.world, number, barge_in=self.chance.random() < 0.3, turn_s=1.0, turns=self.chance.randint(0, 2)
        )
        await caller.dial(self.server.url)
        if self.chance.random() < _TORN:
            self.torn += 1
            asyncio.get_running_loop().call_later(self.chance.uniform(0.1, 4.0), caller.tear)
        async with asyncio.timeout(60):
            await caller.over

    async def all(self, calls: int, at_once: int) -> None:
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> None:
            async with gate:
                await self.call(number)

        breaking = asyncio.create_task(self.breaking())
        await asyncio.gather(*(one(number) for number in range(1, calls + 1)))
        breaking.cancel()
        await asyncio.wait([breaking])

    async def breaking(self) -> None:
        while True:
            await asyncio.sleep(_CUTS_EVERY_S)
            if self.world.connections:
                self.cut += 1
                self.chance.choice(list(self.world.connections)).transport.abort()


async def main(options: argparse.Namespace) -> int:
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {1})
    prefer(os.getpid())
    samples: list[dict[str, float]] = []
    world = World()
    await world.open()
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "calls.db"
        urls = {**world.urls, "ENDURANCE_LOG": f"sqlite+aiosqlite:///{log}"}
        server = await asyncio.to_thread(Server, "endurance_server.py", urls)

        def collect() -> None:
            assert server.process.stdout is not None
            for line in server.process.stdout:
                samples.append(json.loads(line))
                if len(samples) % 15 == 0:
                    print(f"  {samples[-1]}", file=sys.stderr, flush=True)

        reading = asyncio.create_task(asyncio.to_thread(collect))
        endurance = Endurance(world, server, random.Random(options.seed))
        await endurance.all(options.calls, options.at_once)
        for _ in range(60):  # what was torn waits for the carrier, and what is kept for reuse is closed
            await asyncio.sleep(2)
            if samples[-1]["live"] == 0:
                break
        left = samples[-1]
        await asyncio.to_thread(server.stop)
        await reading
        with sqlite3.connect(log) as kept:
            (logged,) = kept.execute("select count(*) from calls where ended_at is not null").fetchone()
    await world.close()
    folder = Path("build/endurance")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "endurance.svg").write_text(drawn(samples))
    steady = [
        each for each in samples if each["ended"] > WARM_UP * options.calls and each["live"] > options.at_once / 2
    ]
    good = left["live"] == 0 and left["ended"] == logged == options.calls
    print(f"calls {options.calls}: ended {left['ended']:.0f}, in the log {logged}, still there {left['live']:.0f}")
    print(f"media sockets torn {endurance.torn}, provider connections cut {endurance.cut}")
    print("| figure | at the end of warm-up | at the end | slope per 1,000 calls | |\n|---|---:|---:|---:|---|")
    for name, unit in FIGURES.items():
        points: list[tuple[Any, Any]] = [(each["ended"], each[name]) for each in steady]
        rise, error = slope(points)
        flat = name == "lag_p99_ms" or rise <= 2 * error
        good &= flat
        row = f"{points[0][1]:.4g} {unit} | {points[-1][1]:.4g} {unit} | {rise:+.3g} ± {error:.2g}"
        print(f"| {name.replace('_', ' ')} | {row} | {'flat' if flat else 'RISES'} |")
    worst = sorted(each["lag_p99_ms"] for each in steady)
    print(f"loop lag, p99 of windows of 2 s: median {worst[len(worst) // 2]:.1f} ms, worst {worst[-1]:.1f} ms")
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parsed = parser.parse_args()
    isolate()
    sys.exit(uvloop.run(main(parsed)))
