"""Virtual time: thirty seconds of a call in no time, in the same order every time.

::

    def test_silence():
        async def scenario(clock):
            ...
            await clock.sleep(30)

        run_virtual(scenario)

Only for code that waits for timers, for itself, and for threads: while a thread works (a plain ``def``
tool, ``asyncio.to_thread``) time stands still. While an MCP server starts, answers or ends, time passes as it does
outside. Any other remote server knows no virtual time.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from dialog.agent.threads import TOOL_THREADS
from dialog.clock import OUTSIDE, Clock
from dialog.errors import ConfigurationError

__all__ = ["run_virtual", "virtual_time"]

T = TypeVar("T")
Ready = list[tuple[selectors.SelectorKey, int]]

_THREAD_S = 2.0
"""A thread that works for longer, in real time, no longer holds virtual time up."""
_SLICE_S = 1.0
"""Longest look at what is outside."""
_LOOK_S = 0.01
"""How often threads are looked at that could end without waking the loop."""


class _Jumps:
    """Takes the place of a loop's waiting: when nothing is ready, time jumps to the next timer."""

    def __init__(self, select: Callable[[float | None], Ready], now: float) -> None:
        self._select = select
        self.now = now
        self.jobs = 0
        """Jobs that the loop has given to its executor."""
        self._patient = True

    def select(self, timeout: float | None = None) -> Ready:
        working = self._working  # asked first: what a thread that ends now has told is among what is ready
        ready = self._select(0)
        if ready or timeout == 0:
            return ready
        if OUTSIDE.busy:
            return self._really(timeout)
        if not working:
            self._patient = True
        elif self._patient:
            ready = self._wait_for_threads()
            if ready:
                return ready
        if timeout is None:
            raise RuntimeError("nothing will ever happen: every task waits for another")
        if timeout > 0:
            # A hair more than asked, so that rounding never lets a timer miss its own deadline.
            self.now += timeout + 1e-9
        return ready

    def _really(self, timeout: float | None) -> Ready:
        """Somebody outside, who knows no virtual time, is waited for: let time pass as it does there."""
        since = time.monotonic()
        longest = _SLICE_S if timeout is None else min(timeout, _SLICE_S)
        ready = self._select(longest)
        passed = time.monotonic() - since
        self.now += passed if ready else max(passed, longest + 1e-9)
        return ready

    @property
    def _working(self) -> bool:
        return self.jobs > 0 or TOOL_THREADS.busy

    def _wait_for_threads(self) -> Ready:
        until = time.monotonic() + _THREAD_S
        while self._working and time.monotonic() < until:
            ready = self._select(_LOOK_S)
            if ready:
                return ready
        self._patient = not self._working
        # What a thread has to tell was told before it ceased to be busy.
        return self._select(0)


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.jumps = _Jumps(super().select, 0.0)

    def select(self, timeout: float | None = None) -> Ready:
        return self.jumps.select(timeout)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _JumpingSelector()
        self._jumps = selector.jumps
        super().__init__(selector)
        _count_jobs(self, self._jumps)
        _jumping[self] = self._jumps

    def time(self) -> float:
        return self._jumps.now

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        self._jumps.jobs += 1  # the thread that ends it wakes the loop in the end
        try:
            await super().shutdown_default_executor(*args, **options)
        finally:
            self._jumps.jobs -= 1


_jumping: WeakKeyDictionary[asyncio.AbstractEventLoop, _Jumps] = WeakKeyDictionary()
"""Loops whose time is virtual now."""


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


@contextmanager
def virtual_time() -> Generator[Clock]:
    """Let the time of the running loop be virtual for a while, and give its clock.

    For tests whose loop is made by somebody else, such as pytest-asyncio. Afterwards time goes on from
    where it got to. Inside :func:`run_virtual`, or another such block, it is virtual already.

    Raises:
        ConfigurationError: The loop is not one of asyncio's own (uvloop keeps its own time).
    """
    loop = asyncio.get_running_loop()
    if loop in _jumping:
        yield Clock(time=loop.time)
        return
    selector: Any = getattr(loop, "_selector", None)
    if not isinstance(loop, asyncio.BaseEventLoop) or selector is None:
        raise ConfigurationError(f"virtual time needs asyncio's own event loop, not {type(loop).__qualname__}")
    patched: Any = loop
    real = loop.time
    jumps = _Jumps(selector.select, real())
    patched.time = lambda: jumps.now
    selector.select = jumps.select
    executor = _count_jobs(loop, jumps)
    _jumping[loop] = jumps

    def now() -> float:
        return loop.time()  # also once it is real again

    try:
        yield Clock(time=now)
    finally:
        del _jumping[loop]
        ahead = jumps.now - real()
        # Timers that are set stay as far away as they are.
        patched.time = lambda: real() + ahead
        del selector.select
        patched.run_in_executor = executor


def _count_jobs(loop: asyncio.AbstractEventLoop, jumps: _Jumps) -> Callable[..., asyncio.Future[Any]]:
    """Let ``jumps`` know of work in the loop's executor; returns how the loop gave it away before."""
    submit = loop.run_in_executor

    def done(_: object) -> None:
        jumps.jobs -= 1

    def run_in_executor(executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = submit(executor, function, *args)
        jumps.jobs += 1
        future.add_done_callback(done)
        return future

    patched: Any = loop
    patched.run_in_executor = run_in_executor
    return submit


async def _settle() -> None:
    """Let callbacks that are due run."""
    for _ in range(10):
        await asyncio.sleep(0)
