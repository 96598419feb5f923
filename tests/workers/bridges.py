"""A host and its workers in one process, over real sockets: both sides of the bridge can be looked at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.testing.nats_server import NatsServer
from dialog.voip.call import Call, CallSettings
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.voip import VoIP
from dialog.workers.fleet import nats_settings
from dialog.workers.host import Host
from dialog.workers.hosting import HostingSettings
from dialog.workers.nats import NatsFabric
from dialog.workers.sockets import SocketFabric
from dialog.workers.worker import Worker


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for what happens on the other side of a socket."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


medium = "sockets"
"""What joins the nodes: "sockets", or "nats" with a server of its own for each bridge; set by ``over_both``."""


class Bridge:
    """One host, and workers that join and leave."""

    def __init__(self, clock: Clock, settings: HostingSettings, nats: NatsServer | None, **options) -> None:
        self.clock = clock
        self.nats = nats
        self.fabric: SocketFabric | NatsFabric = SocketFabric("host")
        if nats is not None:
            self.fabric = NatsFabric("host", nats_settings(nats.url), listens="hosts", tells="workers")
        self.host = Host(self.fabric, settings=settings, **options)
        self.workers: dict[str, Worker] = {}
        self.voips: list[VoIP] = []
        """Those of the agents, in the order of their calls."""

    async def worker(self, node: str, on_voip: Callable[[VoIP], object] | None = None, *, url: str = "", **options):
        """Let a worker join, perhaps by another way to NATS, and wait until the host knows it."""

        def taken(voip: VoIP) -> None:
            self.voips.append(voip)
            if on_voip is not None:
                on_voip(voip)

        fabric: SocketFabric | NatsFabric = SocketFabric(node)
        if self.nats is not None:
            fabric = NatsFabric(node, nats_settings(url or self.nats.url), listens="workers", tells="hosts")
        worker = self.workers[node] = Worker(
            fabric, taken, settings=CallSettings(settle_s=0.2), clock=self.clock, **options
        )
        if isinstance(fabric, NatsFabric):
            await fabric.connect()
            worker.start()
        else:
            assert isinstance(self.fabric, SocketFabric)
            ours, theirs = socket.socketpair()
            await self.fabric.connect(node, ours)
            await fabric.connect("host", theirs)
            worker.greet("host")
        await until(lambda: self.host.directory.get(node))
        return worker

    async def kill(self, node: str) -> None:
        """As kill -9 does: its connection ends, and nobody says a word."""
        worker = self.workers[node]
        worker._ticker.stop()
        worker.fabric.receiver = None
        if isinstance(worker.fabric, NatsFabric):
            await hang(worker.fabric)
        else:
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


async def hang(fabric: NatsFabric) -> None:
    """Let a node fall silent for good, without a word."""
    keeper, fabric._keeper = fabric._keeper, None
    fabric._client = None
    assert keeper is not None
    keeper.cancel()
    await asyncio.wait([keeper])


@asynccontextmanager
async def bridge(*, clock: Clock = SYSTEM_CLOCK, settings: HostingSettings | None = None, **options):
    nats = NatsServer() if medium == "nats" else None
    if nats is not None:
        await nats.start()
    made = Bridge(clock, settings or HostingSettings(), nats, **options)
    if isinstance(made.fabric, NatsFabric):
        await made.fabric.connect()
    try:
        yield made
    finally:
        calls = made.host.calls
        for hosted in calls:
            hosted.voip.dispose()
        await made.close()
        await until(lambda: not made.host.calls)
        if nats is not None:
            await nats.close()
