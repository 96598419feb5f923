"""The worker role on one machine of a fleet: keeps worker processes running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from msgspec import Struct

from dialog.clock import SYSTEM_CLOCK
from dialog.errors import ConfigurationError
from dialog.workers.child import Child, backoff_s
from dialog.workers.frames import NOBODY, Frame, Goodbye, Heartbeat
from dialog.workers.nats import NatsFabric, NatsSettings, node_name
from dialog.workers.process import CANNOT_START, LEFT_CALLS, Orders

__all__ = ["Load", "Supervisor"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_LEAVE_S = 10.0
"""Beyond the time that calls have: a process takes leave and disposes of what is left."""


class Load(Struct, frozen=True, kw_only=True):
    """What a machine's workers do, for whoever adds and removes machines."""

    calls: int = 0
    capacity: int = 0
    """Calls that the processes that are there may have."""
    processes: int = 0
    draining: bool = False
    lag_ms: float = 0.0
    """The longest delay of an event loop of theirs within the last ten seconds, in milliseconds."""
    memory_mb: float = 0.0
    """What they take together."""

    @property
    def load(self) -> float:
        """Calls by slots; 1 also where there is no slot."""
        return self.calls / self.capacity if self.capacity else 1.0


class _Worker(Child):
    """A process, and what it has told the fleet last."""

    def __init__(self, orders: Orders) -> None:
        super().__init__(orders)
        self.beat = Heartbeat()
        self.heard_at = 0.0
        self.life: asyncio.Task[None] | None = None
        """Ends with it."""


