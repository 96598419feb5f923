"""Calls are found again by what is known of them, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from calling import Caller

from dialog.calls import events as ev
from dialog.calls.publish import CallEvents
from dialog.calls.store.log import CallLog
from dialog.calls.store.search import CallSearch

DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def at(days: float) -> str:
    return (DAY + timedelta(days=days)).isoformat(timespec="milliseconds")


@pytest.fixture
async def log(url):
    events = CallEvents()
    async with CallLog(url) as log:
        log.follow(events)
        log.told = {
            "table": Caller(events).start(at(0)).turn("A table for 100% of us", "At what time?").end(),
            "order": Caller(events, from_="+15559990001")
            .start(at(1))
            .turn("my order_number", "Thanks.")
            .end("agent_hangup"),
            "failed": Caller(events, to="+15550000042").start(at(2)).turn("hello"),
            "live": Caller(events).start(at(3)).turn("A TABLE, please"),
            "silent": Caller(events).start(at(4)).end("lost_process"),
        }
        log.told["failed"].tell(ev.ErrorRaised, source="stt", code="provider", text="gone", fatal=False)
        log.told["failed"].end("transferred")
        async with asyncio.timeout(20):
            await log.flush()
        yield log


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (CallSearch(), ["silent", "failed", "order", "table"]),
        (CallSearch(text="a TABLE"), ["table"]),
        (CallSearch(text="what time"), ["failed", "table"]),
        (CallSearch(text="100%"), ["table"]),
        (CallSearch(text="0%f"), []),
        (CallSearch(text="r_n"), ["order"]),
        (CallSearch(text="r\\_n"), []),
        (CallSearch(text="'; DROP TABLE calls; --"), []),
        (CallSearch(number="999 0001"), ["order"]),
        (CallSearch(number="+1 (555) 000-0042"), ["failed"]),
        (CallSearch(number="+1555123"), ["silent", "failed", "order", "table"]),
        (CallSearch(outcome="agent_hangup"), ["order"]),
        (CallSearch(outcome="errors"), ["silent", "failed"]),
        (CallSearch(since=DAY + timedelta(days=1)), ["silent", "failed", "order"]),
        (CallSearch(until=DAY + timedelta(days=1)), ["table"]),
        (CallSearch(since=DAY, until=DAY + timedelta(days=2), text="time", number="0001"), ["table"]),
    ],
)
async def test_calls_are_found_by_what_is_known_of_them(log, wanted, found):
    names = {call.call_id: name for name, call in log.told.items()}
    assert [names[each.call_id] for each in await log.search(wanted)] == found


async def test_what_is_found_comes_page_by_page(log):
    first = await log.search(CallSearch(), limit=3)
    rest = await log.search(CallSearch(), limit=3, before=first[-1])
    everything = await log.search(CallSearch())
    assert [*first, *rest] == everything
    assert await log.search(CallSearch(), before=rest[-1]) == []
