"""Whose calls they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of the calls that are there it is not known."""
    op.add_column("calls", sa.Column("tenant", sa.String(64), nullable=False, server_default=""))
    op.create_index("ix_calls_tenant", "calls", ["tenant", "started_at"])
