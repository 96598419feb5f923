"""The worker role of a fleet: processes that run agents, and their probes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
from aiohttp import web
from rich.console import Console

from dialog import logs
from dialog.cli.fleet import settings_from
from dialog.env import read_env
from dialog.net.listening import listen, unlisten
from dialog.workers.process import Orders
from dialog.workers.supervisor import Load, Supervisor

__all__ = ["WorkerPlan", "run_worker"]


class WorkerPlan(NamedTuple):
    """What to run, and how much of it."""

    target: str
    nats: str = ""
    processes: int = 1
    calls_per_process: int = 200
    labels: str = ""
    prewarm: str = ""
    memory_mb: float | None = None
    drain_s: float = 1800.0
    health_host: str = "0.0.0.0"  # noqa: S104 - probes come from outside
    health_port: int = 0
    log_level: str = "info"
    env_file: Path = Path(".env")


async def run_worker(console: Console, plan: WorkerPlan) -> int:
    """Work until SIGTERM or Ctrl-C; 0 if every call then ended by itself.

    Raises:
        ConfigurationError: The user's code cannot be loaded, or a setting is of no use.
        NatsUnavailable: No server of the cluster is there.
    """
    settings = settings_from(read_env(plan.env_file), plan.nats)
    labels = tuple(label for part in plan.labels.split(",") if (label := part.strip()))
    with logs.configure(plan.log_level):
        supervisor = Supervisor(
            Orders(
                node="",
                target=plan.target,
                prewarm=plan.prewarm,
                capacity=plan.calls_per_process,
                labels=labels,
                drain_s=plan.drain_s,
                log_level=plan.log_level,
            ),
            settings,
            processes=plan.processes,
            memory_mb=plan.memory_mb,
        )
        stop, again = asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            (again if stop.is_set() else stop).set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signalled)
        async with _probes(supervisor, plan.health_host, plan.health_port):
            clean = await supervisor.run(
                stop,
                again,
                started=lambda: console.print(
                    f"{plan.target} takes up to {plan.processes * plan.calls_per_process} calls of {settings.where}",
                    highlight=False,
                    soft_wrap=True,
                ),
            )
    return 0 if clean else 1


@asynccontextmanager
async def _probes(supervisor: Supervisor, host: str, port: int) -> AsyncGenerator[None]:
    """Serve ``/health``, ``/ready`` and ``/metrics``; without a port nothing."""
    if not port:
        yield
        return

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", **msgspec.structs.asdict(supervisor.load)})

    async def ready(_: web.Request) -> web.Response:
        load = msgspec.structs.asdict(supervisor.load)
        if supervisor.draining:
            return web.json_response({"status": "leaving", **load}, status=503)
        if not supervisor.ready:
            return web.json_response({"status": "not ready", **load}, status=503)
        return web.json_response({"status": "ready", **load})

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=_exposition(supervisor.load), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    try:
        await runner.setup()
        await listen(runner, host, port)
        yield
    finally:
        await unlisten(runner)


def _exposition(load: Load) -> str:
    """In Prometheus' format. What happens in calls the gateways tell, to whom the workers tell it."""
    gauges = (
        ("calls", "Calls that the processes have.", load.calls),
        ("capacity", "Calls that they may have.", load.capacity),
        ("load", "Those by these; 1 also where there is no process that takes calls.", load.load),
        ("processes", "Processes that are there.", load.processes),
        ("lag_seconds", "The longest delay of an event loop within the last ten seconds.", load.lag_ms / 1000.0),
        ("memory_mb", "What the processes take together.", load.memory_mb),
    )
    return "".join(
        f"# HELP dialog_worker_{name} {text}\n# TYPE dialog_worker_{name} gauge\ndialog_worker_{name} {value:g}\n"
        for name, text, value in gauges
    )
