"""Virtual time: thirty seconds of a call in no time, in the same order every time.

::

    def test_silence():
        async def scenario(clock):
            ...
            await clock.sleep(30)

        run_virtual(scenario)

Only for code that waits for timers and for itself: a socket or a thread knows no virtual time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from dialog.clock import Clock

__all__ = ["run_virtual"]

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: when nothing is ready, time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen: every task waits for another")
        if timeout > 0:
            # A hair more than asked, so that rounding never lets a timer miss its own deadline.
            self.now += timeout + 1e-9
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run_virtual(scenario: Callable[[Clock], Coroutine[Any, Any, T]]) -> T:
    """Run ``scenario(clock)`` on a loop whose time jumps to the next timer; return its result.

    Raises:
        RuntimeError: The scenario waits for something that can never come, or left a task running.
    """
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        loop = runner.get_loop()

        async def main() -> T:
            result = await scenario(Clock(time=loop.time))
            await _settle()
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            if left:
                raise RuntimeError(f"tasks left running: {sorted(task.get_name() for task in left)}")
            return result

        return runner.run(main())


async def _settle() -> None:
    """Let callbacks that are due run."""
    for _ in range(10):
        await asyncio.sleep(0)
