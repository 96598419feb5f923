"""Serves a gateway until it is told to stop, and then lets its calls finish."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from dialog.errors import MissingExtra
from dialog.loop import calm_collector, new_event_loop
from dialog.net.listening import listen, unlisten
from dialog.workers.blocked import LoopWatch

__all__ = ["Gateway", "Probes", "add_metrics", "run", "serve"]

logger = logging.getLogger(__name__)


class Gateway(Protocol):
    """What a server needs of a gateway, whatever its carrier."""

    def add_routes(self, app: web.Application) -> None:
        """Add its routes, and its start and end."""

    @property
    def ready(self) -> bool:
        """Whether a call would be taken now."""
        ...

    async def drain(self, timeout_s: float) -> bool:
        """Take no more calls, and wait for those that are there."""
        ...


class Probes:
    """``GET /health``: the process lives. ``GET /ready``: it may be sent calls; 503 once it is leaving."""

    def __init__(self, gateway: Gateway) -> None:
        self.leaving = False
        self._gateway = gateway

    def add_routes(self, app: web.Application) -> None:
        """Add both."""
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)

    async def health(self, _: web.Request) -> web.Response:
        """Answer while the event loop comes round."""
        return web.json_response({"status": "ok"})

    async def ready(self, _: web.Request) -> web.Response:
        """Answer 200 if a call would be taken."""
        if self.leaving:
            return web.json_response({"status": "leaving"}, status=503)
        if not self._gateway.ready:
            return web.json_response({"status": "not ready"}, status=503)
        return web.json_response({"status": "ready"})


async def serve(
    gateway: Gateway,
    *,
    host: str = "0.0.0.0",  # noqa: S104 - a server is there to be reached
    port: int = 8080,
    own_port: int | None = None,
    leave_s: float = 5.0,
    drain_s: float = 1800.0,
    tls: ssl.SSLContext | None = None,
    reuse_port: bool = False,
    stop: asyncio.Event | None = None,
    started: Callable[[int], object] | None = None,
    watched: object = None,
) -> bool:
    """Serve ``gateway`` until SIGTERM or SIGINT, or ``stop``; then drain it.

    With the extra ``metrics`` it answers ``GET /metrics``, too: see :class:`dialog.telemetry.Metrics`.

    What blocks the event loop, and with it all calls, is logged with its stack.

    After the first signal ``/ready`` says 503. For ``leave_s`` calls are still taken: whoever sends them has to
    notice first. Then no more are, and those that are there may finish, for ``drain_s``. A second signal ends them.

    Args:
        gateway: What is served.
        host: Address to listen at.
        port: And port; 0: any free one.
        own_port: Another port, which no other process of a shared ``port`` listens at.
        leave_s: See above, in seconds.
        drain_s: See above, in seconds.
        tls: Certificate and key, unless a proxy in front has them.
        reuse_port: Several processes listen at the same port.
        stop: Set it instead of sending a signal.
        started: Called with the port once calls are taken.
        watched: Whose calls ``/metrics`` tells of; ``gateway`` unless given.

    Returns:
        Whether all calls ended by themselves.

    Raises:
        ConfigurationError: The address cannot be listened at.
    """
    probes = Probes(gateway)
    app = web.Application()
    probes.add_routes(app)
    gateway.add_routes(app)
    add_metrics(gateway if watched is None else watched, app)
    runner = web.AppRunner(app, access_log=None)
    told, again = stop or asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (again if told.is_set() else told).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    watch: LoopWatch | None = None
    try:
        await runner.setup()
        for each in (port,) if own_port is None else (port, own_port):
            await listen(runner, host, each, tls=tls, reuse_port=reuse_port)
        bound = runner.addresses[0][1]
        logger.info("Running on %s://%s:%d", "https" if tls is not None else "http", host, bound)
        if started is not None:
            started(bound)
        watch = LoopWatch()  # only now: what is imported at the start keeps nobody waiting
        await told.wait()
        probes.leaving = True
        logger.info("leaving: calls are taken for another %g s, and may finish within %g s", leave_s, drain_s)
        return await _leave(gateway, again, leave_s, drain_s)
    finally:
        if watch is not None:
            watch.close()
        await unlisten(runner)  # bounded, and a signal that comes meanwhile changes nothing
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def add_metrics(gateway: object, app: web.Application) -> None:
    """Add ``GET /metrics``, if the packages for it are installed."""
    try:
        from dialog.telemetry import Metrics
    except MissingExtra as exc:
        logger.info("/metrics is not served: %s", exc)
        return
    from dialog.telemetry.gauges import Watched

    metrics = Metrics()
    if isinstance(gateway, Watched):
        metrics.watch(gateway)
    metrics.add_routes(app)


async def _leave(gateway: Gateway, again: asyncio.Event, leave_s: float, drain_s: float) -> bool:
    impatient = asyncio.create_task(again.wait(), name="second signal")
    try:
        await asyncio.wait([impatient], timeout=leave_s)
        draining = asyncio.create_task(gateway.drain(0.0 if impatient.done() else drain_s), name="drain")
        try:
            await asyncio.wait([impatient, draining], return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                return draining.result()
            logger.warning("told to stop again: the calls that are left end now")
            return False
        finally:
            draining.cancel()
            await asyncio.wait([draining])
    finally:
        impatient.cancel()
        await asyncio.wait([impatient])


def run(gateway: Callable[[], Gateway] | Gateway, **options: object) -> bool:
    """Like :func:`serve`, on an event loop of its own: for the ``main`` of a program.

    ``gateway`` may be a function that makes it, on the loop.
    """

    async def main() -> bool:
        made = gateway() if callable(gateway) else gateway
        calm_collector()
        return await serve(made, **options)  # type: ignore[arg-type]  # as serve takes them

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main())
