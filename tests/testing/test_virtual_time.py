"""Virtual time and threads."""

from __future__ import annotations

import asyncio
import time

import pytest

from dialog.testing.virtual import _Jumps, run_virtual


def test_the_executors_threads_are_waited_for_at_the_end() -> None:
    """Ending the executor is itself the work of a thread, which a loop without timers has to wait for."""

    async def scenario(_: object) -> float:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, time.sleep, 0.05)  # still at work when the loop ends
        return loop.time()

    assert run_virtual(scenario) < 1.0


def test_time_stands_still_for_a_thread_that_ends_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    class Tool:
        """Works until the loop has looked once, and has told what it has to tell before it ceases to."""

        @property
        def busy(self) -> bool:
            return looks == 0

    def select(_: float | None) -> list:
        nonlocal looks
        looks += 1
        return [] if looks == 1 else ["told"]

    monkeypatch.setattr("dialog.testing.virtual.TOOL_THREADS", Tool())
    jumps = _Jumps(select, 0.0)
    assert (jumps.select(5.0), jumps.now) == (["told"], 0.0)
