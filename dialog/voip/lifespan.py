"""The lifespan of an ASGI server: what starts and ends with it.

Source: ASGI specification 3.0, lifespan protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Message", "Receive", "Send", "serve_lifespan"]

logger = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]


async def serve_lifespan(
    receive: Receive, send: Send, *, start: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]]
) -> None:
    """Run ``start`` when the server starts and ``close`` when it ends.

    A ``start`` that raises stops the server, with the reason: servers take an exception here for an application
    without a lifespan, and would serve one that is not ready.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                await start()
            except Exception as exc:
                logger.exception("what is served could not be started")
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await close()
            await send({"type": "lifespan.shutdown.complete"})
            return
