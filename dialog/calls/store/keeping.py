"""What has to be done for the log from time to time: a sign of life, lost calls, old calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dialog.calls.events import CallEnded
from dialog.calls.publish import Notice
from dialog.calls.store import tables as t
from dialog.calls.store.sql import AsyncEngine, postgresql, sa, sqlite
from dialog.calls.store.writing import LOST
from dialog.message import CallMetadata

__all__ = ["Keeper", "delete_calls"]

logger = logging.getLogger(__name__)

_SWEEP_S = 600.0
_CHUNK = 200
_APART = 10_000
"""A process that was only thought to be gone may still write events: the end that is told for it comes after those."""


class Keeper:
    """Tells the others that this process lives, ends the calls of those that do not, and deletes old ones.

    Args:
        engine: The database.
        writer: Names this process.
        keep_days: How long ago a call may have ended; ``None``: for ever.
        lost_after_s: After so long without a sign of life a process is gone.
        lost: Takes the end of a call that was lost with its process.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        writer: str,
        *,
        keep_days: float | None,
        lost_after_s: float,
        lost: Callable[[Notice], object],
    ) -> None:
        self._engine = engine
        self._writer = writer
        self._keep_days = keep_days
        self._lost_after_s = lost_after_s
        self._lost = lost
        self._pause_s = lost_after_s / 6.0
        self._ahead_s: float | None = None
        """How far the time of day is ahead of a clock that nobody sets, at the last round."""
        self._swept = float("-inf")

    async def run(self) -> None:
        """Do it all, for ever."""
        while True:
            try:
                await self.round()
            except Exception as exc:  # the database is away: whoever writes tells of it
                logger.debug("call log: %r", exc)
            await asyncio.sleep(self._pause_s)

    async def round(self) -> None:
        """Do once what is due."""
        before, self._ahead_s = self._ahead_s, time.time() - time.monotonic()
        await self.seen()
        if before is None or self._ahead_s - before < self._pause_s:
            await self.end_lost()
        else:  # the clock was set, or the machine has slept: others need a moment for their sign of life, too
            logger.warning("call log: the time of day has gone %.0f s forward at once", self._ahead_s - before)
        now = asyncio.get_running_loop().time()
        if self._keep_days is not None and now - self._swept >= _SWEEP_S:
            await self.sweep(self._keep_days)
            self._swept = now

    async def seen(self) -> None:
        """Give a sign of life."""
        kind = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = kind.insert(t.writers).values(writer=self._writer, seen_at=datetime.now(UTC))
        statement = statement.on_conflict_do_update(
            index_elements=[t.writers.c.writer], set_={"seen_at": statement.excluded.seen_at}
        )
        async with self._engine.begin() as connection:
            await connection.execute(statement)

    async def leave(self) -> None:
        """This process is gone from here on: others may end what it has left."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.delete(t.writers).where(t.writers.c.writer == self._writer))

    async def end_lost(self) -> None:
        """Take the calls of processes that are gone, and tell of their end."""
        c, since = t.calls.c, datetime.now(UTC) - timedelta(seconds=self._lost_after_s)
        alive = sa.select(t.writers.c.writer).where(t.writers.c.seen_at > since)
        lost = sa.select(c.call_id).where(c.ended_at.is_(None), c.writer.not_in(alive)).limit(_CHUNK)
        if self._engine.dialect.name == "postgresql":
            lost = lost.with_for_update(skip_locked=True)
        claim = sa.update(t.calls).where(c.call_id.in_(lost)).values(writer=self._writer)
        async with self._engine.begin() as connection:
            rows = list(await connection.execute(claim.returning(*_METADATA)))
            last = {row.call_id: await _last(connection, row.call_id) for row in rows}
            await connection.execute(sa.delete(t.writers).where(t.writers.c.seen_at <= since))
        for row in rows:
            logger.warning("call %s: the process that had it is gone", row.call_id)
            seq, at_s = last[row.call_id]
            end = CallEnded(seq=seq + _APART, at_s=at_s, reason=LOST, detail="the process that had the call is gone")
            self._lost(Notice(_metadata(row), end, time.time()))

    async def sweep(self, keep_days: float) -> None:
        """Delete the calls that ended too long ago."""
        until = datetime.now(UTC) - timedelta(days=keep_days)
        old = sa.select(t.calls.c.call_id).where(t.calls.c.ended_at < until).limit(_CHUNK)
        while True:
            async with self._engine.connect() as connection:
                found = [call_id for (call_id,) in await connection.execute(old)]
            if not found:
                return
            await delete_calls(self._engine, found)


async def delete_calls(engine: AsyncEngine, call_ids: Sequence[UUID]) -> int:
    """Delete calls and all that is kept of them; how many there were."""
    async with engine.begin() as connection:
        for table in (t.events, t.turns, t.tool_calls, t.usage, t.recordings, t.outbox, t.chains):
            await connection.execute(sa.delete(table).where(table.c.call_id.in_(call_ids)))
        return (await connection.execute(sa.delete(t.calls).where(t.calls.c.call_id.in_(call_ids)))).rowcount


_METADATA = [
    t.calls.c[name] for name in ("call_id", "carrier", "carrier_call_id", "from_number", "to_number", "direction")
]


async def _last(connection: Any, call_id: UUID) -> tuple[int, float]:
    c = t.events.c
    found = await connection.execute(sa.select(sa.func.max(c.seq), sa.func.max(c.at_s)).where(c.call_id == call_id))
    seq, at_s = found.one()
    return (-1 if seq is None else seq), at_s or 0.0


def _metadata(row: sa.Row[Any]) -> CallMetadata:
    return CallMetadata(
        call_id=row.call_id,
        carrier=row.carrier,
        carrier_call_id=row.carrier_call_id,
        from_=row.from_number,
        to=row.to_number,
        direction=row.direction if row.direction == "outbound" else "inbound",
    )
