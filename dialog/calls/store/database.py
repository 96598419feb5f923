"""Connections to the database of a call log, and its tables."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dialog.calls.store.sql import (
    AsyncEngine,
    CommandError,
    Config,
    MigrationContext,
    ScriptDirectory,
    command,
    create_async_engine,
    sa,
    sqlevent,
    sqlexc,
)
from dialog.errors import ConfigurationError, MissingExtra

__all__ = ["HEAD", "current", "disconnect", "make_engine", "upgrade"]

logger = logging.getLogger(__name__)

HEAD = "0002"
"""The newest revision of the tables."""
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_LOCK = 0x6469616C6F67
"""Of PostgreSQL's advisory lock while tables are made."""
_WAL_TRIES = 100
_WAL_PAUSE_S = 0.05


def make_engine(url: str) -> AsyncEngine:
    """An engine for ``sqlite:///calls.db``, or ``postgresql://user:password@host/database``; nothing is connected.

    Raises:
        ConfigurationError: The URL is of another database, or malformed.
        MissingExtra: The packages for it are not installed.
    """
    try:
        parsed = sa.make_url(url)
    except sqlexc.ArgumentError as exc:
        raise ConfigurationError("the URL of the call log is malformed: sqlite:///calls.db would be one") from exc
    kind = parsed.get_backend_name()
    if kind not in _DRIVERS:
        raise ConfigurationError(f"a call log is kept in sqlite or postgresql, not in {kind}")
    postgres = _DRIVERS[kind].startswith("postgresql")
    if not postgres and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("a call log in SQLite needs a file: sqlite:///calls.db")
    options: dict[str, Any] = {"connect_args": {"timeout": 10.0}}
    if postgres:
        options |= {"connect_args": {"timeout": 10.0, "command_timeout": 30.0}, "pool_pre_ping": True}
    try:
        engine = create_async_engine(parsed.set(drivername=_DRIVERS[kind]), **options)
    except ModuleNotFoundError as exc:
        raise MissingExtra("asyncpg", "postgres") from exc
    if not postgres:
        sqlevent.listen(engine.sync_engine, "connect", _sqlite_connected)
        sqlevent.listen(engine.sync_engine, "begin", _sqlite_begins)
        sqlevent.listen(engine.sync_engine, "invalidate", _sqlite_invalidated)
    return engine


async def upgrade(engine: AsyncEngine) -> None:
    """Make the tables, or bring them up to date; several processes may try at the same time.

    Raises:
        ConfigurationError: The tables are those of a newer version, or the database cannot be used.
    """
    async with _usable(engine), engine.begin() as connection:
        await connection.run_sync(_upgrade)


async def current(engine: AsyncEngine) -> str:
    """The revision that the tables have; empty: there are none.

    Raises:
        ConfigurationError: The database cannot be used.
    """
    async with _usable(engine), engine.connect() as connection:
        return await connection.run_sync(_revision)


async def disconnect(engine: AsyncEngine, timeout_s: float) -> None:
    """Close all connections; those that somebody uses when they are given back, which may take ``timeout_s``.

    A pool that is disposed of closes nothing that comes back to it later: that would be left to the collector.
    """
    pool = engine.sync_engine.pool
    returned = asyncio.Event()
    sqlevent.listen(pool, "checkin", lambda *_: returned.set())
    if isinstance(pool, sa.pool.QueuePool):
        try:
            async with asyncio.timeout(timeout_s):
                while pool.checkedout():
                    returned.clear()
                    await returned.wait()
        except TimeoutError:
            logger.warning("call log: %d connections are in use for longer than %g s", pool.checkedout(), timeout_s)
    await engine.dispose()


@asynccontextmanager
async def _usable(engine: AsyncEngine) -> AsyncGenerator[None]:
    try:
        yield
    except (sqlexc.SQLAlchemyError, OSError) as exc:
        reason = exc.orig if isinstance(exc, sqlexc.DBAPIError) else exc
        url = engine.url.set(drivername=engine.url.get_backend_name()).render_as_string(hide_password=True)
        raise ConfigurationError(f"the call log {url} cannot be used: {reason or type(exc).__name__}") from exc


def _revision(connection: sa.Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


def _upgrade(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    revision = _revision(connection)
    if revision == HEAD:
        return
    try:
        if revision:
            ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError as exc:
        raise ConfigurationError(
            f"the tables of the call log are of a newer version ({revision}, this one knows {HEAD}): upgrade Dialog"
        ) from exc
    command.upgrade(config, "head")


def _sqlite_connected(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver as it likes
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA busy_timeout=10000")
        _to_wal(connection, cursor)
        cursor.execute("PRAGMA synchronous=FULL")
    except Exception:  # it is no database: who has connected forgets the connection, and leaves its thread behind
        connection.close()
        raise
    cursor.close()


def _to_wal(connection: Any, cursor: Any) -> None:
    """Several processes may do so at once to a new file: SQLite refuses all but one, and does not wait for that."""
    for left in reversed(range(_WAL_TRIES)):
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as exc:
            if not left or "locked" not in str(exc):
                raise
            connection.run_async(_pause)
        else:
            return


async def _pause(_: object) -> None:
    await asyncio.sleep(_WAL_PAUSE_S)


def _sqlite_begins(connection: sa.Connection) -> None:
    # A transaction that begins by reading cannot become a writing one if somebody else has written meanwhile.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _sqlite_invalidated(connection: Any, *_: object) -> None:
    # Whoever is cancelled within a statement leaves its cursor to the garbage collector, and until that comes, SQLite
    # keeps a connection that was closed: its transaction would lock the database for everybody else.
    try:
        connection.rollback()
    except Exception as exc:  # it is gone already
        logger.debug("call log: a connection could not be rolled back: %r", exc)
