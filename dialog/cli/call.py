"""Dialling a running gateway from the terminal: a caller with a script, and what he hears."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import urlsplit

from rich.console import Console
from rich.text import Text

from dialog.cli.script import read_script, speak
from dialog.demo.script import Step
from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.testing.caller import CallEnded, Caller, CallerEvent, Heard, NothingHeard, Refused

__all__ = ["CallPlan", "run_call"]

_DEFAULT_SCRIPT = (Step(say="hello and good evening"), Step(say="goodbye and thank you for your help"))
_HINTS = {
    0: "does the gateway run, and listen there?",
    400: "the signature header is missing: a proxy in between may have removed it",
    403: "the signature is refused: is --auth-token the gateway's, and --public-url its WEBHOOK_URL?",
    404: "nothing is at this path: give the whole address of the voice webhook",
}


class CallPlan(NamedTuple):
    """What to dial and what to say."""

    url: str
    script: Path | None = None
    wavs: tuple[Path, ...] = ()
    auth_token: str = ""
    account_sid: str = ""
    public_url: str = ""
    out: Path | None = None
    env_file: Path = Path(".env")


async def run_call(console: Console, plan: CallPlan) -> int:
    """Dial, say everything, listen after each, hang up; 0 if every sentence was answered.

    Raises:
        ConfigurationError: No auth token, no address of a webhook, or the script cannot be read.
        DialogError: The caller has no voice here (the ``local`` extra is missing).
    """
    env = read_env(plan.env_file)
    token = plan.auth_token or env.get("TWILIO_AUTH_TOKEN", "")
    if not token:
        raise ConfigurationError("no auth token: give --auth-token, or set TWILIO_AUTH_TOKEN as for the gateway")
    address = urlsplit(plan.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigurationError(f"{plan.url!r} is no webhook: give an address as http://127.0.0.1:8080/twilio")
    sayings: list[Step | Path] = list(plan.wavs)
    if plan.script is not None:
        sayings += read_script(plan.script)
    view = _View(console)
    dialling = Caller.dial(
        plan.url,
        auth_token=token,
        account_sid=plan.account_sid or env.get("TWILIO_ACCOUNT_SID", "") or "AC" + "0" * 32,
        public_url=plan.public_url or env.get("WEBHOOK_URL", ""),
        on_event=view.happened,
    )
    try:
        async with dialling as caller:
            answered = await _converse(view, caller, sayings or list(_DEFAULT_SCRIPT))
            await caller.hang_up()
            if plan.out is not None:
                await asyncio.to_thread(_write, plan.out, caller.recording())
                view.line(None, "file", str(plan.out))
    except Refused as exc:
        view.line(None, "refused", str(exc), "red")
        if exc.status in _HINTS:
            view.line(None, "", _HINTS[exc.status], "yellow")
        return 1
    for warning in caller.warnings:
        view.line(None, "warning", f"{warning.code} {warning.detail}", "yellow")
    return 0 if answered else 1


async def _converse(view: _View, caller: Caller, sayings: list[Step | Path]) -> bool:
    """Say one thing after another; whether each was answered."""
    if caller.stream is None:
        view.line(caller.now_ms(), "", f"no media stream was opened; the call is {caller.status}", "red")
        return False
    try:
        await speak(caller, sayings, view.heard)
        try:
            view.heard(await caller.listen())
        except CallEnded:
            view.line(caller.now_ms(), "agent", "hung up", "dim")  # as one may, after the last sentence
    except NothingHeard:
        view.line(caller.now_ms(), "agent", "does not answer", "red")
        return False
    except CallEnded:
        view.line(caller.now_ms(), "", f"the call ended before all was said: {caller.status}", "red")
        return False
    return True


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}") from exc


class _View:
    """One line for what happens and for what is heard."""

    _SHOWN: ClassVar[dict[str, tuple[str, str]]] = {
        "dialling": ("call", "bold"),
        "speaks": ("caller", "bold cyan"),
        "stream started": ("stream", "dim"),
        "stream ended": ("stream", "dim"),
        "verb": ("TwiML", "dim"),
        "ended": ("end", "bold"),
    }

    def __init__(self, console: Console) -> None:
        self._console = console

    def happened(self, event: CallerEvent) -> None:
        """Show an event of the simulated carrier."""
        if event.name in self._SHOWN:
            who, style = self._SHOWN[event.name]
            self.line(event.at_ms, who, event.detail or event.name, who_style=style)

    def heard(self, heard: Heard) -> None:
        """Show a stretch of the agent's speech."""
        text = f"spoke for {heard.duration_ms / 1000:.1f} s"
        if heard.latency_ms is not None:
            text += f", {heard.latency_ms:.0f} ms after the caller"
        if heard.gaps:
            text += f", with {len(heard.gaps)} gaps"
        self.line(heard.started_ms, "agent", text, who_style="bold green")

    def line(self, at_ms: float | None, who: str, text: str, style: str = "", *, who_style: str = "bold") -> None:
        """Show anything."""
        clock = " " * 7 if at_ms is None else f"{int(at_ms // 60_000):>2}:{at_ms / 1000 % 60:04.1f}"
        line = Text.assemble((f"{clock} ", "bright_black"), (f"{who:<8}", who_style), (text, style))
        self._console.print(line, highlight=False, soft_wrap=True)
