"""How the calls of a gateway come to their end, whoever brings them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from dialog.clock import Clock
from dialog.voip.call import Call

__all__ = ["wait_idle", "wait_over"]

logger = logging.getLogger(__name__)


async def wait_idle(calls: Iterable[Call], clock: Clock, timeout_s: float) -> bool:
    """Wait until every call has ended, at most ``timeout_s`` of their clock; whether that came."""
    try:
        async with asyncio.timeout(clock.real(timeout_s)):
            for call in calls:
                await call.wait_ended()
    except TimeoutError:
        return False
    return True


async def wait_over(tasks: Iterable[asyncio.Task[Any]], timeout_s: float) -> None:
    """Wait for what is under way when the gateway closes; whatever is late is logged, and cancelled."""
    pending = tuple(tasks)
    if not pending:
        return
    _, late = await asyncio.wait(pending, timeout=timeout_s)
    for task in late:
        logger.error("%s did not end within %g s", task.get_name(), timeout_s)
        task.cancel()
