"""Several gateway processes that listen at one port, each with its own event loop: one machine, all cores."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dialog.errors import ConfigurationError
from dialog.server.process import CANNOT_START, CUT, DRAINED, LEAVE, READY, Orders
from dialog.workers.child import backoff_s
from dialog.workers.nats import NatsSettings
from dialog.workers.siblings import listen

__all__ = ["Processes", "ProcessesSettings"]

logger = logging.getLogger(__name__)

_EXIT_S: Final = 15.0
"""How long a process may take to end once all are drained; its own bounds are below that."""
_LAST_WORDS_S: Final = 1.0
_PLACE: Final = "{process}"


class ProcessesSettings(Struct, frozen=True, kw_only=True):
    """What is served, by how many, and where."""

    target: str
    """``main:gateway``: a gateway, or a function that makes one. Each process makes its own."""
    processes: int
    service: bool = False
    """``target`` is a service or its configuration instead, or empty: then it is made from the environment."""
    fleet: NatsSettings | None = None
    """Where the workers are that run the agents, if they are in a fleet; ``target`` may be empty then."""
    env_file: str = ".env"
    host: str = "0.0.0.0"  # noqa: S104 - a server is there to be reached
    port: int = 8080
    own_ports: int | None = None
    """The first of as many ports, each of which leads to one process only; 0: any that are free."""
    media_url: str = ""
    """Public ``wss://`` URL of each process's own media socket, with ``{process}`` for its number from 0."""
    cert: str = ""
    key: str = ""
    leave_s: float = 5.0
    drain_s: float = 1800.0
    start_s: float = 60.0
    """How long the first processes may take to be ready."""
    log_level: str = "info"


