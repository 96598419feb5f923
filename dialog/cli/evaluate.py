"""Evaluating the user's own agent from the terminal: a table, files for machines, an exit status."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.loading import load_target
from dialog.testing.evaluate import EVALUATION, Evaluation, ScenarioResult, Thresholds, evaluate
from dialog.testing.scenario import load_scenarios

__all__ = ["EvaluatePlan", "run_evaluate"]


class EvaluatePlan(NamedTuple):
    """What to evaluate, and how."""

    target: str
    scenarios: str = "builtin"
    seed: int | None = None
    own_speech: bool = False
    speed: float = 1.0
    thresholds: Thresholds = Thresholds()
    json: Path | None = None
    junit: Path | None = None
    env_file: Path = Path(".env")


async def run_evaluate(console: Console, plan: EvaluatePlan) -> int:
    """Evaluate, show the table, write the files; 0 if the agent passed.

    Raises:
        ConfigurationError: The target or the scenarios cannot be used, or a file cannot be written.
        DialogError: A call was not taken, or the ``local`` extra is missing.
    """
    target = load_target(plan.target)
    scenarios = EVALUATION if plan.scenarios == "builtin" else load_scenarios(Path(plan.scenarios))
    console.print(Text(f"{len(scenarios)} calls to {plan.target} …", "dim"), soft_wrap=True)
    result = await evaluate(
        target,
        scenarios=scenarios,
        seed=plan.seed,
        own_speech=plan.own_speech,
        speed=plan.speed,
        thresholds=plan.thresholds,
        env=read_env(plan.env_file),
    )
    console.print(_table(result))
    for one in result.scenarios:
        if one.problems:
            console.print(Text(f"✗ {one.name}: {one.guards}".removesuffix(": "), "red"), soft_wrap=True)
        for problem in one.problems:
            console.print(Text(f"    {problem}", "red"), soft_wrap=True)
    for problem in result.problems:
        console.print(Text(f"✗ {problem}", "bold red"), soft_wrap=True)
    console.print(Text(f"seed {result.seed}", "dim"))
    for path, data in ((plan.json, result.to_json()), (plan.junit, result.to_junit())):
        if path is not None:
            await asyncio.to_thread(_write, path, data)
    return 0 if result.passed else 1


def _table(result: Evaluation) -> Table:
    """``stopped``: interruptions that silenced the agent in time. p50 and p95: of the time to an answer."""
    table = Table("scenario", show_footer=True, box=None, pad_edge=False, header_style="bold")
    table.columns[0].footer = "all"
    table.columns[0].no_wrap = True
    footers = (
        "passed" if result.passed else "failed",
        f"{result.answered}/{result.asked}",
        f"{result.obeyed}/{result.interruptions}",
        f"{result.dead_air_s:.1f}",
        _figure(result.latency_p50_ms),
        _figure(result.latency_p95_ms),
    )
    headers = ("", "answered", "stopped", "dead air s", "p50 ms", "p95 ms")
    for header, footer in zip(headers, footers, strict=True):
        table.add_column(header, footer, justify="right" if header else "left")
    for one in result.scenarios:
        table.add_row(one.name, *_cells(one), style="" if one.passed else "red")
    return table


def _cells(one: ScenarioResult) -> tuple[str, ...]:
    return (
        "✓" if one.passed else "✗",
        f"{one.answered}/{one.asked}" if one.asked else "",
        f"{one.obeyed}/{one.interruptions}" if one.interruptions else "",
        f"{one.dead_air_s:.1f}",
        _figure(one.latency_p50_ms),
        _figure(one.latency_p95_ms),
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be written: {exc}") from exc
