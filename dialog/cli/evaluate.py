"""Evaluating the user's own agent from the terminal: a table, files for machines, an exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialog.env import read_env
from dialog.errors import ConfigurationError
from dialog.llm.llm import LLM
from dialog.loading import load_target
from dialog.providers.factories import create_llm, create_stt, create_tts
from dialog.testing.evaluate import EVALUATION, Evaluation, ScenarioResult, Thresholds, evaluate
from dialog.testing.scenario import Scenario
from dialog.testing.simulation import Simulation, SimulationResult, load_simulations

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
    customer: str = ""
    """The model that plays customers, as ``provider`` or ``provider/model``; empty: their answers do."""
    customer_stt: str = ""
    customer_tts: str = "espeak"
    """Their ears and voice, where the agent speaks with its own."""
    judges: tuple[str, ...] = ()
    """The models that judge criteria."""


async def run_evaluate(console: Console, plan: EvaluatePlan) -> int:
    """Evaluate, show the table, write the files; 0 if the agent passed.

    Raises:
        ConfigurationError: The target or the scenarios cannot be used, or a file cannot be written.
        DialogError: A call was not taken, or the ``local`` extra is missing.
    """
    target = load_target(plan.target)
    scenarios: tuple[Scenario, ...] = EVALUATION
    simulations: tuple[Simulation, ...] = ()
    if plan.scenarios != "builtin":
        scenarios, simulations = load_simulations(Path(plan.scenarios))
    calls = len(scenarios) + sum(simulation.runs for simulation in simulations)
    console.print(Text(f"{calls} calls to {plan.target} …", "dim"), soft_wrap=True)
    env = read_env(plan.env_file)
    names = count(1)
    total = len(scenarios) + len(simulations)

    def played(name: str) -> None:
        console.print(Text(f"{next(names):>3}/{total} {name}", "dim"), soft_wrap=True)

    result = await evaluate(
        target,
        scenarios=scenarios,
        simulations=simulations,
        seed=plan.seed,
        own_speech=plan.own_speech,
        speed=plan.speed,
        thresholds=plan.thresholds,
        env=env,
        customer_llm=_model(plan.customer, env) if plan.customer else None,
        customer_stt=partial(create_stt.from_env, plan.customer_stt, env=env) if plan.customer_stt else None,
        customer_tts=partial(create_tts.from_env, plan.customer_tts, env=env) if plan.own_speech else None,
        judges=[_model(name, env) for name in plan.judges],
        played=played,
    )
    if result.scenarios or not result.simulations:
        _show_scenarios(console, result)
    if result.simulations:
        _show_simulations(console, result)
    for problem in result.problems:
        console.print(Text(f"✗ {problem}", "bold red"), soft_wrap=True)
    console.print(Text(f"seed {result.seed}", "dim"))
    for path, data in ((plan.json, result.to_json()), (plan.junit, result.to_junit())):
        if path is not None:
            await asyncio.to_thread(_write, path, data)
    return 0 if result.passed else 1


def _model(name: str, env: Mapping[str, str]) -> Callable[[], LLM]:
    """What makes the model ``provider`` or ``provider/model``; made once to see whether it can be.

    Raises:
        ConfigurationError: There is no such provider, or a variable of it is not set.
    """
    provider, _, model = name.partition("/")
    options = {"model": model} if model else {}
    make = partial(create_llm.from_env, provider, env=env, **options)
    make()
    return make


def _show_scenarios(console: Console, result: Evaluation) -> None:
    console.print(_table(result))
    for one in result.scenarios:
        if one.problems:
            console.print(Text(f"✗ {one.name}: {one.guards}".removesuffix(": "), "red"), soft_wrap=True)
        for problem in one.problems:
            console.print(Text(f"    {problem}", "red"), soft_wrap=True)


def _show_simulations(console: Console, result: Evaluation) -> None:
    table = Table("simulation", box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for header in ("", "passed", "turns", "ended by", "dead air s"):
        table.add_column(header, justify="right" if header and header != "ended by" else "left")
    for each in result.simulations:
        table.add_row(each.name, *_talk_cells(each), style="" if each.passed else "red")
    console.print(table)
    for each in result.simulations:
        if each.passed:
            continue
        console.print(Text(f"✗ {each.name}: {each.guards}".removesuffix(": "), "red"), soft_wrap=True)
        for problem in each.problems:
            console.print(Text(f"    {problem}", "red"), soft_wrap=True)
        worst = next(run for run in each.runs if not run.passed)
        for line in worst.lines:
            console.print(Text(f"    {line}", "dim"), soft_wrap=True)


def _talk_cells(each: SimulationResult) -> tuple[str, ...]:
    return (
        "✓" if each.passed else "✗",
        f"{each.passes}/{len(each.runs)}",
        f"{max(run.caller_turns for run in each.runs)}",
        ", ".join(sorted({run.ended_by for run in each.runs})),
        f"{max(run.dead_air_s for run in each.runs):.1f}" if each.medium == "voice" else "",
    )


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
