"""What it costs that a call's socket landed in another gateway process, and what two processes carry.

``python benchmarks/relay.py [--calls 100] [--seconds 10]``. First the hop alone: every frame of 20 ms carries the time
at which it was read from the carrier's socket; the owner's process answers each with one that carries its own. Then
whole calls of simulated callers, with an agent that talks all the time: CPU of the gateway processes alone, since the
callers run on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from bridge import FRAME, Sample, cpu, percentile
from relay_app import NODE, STAMPS

from dialog.loop import calm_collector, new_event_loop
from dialog.message import Message
from dialog.server.processes import Processes, ProcessesSettings
from dialog.testing.caller import Caller
from dialog.voip.peers import MediaEnd
from dialog.workers.siblings import Siblings, listen

APP = Path(__file__).with_name("relay_app.py")
ACCOUNT = "AC" + "0" * 32
TOKEN = "token"


class Deaf:
    """A carrier's socket that takes what it is sent, and notes when that came."""

    rtt_s = 0.0

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def send_audio(self, data: bytes, mark: str = "") -> None:
        self._sample.post(Message(uuid=uuid4(), data=data))

    def send_mark(self, name: str) -> None:
        pass

    def send_clear(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def fail(self, code: int) -> None:
        pass


class Nobody:
    """A gateway without calls."""

    def holds(self, call_id) -> bool:
        return False

    async def answer(self, request: bytes) -> bytes:
        raise NotImplementedError

    def join_relayed(self, opening: bytes, wire):
        raise NotImplementedError


async def speak(ends: list[MediaEnd], seconds: float) -> None:
    """A frame for every stream every 20 ms, evenly spread over those 20 ms."""
    groups = [ends[at::10] for at in range(10)]
    start = time.monotonic()
    for tick in range(int(seconds * 500)):
        delay = start + tick * 0.002 - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        for end in groups[tick % 10]:
            end.receive_audio(STAMPS.pack(time.monotonic_ns(), 0) + bytes(FRAME - STAMPS.size), tick * 2.0)


async def hop(calls: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="dialog-") as name:
        directory = Path(name)
        with listen(directory, NODE) as theirs:
            owner = await asyncio.create_subprocess_exec(
                *[sys.executable, str(APP), name, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.PIPE,
            )
        siblings = Siblings("socket", directory, listen(directory, "socket"), (NODE,))
        await siblings.start(Nobody())
        await siblings.ask(NODE, uuid4(), b"are you there?")
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[:1])
        os.sched_setaffinity(owner.pid, cores[-1:])
        calm_collector()
        sample = Sample()
        ends = [siblings.relay(NODE, uuid4(), b"", Deaf(sample)) for _ in range(calls)]
        await speak(ends, 1.0)
        sample.measuring = True
        here0, there0 = time.process_time(), cpu(owner.pid)
        await speak(ends, seconds)
        here1, there1 = time.process_time(), cpu(owner.pid)
        sample.measuring = False
        for end in ends:
            end.stopped()
            end.closed()
        os.sched_setaffinity(0, cores)
        async with asyncio.timeout(10):
            await siblings.wait_idle()
        assert owner.stdin is not None
        owner.stdin.close()
        await owner.wait()
        await siblings.close()
    minutes = calls * seconds / 60
    return {
        "frames": len(sample.there),
        "ms from socket to call, p50": percentile(sample.there, 0.5),
        "ms from socket to call, p99": percentile(sample.there, 0.99),
        "ms from call to socket, p50": percentile(sample.back, 0.5),
        "ms from call to socket, p99": percentile(sample.back, 0.99),
        "CPU s per call-minute at the socket": (here1 - here0) / minutes,
        "CPU s per call-minute at the call": (there1 - there0) / minutes,
    }


async def whole(calls: int, seconds: float, processes: int, *, shared: bool) -> dict[str, float]:
    made = Processes(
        ProcessesSettings(
            target=f"{APP}:make",
            processes=processes,
            host="127.0.0.1",
            port=0,
            own_ports=0,
            leave_s=0.0,
            drain_s=5.0,
            log_level="error",
        )
    )
    started = asyncio.Event()
    run = asyncio.create_task(made.run(lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 60)
    ports = (made.port,) if shared else made.own_ports
    callers = [
        await Caller.dial(
            f"http://127.0.0.1:{ports[number % len(ports)]}/twilio", auth_token=TOKEN, account_sid=ACCOUNT, light=True
        )
        for number in range(calls)
    ]
    await asyncio.sleep(1.0)
    before = [cpu(pid) for pid in made.pids]
    await asyncio.sleep(seconds)
    used = [cpu(pid) - was for pid, was in zip(made.pids, before, strict=True)]
    alive = sum(not caller.ended and caller.streams == 1 for caller in callers)
    for caller in callers:
        await caller.hang_up()
        await caller.close()
    made.stop()
    await run
    return {
        "calls that lived": alive,
        "CPU s per call-minute": sum(used) / (calls * seconds / 60),
        **{f"share of a core of process {number}": share / seconds for number, share in enumerate(used)},
    }


def show(title: str, figures: dict[str, float]) -> None:
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:40} {value:10.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    os.environ.update(TWILIO_ACCOUNT_SID=ACCOUNT, TWILIO_AUTH_TOKEN=TOKEN)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        show(f"the hop, {options.calls} relayed streams", runner.run(hop(options.calls, options.seconds)))
        for title, processes, shared in (
            ("one process", 1, True),
            ("two processes, media at its own", 2, False),
            ("two processes, media anywhere", 2, True),
        ):
            figures = runner.run(whole(options.calls // 2, options.seconds, processes, shared=shared))
            show(f"{title}, {options.calls // 2} calls", figures)


if __name__ == "__main__":
    main()
