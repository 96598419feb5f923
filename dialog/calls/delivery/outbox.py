"""The outbox in the database: who delivers what, in which order, and what has become of it.

What waits of one call for one endpoint is a **chain**. Whoever leases a chain delivers its messages one after the
other; nobody else touches it until the lease is over. A chain's ``next_at`` is when it may be leased next: after its
pause, or after the lease of somebody who has died with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct

from dialog.calls.store import tables as t
from dialog.calls.store.sql import AsyncConnection, AsyncEngine, postgresql, sa, sqlite

__all__ = ["Chain", "DeadLetter", "Failed", "Letter", "Outbox"]

SelectT = TypeVar("SelectT", bound=sa.GenerativeSelect)

_ERROR_CHARS = 500


class Letter(Struct, frozen=True):
    """A message that waits."""

    id: int
    message_id: str
    type: str
    body: bytes

    def __repr__(self) -> str:
        return f"<Letter {self.message_id} {self.type}>"


class Chain(Struct, frozen=True, kw_only=True):
    """What waits of one call for one endpoint, leased."""

    endpoint: str
    call_id: UUID
    owner: str
    """The lease's own name: two of the same process are told apart."""
    until: datetime
    attempts: int
    failing_since: datetime | None
    letters: tuple[Letter, ...]
    """The oldest of them, in their order."""


