"""One timer for many waits."""

from __future__ import annotations

import asyncio

import pytest

from dialog.testing.virtual import run_virtual
from dialog.watchdog import Watchdog


def test_many_short_waits_pass_and_a_long_one_is_a_timeout():
    async def scenario(clock):
        watchdog = Watchdog(1.0)
        for _ in range(20):
            with watchdog:
                await clock.sleep(0.9)
            await clock.sleep(5.0)  # what happens between the waits does not count
        started = clock.now()
        with pytest.raises(TimeoutError), watchdog:
            await clock.sleep(10)
        assert clock.now() - started == pytest.approx(1.0, abs=0.01)
        with watchdog:
            await clock.sleep(0.5)
        watchdog.close()

    run_virtual(scenario)


def test_a_cancellation_from_outside_stays_one():
    async def scenario(clock):
        watchdog = Watchdog(1.0)

        async def wait() -> None:
            with watchdog:
                await clock.sleep(10)

        task = asyncio.get_running_loop().create_task(wait())
        await clock.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        watchdog.close()

    run_virtual(scenario)
