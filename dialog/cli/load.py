"""A load from the terminal: figures while it runs, a page, a file for machines, an exit status."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from dialog.cli.load_view import line, live, show
from dialog.cli.script import read_script
from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.testing.load import Limit, Load, LoadPlan
from dialog.testing.load_hosts import allow_many_sockets
from dialog.testing.load_page import make_load_page

__all__ = ["LoadOptions", "run_load"]

_EVERY_S = 0.25
_LINE_S = 5.0
_DEFAULT_LIMITS = ("failed>0",)


class LoadOptions(NamedTuple):
    """What the command line adds to a plan."""

    script: Path | None = None
    say: tuple[str, ...] = ()
    wavs: tuple[Path, ...] = ()
    fail_if: tuple[str, ...] = ()
    json: Path | None = None
    page: Path | None = None


def make_plan(env_file: Path, *, auth_token: str, account_sid: str, public_url: str, **plan: object) -> LoadPlan:
    """A plan whose credentials come from the environment, unless they are given.

    Raises:
        ConfigurationError: No auth token, or something in the plan is not possible.
    """
    env = read_env(env_file)
    token = auth_token or env.get("TWILIO_AUTH_TOKEN", "")
    if not token:
        raise ConfigurationError("no auth token: give --auth-token, or set TWILIO_AUTH_TOKEN as for the gateway")
    return LoadPlan(
        auth_token=token,
        account_sid=account_sid or env.get("TWILIO_ACCOUNT_SID", "") or "AC" + "0" * 32,
        public_url=public_url or env.get("WEBHOOK_URL", ""),
        **plan,  # type: ignore[arg-type]  # the command line's own names
    )


async def run_load(console: Console, plan: LoadPlan, options: LoadOptions) -> int:
    """Dial, show, write; 0 if all limits hold, 1 if not, 3 if the figures are void.

    Raises:
        ConfigurationError: A limit, a script or a file cannot be used.
        DialogError: There is no voice for texts (the ``local`` extra is missing).
    """
    limits = [Limit.parse(text) for text in options.fail_if or _DEFAULT_LIMITS]
    say: list[str | Path] = [*options.wavs, *options.say]
    if options.script is not None:
        say += [step.say for step in read_script(options.script)]
    for path in (options.json, options.page):
        if path is not None:
            await asyncio.to_thread(_touch, path)
    allow_many_sockets()
    load = Load(plan, say=say)
    running = asyncio.create_task(load.run(), name="load")
    with _interruptible(load, running):
        try:
            await _watch(console, plan, load, running)
            report = await running
        except asyncio.CancelledError:
            if not running.cancelled():
                raise
            console.print(Text("aborted", "bold red"))
            return 130
        finally:
            running.cancel()
            await asyncio.wait((running,))
    broken = report.broken(limits)
    show(console, report, broken)
    if options.json is not None:
        await asyncio.to_thread(_write, options.json, report.to_json(limits))
    if options.page is not None:
        await asyncio.to_thread(_write, options.page, make_load_page(report, limits).encode())
        console.print(Text(f"page: {options.page}", "dim"), soft_wrap=True)
    if report.void:
        return 3
    return 1 if broken else 0


async def _watch(console: Console, plan: LoadPlan, load: Load, running: asyncio.Task[object]) -> None:
    """Show the figures until the load is over: in place in a terminal, else as lines now and then."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as view:
            while not running.done():
                view.update(live(plan, load.figures), refresh=True)
                await asyncio.wait((running,), timeout=_EVERY_S)
        return
    console.print(Text(repr(plan), "dim"), soft_wrap=True)
    while not running.done():
        await asyncio.wait((running,), timeout=_LINE_S)
        if not running.done():
            console.print(line(load.figures), soft_wrap=True)


@contextlib.contextmanager
def _interruptible(load: Load, running: asyncio.Task[object]) -> Generator[None]:
    """The first Ctrl-C lets the callers hang up, the second ends the load."""
    interrupts = 0

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            load.stop()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, interrupted)
    except (NotImplementedError, RuntimeError, ValueError):  # Windows; a loop that is not in the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _touch(path: Path) -> None:
    """Find out before the load whether a file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}") from exc


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}") from exc
