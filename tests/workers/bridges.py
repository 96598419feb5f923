"""A host and its workers in one process, over real sockets: both sides of the bridge can be looked at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.voip.call import Call, CallSettings
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP
from dialog.workers.host import Host
from dialog.workers.hosted import HostingSettings
from dialog.workers.sockets import SocketFabric
from dialog.workers.worker import Worker


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for what happens on the other side of a socket."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


class Bridge:
    """One host, and workers that join and leave."""

    def __init__(self, clock: Clock, settings: HostingSettings, **options) -> None:
        self.clock = clock
        self.fabric = SocketFabric("host")
        self.host = Host(self.fabric, settings=settings, **options)
        self.workers: dict[str, Worker] = {}
        self.voips: list[VoIP] = []
        """Those of the agents, in the order of their calls."""

    async def worker(self, node: str, on_voip: Callable[[VoIP], object] | None = None, **options) -> Worker:
        """Let a worker join, and wait until the host knows it."""

        def taken(voip: VoIP) -> None:
            self.voips.append(voip)
            if on_voip is not None:
                on_voip(voip)

        ours, theirs = socket.socketpair()
        fabric = SocketFabric(node)
        worker = self.workers[node] = Worker(
            fabric, taken, settings=CallSettings(settle_s=0.2), clock=self.clock, **options
        )
        await self.fabric.connect(node, ours)
        await fabric.connect("host", theirs)
        worker.greet("host")
        await until(lambda: self.host.directory.get(node))
        return worker

    def kill(self, node: str) -> None:
        """As kill -9 does: its connection ends, and nobody says a word."""
        worker = self.workers[node]
        worker._ticker.stop()
        worker.fabric.receiver = None
        assert isinstance(worker.fabric, SocketFabric)
        worker.fabric.disconnect("host")

    async def ring(self, *, join: bool = True, line: MemoryLine | None = None, carrier: MemoryCarrier | None = None):
        """A call comes in; wait until a worker has it."""
        before = len(self.voips)
        call, far = memory_call(
            self.host.take,
            clock=self.clock,
            line=line or MemoryLine(clock=self.clock),
            carrier=carrier,
            settings=CallSettings(settle_s=0.2),
            join=join,
        )
        await until(lambda: len(self.voips) > before and self.hosted(call).worker)
        return call, far, self.voips[-1]

    def hosted(self, call: Call):
        return next(each for each in self.host.calls if each.call_id == call.metadata.call_id)

    async def close(self) -> None:
        for worker in self.workers.values():
            await worker.close()
            await worker.fabric.close()
        self.host.close()
        await self.fabric.close()


@asynccontextmanager
async def bridge(*, clock: Clock = SYSTEM_CLOCK, settings: HostingSettings | None = None, **options):
    made = Bridge(clock, settings or HostingSettings(), **options)
    try:
        yield made
    finally:
        calls = made.host.calls
        for hosted in calls:
            hosted.voip.dispose()
        await made.close()
        await until(lambda: not made.host.calls)
