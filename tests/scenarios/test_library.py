"""The library of scripted calls, whole and with every behaviour switched off in turn.

Each test plays all calls at once: they wait for each other's timers only.
"""

from __future__ import annotations

import os
import random
from itertools import pairwise

import pytest
from msgspec.structs import replace
from mutations import MUTATIONS

from dialog.testing.scenario_house import RealtimeHouseAgent
from dialog.testing.scenario_library import LIBRARY, play

SEED = int(os.environ.get("SCENARIO_SEED") or random.randrange(1_000_000))
"""Set SCENARIO_SEED to play the times of an earlier run again."""

PENDING: frozenset[str] = frozenset()
"""Cases whose behaviour is still to come. One that passes has to be taken out."""


def failures(outcomes) -> list[str]:
    return [f"{outcome.scenario}: {'; '.join(outcome.problems)}" for outcome in outcomes if outcome.problems]


@pytest.mark.timeout(180)
async def test_every_scenario_holds():
    print(f"SCENARIO_SEED={SEED}")
    outcomes = await play(LIBRARY, seed=SEED)
    failed = {outcome.scenario for outcome in outcomes if outcome.problems}
    wrong = [outcome for outcome in outcomes if outcome.scenario not in PENDING]
    assert not failures(wrong), f"SCENARIO_SEED={SEED}\n" + "\n".join(failures(wrong))
    assert failed == PENDING, f"these hold now, take them out of PENDING: {sorted(PENDING - failed)}"


@pytest.mark.timeout(180)
async def test_every_scenario_fails_when_what_it_guards_is_switched_off():
    print(f"SCENARIO_SEED={SEED}")
    cases = [case for case in LIBRARY if case.name not in PENDING]
    mutants = [replace(case, setup=MUTATIONS[case.name].change(case.setup)) for case in cases]
    outcomes = await play(mutants, seed=SEED, attempts=1)
    alive = {outcome.scenario for outcome in outcomes if not outcome.problems}
    if alive:  # by the chance of a moment, once: not twice
        again = await play([mutant for mutant in mutants if mutant.name in alive], seed=SEED + 1, attempts=1)
        alive = {outcome.scenario for outcome in again if not outcome.problems}
    unnoticed = [f"{name}: {MUTATIONS[name].name}" for name in sorted(alive)]
    assert not unnoticed, f"SCENARIO_SEED={SEED}: not noticed:\n" + "\n".join(unnoticed)


NOT_IN_REALTIME = {
    "slow first token": "a model that is about to speak can say nothing else",
    "speculation promoted": "a model that speaks cannot prepare a reply unheard",
    "speculation withdrawn": "likewise",
    "interruption in the first 300 ms": "it tells no times of words: a quarter of a second counts as one",
}


@pytest.mark.timeout(180)
async def test_every_scenario_holds_in_realtime_mode():
    print(f"SCENARIO_SEED={SEED}")
    cases = [case for case in LIBRARY if case.name not in PENDING | NOT_IN_REALTIME.keys()]
    cases = [replace(case, setup=replace(case.setup, agent=RealtimeHouseAgent)) for case in cases]
    outcomes = await play(cases, seed=SEED, scale=3.0, parallel=10)
    assert not failures(outcomes), f"SCENARIO_SEED={SEED}\n" + "\n".join(failures(outcomes))


def test_every_case_has_one_name_one_guard_and_one_mutation():
    names = [case.name for case in LIBRARY]
    assert len(names) >= 25
    assert all(before != after for before, after in pairwise(sorted(names)))
    assert set(MUTATIONS) == set(names)
    assert set(names) >= PENDING
    assert all(case.scenario.guards for case in LIBRARY)
