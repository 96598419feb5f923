"""Threads for plain functions: few, shared by the process, and never in the way of its exit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from dialog.errors import LimitError

__all__ = ["TOOL_THREADS", "Threads"]

_IDLE_S = 10.0


class Threads:
    """At most ``limit`` threads; what does not fit waits in a queue of at most ``queue``.

    Unlike those of ``concurrent.futures`` they are daemons: a function that never returns does not
    keep the process from ending. An idle thread ends after ten seconds.
    """

    def __init__(self, limit: int, *, queue: int, name: str) -> None:
        self._limit = limit
        self._queue = queue
        self._name = name
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self.count: int = 0
        """Threads that exist now."""

    @property
    def busy(self) -> bool:
        """Something runs, or waits for a thread."""
        with self._changed:
            return bool(self._jobs) or self.count > self._idle

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Run ``work`` in a thread, in a copy of the current context.

        Raises:
            LimitError: Too many wait already.
        """
        context = copy_context()
        future: Future[Any] = Future()
        with self._changed:
            while self._jobs and self._jobs[0][0].cancelled():
                self._jobs.popleft()
            if len(self._jobs) >= self._queue:
                raise LimitError(f"{self._name}: {self._queue} functions wait for a thread already")
            self._jobs.append((future, lambda: context.run(work)))
            if self._idle >= len(self._jobs) or self.count >= self._limit:
                self._changed.notify()
                return future
            self.count += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._idle += 1
                    self._changed.wait_for(lambda: self._jobs, timeout=_IDLE_S)
                    self._idle -= 1
                if not self._jobs:
                    self.count -= 1
                    return
                future, work = self._jobs.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as exc:  # whatever it is belongs to whoever waits for it
                    future.set_exception(exc)
                else:
                    future.set_result(result)
            del future, work  # an idle thread keeps nothing alive


TOOL_THREADS = Threads(32, queue=256, name="dialog tool")
"""Where plain ``def`` tools run."""
