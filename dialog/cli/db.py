"""The tables of a call log, from the command line."""

from __future__ import annotations

from rich.console import Console

from dialog.calls.store.database import HEAD, current, make_engine, upgrade

__all__ = ["run_revision", "run_upgrade"]


async def run_upgrade(console: Console, url: str) -> int:
    """Make the tables, or bring them up to date.

    Raises:
        ConfigurationError: The URL is not understood, or the tables are those of a newer version.
    """
    engine = make_engine(url)
    try:
        before = await current(engine)
        await upgrade(engine)
        console.print(f"{before or 'no tables'} → {await current(engine)}")
    finally:
        await engine.dispose()
    return 0


async def run_revision(console: Console, url: str) -> int:
    """Tell which tables there are; 1 if they are not those of this version."""
    engine = make_engine(url)
    try:
        found = await current(engine)
    finally:
        await engine.dispose()
    console.print(f"{found or 'no tables'}, this version has {HEAD}")
    return 0 if found == HEAD else 1
