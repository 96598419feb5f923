"""Calls that are over: found, and opened again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from dialog.calls import events as ev
from dialog.server.api.core import Matched
from dialog.server.api.operations import OPERATIONS
from dialog.server.api.problems import Problem
from dialog.server.api.types import CallDetail
from dialog.server.config import ApiToken
from dialog.server.console.board import Board, Row, fleeting, told
from dialog.server.console.neighbours import metadata_of

if TYPE_CHECKING:
    from dialog.calls.store.reading import CallRecord
    from dialog.server.service import Service

__all__ = ["HistoryQuery", "Past"]

_MAX_EVENTS: Final = 20_000
_NO_CALL: Final = "there is no call of this id"


class HistoryQuery(Struct, frozen=True, kw_only=True):
    """Which calls; see :class:`~dialog.calls.store.search.CallSearch`."""

    text: Annotated[str, Meta(max_length=200)] = ""
    number: Annotated[str, Meta(max_length=100)] = ""
    outcome: Annotated[str, Meta(max_length=64)] = ""
    since: Annotated[datetime, Meta(tz=True)] | None = None
    until: Annotated[datetime, Meta(tz=True)] | None = None
    before: UUID | None = None
    """The last one of the page before."""
    limit: Annotated[int, Meta(ge=1, le=100)] = 50


class Past:
    """Looks into the call log, and without one at the calls that have ended lately."""

    def __init__(self, service: Service, board: Board) -> None:
        self._service = service
        self._board = board

    async def search(self, query: HistoryQuery, token: ApiToken) -> dict[str, Any]:
        """A page of calls, the newest first.

        Raises:
            Problem: 404.
        """
        if self._service.log is None:
            return {"calls": self._lately(query, token), "more": False, "log": False}
        from dialog.calls.store.search import CallSearch

        log = self._service.log
        before: CallRecord | None = None
        if query.before is not None:
            before = await log.call(query.before)
            if before is None or not token.may_use(before.tenant):
                raise Problem(404, _NO_CALL)
        wanted = CallSearch(
            text=query.text.strip(),
            number=query.number.strip(),
            outcome=query.outcome,
            since=query.since,
            until=query.until,
        )
        found = await log.search(wanted, tenants=token.tenants, limit=query.limit + 1, before=before)
        calls = [_of_record(record) for record in found[: query.limit]]
        return {"calls": calls, "more": len(found) > query.limit, "log": True}

    async def show(self, call_id: UUID, token: ApiToken) -> bytes:
        """A call with its events, whether it goes on or not, as JSON.

        Raises:
            Problem: 404.
        """
        row, log = self._board.get(call_id), self._service.log
        if row is not None and not (row.tenant is not None and token.may_use(row.tenant)):
            raise Problem(404, _NO_CALL)
        record: CallRecord | None = None if log is None else await log.call(call_id)
        if row is None and record is None:
            return await self._elsewhere(call_id, token)
        if row is None and record is not None and not token.may_use(record.tenant):
            raise Problem(404, _NO_CALL)
        events = [] if row is None else list(row.events)
        if log is not None and (row is None or not row.whole):
            kept = [event for event in await log.events(call_id, limit=_MAX_EVENTS) if not fleeting(event)]
            last = kept[-1].seq if kept else -1
            events = [*kept, *(event for event in events if event.seq > last)]
        session = self._service.session(call_id)
        recordings = [] if session is None else session.recordings
        if not recordings and record is not None:
            recordings = list(record.recordings)
        if row is not None:
            call = row.view()
        else:
            assert record is not None
            call = _of_record(record)
        # Of a long call this is thousands of events, for which no other call should wait.
        return await asyncio.to_thread(_encoded, call, events, len(recordings))

    async def _elsewhere(self, call_id: UUID, token: ApiToken) -> bytes:
        """A call of another process, without a log that both share: what was said there before is not known here."""
        show = next(each for each in OPERATIONS if each.name == "show_call")
        path = {"call_id": str(call_id)}
        answer = await self._service.api.answer(Matched(operation=show, path=path, query=None, token=token))
        if answer.status != 200:
            raise Problem(answer.status, _NO_CALL)
        found = msgspec.json.decode(answer.body, type=CallDetail)
        row = Row(metadata_of(found), found.tenant)
        row.agent, row.state = found.agent, found.state
        if found.started_at:
            row.started = datetime.fromisoformat(found.started_at).timestamp()
        view = {**row.view(), "end_reason": found.end_reason, "end_detail": found.end_detail}
        if found.state == "ended":
            view["duration_s"] = found.duration_s
        return _encoded(view, [], found.recordings)

    def _lately(self, query: HistoryQuery, token: ApiToken) -> list[dict[str, Any]]:
        rows = [row for row in self._board.ended if token.may_use(row.tenant or "") and _fits(row, query)]
        return [row.view() for row in rows]


def _encoded(call: dict[str, Any], events: Sequence[ev.CallEvent], recordings: int) -> bytes:
    return msgspec.json.encode({"call": call, "events": [told(event) for event in events], "recordings": recordings})


def _fits(row: Row, query: HistoryQuery) -> bool:
    text, number = query.text.strip().casefold(), re.sub(r"[\s()./-]", "", query.number)
    end = "" if row.end is None else row.end.reason
    return (
        (not text or any(text in said.casefold() for said in _said(row)))
        and (not number or number in row.call.from_ or number in row.call.to)
        and (not query.outcome or query.outcome == end or (query.outcome == "errors" and row.errors > 0))
        and (query.since is None or row.started >= query.since.timestamp())
        and (query.until is None or row.started < query.until.timestamp())
    )


def _said(row: Row) -> list[str]:
    return [event.text for event in row.events if isinstance(event, ev.CallerSaid | ev.AgentSaid)]


def _of_record(record: CallRecord) -> dict[str, Any]:
    """As :meth:`~dialog.server.console.board.Row.view`, of a call in the log."""
    return {
        "call_id": str(record.call_id),
        "state": "live" if record.ended_at is None else "ended",
        "activity": "",
        "tenant": record.tenant,
        "carrier": record.carrier,
        "from": record.from_,
        "to": record.to,
        "direction": record.direction,
        "agent": record.agent,
        "started": record.started_at.timestamp(),
        "duration_s": record.duration_s,
        "turns": record.caller_turns or 0,
        "latency_ms": None,
        "said": ("", ""),
        "errors": record.errors or 0,
        "end_reason": record.end_reason,
        "end_detail": record.end_detail,
    }
