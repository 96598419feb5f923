"""Sending to a peer for as long as it is there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["while_there"]

logger = logging.getLogger(__name__)


async def while_there(work: Coroutine[Any, Any, None], left: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` for a peer until it is done, or ``left`` returns because the peer is gone.

    What ``work`` raises is logged: as a peer that has left, if it is the ``OSError`` of a connection, else as the
    failure that it is.
    """
    working = asyncio.create_task(work, name="work for a peer")
    leaving = asyncio.create_task(left, name="whether a peer leaves")
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait((working, leaving))
    failures = [task.exception() for task in (working, leaving) if not task.cancelled()]
    for failure in failures:
        if isinstance(failure, OSError):  # ASGI servers (2.4) and aiohttp raise it when the peer is gone
            logger.info("a peer has left: %r", failure)
        elif failure is not None:
            logger.error("what a peer was sent broke off: %r", failure, exc_info=failure)
