"""Threads for plain functions, few and never in the way of the exit of the process, and the way back to the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from dialog.errors import LimitError, StateError

__all__ = ["TOOL_THREADS", "HasHome", "Home", "Leave", "Threads", "from_any_thread"]

P = ParamSpec("P")
R = TypeVar("R")

_IDLE_S = 10.0
_LOOP_S = 10.0
"""A thread waits so long until the loop comes to what it asks for."""

_leave: ContextVar[Leave | None] = ContextVar("dialog_leave", default=None)


class Leave:
    """Whether the function that a thread runs may still act on its call."""

    def __init__(self) -> None:
        self.ended = False

    def given_to(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` in this thread, with this leave."""
        _leave.set(self)
        return function()


class Home:
    """The loop and the thread in which it was made: there, what belongs to it is changed, and nowhere else."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    @property
    def here(self) -> bool:
        """Whether the calling code is at home."""
        return threading.get_ident() == self._thread

    def run(self, work: Callable[[], R], what: str) -> R:
        """Let the loop do ``work``, in the context of the calling thread, and wait until it is done.

        Raises:
            StateError: The loop has ended or is stalled, or the calling tool has been given up meanwhile.
        """
        leave, context = _leave.get(), copy_context()
        done: Future[R] = Future()

        def do() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                if leave is not None and leave.ended:
                    raise StateError(f"{what}: the tool that asks for it was given up")  # noqa: TRY301
                done.set_result(context.run(work))
            except BaseException as exc:  # it belongs to whoever waits for it
                done.set_exception(exc)

        try:
            self._loop.call_soon_threadsafe(do)
        except RuntimeError as exc:
            raise StateError(f"{what}: the event loop of its call has ended") from exc
        try:
            return done.result(_LOOP_S)
        except TimeoutError:
            if done.cancel():
                raise StateError(f"{what}: the event loop of its call is stalled for {_LOOP_S:g} s") from None
            return done.result(_LOOP_S)  # begun in the last moment, or the work's own


class HasHome(Protocol):
    """What :func:`from_any_thread` needs of the object whose methods it wraps."""

    @property
    def name(self) -> str:
        """For errors."""
        ...

    @property
    def home(self) -> Home | None:
        """Where it lives; ``None``: nowhere yet."""
        ...


H = TypeVar("H", bound=HasHome)


def from_any_thread(method: Callable[Concatenate[H, P], R]) -> Callable[Concatenate[H, P], R]:
    """Let ``method`` be called from any thread: a plain ``def`` tool runs in one. The loop does it then."""

    @wraps(method)
    def call(self: H, /, *args: P.args, **options: P.kwargs) -> R:
        home = self.home
        if home is None or home.here:
            return method(self, *args, **options)
        return home.run(lambda: method(self, *args, **options), f"{self.name}: {method.__name__}()")

    return call


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
