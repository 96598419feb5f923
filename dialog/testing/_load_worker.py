"""A process of a load: its job comes in on standard input, figures and outcomes leave on standard output.

Each is a msgpack value behind its length in four bytes, big end first. After the job a second message lets
all processes begin together. When the input ends the callers hang up, so it cannot outlive its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import BinaryIO

import msgspec
from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK
from dialog.loop import calm_collector, new_event_loop
from dialog.testing.load_dialler import Dialler
from dialog.testing.load_figures import Figures
from dialog.testing.load_hosts import allow_many_sockets
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan

__all__ = ["GO", "LENGTH_BYTES", "Job", "State", "framed", "main"]

LENGTH_BYTES = 4
GO = b"\x00"
_EVERY_S = 0.5


class Job(Struct, frozen=True, kw_only=True):
    """What a process is to do: its share of a plan."""

    plan: LoadPlan
    audio: tuple[bytes, ...]
    share: int


class State(Struct, frozen=True, kw_only=True):
    """How far a process is: all its figures, the outcomes since the last state."""

    figures: Figures
    outcomes: Sequence[CallOutcome] = ()
    ready: bool = False
    """It waits for :data:`GO`."""
    over: bool = False
    """It has nothing more to say."""


def framed(value: Job | State) -> bytes:
    """A value as it goes over the pipe."""
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


async def main(sink: BinaryIO) -> None:
    """Do one job; states go to ``sink``."""
    loop = asyncio.get_running_loop()
    source = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(source), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sink)
    states = asyncio.StreamWriter(transport, protocol, None, loop)
    size = int.from_bytes(await source.readexactly(LENGTH_BYTES), "big")
    job = msgspec.msgpack.decode(await source.readexactly(size), type=Job)
    outcomes: list[CallOutcome] = []
    dialler = Dialler(job.plan, job.audio, clock=SYSTEM_CLOCK, on_outcome=outcomes.append, share=job.share)

    async def tell(*, ready: bool = False, over: bool = False) -> None:
        states.write(framed(State(figures=dialler.measure(), outcomes=tuple(outcomes), ready=ready, over=over)))
        outcomes.clear()
        await states.drain()

    await tell(ready=True)
    if await source.read(1) != GO:
        return
    running = asyncio.create_task(dialler.run(), name="dialler")
    parent = asyncio.create_task(source.read(1), name="parent")
    parent.add_done_callback(lambda _: dialler.stop())
    try:
        while not running.done():
            await asyncio.wait((running,), timeout=_EVERY_S)
            await tell(over=running.done())
        running.result()
    finally:
        parent.cancel()
        running.cancel()
        await asyncio.wait((parent, running))
        states.close()


if __name__ == "__main__":
    # Whatever a library prints must not get between the states.
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    allow_many_sockets()
    calm_collector()
    with (
        contextlib.suppress(ConnectionError, asyncio.IncompleteReadError),  # the parent has gone
        asyncio.Runner(loop_factory=new_event_loop) as runner,
    ):
        runner.run(main(pipe))