class Supervisor:
    """Starts worker processes, each a node of the fleet, and starts new ones for those that end.

    It hears how they do as the gateways hear it. When one ends, it tells all gateways at once, so that
    its calls need not wait until it is missed.

    Args:
        orders: What each process is told; their nodes are named here.
        settings: How to reach the cluster.
        processes: How many.
        memory_mb: A process that takes more gets no more calls, and with half as much again it is killed.
        blocked_kill_s: A process that is not heard for so long is killed.
        start_s: How long a process may take to start.
    """

    def __init__(
        self,
        orders: Orders,
        settings: NatsSettings,
        *,
        processes: int = 1,
        memory_mb: float | None = None,
        blocked_kill_s: float = 10.0,
        start_s: float = 60.0,
    ) -> None:
        if processes < 1 or orders.capacity < 1:
            raise ConfigurationError("a worker needs at least one process, and one call each")
        self.draining = False
        self._orders = msgspec.structs.replace(orders, nats=settings)
        self._processes = processes
        self._memory_mb = memory_mb
        self._blocked_kill_s = blocked_kill_s
        self._start_s = start_s
        self._fabric = NatsFabric(node_name("supervisor"), settings, listens="hosts", tells="hosts")
        self._fabric.receiver = self
        self._children: dict[str, _Worker] = {}
        self._failures = 0
        self._finished = True
        """No process left calls when its time was over."""
        self._broken: ConfigurationError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether a process takes calls."""
        return self._fabric.connected and any(
            child.ready.is_set() and not child.retired for child in self._children.values()
        )

    @property
    def load(self) -> Load:
        """What the processes do now."""
        there = [child for child in self._children.values() if child.ready.is_set()]
        return Load(
            calls=sum(child.beat.calls for child in there),
            capacity=sum(child.orders.capacity for child in there if not child.retired),
            processes=len(there),
            draining=self.draining,
            lag_ms=max((child.beat.lag_ms for child in there), default=0.0),
            memory_mb=round(sum(child.beat.memory_mb for child in there), 1),
        )

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by the name of the worker."""
        return {each.node: each.process.pid for each in self._children.values() if each.process is not None}

    async def run(
        self, stop: asyncio.Event, again: asyncio.Event, *, started: Callable[[], object] | None = None
    ) -> bool:
        """Work until ``stop``, then until no call is left, within the orders' ``drain_s`` or until ``again``.

        Returns:
            Whether all processes went by themselves, and left no call.

        Raises:
            ConfigurationError: The user's code cannot be loaded, or the credentials are refused.
            NatsUnavailable: No server of the cluster is there.
        """
        await self._fabric.connect()
        try:
            self._task(self._watch(), "watch")
            self._look()
            await self._until(lambda: self.ready or stop.is_set(), stop)
            if started is not None and self.ready:
                started()
            await stop.wait()
            return await self._drain(again)
        finally:
            self.draining = True
            for task in tuple(self._tasks):
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await self._fabric.close()

    async def _until(self, true: Callable[[], bool], stop: asyncio.Event) -> None:
        """Wait for what a change brings about.

        Raises:
            ConfigurationError: The user's code cannot be loaded.
        """
        stopping = asyncio.create_task(stop.wait(), name="told to stop")
        try:
            while not true():
                if self._broken is not None:
                    raise self._broken
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait(), name="something changed")
                await asyncio.wait([stopping, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                await asyncio.wait([changed])
        finally:
            stopping.cancel()
            await asyncio.wait([stopping])

    async def _drain(self, again: asyncio.Event) -> bool:
        self.draining = True
        for child in self._children.values():
            child.tell()
        limit = asyncio.get_running_loop().time() + self._orders.drain_s + _LEAVE_S
        impatient = asyncio.create_task(again.wait(), name="told to stop again")
        try:
            while self._lives():
                left_s = limit - asyncio.get_running_loop().time()
                if left_s <= 0 or impatient.done():
                    break
                await asyncio.wait([impatient, *self._lives()], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            impatient.cancel()
            await asyncio.wait([impatient])
        if not self._children:
            return self._finished
        logger.warning("%d worker processes are told to end now, with %d calls", len(self._children), self.load.calls)
        ending = [asyncio.create_task(child.end(_LEAVE_S)) for child in self._children.values()]
        await asyncio.wait([*ending, *self._lives()])
        return False

    # As the gateways see them.

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`: what workers tell all gateways."""
        child = self._children.get(sender)
        if child is None or not isinstance(frame.body, Heartbeat):
            return
        child.beat = frame.body
        child.heard_at = SYSTEM_CLOCK.now()
        if not child.ready.is_set():
            child.ready.set()
            self._failures = 0
            self._broken = None
            self._changed.set()

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`; NATS does not tell."""

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        now = SYSTEM_CLOCK.now()
        for child in self._children.values():
            child.heard_at = now

    # Processes.

    def _look(self) -> None:
        """Start the processes that are missing."""
        if self.draining:
            return
        for _ in range(self._processes - sum(not child.retired for child in self._children.values())):
            child = _Worker(msgspec.structs.replace(self._orders, node=node_name("worker")))
            self._children[child.node] = child
            child.life = self._task(self._live(child, backoff_s(self._failures)), child.node)

    async def _live(self, child: _Worker, delay_s: float) -> None:
        code = -1
        try:
            await asyncio.sleep(delay_s)
            await child.start()
            code = await child.wait(self._start_s)
        except OSError as exc:
            logger.error("worker %s could not be started: %s", child.node, exc)  # noqa: TRY400
        finally:
            await child.collect()
            self._children.pop(child.node, None)
        self._fabric.announce(Frame(NOBODY, 0, 0, Goodbye(child.node)))
        self._ended(child, code)

    def _ended(self, child: _Worker, code: int) -> None:
        if not child.ready.is_set() and not self.draining:
            self._failures += 1
            if code == CANNOT_START:
                self._broken = ConfigurationError(
                    f"{self._orders.target} cannot be loaded: the log of the worker process says why"
                )
            logger.error("worker %s ended with %d before it was ready", child.node, code)
        elif code == LEFT_CALLS:
            self._finished = False
            logger.warning("worker %s left calls to other workers: its time to finish them was over", child.node)
        elif not child.told:
            logger.error("worker %s ended with %d; its calls go on with other workers", child.node, code)
        self._changed.set()
        self._look()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = SYSTEM_CLOCK.now()
            for child in tuple(self._children.values()):
                if not child.ready.is_set():
                    continue
                if child.memory_verdict(child.beat.memory_mb, self._memory_mb):
                    child.retired = True
                    child.tell()
                    self._look()
                silent = self._fabric.attentive(now) and now - child.heard_at > 3 * self._fabric.silence_s
                child.silence_verdict(silent, now, self._blocked_kill_s)

    def _lives(self) -> list[asyncio.Task[None]]:
        return [child.life for child in self._children.values() if child.life is not None]

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"supervisor {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed", task.get_name(), exc_info=task.exception())
