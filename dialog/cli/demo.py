"""One whole call on this machine: a simulated caller dials the demo's agent, and everything is real.

The caller's sentences are spoken by a voice, travel over Twilio's protocol, are recognised, answered by
rules and tools, and the answers are spoken by another voice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialog.calls.page import make_page
from dialog.calls.report import SessionReport
from dialog.calls.stages import median_latency_ms
from dialog.cli.demo_call import DemoCall, hold_call
from dialog.cli.script import read_script
from dialog.cli.show import LiveView
from dialog.clock import Clock
from dialog.demo.phrases import GRAMMAR
from dialog.demo.script import DEMO_SCRIPT, Step
from dialog.errors import ConfigurationError
from dialog.stt.pocketsphinx import UNCLEAR

__all__ = ["judge", "run_demo"]

_NOTES = (
    "Both voices are a machine's (espeak-ng): the caller is simulated, no person is on the line.",
    (
        "The recogniser (pocketsphinx) knows only the demo's own sentences, in American English. "
        "Anything else it does not understand. It is not made for people's voices, nor for noisy lines."
    ),
    "The latencies are real, but without a network or a language model in them.",
    "The voice is GPL software; Dialog does not contain it, the extra 'local' installs it beside.",
    "For real calls use providers: see examples/twilio_openai_agent.",
)
_TOOLS = ("opening_hours", "book_table")
"""What the demo's own script leads to."""


async def run_demo(console: Console, *, out: Path, script: Path | None, quiet: bool, speed: float) -> int:
    """Hold the call, show it, write what is left of it to ``out``; returns 1 if a turn failed.

    Raises:
        ConfigurationError: The script cannot be used, or ``out`` not be written.
        MissingExtra: The ``local`` extra is not installed.
    """
    steps = read_script(script) if script is not None else DEMO_SCRIPT
    await asyncio.to_thread(_make_directory, out)
    if not quiet:
        console.print(Text("A call, held on this machine without any account", "bold"))
        for note in _NOTES:
            console.print(_bullet(console, note))
        console.print()
    view = LiveView(console)
    call = await hold_call(steps, clock=Clock(speed), on_event=(lambda _: None) if quiet else view.show)
    files = await asyncio.to_thread(_write, call, out)
    problems = judge(steps, call)
    if not quiet:
        console.print()
    if call.report is not None:
        console.print(_summary(call.report))
    for file in files:
        console.print(Text(f"  {file}"), soft_wrap=True)
    for problem in problems:
        console.print(Text(f"✗ {problem}", "bold red"), soft_wrap=True)
    if not problems:
        console.print(Text(f"✓ all {len(steps)} turns went as they should", "bold green"))
    return 1 if problems else 0


def judge(steps: Sequence[Step], call: DemoCall) -> list[str]:
    """What went wrong in the call, turn by turn; nothing, if all is well."""
    problems = list(call.problems)
    report = call.report
    if report is None:
        return [*problems, "the agent left no report of the call"]
    turns = [turn for turn in report.turns if turn.caller]
    heard = [plain(turn.caller) for turn in turns]
    for number, step in enumerate(steps, 1):
        wanted = plain(step.say)
        if wanted not in GRAMMAR.sentences:
            wanted = plain(UNCLEAR)  # nothing else would be honest
        got = heard[number - 1] if number <= len(heard) else None
        if got is None:
            problems.append(f"turn {number}: {step.say!r} was not heard")
            continue
        turn = turns[number - 1]
        if got != wanted:
            problems.append(f"turn {number}: {step.say!r} was understood as {got!r}")
        if not turn.heard:
            problems.append(f"turn {number}: {step.say!r} was not answered")
        if step.barge_in_ms is not None and number > 1 and not turns[number - 2].interrupted:
            problems.append(f"turn {number}: {step.say!r} did not cut off what the agent was saying")
    if steps is DEMO_SCRIPT:
        used = {use.name for turn in turns for use in turn.tools if use.state == "done"}
        problems += [f"{name}() was not used" for name in _TOOLS if name not in used]
    if len(heard) > len(steps):
        problems.append(f"the agent heard {len(heard) - len(steps)} things that nobody said")
    if report.end_reason not in ("agent_hangup", "caller_hangup"):
        problems.append(f"the call ended oddly: {report.end_reason or 'no reason was given'}")
    problems += [f"an error: {event.source}: {event.text}" for event in call.errors]
    return problems


def plain(text: str) -> str:
    """The words alone, to compare what was said with what was understood."""
    return " ".join(re.findall(r"[a-z']+|\d+", text.lower()))


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigurationError(f"{out} cannot be written: {exc}") from exc


def _write(call: DemoCall, out: Path) -> list[Path]:
    """The recording, the report and the page."""
    wav, json, page = out / "call.wav", out / "call.json", out / "report.html"
    try:
        call.recorder.write(wav)
        if call.report is None:
            return [wav]
        json.write_bytes(call.report.to_json())
        page.write_text(make_page(call.report, wav.read_bytes(), title="A call to Luigi's"), "utf-8")
    except OSError as exc:
        raise ConfigurationError(f"{out} cannot be written: {exc}") from exc
    return [wav, json, page]


def _summary(report: SessionReport) -> Table:
    latencies = [turn.latency_ms for turn in report.turns if turn.latency_ms is not None and turn.caller]
    middle = median_latency_ms(report)
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_row("length", f"{report.duration_s:.1f} s")
    table.add_row("turns", f"{sum(bool(turn.caller) for turn in report.turns)}")
    table.add_row("interruptions", f"{report.interruptions}")
    if middle is not None:
        table.add_row("answered after", f"{median(latencies):.0f} ms (median), {max(latencies):.0f} ms at most")
    return table


def _bullet(console: Console, text: str) -> Text:
    rows = Text(text, "dim").wrap(console, max(40, min(console.width, 100) - 4))
    return Text("\n").join(Text("    " if number else "  · ", "dim").append(row) for number, row in enumerate(rows))
