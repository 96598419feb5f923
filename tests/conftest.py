"""What holds for every test: nothing is left running when it ends."""

from __future__ import annotations

import asyncio
import inspect

import pytest


@pytest.fixture
async def _no_task_left():
    before = asyncio.all_tasks()
    yield
    # Transports close and callbacks run in the iterations that follow the test's last line.
    for _ in range(5):
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()]
    if left:
        await asyncio.wait(left, timeout=0.5)
        left = [task for task in left if not task.done()]
    assert not left, f"tasks left running: {left}"


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(request):
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_task_left")
