"""What is used of SQLAlchemy and Alembic, or the word for what is missing."""

from __future__ import annotations

from dialog.errors import MissingExtra

try:
    import aiosqlite as _aiosqlite
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from alembic.util.exc import CommandError
    from sqlalchemy import event as sqlevent
    from sqlalchemy import exc as sqlexc
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
    from sqlalchemy.types import TypeDecorator
except ModuleNotFoundError as exc:
    raise MissingExtra("sqlalchemy", "log") from exc

__all__ = [
    "AsyncConnection",
    "AsyncEngine",
    "CommandError",
    "Config",
    "MigrationContext",
    "ScriptDirectory",
    "TypeDecorator",
    "command",
    "create_async_engine",
    "postgresql",
    "sa",
    "sqlevent",
    "sqlexc",
    "sqlite",
]

del _aiosqlite  # only looked for here: SQLAlchemy uses it
