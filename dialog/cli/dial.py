"""Dialling a list of numbers from the terminal: live figures, a file of results, and no number twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from aiohttp import web
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from dialog import logs
from dialog.dialling.batch import RESULT_COLUMNS, Batch, BatchSettings, Progress
from dialog.dialling.ledger import Ledger
from dialog.dialling.plan import Retry
from dialog.dialling.table import read_table, write_results
from dialog.env import read_env, required
from dialog.errors import ConfigurationError
from dialog.loading import load_target
from dialog.net.listening import listen, unlisten
from dialog.server.tls import tls_context
from dialog.voip.answering import MachineDetection
from dialog.voip.listening_in import play_on_speakers
from dialog.voip.pacing import Pacing
from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.twilio.voip import TwilioVoIP

__all__ = ["DialOptions", "run_dial"]

_LINE_S = 10.0
"""So often a line is printed where there is no terminal."""


class DialOptions(NamedTuple):
    """What to dial, and how."""

    target: str
    numbers: Path
    from_: str = ""
    column: str = ""
    out: Path | None = None
    ledger: Path | None = None
    calls_per_s: float = 1.0
    concurrency: int = 10
    ring_s: float = 30.0
    machine: Literal["", "hang-up", "leave-message", "go-on"] = ""
    message: str = ""
    attempts: int = 1
    again_after_s: float = 900.0
    host: str = "0.0.0.0"  # noqa: S104 - a server is there to be reached
    port: int = 8080
    cert: Path | None = None
    key: Path | None = None
    log_level: str = "warning"
    env_file: Path = Path(".env")


async def run_dial(console: Console, options: DialOptions) -> int:
    """Dial; 0 if nothing is left. The first Ctrl-C lets the calls finish, the second ends them.

    Raises:
        ConfigurationError: A file, a setting or the target cannot be used.
        UserCodeError: The code that takes the calls raised.
        AuthenticationError: Twilio does not know the credentials.
    """
    table = read_table(options.numbers, column=options.column)
    env = read_env(options.env_file)
    settings = BatchSettings(
        from_=options.from_ or _needed(env, "TWILIO_PHONE_NUMBER", "--from"),
        concurrency=options.concurrency,
        ring_s=options.ring_s,
        machine_detection=_detection(options),
        retry=Retry(attempts=options.attempts, after_s=options.again_after_s),
    )
    tls = tls_context(options.cert, options.key)
    out = options.out or options.numbers.with_suffix(".results.csv")
    ledger = Ledger(options.ledger or options.numbers.with_suffix(".ledger.jsonl"))
    try:
        with logs.configure(options.log_level):
            gateway, on_voip = _gateway(options, env)
            if env.get("VOICE_MONITOR", "0") != "0":
                on_voip = _aloud(gateway, on_voip)
            runner = web.AppRunner(gateway.app(), access_log=None)
            await runner.setup()
            try:
                await listen(runner, options.host, options.port, tls=tls)
                view = _View(console)
                batch = Batch(gateway, table, ledger, settings, on_voip=on_voip, changed=lambda: view.show(batch))
                try:
                    return await _dial(console, batch, view)
                finally:
                    await asyncio.to_thread(write_results, out, table, RESULT_COLUMNS, batch.results())
                    console.print(f"results: {out}", highlight=False, soft_wrap=True)
            finally:
                await unlisten(runner)
    finally:
        ledger.close()


async def _dial(console: Console, batch: Batch, view: _View) -> int:
    running = asyncio.create_task(batch.run(), name="dialling")
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        loop.add_signal_handler(signal.SIGINT, running.cancel)
        loop.add_signal_handler(signal.SIGTERM, running.cancel)
        console.print("no more calls are placed; those that are there go on. Again to end them.", highlight=False)
        batch.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    try:
        with view:
            view.show(batch)
            await asyncio.wait([running])
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        running.cancel()
        await asyncio.wait([running])
    console.print(_line(batch.progress))
    return 0 if not running.cancelled() and running.result() else 1


class _View:
    """The figures: a line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=8) if console.is_terminal else None
        self._printed_at = float("-inf")

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, batch: Batch) -> None:
        if self._live is not None:
            self._live.update(_line(batch.progress))
            return
        now = asyncio.get_running_loop().time()
        if now - self._printed_at >= _LINE_S:
            self._printed_at = now
            self._console.print(_line(batch.progress))


def _line(progress: Progress) -> RenderableType:
    done = sum(progress.outcomes.values())
    what = ", ".join(f"{outcome.replace('_', ' ')} {count}" for outcome, count in progress.outcomes.items())
    return Text.assemble(
        (f"{done}/{progress.total} done", "bold"),
        f"{what and f' ({what})'}  ",
        (f"talking {progress.talking}  ", "cyan"),
        f"dialling {progress.dialling}  left {progress.left}",
    )


def _detection(options: DialOptions) -> MachineDetection | None:
    if not options.machine:
        if options.message:
            raise ConfigurationError("--message is what a machine is told: use it with --machine leave-message")
        return None
    then = cast("Literal['hang_up', 'leave_message', 'go_on']", options.machine.replace("-", "_"))
    return MachineDetection(when_machine=then, message=options.message)


def _aloud(gateway: TwilioGateway, on_voip: Callable[..., object] | None) -> Callable[..., object] | None:
    """Let the calls be heard on the speakers of this machine; returns who takes them then."""

    def heard(voip: TwilioVoIP) -> None:
        play_on_speakers(gateway, voip)
        if on_voip is not None:
            on_voip(voip)

    if on_voip is not None:
        return heard
    gateway.on("voip", heard)
    return None


def _gateway(options: DialOptions, env: dict[str, str]) -> tuple[TwilioGateway, Callable[..., object] | None]:
    """The gateway that places the calls, and who takes them, if not whoever takes all of that gateway's."""
    found: Any = load_target(options.target)
    if isinstance(found, TwilioGateway):
        return found, None
    if not callable(found):
        raise ConfigurationError(f"{options.target} is neither a gateway nor a function that takes calls")
    required(env, "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "WEBHOOK_URL")
    gateway = TwilioGateway(
        account_sid=env["TWILIO_ACCOUNT_SID"],
        auth_token=env["TWILIO_AUTH_TOKEN"],
        api_key=env.get("TWILIO_API_KEY"),
        api_secret=env.get("TWILIO_API_SECRET"),
        base_url=env.get("TWILIO_BASE_URL"),
        webhook_url=env["WEBHOOK_URL"],
        pacing=Pacing(calls_per_s=options.calls_per_s, concurrency=options.concurrency, wait_s=600.0),
    )
    return gateway, found


def _needed(env: dict[str, str], name: str, option: str) -> str:
    if not env.get(name):
        raise ConfigurationError(f"give a number of the account to call from: {option}, or {name}")
    return env[name]
