"""The library: scripted calls, each of which guards one behaviour of a conversation.

They run against the scripted house of :mod:`dialog.testing.scenario_house`, through the real gateway::

    outcomes = await play(LIBRARY, seed=7)
    assert not any(outcome.problems for outcome in outcomes)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.testing.scenario_case import Case
from dialog.testing.scenario_check import check
from dialog.testing.scenario_house import serve
from dialog.testing.scenario_interrupting import INTERRUPTING
from dialog.testing.scenario_leaving import LEAVING
from dialog.testing.scenario_listening import LISTENING
from dialog.testing.scenario_outcome import Outcome
from dialog.testing.scenario_run import run_scenario
from dialog.testing.scenario_working import WORKING

__all__ = ["LIBRARY", "Case", "play"]

LIBRARY: tuple[Case, ...] = LISTENING + INTERRUPTING + LEAVING + WORKING
"""Every case; names are unique."""


_STALL_MS = 75.0
"""A machine that stands still for so long on the scenarios' clock does so again and again: their times mean nothing."""


async def play(
    cases: Sequence[Case] = LIBRARY, *, seed: int, scale: float = 4.0, parallel: int = 16, attempts: int = 3
) -> list[Outcome]:
    """Play cases, several at once, and judge them: an outcome for each, in their order.

    Args:
        cases: What to play.
        seed: Varies the times; the same seed plays the same times.
        scale: So many times as fast as real time.
        parallel: So many calls at once.
        attempts: So often a case is played while it fails and the machine stands still meanwhile.
    """
    clock = Clock(scale, SYSTEM_CLOCK.now)
    free = asyncio.Semaphore(parallel)

    async def once(case: Case) -> Outcome:
        async with serve(case.setup, clock) as house, _stalls(clock) as stalls:
            outcome = await run_scenario(case.scenario, house, seed=seed)
            if house.broken is not None:
                raise house.broken
        outcome.problems = check(case.scenario.expect, outcome)
        outcome.stall_ms = max(stalls)
        return outcome

    async def one(case: Case) -> Outcome:
        async with free:
            outcome = await once(case)
            for _ in range(attempts - 1):
                if outcome.problems and outcome.stall_ms >= _STALL_MS:
                    outcome = await once(case)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case), name=case.name) for case in cases]
    return [task.result() for task in tasks]


@asynccontextmanager
async def _stalls(clock: Clock) -> AsyncGenerator[list[float]]:
    """By how many milliseconds of ``clock`` the event loop was late meanwhile, again and again."""
    late = [0.0]

    async def look() -> None:
        while True:
            before = clock.now()
            await clock.sleep(0.04)
            late.append((clock.now() - before - 0.04) * 1000)

    task = asyncio.create_task(look(), name="stalls")
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.wait([task])
