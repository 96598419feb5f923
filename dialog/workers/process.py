"""The program of a worker process: loads the user's code, then takes calls.

Started by :class:`~dialog.workers.child.Child`, with its orders as JSON on standard input. It has one host, to which
it is given one end of a socket, or those of a fleet.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import socket
import sys
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError, DialogError
from dialog.loading import load_function, load_on_voip
from dialog.logs import LEVELS
from dialog.loop import calm_collector, new_event_loop
from dialog.voip.lifecycle import CallSettings
from dialog.workers.blocked import LoopWatch
from dialog.workers.nats import NatsFabric, NatsSettings
from dialog.workers.sockets import SocketFabric
from dialog.workers.sources import fingerprint, user_sources
from dialog.workers.worker import Worker

__all__ = ["CANNOT_START", "HOST", "LEFT_CALLS", "Orders", "memory_mb", "prewarm", "until_told"]

logger = logging.getLogger(__name__)

CANNOT_START = 3
"""Exit code of a process whose user's code cannot be loaded."""
LEFT_CALLS = 4
"""Exit code of a process that still had calls when its time to finish them was over."""
HOST = "host"
"""How the pool is called on its sockets."""
_CONNECT_S = 20.0
_ABANDONED_S = 10.0
"""Blocked for so long, and whoever would kill it for that is gone."""
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6 if hasattr(os, "sysconf") else 0.0


class Orders(Struct, frozen=True, kw_only=True):
    """What a worker process is told first, where nobody who lists processes can read it."""

    node: str
    target: str
    prewarm: str = ""
    capacity: int = 200
    labels: tuple[str, ...] = ()
    drain_s: float = 3600.0
    nats: NatsSettings | None = None
    """Where its fleet meets; ``None``: it has one host, at the other end of its socket."""
    log_level: str = "warning"
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


async def until_told(worker: Worker, drain_s: float, orphaned: asyncio.Event, over: asyncio.Event) -> bool:
    """Work until ``over``, which SIGINT sets.

    After SIGTERM, or once it is orphaned, only until no call is left, at most ``drain_s``; whether that was enough.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGINT, over.set)
    ended = asyncio.create_task(over.wait())
    waits: list[asyncio.Task[Any]] = [
        ended,
        asyncio.create_task(told.wait()),
        asyncio.create_task(orphaned.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            worker.drain()
            idle = asyncio.create_task(worker.wait_idle(drain_s))
            waits.append(idle)
            await asyncio.wait([idle, ended], return_when=asyncio.FIRST_COMPLETED)
            return ended.done() or idle.result()
        return True
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


class _Lifeline(asyncio.Protocol):
    """Standard input: when it ends, whoever started us is gone."""

    def __init__(self, cut: asyncio.Event) -> None:
        self._cut = cut

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._cut.set()


def _own_input() -> BinaryIO:
    """Standard input, which what the user's code starts does not inherit: it would hold it open."""
    ours = os.fdopen(os.dup(0), "rb", buffering=0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    return ours


class _PoolWorker(Worker):
    """A worker with one host, which does not outlive it."""

    over: asyncio.Event

    def gone(self, node: str, reason: str) -> None:
        super().gone(node, reason)
        self.over.set()


async def _work(orders: Orders, sock: socket.socket | None) -> bool:
    over, orphaned = asyncio.Event(), asyncio.Event()
    lifeline, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Lifeline(orphaned), _own_input())
    try:
        return await _serve(orders, sock, orphaned, over)
    finally:
        lifeline.close()


async def _serve(orders: Orders, sock: socket.socket | None, orphaned: asyncio.Event, over: asyncio.Event) -> bool:
    on_voip = load_on_voip(orders.target)
    await prewarm(orders.prewarm)
    sources = user_sources()
    calm_collector()
    watch = LoopWatch(abandoned_s=_ABANDONED_S)
    fabric: SocketFabric | NatsFabric = SocketFabric(orders.node)
    if orders.nats is not None:
        fabric = NatsFabric(orders.node, orders.nats, listens="workers", tells="hosts")
    worker = (_PoolWorker if orders.nats is None else Worker)(
        fabric,
        on_voip,
        capacity=orders.capacity,
        labels=orders.labels,
        code=fingerprint(sources),
        settings=orders.settings,
    )
    worker.memory_mb = memory_mb
    if isinstance(fabric, NatsFabric):
        await fabric.connect(within_s=_CONNECT_S)
        worker.start()
    else:
        assert isinstance(worker, _PoolWorker)
        assert sock is not None
        worker.over = over
        worker.sources = sources
        await fabric.connect(HOST, sock)
        worker.greet(HOST)
    try:
        return await until_told(worker, orders.drain_s, orphaned, over)
    finally:
        await worker.close()
        await fabric.close()
        watch.close()


def main() -> None:
    """Run a worker process: orders are the first line of its input, the number of its socket on the command line."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    sock = socket.socket(fileno=int(sys.argv[1])) if len(sys.argv) > 1 else None
    if sock is not None:
        sock.set_inheritable(False)  # what the user's code starts would hold it open, and hide our death
        sock.setblocking(False)
    logging.basicConfig(level=LEVELS[orders.log_level], format=f"%(levelname)s {orders.node} %(name)s: %(message)s")
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            finished = runner.run(_work(orders, sock))
    except DialogError as exc:
        logger.critical("worker %s cannot start: %s", orders.node, exc)
        sys.exit(CANNOT_START if isinstance(exc, ConfigurationError) else 1)
    sys.exit(0 if finished else LEFT_CALLS)


if __name__ == "__main__":
    main()
