"""A time-out for something that happens many times a second and hardly ever takes too long."""

from __future__ import annotations

import asyncio
from types import TracebackType

__all__ = ["Watchdog"]


class Watchdog:
    """Bounds each of many short waits of one task: ``with watchdog: await …``.

    :func:`asyncio.timeout` makes a timer and takes it back for every wait. This one keeps one timer,
    which looks now and then whether the current wait has lasted ``limit_s``. :meth:`close` it in the end.

    Raises:
        TimeoutError: Out of the block, when the wait took too long.
    """

    __slots__ = ("_cancelling", "_fired", "_loop", "_since", "_task", "_timer", "limit_s")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._task: asyncio.Task[object] | None = None
        self._since: float | None = None
        self._cancelling = 0
        self._fired = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_soon(self._look)  # a timer takes time: what is sent now goes first

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._since = None
        if not self._fired:
            return
        self._fired = False
        assert self._task is not None
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            return  # nobody waits: the next wait sets the timer again
        due = self._since + self.limit_s
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        assert self._task is not None
        self._fired = True
        self._task.cancel()
