"""The program of a worker process: loads the user's code, then takes the calls of one host.

Started by :class:`~dialog.workers.pool.WorkerPool`, with its orders as JSON and one end of a socket.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
from typing import Any

import msgspec
from msgspec import Struct

from dialog.errors import DialogError
from dialog.loading import load_function
from dialog.loop import calm_collector, new_event_loop
from dialog.voip.lifecycle import CallSettings
from dialog.workers.blocked import LoopWatch
from dialog.workers.sockets import SocketFabric
from dialog.workers.sources import fingerprint, user_sources
from dialog.workers.worker import Worker

__all__ = ["CANNOT_START", "HOST", "Orders", "memory_mb", "prewarm", "until_told"]

logger = logging.getLogger(__name__)

CANNOT_START = 3
"""Exit code of a process whose user's code cannot be loaded."""
HOST = "host"
"""How the pool is called on its sockets."""
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6 if hasattr(os, "sysconf") else 0.0


class Orders(Struct, frozen=True, kw_only=True):
    """What a worker process is told on its command line."""

    node: str
    target: str
    prewarm: str = ""
    capacity: int = 200
    labels: tuple[str, ...] = ()
    drain_s: float = 3600.0
    settings: CallSettings = CallSettings()


def memory_mb() -> float:
    """Memory of this process that is in use, in megabytes; 0.0 where it cannot be told."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a few times a second
            return int(file.read().split()[1]) * _PAGE_MB
    except OSError:
        return 0.0


async def prewarm(target: str) -> None:
    """Run the user's hook, plain or ``async``, before the first call: load a model, open connections.

    Raises:
        ConfigurationError: There is no such function.
    """
    if target:
        done: Any = load_function(target)()
        if inspect.isawaitable(done):
            await done


async def until_told(worker: Worker, drain_s: float, over: asyncio.Event) -> None:
    """Work until ``over`` or a signal comes; after the first signal, until no call is left, at most ``drain_s``."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(told.wait()), asyncio.create_task(over.wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not over.is_set():
            worker.drain()
            idle = asyncio.create_task(worker.wait_idle(drain_s))
            waits.append(idle)
            await asyncio.wait([idle, waits[1]], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


class _Fabric(SocketFabric):
    """The socket to the pool; its end is ours."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self.over = asyncio.Event()


async def _work(orders: Orders, sock: socket.socket) -> None:
    on_voip = load_function(orders.target)
    await prewarm(orders.prewarm)
    sources = user_sources()
    calm_collector()
    watch = LoopWatch()
    fabric = _Fabric(orders.node)
    worker = _PoolWorker(
        fabric,
        on_voip,
        capacity=orders.capacity,
        labels=orders.labels,
        code=fingerprint(sources),
        settings=orders.settings,
    )
    worker.sources = sources
    worker.memory_mb = memory_mb
    await fabric.connect(HOST, sock)
    worker.greet(HOST)
    try:
        await until_told(worker, orders.drain_s, fabric.over)
    finally:
        await worker.close()
        await fabric.close()
        watch.close()


class _PoolWorker(Worker):
    """A worker with one host, which does not outlive it."""

    def gone(self, node: str, reason: str) -> None:
        super().gone(node, reason)
        assert isinstance(self.fabric, _Fabric)
        self.fabric.over.set()


def main() -> None:
    """Run a worker process: orders and the number of its socket are on the command line."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    sock = socket.socket(fileno=int(sys.argv[2]))
    sock.setblocking(False)
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s {orders.node} %(name)s: %(message)s")
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_work(orders, sock))
    except DialogError as exc:
        logger.critical("worker %s cannot start: %s", orders.node, exc)
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