class _Process:
    """One place, and the process that has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.node = ""
        self.process: asyncio.subprocess.Process | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.listens = False
        """Its socket is there: siblings can connect, even before it accepts them."""
        self.ready = False
        self.drained: bool | None = None
        """Whether its calls ended by themselves, once they have."""


class Processes:
    """Starts the processes, starts those again that die, and lets all of them finish together.

    They share the port by ``SO_REUSEPORT``: the kernel gives each of them its part of the connections. What lands at
    the wrong one is passed on over unix sockets in a private directory (:class:`~dialog.workers.siblings.Siblings`).
    No process leaves before the calls of all have ended, because the carrier's requests for them may land anywhere.
    """

    def __init__(self, settings: ProcessesSettings) -> None:
        """Check the settings.

        Raises:
            ConfigurationError: They contradict each other, or this system cannot share a port.
        """
        if not hasattr(socket, "SO_REUSEPORT") or not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError("several gateway processes need SO_REUSEPORT and unix sockets: not on this system")
        if settings.processes < 1:
            raise ConfigurationError("at least one process is needed")
        if settings.media_url and _PLACE not in settings.media_url and settings.processes > 1:
            raise ConfigurationError(f"media_url must name each process's own address: put {_PLACE} into it")
        self.settings = settings
        self.port = 0
        """The shared one, once :meth:`run` has begun."""
        self.own_ports: tuple[int, ...] = ()
        """Those that lead to one process each, by its number."""
        self._boot = secrets.token_hex(4)
        self._started = 0
        self._places = [_Process(number) for number in range(settings.processes)]
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._failures = 0
        self._broken = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids, by number; 0 where none runs at the moment."""
        return tuple(each.process.pid if each.process is not None else 0 for each in self._places)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the processes, by number."""
        return tuple(each.node for each in self._places)

    @property
    def ready(self) -> bool:
        """Whether all of them take calls."""
        return all(each.ready for each in self._places)

    def stop(self) -> None:
        """Let all processes leave; called again, without waiting for their calls."""
        self._stop.set()
        for each in self._places:
            self._signal(each, signal.SIGTERM)

    async def run(self, started: Callable[[int], object] | None = None) -> bool:
        """Serve until :meth:`stop`, SIGTERM or SIGINT; ``started`` is called with the port once all are ready.

        Returns:
            Whether all calls ended by themselves.

        Raises:
            ConfigurationError: The port is taken, or the gateway cannot be made.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        with ExitStack() as stack:
            directory = Path(tempfile.mkdtemp(prefix="dialog-"))  # only we may enter it
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            self._reserve(stack)
            lives = [
                loop.create_task(self._live(each, directory), name=f"process {each.number}") for each in self._places
            ]
            try:
                await self._all_ready(started)
                await self._stop.wait()
                return await self._drained()
            finally:
                if not self._stop.is_set():
                    self._give_up()
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.remove_signal_handler(number)
                await self._end(lives)

    def _reserve(self, stack: ExitStack) -> None:
        """Find the ports, and hold them while processes come and go."""
        settings, first = self.settings, self.settings.own_ports
        wanted = [settings.port]
        if first is not None:
            wanted += [first + number if first else 0 for number in range(settings.processes)]
        found: list[int] = []
        for port in wanted:
            sock = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                sock.bind((settings.host, port))
            except OSError as exc:
                raise ConfigurationError(f"nothing can listen at {settings.host}:{port}: {exc}") from exc
            found.append(sock.getsockname()[1])
        self.port, self.own_ports = found[0], tuple(found[1:])

    async def _all_ready(self, started: Callable[[int], object] | None) -> None:
        try:
            async with asyncio.timeout(self.settings.start_s):
                while not self.ready and not self._stop.is_set():
                    if self._broken:
                        raise ConfigurationError(self._broken)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ConfigurationError(
                f"the processes were not ready within {self.settings.start_s:g} s: what takes {self.settings.target} "
                "so long?"
            ) from None
        if self.ready and started is not None:
            started(self.port)

    async def _drained(self) -> bool:
        """Wait until no process has calls any more."""
        try:
            async with asyncio.timeout(self.settings.leave_s + self.settings.drain_s + _EXIT_S):
                while any(each.process is not None and each.drained is None for each in self._places):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return all(each.drained is not False for each in self._places)

    def _give_up(self) -> None:
        """They do not come up: there is nothing to be drained."""
        self._stop.set()
        for each in self._places:
            self._signal(each, signal.SIGKILL)

    async def _end(self, lives: list[asyncio.Task[None]]) -> None:
        for each in self._places:
            if each.writer is not None:
                each.writer.write(LEAVE)
        _, late = await asyncio.wait(lives, timeout=_EXIT_S)
        for each in self._places:
            if each.process is not None:
                logger.error("gateway process %d did not end within %g s, and is killed", each.number, _EXIT_S)
                self._signal(each, signal.SIGKILL)
        if late:
            await asyncio.wait(late)

    async def _live(self, each: _Process, directory: Path) -> None:
        """One place: a process, and the next one when it has died."""
        while not self._stop.is_set():
            try:
                code = await self._process(each, directory)
            except OSError as exc:
                logger.error("gateway process %d could not be started: %s", each.number, exc)  # noqa: TRY400
                code = -1
            was_ready, each.ready = each.ready, False
            if self._stop.is_set():
                if was_ready and each.drained is None:
                    logger.error("gateway process %d ended with %d while it had calls", each.number, code)
                    each.drained = False
                break
            if was_ready:
                self._failures = 0
                logger.error("gateway process %d ended with %d; another one takes its place", each.number, code)
            else:
                self._failures += 1
                if code == CANNOT_START:
                    self._broken = f"{self.settings.target} cannot be served: the log of its process says why"
                logger.error("gateway process %d ended with %d before it took calls", each.number, code)
            self._changed.set()
            if self._failures:
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s(self._failures)):
                        await self._stop.wait()
        self._changed.set()

    async def _process(self, each: _Process, directory: Path) -> int:
        self._started += 1
        # In one step: of two that start at once, the second one connects to the first one.
        older = tuple(other.node for other in self._places if other.listens)
        each.node = f"{self._boot}-{self._started}"
        each.drained = None
        with listen(directory, each.node) as listening:
            each.listens = True
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            orders = self._orders(each, directory, older)
            try:
                process = each.process = await asyncio.create_subprocess_exec(
                    *[sys.executable, "-m", "dialog.server.process", str(theirs.fileno()), str(listening.fileno())],
                    pass_fds=(theirs.fileno(), listening.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for us: we end them
                )
            except BaseException:
                ours.close()
                each.listens = False
                raise
            finally:
                theirs.close()
        reader, each.writer = await asyncio.open_connection(sock=ours)
        each.writer.write(msgspec.json.encode(orders) + b"\n")
        hearing = asyncio.create_task(self._hear(each, reader), name=f"hear process {each.number}")
        try:
            if self._stop.is_set():
                self._signal(each, signal.SIGTERM)
            code = await process.wait()
            # What it said last is there; what it has started may hold its end of the socket open.
            await asyncio.wait([hearing], timeout=_LAST_WORDS_S)
            return code
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
            each.writer.close()
            each.writer = None
            if process.returncode is None:
                self._signal(each, signal.SIGKILL)
                await process.wait()
            each.process = None
            each.listens = False
            (directory / each.node).unlink(missing_ok=True)
            self._changed.set()

    def _orders(self, each: _Process, directory: Path, older: tuple[str, ...]) -> Orders:
        settings = self.settings
        orders = Orders(
            node=each.node,
            number=each.number,
            target=settings.target,
            service=settings.service,
            fleet=settings.fleet,
            env_file=settings.env_file,
            host=settings.host,
            port=self.port,
            media_url=settings.media_url.replace(_PLACE, str(each.number)),
            cert=settings.cert,
            key=settings.key,
            leave_s=settings.leave_s,
            drain_s=settings.drain_s,
            log_level=settings.log_level,
            directory=str(directory),
            older=older,
        )
        return replace(orders, own_port=self.own_ports[each.number]) if self.own_ports else orders

    async def _hear(self, each: _Process, reader: asyncio.StreamReader) -> None:
        with suppress(ConnectionError):  # it went without reading what we said last
            while line := await reader.readline():
                self._heard(each, line)

    def _heard(self, each: _Process, line: bytes) -> None:
        if line == READY:
            each.ready = True
            logger.info("gateway process %d takes calls", each.number)
        elif line in (DRAINED, CUT):
            each.drained = line == DRAINED
        self._changed.set()

    def _signal(self, each: _Process, number: signal.Signals) -> None:
        if each.process is not None and each.process.returncode is None:
            with suppress(ProcessLookupError):
                each.process.send_signal(number)
