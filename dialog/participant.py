"""The base of everything that takes part in a call: typed events, owned tasks, an end.

A participant owns its state. Others hand it immutable values with plain methods and hear of its
results by listening to its events::

    stt.on(STT.MESSAGE, agent.post)

A listener is a plain function, is called in the emitter's thread of control, and should only hand
the value over. If it raises, that is an ``error`` of the participant whose method it is; other
listeners and the emitter never notice.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, ClassVar, Generic, TypeVar, cast

from pyee.base import EventEmitter

from dialog.errors import DialogError, UserCodeError
from dialog.message import Failure
from dialog.scope import CallScope

__all__ = ["Event", "Participant"]

logger = logging.getLogger(__name__)

P_contra = TypeVar("P_contra", contravariant=True)

_MOST_TOLD = 64
"""So many things that may come with every message are told of; there cannot be more that are worth it."""
_HELD_ERRORS = 16
"""How many errors are held for a listener that comes late."""


class Event(str, Generic[P_contra]):
    """The name of an event, which also tells the type checker what it carries.

    It is a ``str``, so the emitter and the wire use it as it is.
    """

    __slots__ = ()


class Participant:
    """Something that takes part in a call: emits typed events, owns tasks, can be disposed of.

    A participant belongs to the event loop it was opened on; none of its methods is thread-safe.
    """

    ERROR: ClassVar[Event[Failure]] = Event("error")

    _told: frozenset[str] = frozenset()
    """What :meth:`fail_once` has told of."""

    def __init__(self) -> None:
        self._emitter = EventEmitter()
        self._listeners: dict[str, tuple[Callable[[Any], object], ...]] = {}
        """What the emitter has, ready to be called: events come a hundred times a second and call."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_errors: deque[Failure] = deque(maxlen=_HELD_ERRORS)
        self._disposed = False
        self._scope = CallScope.current()
        if self._scope is not None:
            self._scope.register(self)

    @property
    def name(self) -> str:
        """How this participant is called in logs, errors and task names."""
        return type(self).__name__

    @property
    def disposed(self) -> bool:
        """Whether :meth:`dispose` was called."""
        return self._disposed

    def on(self, event: Event[P_contra], listener: Callable[[P_contra], object]) -> None:
        """Call ``listener`` with the payload of every ``event`` from now on.

        Errors that happened before anybody listened are handed over at once.

        Raises:
            TypeError: ``listener`` is a coroutine function, whose runs nobody would own or order.
        """
        if inspect.iscoroutinefunction(listener):
            raise TypeError(
                f"{self.name}: a listener for {event!r} must be a plain function; "
                "start the coroutine with spawn(...) of the participant that owns it"
            )
        self._emitter.add_listener(event, listener)
        self._listeners[event] = self._registered(event)
        if event == Participant.ERROR:
            while self._held_errors:
                self.emit(event, cast("P_contra", self._held_errors.popleft()))

    def off(self, event: Event[P_contra], listener: Callable[[P_contra], object]) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        if listener in self._emitter.listeners(event):
            self._emitter.remove_listener(event, listener)
            self._listeners[event] = self._registered(event)

    def listened_to(self, event: Event[Any]) -> bool:
        """Whether anybody listens to ``event``."""
        return bool(self._listeners.get(event))

    def emit(self, event: Event[P_contra], payload: P_contra) -> None:
        """Hand ``payload`` to every listener of ``event``; nothing happens after dispose."""
        listeners = self._listeners.get(event)
        if not listeners:
            if isinstance(payload, Failure) and not self._disposed:
                self._held_errors.append(payload)
                logger.error("%s: %s", payload.source, payload.error, exc_info=_trace(payload.error))
            return
        # Not the emitter's own way: it would stop at the first listener that raises, go on after
        # dispose, and costs twice as much.
        for listener in listeners:
            if self._disposed:
                return
            try:
                listener(payload)
            except (Exception, asyncio.CancelledError) as exc:
                # Foreign code: its failure is its owner's, never ours. A plain function cannot be
                # cancelled itself; it has looked at a future that was.
                self._listener_failed(listener, payload, exc)

    def fail(self, error: DialogError, *, fatal: bool = False, retryable: bool = False) -> None:
        """Emit ``error`` as an ERROR of this participant."""
        self.emit(Participant.ERROR, Failure(source=self.name, error=error, fatal=fatal, retryable=retryable))

    def fail_once(self, error: DialogError) -> None:
        """Emit ``error`` as an ERROR of this participant, unless one that says the same was told before.

        For what may come with every message: the first one says all there is to know.
        """
        text = str(error)
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told |= {text}
            self.fail(error)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """Run ``work`` as a task that this participant owns.

        The task is cancelled by :meth:`dispose`; a failure becomes a fatal ERROR. After dispose the
        work is dropped and ``None`` returned.
        """
        if self._disposed:
            work.close()
            return None
        # A listener runs in the context of whoever emits, which may be a timer that all calls share:
        # what the work creates must find this call's scope.
        context = None if CallScope.current() is self._scope else self._context()
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name} {name}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def dispose(self) -> None:
        """End this participant, from any state, at once and for good; calling it again is harmless.

        Its tasks are cancelled and its listeners dropped. ``await wait_disposed()`` tells when
        nothing of it is left.
        """
        if self._disposed:
            return
        self._disposed = True
        self._emitter.remove_all_listeners()
        self._listeners.clear()
        for task in self._tasks:
            task.cancel()
        if self._scope is not None:
            self._scope.forget(self)

    async def wait_disposed(self, timeout_s: float = 2.0) -> None:
        """Wait, at most ``timeout_s``, until the tasks of a disposed participant have ended."""
        tasks = self._tasks - {asyncio.current_task()}  # a task of ours may ask
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=timeout_s)
        if stuck:
            names = ", ".join(task.get_name() for task in stuck)
            logger.error("%s: still running %g s after dispose, abandoned: %s", self.name, timeout_s, names)

    def _registered(self, event: str) -> tuple[Callable[[Any], object], ...]:
        return tuple(cast("list[Callable[[Any], object]]", self._emitter.listeners(event)))

    def _context(self) -> Context:
        context = copy_context()
        context.run(CallScope.adopt, self._scope)
        return context

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        exc = task.exception()
        if exc is None:
            return
        if self._disposed:
            logger.warning("%s failed while being disposed: %r", task.get_name(), exc)
            return
        self.fail(_as_dialog_error(exc, f"{task.get_name()} failed"), fatal=True)

    def _listener_failed(self, listener: Callable[..., Any], payload: object, exc: BaseException) -> None:
        owner = getattr(listener, "__self__", None)
        where = getattr(listener, "__qualname__", repr(listener))
        if isinstance(payload, Failure) or not isinstance(owner, Participant) or owner.disposed:
            # An error inside an error listener must not come round again.
            logger.error("listener %s of %s raised", where, self.name, exc_info=exc)
            return
        owner.fail(_as_dialog_error(exc, f"{where} raised"))


def _trace(error: DialogError) -> BaseException | None:
    """The cause of ``error``, if a log has to show where it was raised.

    Of code that raised, that is what one looks for. Of a provider that is away or refuses, the message says it all,
    and the trace is a page about sockets.
    """
    return error.__cause__ if isinstance(error, UserCodeError) or logger.isEnabledFor(logging.DEBUG) else None


def _as_dialog_error(exc: BaseException, what: str) -> DialogError:
    if isinstance(exc, DialogError):
        return exc
    error = UserCodeError(f"{what}: {exc!r}")
    error.__cause__ = exc
    return error
