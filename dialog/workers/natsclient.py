"""The end of a connection of nats-py, which leaves tasks and a socket behind (2.16) when a server dies or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from nats.aio.client import Client

__all__ = ["end", "failures", "new_client", "within"]

logger = logging.getLogger(__name__)

_CLOSE_S: Final = 1.0
_TELL_AGAIN: Final = 20
_TELL_AGAIN_S: Final = 0.05
_TASKS: Final = ("_reading_task", "_ping_interval_task", "_flusher_task", "_reconnection_task")


def new_client() -> Client:
    """A client that comes to its end when its connection breaks."""
    return _client_class()()


def failures() -> tuple[type[Exception], ...]:
    """What nats-py raises when a connection cannot be made, or is over; a ValueError is for its settings."""
    from nats.errors import Error

    return (Error, OSError, TimeoutError, ValueError)


async def end(client: Client) -> None:
    """Close a client, which waits for ever if a server takes nothing any more; calling it again is harmless."""
    tasks, transport = _tasks(client), getattr(client, "_transport", None)
    try:
        await within(client.close(), _CLOSE_S)
    except failures() as exc:
        logger.debug("a connection to NATS ended with %r", exc)
    finally:
        writer: asyncio.StreamWriter | None = getattr(transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await _collect(tasks | _tasks(client))


async def within(work: Coroutine[Any, Any, None], limit_s: float) -> None:
    """Wait for ``work`` of nats-py, which does not always hear that it is cancelled, so that it is told again.

    Raises:
        TimeoutError: It took longer.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=limit_s)
        if not task.done():
            raise TimeoutError(f"no answer within {limit_s:g} s")
    finally:
        await _cancel({task})
        if task.done() and not task.cancelled():
            task.exception()  # who is cancelled does not look at it any more
    task.result()


@cache
def _client_class() -> type[Client]:
    from nats.aio.client import Client

    class BrokenWell(Client):
        async def _process_op_err(self, e: Exception) -> None:
            # What waits cannot be written any more. The attempt would raise RuntimeError with uvloop, which is
            # logged as an error, and leave the client closed by half.
            self._pending.clear()
            self._pending_data_size = 0
            await super()._process_op_err(e)

    return BrokenWell


def _tasks(client: Client) -> set[asyncio.Task[Any]]:
    """What a client has started. Its ``close`` forgets those that read when the connection broke while it wrote."""
    subscriptions: dict[int, Any] = getattr(client, "_subs", {})
    found: list[asyncio.Task[Any] | None] = [getattr(client, name, None) for name in _TASKS]
    found += [getattr(each, "_wait_for_msgs_task", None) for each in subscriptions.values()]
    return {task for task in found if task is not None and task is not asyncio.current_task()}


async def _collect(tasks: set[asyncio.Task[Any]]) -> None:
    """Let nothing of a connection go on, nor its end be told by the event loop as an error that nobody expected."""
    await _cancel(tasks)
    for task in tasks:
        error = None if not task.done() or task.cancelled() else task.exception()
        # Of a transport that is closed uvloop says RuntimeError.
        if error is not None and not isinstance(error, (*failures(), RuntimeError)):
            logger.error("a task of nats-py failed", exc_info=error)


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for _ in range(_TELL_AGAIN):
        pending = [task for task in tasks if not task.done()]
        if not pending:
            break
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_TELL_AGAIN_S)
