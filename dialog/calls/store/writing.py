"""Writes a batch of events in one transaction, with all that follows from them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.calls.events import CallEnded, CallEvent, CallProgressed, CallStarted, RecordingReady
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport
from dialog.calls.store import tables as t
from dialog.calls.store.fold import fold_call, storable
from dialog.calls.store.sql import AsyncConnection, AsyncEngine, postgresql, sa, sqlexc, sqlite
from dialog.message import CallMetadata

__all__ = ["LOST", "BatchWriter", "Outgoing", "OutgoingMaker", "decode_events", "is_hopeless"]

LOST = "lost_process"
"""Why a call has ended whose process is gone."""
logger = logging.getLogger(__name__)

_MAX_EVENTS = 50_000
_encode = msgspec.json.Encoder().encode
_decode: msgspec.json.Decoder[CallEvent] = msgspec.json.Decoder(CallEvent)


_REFUSED = ("22", "23")
"""Classes of SQLSTATE: what was to be written is wrong, or contradicts what is there."""


def is_hopeless(exc: Exception) -> bool:
    """Whether the same statement would fail again, for what it says, however often it is tried."""
    if isinstance(exc, sqlexc.DBAPIError):
        state = str(getattr(exc.orig, "sqlstate", None) or "")
        return isinstance(exc, sqlexc.DataError | sqlexc.IntegrityError) or state.startswith(_REFUSED)
    return isinstance(exc, sqlexc.StatementError | ValueError | TypeError)


class Outgoing(Struct, frozen=True):
    """A message for the outbox."""

    endpoint: str
    call_id: UUID
    message_id: str
    type: str
    body: bytes


class OutgoingMaker(Protocol):
    """Makes messages of what happens; pure."""

    def messages(self, notice: Notice, report: SessionReport | None) -> Iterable[Outgoing]:
        """What is to be sent; ``report`` comes with the end of a call, unless its start was lost."""
        ...


class BatchWriter:
    """Turns events into rows.

    Args:
        engine: The database.
        writer: Names this process.
        tenant_of: Whose call it is.
    """

    def __init__(self, engine: AsyncEngine, writer: str, tenant_of: Callable[[CallMetadata], str]) -> None:
        self.makers: list[OutgoingMaker] = []
        self._engine = engine
        self._writer = writer
        self._tenant_of = tenant_of
        self._known: set[UUID] = set()
        """Calls of this process that have a row, and have not ended."""
        self._insert = (postgresql if engine.dialect.name == "postgresql" else sqlite).insert

    def forget(self, call_id: UUID) -> None:
        """Its row was deleted: should the call go on, it has one again."""
        self._known.discard(call_id)

    async def write(self, batch: Sequence[Notice], lost: dict[UUID, int]) -> int:
        """Write events in their order, all or none of them; ``lost``: events of a call that were dropped.

        Returns:
            How many messages it put into the outbox.
        """
        now = datetime.now(UTC)
        begun: dict[UUID, dict[str, Any]] = {}
        for notice in batch:
            call_id, event = notice.call.call_id, notice.event
            # A recording comes late, perhaps after all that was kept of its call was deleted.
            news = call_id not in self._known and not isinstance(event, RecordingReady)
            if (news and call_id not in begun) or isinstance(event, CallStarted):
                begun.setdefault(call_id, self._call_row(notice))
        async with self._engine.begin() as connection:
            late = {notice.call.call_id for notice in batch} - self._known - begun.keys()
            gone = late - await self._kept(connection, late)
            batch = [notice for notice in batch if notice.call.call_id not in gone]
            if not batch:
                return 0
            rows = [
                {
                    "call_id": notice.call.call_id,
                    "seq": notice.event.seq,
                    "type": type(notice.event).__struct_config__.tag,
                    "at_s": notice.event.at_s,
                    "body": _encode(notice.event).decode(),
                }
                for notice in batch
            ]
            recordings = [
                {"call_id": notice.call.call_id, "url": notice.event.url[:512], "at_s": notice.event.at_s}
                for notice in batch
                if isinstance(notice.event, RecordingReady)
            ]
            if begun:
                await self._begin(connection, list(begun.values()))
            await connection.execute(self._insert(t.events).on_conflict_do_nothing(), rows)
            for notice in batch:
                if isinstance(notice.event, CallProgressed) and notice.event.carrier_call_id:
                    await _name(connection, notice.call.call_id, notice.event.carrier_call_id)
            if recordings:
                await connection.execute(self._insert(t.recordings).on_conflict_do_nothing(), recordings)
            reports = {
                notice.call.call_id: await self._end(connection, notice, notice.event, lost)
                for notice in batch
                if isinstance(notice.event, CallEnded)
            }
            outgoing = [
                message
                for notice in batch
                for maker in self.makers
                for message in _made_by(
                    maker,
                    notice,
                    reports.get(notice.call.call_id) if isinstance(notice.event, CallEnded) else None,
                )
            ]
            if outgoing:
                await self._send(connection, outgoing, now)
        self._known |= set(begun)
        self._known -= set(reports)
        return len(outgoing)

    async def _kept(self, connection: AsyncConnection, call_ids: set[UUID]) -> set[UUID]:
        if not call_ids:
            return set()
        return set(
            (await connection.execute(sa.select(t.calls.c.call_id).where(t.calls.c.call_id.in_(call_ids)))).scalars()
        )

    def _call_row(self, notice: Notice) -> dict[str, Any]:
        call, event = notice.call, notice.event
        started = _at(notice) - timedelta(seconds=max(0.0, event.at_s))
        if isinstance(event, CallStarted):
            started = datetime.fromisoformat(event.started_at)
        return {
            "call_id": call.call_id,
            "tenant": self._tenant_of(call)[:64],
            "carrier": call.carrier[:32],
            "carrier_call_id": storable(call.carrier_call_id)[:128],
            "from_number": storable(call.from_)[:256],
            "to_number": storable(call.to)[:256],
            "direction": call.direction,
            "agent": event.agent[:128] if isinstance(event, CallStarted) else "",
            "started_at": started,
            "writer": self._writer,
        }

    async def _begin(self, connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
        statement = self._insert(t.calls)
        # Another process had it before, or its agent tells of itself late: it is ours from now on.
        statement = statement.on_conflict_do_update(
            index_elements=[t.calls.c.call_id], set_={"writer": statement.excluded.writer}
        )
        await connection.execute(statement, rows)

    async def _end(
        self, connection: AsyncConnection, notice: Notice, end: CallEnded, lost: dict[UUID, int]
    ) -> SessionReport | None:
        call_id = notice.call.call_id
        ended_at = (
            await connection.execute(sa.select(t.calls.c.ended_at).where(t.calls.c.call_id == call_id))
        ).scalar()
        if ended_at is not None:
            # Its process was thought to be gone, and was not: what another one has written of its end is void.
            void = (t.events.c.call_id == call_id) & (t.events.c.type == "call.ended") & (t.events.c.seq > end.seq)
            await connection.execute(sa.delete(t.events).where(void))
            for table in (t.turns, t.tool_calls, t.usage):
                await connection.execute(sa.delete(table).where(table.c.call_id == call_id))
        found = await connection.execute(
            sa.select(t.events.c.body).where(t.events.c.call_id == call_id).order_by(t.events.c.seq).limit(_MAX_EVENTS)
        )
        ended = fold_call(call_id, decode_events(body for (body,) in found))
        await connection.execute(
            sa.update(t.calls)
            .where(t.calls.c.call_id == call_id)
            .values(
                **ended.call,
                ended_at=_at(notice),
                end_reason=end.reason[:64],
                end_detail=storable(end.detail),
                events_lost=t.calls.c.events_lost + lost.get(call_id, 0),
            )
        )
        for table, rows in ((t.turns, ended.turns), (t.tool_calls, ended.tool_calls), (t.usage, ended.usage)):
            if rows:
                await connection.execute(sa.insert(table), rows)
        return ended.report

    async def _send(self, connection: AsyncConnection, messages: list[Outgoing], now: datetime) -> None:
        rows = [{**msgspec.structs.asdict(message), "created_at": now} for message in messages]
        await connection.execute(sa.insert(t.outbox), rows)
        # In one order everywhere, so that two processes cannot wait for each other's rows.
        keys = sorted({(message.endpoint, message.call_id) for message in messages})
        statement = self._insert(t.chains)
        chains = [{"endpoint": endpoint, "call_id": call_id, "next_at": now} for endpoint, call_id in keys]
        # A chain that is there is with somebody, who looks again before it is given up, or waits for its next try.
        # Touched all the same, so that it cannot be taken away while this transaction adds to it.
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[t.chains.c.endpoint, t.chains.c.call_id], set_={"owner": t.chains.c.owner}
            ),
            chains,
        )


async def _name(connection: AsyncConnection, call_id: UUID, carrier_call_id: str) -> None:
    """A call that was placed had no id of the carrier's when it began."""
    placed = sa.update(t.calls).where(t.calls.c.call_id == call_id)
    await connection.execute(placed.values(carrier_call_id=storable(carrier_call_id)[:128]))


def _made_by(maker: OutgoingMaker, notice: Notice, report: SessionReport | None) -> list[Outgoing]:
    try:
        return list(maker.messages(notice, report))
    except Exception:  # it would raise again, and the event is to be kept all the same
        kind = type(notice.event).__struct_config__.tag
        logger.exception("call log: call %s: no message can be made of %s: it is not sent", notice.call.call_id, kind)
        return []


def decode_events(bodies: Iterable[str]) -> list[CallEvent]:
    """The events of these bodies, without those that only a newer version knows."""
    events: list[CallEvent] = []
    for body in bodies:
        try:
            events.append(_decode.decode(body))
        except msgspec.ValidationError as exc:
            logger.debug("call log: an event of a newer version: %s", exc)
    return events


def _at(notice: Notice) -> datetime:
    return datetime.fromtimestamp(notice.at, UTC)
