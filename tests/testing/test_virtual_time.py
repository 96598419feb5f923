"""Virtual time and threads."""

from __future__ import annotations

import asyncio
import time

from dialog.testing.virtual import run_virtual


def test_the_executors_threads_are_waited_for_at_the_end() -> None:
    """Ending the executor is itself the work of a thread, which a loop without timers has to wait for."""

    async def scenario(_: object) -> float:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, time.sleep, 0.05)  # still at work when the loop ends
        return loop.time()

    assert run_virtual(scenario) < 1.0
