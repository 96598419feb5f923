"""A whole service from its configuration or from the environment; started again when its code changes, if wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from dialog import logs
from dialog.cli.address import listen_at
from dialog.env import read_env
from dialog.loop import calm_collector
from dialog.server.making import make_service
from dialog.server.processes import Processes, ProcessesSettings
from dialog.server.serving import serve
from dialog.server.tls import tls_context
from dialog.workers.sources import fingerprint

__all__ = ["ServePlan", "run_reloading", "run_serve"]

_LOOK_S = 0.5
_LEAVE_S = 5.0


class ServePlan(NamedTuple):
    """What to serve, and where."""

    target: str = ""
    host: str = ""
    port: int | None = None
    processes: int = 1
    own_ports: int | None = None
    media_url: str = ""
    cert: Path | None = None
    key: Path | None = None
    leave_s: float = 5.0
    drain_s: float = 1800.0
    log_level: str = "info"
    env_file: Path = Path(".env")


async def run_serve(console: Console, plan: ServePlan) -> int:
    """Serve until SIGTERM or Ctrl-C; 0 if every call then ended by itself.

    Raises:
        ConfigurationError: The target is no service, or a setting cannot be used.
    """
    tls = tls_context(plan.cert, plan.key)
    env = read_env(plan.env_file)
    host, port = listen_at(env, plan.host, plan.port)

    paths: list[str] = []

    def started(bound: int) -> None:
        console.print(f"{plan.target or 'the service'} takes calls at {host}:{bound}", highlight=False)
        for path in paths:
            scheme = "http" if tls is None else "https"
            console.print(f"its console is at {scheme}://{host}:{bound}{path}", highlight=False, soft_wrap=True)

    with logs.configure(plan.log_level):
        if plan.processes > 1 or plan.own_ports is not None or plan.media_url:
            return 0 if await Processes(_settings(plan, host, port)).run(started) else 1
        service = make_service(plan.target, plan.env_file)
        if service.console is not None:
            paths.append(f"{service.config.prefix}{service.console.path}")
        calm_collector()
        clean = await serve(
            service, host=host, port=port, leave_s=plan.leave_s, drain_s=plan.drain_s, tls=tls, started=started
        )
    return 0 if clean else 1


def _settings(plan: ServePlan, host: str, port: int) -> ProcessesSettings:
    return ProcessesSettings(
        target=plan.target,
        service=True,
        env_file=str(plan.env_file),
        processes=plan.processes,
        host=host,
        port=port,
        own_ports=plan.own_ports,
        media_url=plan.media_url,
        cert=str(plan.cert or ""),
        key=str(plan.key or ""),
        leave_s=plan.leave_s,
        drain_s=plan.drain_s,
        log_level=plan.log_level,
    )


async def run_reloading(console: Console, arguments: list[str]) -> int:
    """Run ``python -m dialog serve`` with these arguments, anew whenever Python files or ``.env`` change.

    Calls are cut by that: it is for development.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    try:
        while not told.is_set():
            code = fingerprint_here()
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "dialog", "serve", *arguments, "--leave-s", "0", "--drain-s", "0"]
            )
            exited = asyncio.create_task(process.wait(), name="the service")
            try:
                while not told.is_set() and fingerprint_here() == code:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(told.wait(), _LOOK_S)
                if not told.is_set():
                    console.print("the code has changed: starting again", highlight=False)
            finally:
                if process.returncode is None:
                    process.terminate()
                try:
                    await asyncio.wait_for(asyncio.shield(exited), _LEAVE_S)
                except TimeoutError:
                    process.kill()
                    await exited
        return 0
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def fingerprint_here() -> str:
    """Of the Python files beneath the working directory, and its ``.env``."""
    here = Path.cwd()
    hidden = {".venv", "venv", "node_modules", "__pycache__", ".git"}
    sources = [here / ".env"]
    for directory, names, files in os.walk(here):
        names[:] = [name for name in names if name not in hidden]
        sources += [Path(directory, file) for file in files if file.endswith(".py")]
    return fingerprint(map(str, sorted(sources)))
