"""Cases of the library: a scenario and the house that it is played in, in few words."""

from __future__ import annotations

from msgspec import Struct

from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import BargeIn, TurnSettings
from dialog.testing.scenario import Expect, HangUp, Listen, Say, Scenario
from dialog.testing.scenario_house import Reply, Setup

__all__ = ["BYE", "GREETING", "LISTEN", "STORY", "STORY_REPLY", "TELL", "Case", "barge_in", "case"]

STORY = "Our restaurant opened a hundred years ago in a small house by the river, and it has been in the family since."
GREETING = "Good evening, this is the restaurant by the river, how can I help you tonight?"

TELL = Say(text="tell me about your restaurant")
STORY_REPLY = Reply(match="about your restaurant", text=STORY)
LISTEN = Listen()
BYE = HangUp()


class Case(Struct, frozen=True, kw_only=True):
    """A scenario and the house that it is played in."""

    scenario: Scenario
    setup: Setup = Setup()

    @property
    def name(self) -> str:
        """Of the scenario."""
        return self.scenario.name


def case(name: str, guards: str, *steps: object, expect: Expect | None = None, **setup: object) -> Case:
    """One of the library: its name, what it guards, its steps, and the fields of its :class:`Setup`."""
    scenario = Scenario(name=name, guards=guards, steps=steps, expect=expect or Expect())  # type: ignore[arg-type]
    return Case(scenario=scenario, setup=Setup(**setup))  # type: ignore[arg-type]


def barge_in(**options: object) -> AgentSettings:
    """Settings that differ from the defaults in how the caller may interrupt."""
    return AgentSettings(turns=TurnSettings(barge_in=BargeIn(**options)))  # type: ignore[arg-type]
