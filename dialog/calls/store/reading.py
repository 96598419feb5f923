"""Queries of the call log."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.events import CallEvent
from dialog.calls.report import SessionReport
from dialog.calls.store import tables as t
from dialog.calls.store.sql import AsyncEngine, sa
from dialog.calls.store.writing import decode_events

__all__ = ["CallRecord", "call", "calls", "events", "report"]

_decode_report = msgspec.json.Decoder(SessionReport).decode


class CallRecord(Struct, frozen=True, kw_only=True):
    """A row of the log: one call."""

    call_id: UUID
    tenant: str
    """Whose it is; empty: nobody's in particular, or it was kept by a version that did not tell."""
    carrier: str
    carrier_call_id: str
    from_: str = msgspec.field(name="from")
    to: str
    direction: str
    agent: str
    started_at: datetime
    ended_at: datetime | None
    """``None``: it lives."""
    end_reason: str
    end_detail: str
    duration_s: float | None
    caller_turns: int | None
    agent_turns: int | None
    interruptions: int | None
    errors: int | None
    cost_usd: float | None
    """``None``: a model that it used has no price."""
    events_lost: int
    """Events that the log had no room for."""
    recordings: tuple[str, ...] = ()
    """URLs at the carrier; only where one call was asked for."""


_NAMES = {"from_": "from_number", "to": "to_number"}
_FIELDS = [name for name in CallRecord.__struct_fields__ if name != "recordings"]
_COLUMNS = [t.calls.c[_NAMES.get(name, name)] for name in _FIELDS]


async def calls(
    engine: AsyncEngine,
    *,
    live: bool | None,
    since: datetime | None,
    number: str,
    tenants: Collection[str],
    limit: int,
    before: CallRecord | None,
) -> list[CallRecord]:
    """See :meth:`dialog.calls.store.log.CallLog.calls`."""
    c = t.calls.c
    query = sa.select(*_COLUMNS).order_by(c.started_at.desc(), c.call_id.desc()).limit(limit)
    if live is not None:
        query = query.where(c.ended_at.is_(None) if live else c.ended_at.is_not(None))
    if since is not None:
        query = query.where(c.started_at >= since)
    if number:
        query = query.where(sa.or_(c.from_number == number, c.to_number == number))
    if tenants:
        query = query.where(c.tenant.in_(tenants))
    if before is not None:
        query = query.where(sa.tuple_(c.started_at, c.call_id) < sa.tuple_(before.started_at, before.call_id))
    return [_record(row) for row in await _all(engine, query)]


async def call(engine: AsyncEngine, call_id: UUID) -> CallRecord | None:
    """See :meth:`dialog.calls.store.log.CallLog.call`."""
    rows = await _all(engine, sa.select(*_COLUMNS).where(t.calls.c.call_id == call_id))
    if not rows:
        return None
    query = sa.select(t.recordings.c.url).where(t.recordings.c.call_id == call_id).order_by(t.recordings.c.at_s)
    return _record(rows[0], recordings=tuple(url for (url,) in await _all(engine, query)))


async def events(engine: AsyncEngine, call_id: UUID, *, after: int, limit: int) -> list[CallEvent]:
    """See :meth:`dialog.calls.store.log.CallLog.events`."""
    c = t.events.c
    query = sa.select(c.body).where(c.call_id == call_id, c.seq > after).order_by(c.seq).limit(limit)
    return decode_events(body for (body,) in await _all(engine, query))


async def report(engine: AsyncEngine, call_id: UUID) -> SessionReport | None:
    """See :meth:`dialog.calls.store.log.CallLog.report`."""
    rows = await _all(engine, sa.select(t.calls.c.report).where(t.calls.c.call_id == call_id))
    if not rows or rows[0][0] is None:
        return None
    whole = tuple(await events(engine, call_id, after=-1, limit=50_000))
    return msgspec.structs.replace(_decode_report(rows[0][0]), events=whole)


async def _all(engine: AsyncEngine, query: sa.Executable) -> list[sa.Row[Any]]:
    async with engine.connect() as connection:
        reading = await connection.execution_options(reading=True)
        return list(await reading.execute(query))


def _record(row: sa.Row[Any], **more: Any) -> CallRecord:
    return CallRecord(**dict(zip(_FIELDS, row, strict=True)), **more)
