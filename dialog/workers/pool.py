"""Worker processes on the gateway's machine."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec

from dialog.clock import SYSTEM_CLOCK
from dialog.errors import ConfigurationError
from dialog.scope import CallScope
from dialog.voip.lifecycle import CallSettings
from dialog.voip.voip import VoIP
from dialog.workers.child import Child, backoff_s
from dialog.workers.directory import Known
from dialog.workers.host import Host
from dialog.workers.hosted import Hosted
from dialog.workers.hosting import HostingSettings
from dialog.workers.process import CANNOT_START, HOST, Orders
from dialog.workers.sockets import SocketFabric
from dialog.workers.sources import fingerprint
from dialog.workers.stream import CallStream

__all__ = ["WorkerPool"]

logger = logging.getLogger(__name__)

_LOOK_S = 0.5
_EXIT_S = 3.0
_DEFAULT_HOSTING = HostingSettings()
_DEFAULT_CALLS = CallSettings()


class _Process(Child):
    """A process of the pool."""

    def __init__(self, orders: Orders) -> None:
        super().__init__(orders)
        self.known: Known | None = None
        """Since it has said hello."""
        self.outdated = False
        """It is retired because its code is old."""


class _Host(Host):
    """A host that looks at its processes before it gives one a call."""

    def __init__(self, pool: WorkerPool, fabric: SocketFabric, settings: HostingSettings) -> None:
        super().__init__(fabric, settings=settings)
        self._pool = pool

    async def choose(self, metadata: Any, but: set[str]) -> str:
        self._pool.check_code()
        return await super().choose(metadata, but)

    def stream(self, node: str, call: Hosted) -> CallStream:
        stream = super().stream(node, call)
        self._pool.gave(node)
        return stream

    def released(self, node: str) -> None:
        super().released(node)
        self._pool.look()

    def greeted(self, known: Known) -> None:
        super().greeted(known)
        self._pool.greeted(known)


class WorkerPool:
    """Runs the agents of a gateway's calls in processes of this machine.

    ::

        pool = WorkerPool("main:on_voip", processes=4)
        gateway = TwilioGateway(..., workers=pool)

    A process that blocks, leaks or dies harms only its own calls, and even those go on in another one. When a
    source file changes, new calls get new processes with the new code, and running calls keep theirs.

    Args:
        target: ``module:function`` or ``path/to/file.py:function``; the same ``on_voip`` as for a gateway.
        processes: How many there are; one per core unless given. With ``per_call``: how many at most.
        calls_per_process: How many calls one of them takes.
        per_call: Every call gets a process of its own, which ends with it.
        spare: With ``per_call``: how many wait ready for a call.
        prewarm: A function that each process runs before its first call, plain or ``async``.
        memory_mb: A process that takes more gets no more calls, and with half as much again it is killed.
        blocked_kill_s: A process whose event loop is blocked for so long is killed; its calls are elsewhere by then.
        start_s: How long a process may take to start.
        hosting: How calls are given away, queue and wait.
        call_settings: Bounds of a call, as for the gateway.
    """

    def __init__(
        self,
        target: str,
        *,
        processes: int | None = None,
        calls_per_process: int = 200,
        per_call: bool = False,
        spare: int = 1,
        prewarm: str = "",
        memory_mb: float | None = None,
        blocked_kill_s: float = 10.0,
        start_s: float = 30.0,
        hosting: HostingSettings = _DEFAULT_HOSTING,
        call_settings: CallSettings = _DEFAULT_CALLS,
    ) -> None:
        self.processes = processes or os.cpu_count() or 1
        if self.processes < 1 or calls_per_process < 1 or spare < 1:
            raise ConfigurationError("a WorkerPool needs at least one process, one call each, and one spare")
        self._orders = Orders(
            node="",
            target=target,
            prewarm=prewarm,
            capacity=1 if per_call else calls_per_process,
            settings=call_settings,
        )
        self._per_call = per_call
        self._spare = min(spare, self.processes)
        self._memory_mb = memory_mb
        self._blocked_kill_s = blocked_kill_s
        self._start_s = start_s
        self._fabric = SocketFabric(HOST)
        self.host: Host = _Host(self, self._fabric, hosting)
        self._processes: dict[str, _Process] = {}
        self._number = 0
        self._failures = 0
        """Processes in a row that ended before they were ready."""
        self._broken: ConfigurationError | None = None
        self._tolerated = ""
        """Fingerprint of code that cannot be loaded: the old one goes on meanwhile."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._started = False
        self._closing = False

    def __repr__(self) -> str:
        return f"<WorkerPool {self._orders.target} with {len(self._processes)} processes>"

    @property
    def ready(self) -> bool:
        """Whether a process is there to take a call."""
        return any(known.room > 0 for known in self.host.directory)

    @property
    def peers(self) -> None:
        """See :class:`~dialog.voip.admission.Workers`: the pool is one gateway's."""
        return

    @property
    def pids(self) -> dict[str, int]:
        """The process ids, by the name of the worker."""
        return {each.node: each.process.pid for each in self._processes.values() if each.process is not None}

    async def start(self) -> None:
        """Start the processes, and wait until one is ready.

        Raises:
            ConfigurationError: The user's code cannot be loaded, or does not come up within ``start_s``.
        """
        if self._started:
            return
        self._started = True
        CallScope.adopt(None)
        self._task(self._watch(), "watch")
        self.look()
        try:
            async with asyncio.timeout(self._start_s):
                while not self.ready:
                    if self._broken is not None:
                        raise self._broken
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            await self.close()
            raise ConfigurationError(
                f"no worker process was ready within {self._start_s:g} s: what takes {self._orders.target} so long?"
            ) from None
        except ConfigurationError:
            await self.close()
            raise

    def take(self, voip: VoIP) -> asyncio.Future[None]:
        """See :class:`~dialog.voip.admission.Workers`."""
        return self.host.take(voip).taken

    async def close(self) -> None:
        """End all processes; calls that are left end with them. Calling it again is harmless."""
        if self._closing:
            return
        self._closing = True
        self.host.close()
        await self._fabric.close()
        ending = [asyncio.create_task(each.end(_EXIT_S), name=f"end {each.node}") for each in self._processes.values()]
        if ending:
            await asyncio.wait(ending)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._processes.clear()

    # What the host tells.

    def greeted(self, known: Known) -> None:
        """A process is ready."""
        each = self._processes.get(known.node)
        if each is None:
            return
        each.known = known
        each.ready.set()
        known.retired = each.retired
        each.silent_since = None
        self._failures = 0
        self._broken = None
        self._changed.set()

    def gave(self, node: str) -> None:
        """A process was offered a call."""
        each = self._processes.get(node)
        if each is not None and self._per_call:
            self._retire(each)
            self.look()

    def check_code(self) -> None:
        """Retire the processes whose source files have changed since they started."""
        seen: dict[tuple[str, ...], str] = {}
        for each in self._processes.values():
            if each.known is None or each.retired:
                continue
            hello = each.known.hello
            now = seen.get(hello.sources)
            if now is None:
                now = seen[hello.sources] = fingerprint(hello.sources)
            if now not in (hello.code, self._tolerated):
                logger.info("worker %s runs old code: new calls go to new processes", each.node)
                each.outdated = True
                self._retire(each)
        self.look()

    def look(self) -> None:
        """Start the processes that are missing, and end those that are not needed any more."""
        if self._closing or not self._started:
            return
        for each in tuple(self._processes.values()):
            if each.retired and not each.told and (each.known is None or each.known.held == 0) and not self._last(each):
                each.tell()
        wanted = self.processes - sum(not each.retired for each in self._processes.values())
        if self._per_call:
            waiting = sum(not each.retired for each in self._processes.values())
            wanted = min(self._spare - waiting, self.processes - len(self._processes))
        for _ in range(wanted):
            self._number += 1
            each = _Process(msgspec.structs.replace(self._orders, node=f"worker-{self._number}"))
            self._processes[each.node] = each
            self._task(self._live(each, backoff_s(self._failures)), each.node)

    # Processes.

    def _last(self, each: _Process) -> bool:
        """Whether a retired process has to stay, because nothing has replaced it yet."""
        if not each.outdated or each.known is None:
            return False
        return not any(other.known is not None and not other.retired for other in self._processes.values())

    async def _live(self, each: _Process, delay_s: float) -> None:
        """One process, from its start to its end."""
        node, code = each.node, -1
        try:
            await asyncio.sleep(delay_s)
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                try:
                    await each.start(theirs.fileno())
                except BaseException:
                    ours.close()
                    raise
            await self._fabric.connect(node, ours)
            code = await each.wait(self._start_s)
        except OSError as exc:
            logger.error("worker %s could not be started: %s", node, exc)  # noqa: TRY400
        finally:
            await each.collect()
            self._fabric.disconnect(node)
            self._processes.pop(node, None)
        # Its socket said so already, unless something that it has started holds that open.
        self.host.gone(node, "its process has ended")
        self._ended(each, code)

    def _ended(self, each: _Process, code: int) -> None:
        """A process is gone."""
        if self._closing:
            return
        if each.known is None:
            self._failures += 1
            if code == CANNOT_START:
                self._cannot_start()
            else:
                logger.error("worker %s ended with %d before it was ready", each.node, code)
        elif not each.told:
            logger.error("worker %s ended with %d; its calls go on in other processes", each.node, code)
        self._changed.set()
        self.look()

    def _cannot_start(self) -> None:
        target = self._orders.target
        self._broken = ConfigurationError(f"{target} cannot be loaded: the log of the worker process says why")
        outdated = [each for each in self._processes.values() if each.outdated and each.known and not each.told]
        if not outdated:
            return
        logger.error("the changed code of %s cannot be loaded: new calls get the old code until it can", target)
        for each in outdated:
            assert each.known is not None
            self._tolerated = fingerprint(each.known.hello.sources)
            each.retired = each.outdated = each.known.retired = False

    def _retire(self, each: _Process) -> None:
        each.retired = True
        if each.known is not None:
            each.known.retired = True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.check_code()
            now = SYSTEM_CLOCK.now()
            for each in tuple(self._processes.values()):
                if each.known is None:
                    continue
                if each.memory_verdict(each.known.beat.memory_mb, self._memory_mb):
                    self._retire(each)
                    self.look()
                each.silence_verdict(self.host.directory.get(each.node) is None, now, self._blocked_kill_s)

    def _task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"worker pool {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("%s failed", task.get_name(), exc_info=task.exception())
