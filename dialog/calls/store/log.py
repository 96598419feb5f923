"""The call log: every call and its events in a database, without a call ever waiting for it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Coroutine
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from msgspec import Struct

from dialog.calls.events import CallEnded, CallerSaid, CallEvent
from dialog.calls.publish import CallEvents, Notice
from dialog.calls.report import SessionReport
from dialog.calls.store import reading
from dialog.calls.store.buffer import Buffer
from dialog.calls.store.database import disconnect, make_engine, upgrade
from dialog.calls.store.keeping import Keeper, delete_calls
from dialog.calls.store.reading import CallRecord
from dialog.calls.store.search import CallSearch, search
from dialog.calls.store.sql import AsyncEngine
from dialog.calls.store.writing import BatchWriter, OutgoingMaker, is_hopeless
from dialog.errors import ConfigurationError, StateError
from dialog.message import CallMetadata
from dialog.net.reconnect import Backoff, Reconnect

__all__ = ["CallLog", "LogStatus"]

logger = logging.getLogger(__name__)

_BATCH = 500
_RETRIES = Backoff(first_s=0.2, limit_s=5.0, give_up_s=float("inf"))
_ALARM_S = 10.0
_CLOSE_S = 10.0
"""How long it may take to write what waits, where somebody waits for that."""
_QUEUE = "call_log"


class LogStatus(Struct, frozen=True, kw_only=True):
    """How the log does: for metrics and alarms."""

    waiting: int
    """Events that are not in the database yet."""
    written: int
    """Events that are, of those that this process handed over."""
    lost: int
    """Events that were dropped, because the buffer was full or the log was closed."""
    failing: str
    """Why the last attempt to write failed; empty: it did not."""


class CallLog:
    """Keeps calls, turns, tool calls, usage, costs, recordings and events in SQLite or PostgreSQL.

    ::

        async with CallLog("sqlite:///calls.db") as log:
            log.follow(gateway.events)
            await serve(gateway)

    An event is handed over at once and written with others in a transaction, ``batch_s`` later at most. It is
    *acknowledged* when that is committed: from then on it survives the death of the process, and of the machine as
    far as the disk keeps what it has confirmed. Nobody waits for that unless they call :meth:`flush`. While the
    database cannot be reached events wait in the buffer; when that is full they are dropped and counted, with an ERROR
    in the log, and calls go on.

    Args:
        url: ``sqlite:///calls.db``, or ``postgresql://user:password@host/database`` for several processes.
        batch_s: The age of an event at which it is written at the latest, if the database answers.
        buffer: Events that may wait.
        keep_days: Calls that ended longer ago are deleted; ``None``: never.
        lost_after_s: The calls of a process that was not seen for so long are ended by another one.
        tenant_of: Whose call it is, where several share the log; see ``tenants`` of :meth:`calls`.

    Raises:
        ConfigurationError: A setting is out of range, or the URL is not understood.
        MissingExtra: The packages for it are not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        batch_s: float = 0.5,
        buffer: int = 20_000,
        keep_days: float | None = None,
        lost_after_s: float = 300.0,
        tenant_of: Callable[[CallMetadata], str] = lambda _: "",
    ) -> None:
        if batch_s <= 0 or buffer < 1 or lost_after_s < 1 or (keep_days is not None and keep_days <= 0):
            raise ConfigurationError("need batch_s > 0, buffer >= 1, lost_after_s >= 1, keep_days > 0")
        self.engine: AsyncEngine = make_engine(url)
        self.writer: str = f"{socket.gethostname()[:24]}-{os.getpid()}-{secrets.token_hex(6)}"
        """Names this process among those that write."""
        self.queues: dict[str, Callable[[], float]] = {_QUEUE: lambda: self.status.waiting}
        """What waits here, by names for ``/metrics``."""
        self.on_outgoing: Callable[[], object] | None = None
        """Called when messages are in the outbox that were not there before."""
        self._batch_s = batch_s
        self._keep_days = keep_days
        self._lost_after_s = lost_after_s
        self._tenant_of = tenant_of
        self._buffer = Buffer(buffer)
        self._written = 0
        self._lost = 0
        self._failing = ""
        self._alarmed_at = float("-inf")
        self._batches: BatchWriter | None = None
        self._keeper: Keeper | None = None
        self._makers: list[OutgoingMaker] = []
        self._followed: list[CallEvents] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        self._progress = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<CallLog {self.engine.url.render_as_string(hide_password=True)}>"

    @property
    def status(self) -> LogStatus:
        """How it does."""
        handed = self._buffer.taken - self._written - self._lost
        return LogStatus(
            waiting=handed, written=self._written, lost=self._lost + self._buffer.lost, failing=self._failing
        )

    # Life.

    async def open(self) -> None:
        """Connect, make or upgrade the tables, and begin to write.

        Raises:
            ConfigurationError: The tables are those of a newer version, or the database cannot be used: better now
                than later.
            StateError: It was closed.
        """
        if self._closed:
            raise StateError("this call log was closed: make another")
        if self._tasks:
            return
        self._batches = BatchWriter(self.engine, self.writer, self._tenant_of)
        self._batches.makers = self._makers
        self._keeper = Keeper(
            self.engine, self.writer, keep_days=self._keep_days, lost_after_s=self._lost_after_s, lost=self._take
        )
        try:
            await upgrade(self.engine)
            await self._keeper.seen()
        except BaseException:
            self._batches = self._keeper = None
            await self.engine.dispose()
            raise
        self._start(self._write(), "writer")
        self._start(self._keeper.run(), "keeper")

    async def close(self) -> None:
        """Take no more events, write those that wait, within ten seconds, and disconnect.

        Calling it again is harmless.
        """
        if self._closed:
            return
        self._closed = True
        for events in self._followed:
            events.off(self._take)
        if self._tasks:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self.flush()
            except TimeoutError:
                left = self.status.waiting
                self._lost += left
                logger.error("call log: %d events are lost with its end: %s", left, self._failing)  # noqa: TRY400
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            if self._keeper is not None and not self._failing:
                await self._keeper.leave()
        except Exception as exc:  # the database is away: others see by themselves that this process is gone
            logger.warning("call log: its end could not be noted: %r", exc)
        finally:
            await disconnect(self.engine, _CLOSE_S)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Writing.

    def follow(self, events: CallEvents) -> None:
        """Keep all events that are published there from now on: ``log.follow(gateway.events)``.

        Where the gateway is watched, ``/metrics`` tells how many wait, and how many were lost.
        """
        events.on(self._take)
        events.queues |= self.queues
        events.losses[_QUEUE] = lambda: self.status.lost
        self._followed.append(events)

    def add_maker(self, maker: OutgoingMaker) -> None:
        """Put the messages of ``maker`` into the outbox, with the events that they are made of."""
        self._makers.append(maker)

    async def flush(self) -> None:
        """Wait until all events that were handed over so far are acknowledged; bound it with a time-out."""
        until = self._buffer.taken
        self._hurry.set()
        while self._written + self._lost < until:
            self._progress.clear()
            await self._progress.wait()

    def _take(self, notice: Notice) -> None:
        event = notice.event
        if isinstance(event, CallerSaid) and not event.final:
            return  # the final has it all
        if not self._buffer.put(notice):
            self._alarm()

    def _alarm(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._alarmed_at >= _ALARM_S:
            self._alarmed_at = now
            logger.error(
                "call log: its buffer is full, %d events are lost so far: the database is too slow, or away (%s)",
                self._buffer.lost,
                self._failing or "it answers",
            )

    async def _write(self) -> None:
        assert self._batches is not None
        while True:
            await self._buffer.wait()
            if len(self._buffer) < _BATCH and not self._hurry.is_set():
                try:
                    async with asyncio.timeout(self._batch_s):
                        await self._hurry.wait()
                except TimeoutError:
                    pass
            self._hurry.clear()
            batch = self._buffer.take(_BATCH)
            lost = {
                notice.call.call_id: self._buffer.lost_of(notice.call.call_id)
                for notice in batch
                if isinstance(notice.event, CallEnded)
            }
            await self._write_batch(self._batches, batch, lost)
            self._progress.set()

    async def _write_batch(self, batches: BatchWriter, batch: list[Notice], lost: dict[UUID, int]) -> None:
        """Write a batch, however long that takes; what the database refuses for what it says is set aside."""
        loop = asyncio.get_running_loop()
        retries = Reconnect(_RETRIES, loop.time())
        while True:
            try:
                outgoing = await batches.write(batch, lost)
            except Exception as exc:  # of the driver, the network, the server: most of them may pass
                if not is_hopeless(exc):
                    if not self._failing:
                        logger.error("call log: the database cannot be written to: %r", exc)  # noqa: TRY400
                    self._failing = repr(exc)[:500]
                    wait = retries.lost(loop.time())
                    assert wait is not None, "there is no end to trying"
                    await asyncio.sleep(wait)
                    continue
                if len(batch) == 1:
                    self._lost += 1
                    logger.exception("call log: an event of call %s cannot be kept", batch[0].call.call_id)
                    return
                logger.warning("call log: a batch of %d is written one by one: %s", len(batch), type(exc).__name__)
                for notice in batch:
                    await self._write_batch(batches, [notice], lost)
                return
            else:
                if self._failing:
                    logger.warning("call log: the database is written to again; %d events wait", len(self._buffer))
                    self._failing = ""
                self._written += len(batch)
                if outgoing and self.on_outgoing is not None:
                    self.on_outgoing()
                return

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=f"call log {name}"))

    # Reading.

    async def calls(
        self,
        *,
        live: bool | None = None,
        since: datetime | None = None,
        number: str = "",
        tenants: Collection[str] = (),
        limit: int = 100,
        before: CallRecord | None = None,
    ) -> list[CallRecord]:
        """Calls, the newest first.

        Args:
            live: Only those that live, or only those that have ended.
            since: Only those that started then or later.
            number: Only those from or to this number.
            tenants: Only those of one of them; empty: of all, and of nobody in particular.
            limit: So many at most.
            before: The last one of the page before this one.
        """
        return await reading.calls(
            self.engine, live=live, since=since, number=number, tenants=tenants, limit=limit, before=before
        )

    async def search(
        self, wanted: CallSearch, *, tenants: Collection[str] = (), limit: int = 100, before: CallRecord | None = None
    ) -> list[CallRecord]:
        """Calls that have ended and are like what is wanted, the newest first.

        Words are looked for in every turn of the calls that fit otherwise: of a large log, narrow it down by time.

        Args:
            wanted: What they have in common.
            tenants: Only those of one of them; empty: of all.
            limit: So many at most.
            before: The last one of the page before this one.
        """
        return await search(self.engine, wanted, tenants=tenants, limit=limit, before=before)

    async def call(self, call_id: UUID) -> CallRecord | None:
        """One call; ``None``: it is not known."""
        return await reading.call(self.engine, call_id)

    async def events(self, call_id: UUID, *, after: int = -1, limit: int = 1000) -> list[CallEvent]:
        """Events of a call with a ``seq`` higher than ``after``, in their order."""
        return await reading.events(self.engine, call_id, after=after, limit=limit)

    async def report(self, call_id: UUID) -> SessionReport | None:
        """The session report of a call that has ended, with its events; ``None``: there is none."""
        return await reading.report(self.engine, call_id)

    async def forget(self, call_id: UUID) -> bool:
        """Delete a call and all that is kept of it, also from the outbox; whether it was there.

        What this process was told of it before is deleted, too. Of a call that goes on it is kept again what comes.

        Raises:
            TimeoutError: Events that were told before could not be written within ten seconds; nothing was deleted.
        """
        if self._batches is None or self._closed:
            return bool(await delete_calls(self.engine, [call_id]))
        async with asyncio.timeout(_CLOSE_S):
            await self.flush()  # written afterwards they would stay
        found = bool(await delete_calls(self.engine, [call_id]))
        self._batches.forget(call_id)
        return found
