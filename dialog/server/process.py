"""The program of one gateway process among several; started by :class:`~dialog.server.processes.Processes`."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from dialog import logs
from dialog.errors import ConfigurationError, DialogError
from dialog.loop import calm_collector, new_event_loop
from dialog.server.making import make_fleet_gateway, make_gateway, make_service
from dialog.server.serving import Gateway, serve
from dialog.server.tls import tls_context
from dialog.voip.peers import Peers
from dialog.workers.nats import NatsSettings
from dialog.workers.siblings import Siblings

__all__ = ["CANNOT_START", "CUT", "DRAINED", "LEAVE", "READY", "Orders"]

logger = logging.getLogger(__name__)

CANNOT_START = 3
"""Exit code of a process whose gateway cannot be made or served."""
LEAVE = b"leave\n"
"""All processes are drained: they may go."""
READY = b"ready\n"
"""A process takes calls."""
DRAINED = b"drained\n"
"""All calls of a process have ended by themselves."""
CUT = b"cut\n"
"""Some of its calls have to be ended."""


class Orders(Struct, frozen=True, kw_only=True):
    """What a process is told first, where nobody who lists processes can read it."""

    node: str
    number: int
    """Its place, which a process that replaces it gets too."""
    target: str
    service: bool = False
    """``target`` is a service, or its configuration."""
    fleet: NatsSettings | None = None
    env_file: str = ".env"
    host: str
    port: int
    own_port: int | None = None
    media_url: str = ""
    cert: str = ""
    key: str = ""
    leave_s: float
    drain_s: float
    log_level: str
    directory: str
    older: tuple[str, ...] = ()


class _Control:
    """The line to whoever started us. When it breaks there is nobody any more who would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.stop = asyncio.Event()
        self.leave = asyncio.Event()
        self.orphaned = False
        """Nobody looks after the processes any more."""
        self.say = writer.write
        self._reader = reader

    async def run(self) -> None:
        """Read until the other side is gone, or says that all may leave."""
        with suppress(ConnectionError):
            while line := await self._reader.readline():
                if line == LEAVE:
                    self.leave.set()
        self.orphaned = not self.leave.is_set()
        self.stop.set()
        self.leave.set()


class _Together:
    """A gateway that stays until all processes are drained: it still passes on what is of their calls."""

    def __init__(self, gateway: Gateway, control: _Control) -> None:
        self._gateway = gateway
        self._control = control

    def add_routes(self, app: web.Application) -> None:
        self._gateway.add_routes(app)

    @property
    def ready(self) -> bool:
        return self._gateway.ready

    async def drain(self, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        clean = await self._gateway.drain(timeout_s)
        self._control.say(DRAINED if clean else CUT)
        try:
            async with asyncio.timeout_at(until):
                await self._control.leave.wait()
        except TimeoutError:
            logger.info("other processes still have calls, and end them now")
        return clean


async def _serve(orders: Orders, control: _Control, listening: socket.socket) -> None:
    gateway: Any
    if orders.service:
        gateway = make_service(orders.target, orders.env_file)
    elif orders.fleet is None:
        gateway = make_gateway(orders.target)
    else:
        gateway = make_fleet_gateway(orders.target, orders.fleet, env_file=orders.env_file)
    if not hasattr(gateway, "use_peers"):
        raise ConfigurationError(f"{orders.target} cannot share its address with other processes: it has no use_peers")
    peers: Peers | None = gateway.peers
    if peers is None:
        peers = Siblings(orders.node, Path(orders.directory), listening, orders.older)
    else:
        # Those of a fleet are on other machines, too, and can go on with a call whose gateway died.
        listening.close()
    gateway.use_peers(peers, media_url=orders.media_url)
    calm_collector()
    await serve(
        _Together(gateway, control),
        host=orders.host,
        port=orders.port,
        own_port=orders.own_port,
        leave_s=orders.leave_s,
        drain_s=orders.drain_s,
        tls=tls_context(orders.cert, orders.key),
        reuse_port=True,
        stop=control.stop,
        started=lambda _: control.say(READY),
        watched=gateway,
    )


async def _run(sock: socket.socket, listening: socket.socket) -> int:
    reader, writer = await asyncio.open_connection(sock=sock)
    line = await reader.readline()
    if not line:
        return 0  # nobody wants us any more
    orders = msgspec.json.decode(line, type=Orders)
    control = _Control(reader, writer)
    reading = asyncio.create_task(control.run(), name="hear the supervisor")
    with logs.configure(orders.log_level):
        try:
            await _serve(orders, control, listening)
        except (DialogError, OSError) as exc:
            logger.critical("gateway process %d cannot start: %s", orders.number, exc)
            return CANNOT_START
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            writer.close()
            if control.orphaned:  # then nobody else tidies up
                shutil.rmtree(orders.directory, ignore_errors=True)
    return 0


def main() -> None:
    """Run a process: the numbers of its two sockets are on the command line; its orders come on the first of them."""
    sock, listening = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    for each in (sock, listening):
        each.set_inheritable(False)  # what the user's code starts would hold them open, and hide our death
    sock.setblocking(False)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        sys.exit(runner.run(_run(sock, listening)))


if __name__ == "__main__":
    main()
