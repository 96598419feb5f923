"""Publishes the events of all calls of a gateway, in this process: to listeners, and to readers with a queue.

Whatever the carrier, and wherever a call's agent runs, its events come by here, so this is where they are masked
before anybody stores or sends them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.events import CallEnded, CallEvent, ToolEnded, ToolStarted
from dialog.calls.redact import Redaction
from dialog.errors import StateError
from dialog.message import CallMetadata

__all__ = ["CallEvents", "EventReader", "Missed", "Notice", "NoticeListener"]

logger = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()


class Notice(Struct, frozen=True):
    """An event, and the call in which it happened."""

    call: CallMetadata
    event: CallEvent
    at: float = 0.0
    """When it was published, in seconds since 1970."""

    def fields(self) -> dict[str, Any]:
        """What :meth:`to_json` encodes."""
        event = msgspec.to_builtins(self.event)
        if isinstance(self.event, ToolStarted | ToolEnded):
            event["tool_call_id"] = event.pop("call_id")
        return {"call_id": str(self.call.call_id), **event}

    def to_json(self) -> bytes:
        """The event's JSON object, with the ``call_id`` as its first member; that of a tool is its ``tool_call_id``."""
        if isinstance(self.event, ToolStarted | ToolEnded):
            return _encoder.encode(self.fields())
        return b'{"call_id":"%s",%s' % (str(self.call.call_id).encode(), _encoder.encode(self.event)[1:])


class Missed(Struct, frozen=True, tag_field="type", tag="reader.dropped"):
    """The last thing that a reader gets who was too slow: events have come for which it had no room."""

    call_id: UUID
    """Of the first event that is missing …"""
    seq: int
    """… and its number."""

    def to_json(self) -> bytes:
        """As a JSON object, of the ``type`` ``reader.dropped``."""
        return _encoder.encode(self)


NoticeListener: TypeAlias = Callable[[Notice], object]


class CallEvents:
    """The events of many calls, as they happen: ``gateway.events``.

    ::

        gateway.events.on(lambda notice: print(notice.call.call_id, notice.event))

        with gateway.events.read() as reader:
            async for notice in reader:
                ...

    It belongs to the event loop of its gateway; several gateways may share one.

    Args:
        redaction: What is masked in all that leaves here.
    """

    def __init__(self, *, redaction: Redaction | None = None) -> None:
        self.redaction = redaction
        self.queues: dict[str, Callable[[], float]] = {}
        """What of the events, or of what is made of them, waits somewhere, by a name: ``/metrics`` shows it."""
        self.losses: dict[str, Callable[[], float]] = {}
        """How many events were lost there since the beginning, by the same names."""
        self._listeners: tuple[NoticeListener, ...] = ()

    def on(self, listener: NoticeListener) -> None:
        """Call ``listener`` with every event from now on; what it raises is logged, and costs nobody anything.

        Raises:
            TypeError: It is a coroutine function, whose runs nobody would own or order: :meth:`read` is for tasks.
        """
        if inspect.iscoroutinefunction(listener):
            raise TypeError("a listener for the events of calls must be a plain function; a task uses read()")
        self._listeners = (*self._listeners, listener)

    def off(self, listener: NoticeListener) -> None:
        """Stop calling ``listener``; one that does not listen is ignored."""
        self._listeners = tuple(each for each in self._listeners if each != listener)

    def read(self, call_id: UUID | None = None, *, limit: int = 1000) -> EventReader:
        """A reader of all events from now on, or of those of one call, up to its :class:`CallEnded`.

        Args:
            call_id: The call; ``None``: all calls, for ever.
            limit: So many events wait for the reader at most. One that falls behind further gets those that wait,
                then :class:`Missed`, and then nothing: it must begin anew, from the call log perhaps.
        """
        return EventReader(self, call_id, limit)

    def publish(self, call: CallMetadata, event: CallEvent) -> None:
        """Tell everybody; a gateway does this."""
        listeners = self._listeners
        if not listeners:
            return
        if self.redaction is not None:
            event = self.redaction.masked(event)
        notice = Notice(call, event, time.time())
        for listener in listeners:
            try:
                listener(notice)
            except Exception:  # foreign code, which must not cost the call anything
                logger.exception("call %s: a listener for its events raised", call.call_id)


class EventReader:
    """An async iterator over events, with a bounded queue; a context manager that ends it."""

    def __init__(self, events: CallEvents, call_id: UUID | None, limit: int) -> None:
        self._events = events
        self._call_id = call_id
        self._limit = limit
        self._queue: deque[Notice | Missed] = deque()
        self._woken: asyncio.Future[None] | None = None
        self._closed = False
        events.on(self._take)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notice | Missed:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._woken is not None:
                raise StateError("an event reader has one task that reads it")
            self._woken = asyncio.get_running_loop().create_future()
            try:
                await self._woken
            finally:
                self._woken = None
        return self._queue.popleft()

    @property
    def waiting(self) -> int:
        """So many events can be read at once."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more events; those that wait can still be read. Calling it again is harmless."""
        if not self._closed:
            self._closed = True
            self._events.off(self._take)
            self._wake()

    def _take(self, notice: Notice) -> None:
        call_id = notice.call.call_id
        if self._call_id is not None and call_id != self._call_id:
            return
        if len(self._queue) >= self._limit:
            self._queue.append(Missed(call_id, notice.event.seq))
            self.close()
            return
        self._queue.append(notice)
        if self._call_id is not None and isinstance(notice.event, CallEnded):
            self.close()
        self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
