"""Ending worker processes, shared by those who have one."""

from __future__ import annotations

import asyncio
import contextlib

__all__ = ["end_process"]


async def end_process(process: asyncio.subprocess.Process, *, within_s: float) -> None:
    """Close the standard input of a process and collect it, whatever state it is in; kill it after ``within_s``.

    Also when this is being cancelled: a process must never be left behind.
    """
    assert process.stdin is not None
    process.stdin.close()
    ending = asyncio.ensure_future(_collect(process, within_s))
    cancelled = False
    while not ending.done():
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError


async def _collect(process: asyncio.subprocess.Process, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
