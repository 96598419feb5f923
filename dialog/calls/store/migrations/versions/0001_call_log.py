"""The call log and its outbox."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_LIVE = sa.text("ended_at IS NULL")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "calls",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("carrier", sa.String(32), nullable=False),
        sa.Column("carrier_call_id", sa.String(128), nullable=False),
        sa.Column("from_number", sa.String(256), nullable=False),
        sa.Column("to_number", sa.String(256), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("agent", sa.String(128), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("end_reason", sa.String(64), nullable=False),
        sa.Column("end_detail", sa.Text(), nullable=False),
        sa.Column("duration_s", sa.Double),
        sa.Column("caller_turns", sa.Integer()),
        sa.Column("agent_turns", sa.Integer()),
        sa.Column("interruptions", sa.Integer()),
        sa.Column("errors", sa.Integer()),
        sa.Column("cost_usd", sa.Double),
        sa.Column("events_lost", sa.Integer(), nullable=False),
        sa.Column("writer", sa.String(64), nullable=False),
        sa.Column("report", sa.Text()),
    )
    op.create_index("ix_calls_carrier_call_id", "calls", ["carrier_call_id"])
    op.create_index("ix_calls_started_at", "calls", ["started_at"])
    op.create_index("ix_calls_ended_at", "calls", ["ended_at"])
    op.create_index("ix_calls_live", "calls", ["writer"], sqlite_where=_LIVE, postgresql_where=_LIVE)
    op.create_table(
        "events",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(48), nullable=False),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "turns",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("turn", sa.Uuid(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("speaker", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("heard", sa.Text(), nullable=False),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
        sa.Column("latency_ms", sa.Double),
    )
    op.create_table(
        "tool_calls",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("turn", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("took_s", sa.Double),
    )
    op.create_index("ix_tool_calls_name", "tool_calls", ["name"])
    op.create_table(
        "usage",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("input_audio_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_audio_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_audio_tokens", sa.BigInteger(), nullable=False),
        sa.Column("input_audio_s", sa.Double, nullable=False),
        sa.Column("output_audio_s", sa.Double, nullable=False),
        sa.Column("session_s", sa.Double, nullable=False),
        sa.Column("characters", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Double),
    )
    op.create_table(
        "recordings",
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("url", sa.String(512), primary_key=True),
        sa.Column("at_s", sa.Double, nullable=False),
    )
    op.create_table(
        "writers",
        sa.Column("writer", sa.String(64), primary_key=True),
        sa.Column("seen_at", _MOMENT, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("call_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("dead_at", _MOMENT),
        sa.Column("error", sa.Text(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_chain", "outbox", ["endpoint", "call_id", "id"])
    op.create_table(
        "outbox_chains",
        sa.Column("endpoint", sa.String(64), primary_key=True),
        sa.Column("call_id", sa.Uuid(), primary_key=True),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failing_since", _MOMENT),
        sa.Column("owner", sa.String(64), nullable=False),
    )
    op.create_index("ix_outbox_chains_next_at", "outbox_chains", ["next_at"])
