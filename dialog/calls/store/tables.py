"""The tables of the call log and of the outbox; :mod:`dialog.calls.store.migrations` makes them.

A column is only ever added, with a default, so that the old and the new version of a fleet can write side by side.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dialog.calls.store.sql import TypeDecorator, sa

__all__ = [
    "Moment",
    "calls",
    "chains",
    "events",
    "metadata",
    "outbox",
    "recordings",
    "tool_calls",
    "turns",
    "usage",
    "writers",
]


class Moment(TypeDecorator[datetime]):
    """A point in time, in UTC; SQLite knows of no zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True
    """Statements with it may be kept by SQLAlchemy."""

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """On its way to the database."""
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """On its way back."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

calls = sa.Table(
    "calls",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("tenant", sa.String(64), nullable=False, default="", server_default=""),
    sa.Column("carrier", sa.String(32), nullable=False, default=""),
    sa.Column("carrier_call_id", sa.String(128), nullable=False, default="", index=True),
    sa.Column("from_number", sa.String(256), nullable=False, default=""),
    sa.Column("to_number", sa.String(256), nullable=False, default=""),
    sa.Column("direction", sa.String(16), nullable=False, default=""),
    sa.Column("agent", sa.String(128), nullable=False, default=""),
    sa.Column("started_at", Moment, nullable=False, index=True),
    sa.Column("ended_at", Moment, index=True),
    sa.Column("end_reason", sa.String(64), nullable=False, default=""),
    sa.Column("end_detail", sa.Text, nullable=False, default=""),
    sa.Column("duration_s", sa.Double),
    sa.Column("caller_turns", sa.Integer),
    sa.Column("agent_turns", sa.Integer),
    sa.Column("interruptions", sa.Integer),
    sa.Column("errors", sa.Integer),
    sa.Column("cost_usd", sa.Double),
    sa.Column("events_lost", sa.Integer, nullable=False, default=0),
    sa.Column("writer", sa.String(64), nullable=False, default=""),
    sa.Column("report", sa.Text),
)
"""One row per call; ``ended_at`` is null while it lives."""
sa.Index("ix_calls_tenant", calls.c.tenant, calls.c.started_at)
sa.Index(
    "ix_calls_live",
    calls.c.writer,
    sqlite_where=calls.c.ended_at.is_(None),
    postgresql_where=calls.c.ended_at.is_(None),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("type", sa.String(48), nullable=False),
    sa.Column("at_s", sa.Double, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
"""The events, but for interim transcripts; ``body`` is their JSON."""

turns = sa.Table(
    "turns",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("turn", sa.Uuid, nullable=False),
    sa.Column("caller", sa.Text, nullable=False),
    sa.Column("speaker", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("heard", sa.Text, nullable=False),
    sa.Column("interrupted", sa.Boolean, nullable=False),
    sa.Column("latency_ms", sa.Double),
)
"""Written when the call has ended, as are the next two."""

tool_calls = sa.Table(
    "tool_calls",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("turn", sa.Uuid, nullable=False),
    sa.Column("name", sa.Text, nullable=False, index=True),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("took_s", sa.Double),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("input_audio_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_audio_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_audio_tokens", sa.BigInteger, nullable=False),
    sa.Column("input_audio_s", sa.Double, nullable=False),
    sa.Column("output_audio_s", sa.Double, nullable=False),
    sa.Column("session_s", sa.Double, nullable=False),
    sa.Column("characters", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Double),
)
"""What a call used, by model, and what that costs; null: there is no price."""

recordings = sa.Table(
    "recordings",
    metadata,
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("url", sa.String(512), primary_key=True),
    sa.Column("at_s", sa.Double, nullable=False),
)

writers = sa.Table(
    "writers",
    metadata,
    sa.Column("writer", sa.String(64), primary_key=True),
    sa.Column("seen_at", Moment, nullable=False),
)
"""The processes that write, and when each was seen last: the calls of one that is gone are ended by the others."""

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("call_id", sa.Uuid, nullable=False),
    sa.Column("message_id", sa.String(64), nullable=False),
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("dead_at", Moment),
    sa.Column("error", sa.Text, nullable=False, default=""),
    sqlite_autoincrement=True,
)
"""Webhook messages that were not delivered yet, and with ``dead_at`` those that were given up."""
sa.Index("ix_outbox_chain", outbox.c.endpoint, outbox.c.call_id, outbox.c.id)

chains = sa.Table(
    "outbox_chains",
    metadata,
    sa.Column("endpoint", sa.String(64), primary_key=True),
    sa.Column("call_id", sa.Uuid, primary_key=True),
    sa.Column("next_at", Moment, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("failing_since", Moment),
    sa.Column("owner", sa.String(64), nullable=False, default=""),
)
"""What waits of one call for one endpoint is delivered in its order, by whoever leases the chain until ``next_at``."""
sa.Index("ix_outbox_chains_next_at", chains.c.next_at)
