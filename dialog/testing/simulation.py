"""Simulations: a customer with a persona and a goal rings up your agent, and the call is judged.

::

    [[simulation]]
    name = "a table for two"
    persona = {who = "Ada Byron, in a hurry", goal = "a table for two tonight at seven", facts = {name = "Byron"}}
    rules = {tools = [{name = "book_table", arguments = {people = 2}}], ends = "either"}
    criteria = ["The agent confirms the time before it books."]

A file may have scenarios beside them, see :mod:`dialog.testing.scenario`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.testing.judge import Charge, Rules
from dialog.testing.persona import Persona
from dialog.testing.scenario import Scenario, check_names, read_file
from dialog.testing.talk import TalkLimits, TalkLine

__all__ = ["Simulation", "SimulationResult", "SimulationRun", "load_simulations"]


class Simulation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A customer, and what has to come of their call.

    Raises:
        ConfigurationError: A figure is out of its range, or a criterion comes twice.
    """

    name: str
    persona: Persona
    guards: str = ""
    """The behaviour that it guards, in a sentence."""
    medium: Literal["voice", "text"] = "voice"
    """``text``: quicker, without sound, interruptions and latency."""
    rules: Rules = Rules()
    """What has to be true, as rules can tell …"""
    criteria: tuple[str, ...] = ()
    """… and as a model has to judge: sentences about the agent that have to hold."""
    limits: TalkLimits = TalkLimits()
    runs: int = 1
    """It is played so often: models do not always say the same …"""
    pass_rate: float = 1.0
    """… and such a share of the runs has to pass."""

    def __post_init__(self) -> None:
        if not 1 <= self.runs <= 100:
            raise ConfigurationError(f"simulation {self.name!r}: runs must be from 1 to 100, got {self.runs}")
        if not 0 < self.pass_rate <= 1:
            raise ConfigurationError(f"simulation {self.name!r}: pass_rate must be above 0 and at most 1")
        if len(set(self.criteria)) < len(self.criteria):
            raise ConfigurationError(f"simulation {self.name!r}: a criterion comes twice")


class SimulationRun(Struct, frozen=True, kw_only=True):
    """One call of a simulation."""

    charges: tuple[Charge, ...]
    """What the agent is convicted of; empty: nothing."""
    ended_by: Literal["agent", "caller", "limit"]
    reason: str
    duration_s: float
    caller_turns: int
    latencies_ms: tuple[float, ...]
    dead_air_s: float
    lines: tuple[TalkLine, ...]

    @property
    def passed(self) -> bool:
        """The agent is convicted of nothing."""
        return not self.charges


class SimulationResult(Struct, frozen=True, kw_only=True):
    """All calls of a simulation."""

    name: str
    guards: str
    medium: Literal["voice", "text"]
    pass_rate: float
    """The share of the runs that has to pass."""
    runs: tuple[SimulationRun, ...]

    @property
    def passes(self) -> int:
        """How many runs have passed."""
        return sum(run.passed for run in self.runs)

    @property
    def passed(self) -> bool:
        """Enough of them."""
        return self.passes >= self.pass_rate * len(self.runs) - 1e-9

    @property
    def problems(self) -> tuple[str, ...]:
        """The charges of the runs that have not passed, if too few have; a sentence each."""
        if self.passed:
            return ()
        found = [
            (f"run {number}: " if len(self.runs) > 1 else "") + str(charge)
            for number, run in enumerate(self.runs, 1)
            for charge in run.charges
        ]
        if len(self.runs) > 1:
            found.insert(0, f"{self.passes} of {len(self.runs)} runs passed: less than {self.pass_rate:.0%}")
        return tuple(found)


class _File(Struct, forbid_unknown_fields=True):
    scenario: tuple[Scenario, ...] = ()
    simulation: tuple[Simulation, ...] = ()


def load_simulations(path: Path) -> tuple[tuple[Scenario, ...], tuple[Simulation, ...]]:
    """Read the scenarios and simulations of a TOML or JSON file: lists named ``scenario`` and ``simulation``.

    Raises:
        ConfigurationError: The file cannot be read, has neither, or says something that they do not have.
    """
    found = read_file(path, _File)
    if not found.scenario and not found.simulation:
        raise ConfigurationError(f"{path}: there is neither a [[scenario]] nor a [[simulation]] in it")
    check_names(path, [each.name for each in found.scenario] + [each.name for each in found.simulation])
    return found.scenario, found.simulation
