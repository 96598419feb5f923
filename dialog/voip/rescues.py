"""Calls whose gateway is gone, while it is found out whether anybody can go on with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from dialog.voip.peers import Adoption, Orphan, Peers

__all__ = ["Rescues"]

logger = logging.getLogger(__name__)

_ADOPT_S: Final = 8.0
"""Together with asking a gateway that then turns out to be dead this is less than a carrier waits."""


class Rescues:
    """One for each call, however many ask for it."""

    def __init__(self) -> None:
        self._tasks: dict[UUID, asyncio.Task[None]] = {}

    def __contains__(self, call_id: UUID) -> bool:
        return call_id in self._tasks

    async def rescue(self, peers: Peers, orphan: Orphan, then: Callable[[Adoption | None], Awaitable[None]]) -> None:
        """Let somebody adopt a call, and wait until ``then`` has gone on with it; ``None``: nobody can."""
        call_id = orphan.metadata.call_id
        task = self._tasks.get(call_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(_adopt(peers, orphan, then), name=f"adopt {call_id}")
            self._tasks[call_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(call_id))
        await asyncio.shield(task)

    async def wait(self, call_id: UUID) -> None:
        """Wait until it is known what becomes of a call, if that is being found out."""
        task = self._tasks.get(call_id)
        if task is not None:
            await asyncio.shield(task)

    async def close(self) -> None:
        """Give up those that are under way."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))


async def _adopt(peers: Peers, orphan: Orphan, then: Callable[[Adoption | None], Awaitable[None]]) -> None:
    call_id = orphan.metadata.call_id
    adoption = None
    try:
        async with asyncio.timeout(_ADOPT_S):
            adoption = await peers.adopt(orphan)
    except TimeoutError:
        logger.error("call %s: nobody adopted it within %g s", call_id, _ADOPT_S)  # noqa: TRY400
    except Exception:  # whatever it was, the caller is told
        logger.exception("call %s: adopting it failed", call_id)
    if adoption is None:
        logger.error("call %s: its gateway, %s, is gone, and nobody can go on with it", call_id, orphan.node)
    else:
        logger.info("call %s: its gateway, %s, is gone; it goes on here", call_id, orphan.node)
    await then(adoption)
