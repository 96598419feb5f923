"""Finding calls in the log by what is known of them."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

from msgspec import Struct

from dialog.calls.store import reading
from dialog.calls.store import tables as t
from dialog.calls.store.reading import CallRecord
from dialog.calls.store.sql import AsyncEngine, sa

__all__ = ["CallSearch", "search"]


class CallSearch(Struct, frozen=True, kw_only=True):
    """What the calls that are looked for have in common; what is left empty does not matter."""

    text: str = ""
    """Somebody said this, in so many words; upper and lower case are the same, in SQLite of English letters only."""
    number: str = ""
    """A part of the number of either side; spaces, dashes and brackets do not count."""
    outcome: str = ""
    """Why it ended, in the words of :class:`~dialog.message.CallEnd`; ``errors``: something failed in it."""
    since: datetime | None = None
    """It started then or later …"""
    until: datetime | None = None
    """… and before this."""

    def __repr__(self) -> str:
        return "<CallSearch>"


async def search(
    engine: AsyncEngine,
    wanted: CallSearch,
    *,
    tenants: Collection[str] = (),
    limit: int,
    before: CallRecord | None,
) -> list[CallRecord]:
    """See :meth:`dialog.calls.store.log.CallLog.search`."""
    c = t.calls.c
    query = sa.select(*reading._COLUMNS).where(c.ended_at.is_not(None))
    if wanted.text:
        spoken = t.turns.c
        said = sa.or_(
            spoken.caller.icontains(wanted.text, autoescape=True), spoken.agent.icontains(wanted.text, autoescape=True)
        )
        query = query.where(sa.exists().where(spoken.call_id == c.call_id, said))
    if wanted.number:
        part = re.sub(r"[\s()./-]", "", wanted.number)
        query = query.where(
            sa.or_(c.from_number.icontains(part, autoescape=True), c.to_number.icontains(part, autoescape=True))
        )
    if wanted.outcome == "errors":
        query = query.where(sa.or_(c.errors > 0, c.end_reason.in_(("error", "lost_process"))))
    elif wanted.outcome:
        query = query.where(c.end_reason == wanted.outcome)
    if wanted.since is not None:
        query = query.where(c.started_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(c.started_at < wanted.until)
    if tenants:
        query = query.where(c.tenant.in_(tenants))
    if before is not None:
        query = query.where(sa.tuple_(c.started_at, c.call_id) < sa.tuple_(before.started_at, before.call_id))
    query = query.order_by(c.started_at.desc(), c.call_id.desc()).limit(limit)
    return [reading._record(row) for row in await reading._all(engine, query)]