class Failed(Struct, frozen=True, kw_only=True):
    """The first letter that is still there was not taken."""

    letter: Letter
    error: str
    again_at: datetime | None
    """``None``: it is given up."""


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that was given up."""

    id: int
    endpoint: str
    call_id: UUID
    message_id: str
    type: str
    created_at: datetime
    dead_at: datetime
    error: str


class Outbox:
    """Leases and settles chains; every method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._postgres = engine.dialect.name == "postgresql"

    async def lease(
        self, endpoint: str, *, owner: str, now: datetime, lease_s: float, most: int, letters: int
    ) -> list[Chain]:
        """Lease up to ``most`` chains that are due, each with its oldest ``letters``."""
        c = t.chains.c
        until = now + timedelta(seconds=lease_s)
        due = sa.select(c.call_id, c.attempts, c.failing_since).where(c.endpoint == endpoint, c.next_at <= now)
        due = due.order_by(c.next_at).limit(most)
        async with self._engine.begin() as connection:
            found = list(await connection.execute(self._locking(due)))
            if not found:
                return []
            mine = sa.and_(c.endpoint == endpoint, c.call_id.in_([row.call_id for row in found]))
            await connection.execute(sa.update(t.chains).where(mine).values(owner=owner, next_at=until))
            waiting = {row.call_id: await self._letters(connection, endpoint, row.call_id, letters) for row in found}
        return [
            Chain(
                endpoint=endpoint,
                call_id=row.call_id,
                owner=owner,
                until=until,
                attempts=row.attempts,
                failing_since=row.failing_since,
                letters=waiting[row.call_id],
            )
            for row in found
        ]

    async def settle(self, chain: Chain, delivered: Sequence[Letter], failed: Failed | None, now: datetime) -> bool:
        """Give a lease back, with what has become of its letters; whether more wait that may be delivered at once."""
        c, o = t.chains.c, t.outbox.c
        mine = sa.and_(c.endpoint == chain.endpoint, c.call_id == chain.call_id, c.owner == chain.owner)
        async with self._engine.begin() as connection:
            # First the chain: whoever adds letters touches it too, so that none can come unseen from here on.
            held = (await connection.execute(self._locking(sa.select(c.attempts).where(mine), skip=False))).first()
            if delivered:
                await connection.execute(sa.delete(t.outbox).where(o.id.in_([letter.id for letter in delivered])))
            if held is None:
                return False  # the lease was over before this: somebody else has the chain
            values: dict[str, Any] = {"owner": "", "attempts": 0, "failing_since": None, "next_at": now}
            if failed is not None and failed.again_at is None:
                dead = sa.update(t.outbox).where(o.id == failed.letter.id)
                await connection.execute(dead.values(dead_at=now, error=failed.error[:_ERROR_CHARS]))
            elif failed is not None:
                values |= {
                    "attempts": 1 if delivered else chain.attempts + 1,
                    "failing_since": now if delivered or chain.failing_since is None else chain.failing_since,
                    "next_at": failed.again_at,
                }
            waiting = await self._letters(connection, chain.endpoint, chain.call_id, 1)
            if waiting:
                await connection.execute(sa.update(t.chains).where(mine).values(**values))
            else:
                await connection.execute(sa.delete(t.chains).where(mine))
        return bool(waiting) and values["next_at"] <= now

    async def hasten(self, endpoint: str, now: datetime) -> None:
        """An endpoint works again: what waits for its next try is due."""
        c = t.chains.c
        paused = sa.and_(c.endpoint == endpoint, c.owner == "", c.next_at > now)
        async with self._engine.begin() as connection:
            await connection.execute(sa.update(t.chains).where(paused).values(next_at=now))

    async def release(self, owner: str, now: datetime) -> None:
        """Give all leases of ``owner`` back, as they are."""
        async with self._engine.begin() as connection:
            await connection.execute(sa.update(t.chains).where(t.chains.c.owner == owner).values(owner="", next_at=now))

    async def waiting(self) -> dict[str, int]:
        """How many messages wait, by endpoint."""
        return (await self.counts())[0]

    async def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many messages wait, and how many were given up, by endpoint."""
        o = t.outbox.c
        dead = o.dead_at.is_not(None).label("dead")
        query = sa.select(o.endpoint, dead, sa.func.count().label("found")).group_by(o.endpoint, dead)
        counts: tuple[dict[str, int], dict[str, int]] = {}, {}
        async with self._engine.connect() as connection:
            for row in await connection.execute(query):
                counts[bool(row.dead)][row.endpoint] = row.found
        return counts

    async def dead(self, limit: int) -> list[DeadLetter]:
        """Messages that were given up, the oldest first."""
        columns = [t.outbox.c[name] for name in DeadLetter.__struct_fields__]
        query = sa.select(*columns).where(t.outbox.c.dead_at.is_not(None)).order_by(t.outbox.c.id).limit(limit)
        async with self._engine.connect() as connection:
            return [DeadLetter(**row._asdict()) for row in await connection.execute(query)]

    async def revive(self, ids: Sequence[int], now: datetime) -> int:
        """Try dead letters again, each before what waits of its call; how many there were."""
        o = t.outbox.c
        these = sa.and_(o.id.in_(ids), o.dead_at.is_not(None))
        insert = (postgresql if self._postgres else sqlite).insert
        async with self._engine.begin() as connection:
            found = await connection.execute(sa.select(o.endpoint, o.call_id).where(these).distinct())
            chains = [{"endpoint": e, "call_id": c, "next_at": now} for e, c in sorted(found)]
            if not chains:
                return 0
            touched = insert(t.chains).on_conflict_do_update(
                index_elements=[t.chains.c.endpoint, t.chains.c.call_id], set_={"owner": t.chains.c.owner}
            )
            await connection.execute(touched, chains)
            alive = sa.update(t.outbox).where(these).values(dead_at=None, error="")
            return (await connection.execute(alive)).rowcount

    def _locking(self, query: SelectT, *, skip: bool = True) -> SelectT:
        # SQLite's writing transactions exclude each other anyway.
        return query.with_for_update(skip_locked=skip) if self._postgres else query

    async def _letters(
        self, connection: AsyncConnection, endpoint: str, call_id: UUID, most: int
    ) -> tuple[Letter, ...]:
        o = t.outbox.c
        query = sa.select(o.id, o.message_id, o.type, o.body)
        query = (
            query.where(o.endpoint == endpoint, o.call_id == call_id, o.dead_at.is_(None)).order_by(o.id).limit(most)
        )
        return tuple(Letter(*row) for row in await connection.execute(query))
