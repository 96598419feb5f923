"""What the bridge to worker processes costs: latency per frame and direction, and CPU.

``python benchmarks/bridge.py [--calls 100] [--seconds 10] [--nats URL]``. First over a socket of this machine, then
over NATS: the server at URL, or else one that is started here. The host runs on one core, the worker process on
another, a NATS server of ours on both. Every frame of 20 ms carries the time at which the carrier's socket would have
read it; the worker answers each with a frame that carries its own. Both ends read the same clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from dialog.loop import calm_collector, new_event_loop
from dialog.message import Message
from dialog.testing.nats_server import NatsServer
from dialog.voip.memory import MemoryLine, memory_call
from dialog.workers.fleet import Fleet
from dialog.workers.pool import WorkerPool

APP = Path(__file__).with_name("bridge_app.py")
FRAME = 160
STAMPS = struct.Struct("<qq")


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


class Deaf(MemoryLine):
    """A carrier that takes what it is sent and plays nothing: only the bridge is to be measured."""

    def send_audio(self, data: bytes, mark: str = "") -> None:
        pass

    def send_mark(self, name: str) -> None:
        pass


class Sample:
    def __init__(self) -> None:
        self.there: list[float] = []
        self.back: list[float] = []
        self.measuring = False

    def post(self, message: Message[bytes]) -> None:
        if self.measuring:
            sent, took = STAMPS.unpack_from(message.data)
            self.there.append(took / 1e6)
            self.back.append((time.monotonic_ns() - sent) / 1e6)


async def speak(lines: list[Deaf], seconds: float) -> None:
    """Every line says a frame every 20 ms, evenly spread over those 20 ms."""
    groups = [lines[at::10] for at in range(10)]
    start = time.monotonic()
    for tick in range(int(seconds * 500)):
        due = start + tick * 0.002
        delay = due - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        for line in groups[tick % 10]:
            assert line.line is not None
            line.line.receive_audio(STAMPS.pack(time.monotonic_ns(), 0) + bytes(FRAME - STAMPS.size), None)


async def measure(workers, calls: int, seconds: float, worker_pids: list[int]) -> dict[str, float]:
    sample = Sample()
    made = []
    for _ in range(calls):
        taken: list[asyncio.Future[None]] = []
        call, line = memory_call(lambda voip, taken=taken: taken.append(workers.take(voip)), line=Deaf())
        await asyncio.wait_for(asyncio.shield(taken[0]), 10)
        call.voip.post = sample.post  # type: ignore[method-assign]  # what would go to the line
        made.append((call, line))
    await speak([line for _, line in made], 1.0)
    sample.measuring = True
    host0, worker0 = time.process_time(), sum(map(cpu, worker_pids))
    await speak([line for _, line in made], seconds)
    host1, worker1 = time.process_time(), sum(map(cpu, worker_pids))
    sample.measuring = False
    for call, line in made:
        line.hang_up()
        await call.wait_closed()
    minutes = calls * seconds / 60
    return {
        "frames": len(sample.there),
        "caller to worker p50": percentile(sample.there, 0.5),
        "caller to worker p99": percentile(sample.there, 0.99),
        "worker to line p50": percentile(sample.back, 0.5),
        "worker to line p99": percentile(sample.back, 0.99),
        "host CPU s per call-minute": (host1 - host0) / minutes,
        "worker CPU s per call-minute": (worker1 - worker0) / minutes,
    }


def cpu(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def local(calls: int, seconds: float) -> dict[str, float]:
    pool = WorkerPool(f"{APP}:on_voip", processes=1, calls_per_process=calls)
    await pool.start()
    calm_collector()
    pids = list(pool.pids.values())
    try:
        with apart(pids):
            return await measure(pool, calls, seconds, pids)
    finally:
        await pool.close()


async def fleet(calls: int, seconds: float, url: str) -> dict[str, float]:
    server = NatsServer()
    if not url:
        await server.start()
    workers = Fleet(url or server.url)
    command = [sys.executable, "-m", "dialog", "worker", f"{APP}:on_voip", "--nats", url or server.url]
    role = await asyncio.create_subprocess_exec(*command, "--calls-per-process", str(calls), "--log-level", "error")
    try:
        await workers.start()
        async with asyncio.timeout(30):
            while not workers.ready:
                await asyncio.sleep(0.05)
        calm_collector()
        children = await asyncio.to_thread(Path(f"/proc/{role.pid}/task/{role.pid}/children").read_text)
        pids = [int(pid) for pid in children.split()]
        with apart(pids):
            before = cpu(server.pid) if server.pid else 0.0
            figures = await measure(workers, calls, seconds, pids)
            if server.pid:
                minutes = calls * (seconds + 1.0) / 60
                figures["NATS CPU s per call-minute"] = (cpu(server.pid) - before) / minutes
            return figures
    finally:
        await workers.close()
        role.terminate()
        await role.wait()
        await server.close()


@contextmanager
def apart(pids: list[int]):
    """Host and workers on cores of their own."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])
        for pid in pids:
            os.sched_setaffinity(pid, cores[1:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def table(title: str, figures: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, value in figures.items():
        unit = "" if name == "frames" else " s" if "CPU" in name else " ms"
        print(f"  {name:32} {value:10.3f}{unit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--nats", default="", metavar="URL")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        table(f"local bridge, {options.calls} calls", runner.run(local(options.calls, options.seconds)))
        table(f"NATS, {options.calls} calls", runner.run(fleet(options.calls, options.seconds, options.nats)))


if __name__ == "__main__":
    main()
