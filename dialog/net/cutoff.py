"""Requests whose bodies are not worth waiting for."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

__all__ = ["cut_off"]

logger = logging.getLogger(__name__)

_LINGER_S = 0.5


async def cut_off(request: web.Request, answer: web.Response) -> None:
    """Answer a request whose body is not worth waiting for, and close the connection soon.

    Closing at once would reset it, and the other side would not see the answer; aiohttp itself would
    go on reading for ten seconds.
    """
    answer.force_close()
    await answer.prepare(request)
    await answer.write_eof()
    try:
        async with asyncio.timeout(_LINGER_S):
            async for _ in request.content.iter_any():
                pass
    except TimeoutError:
        logger.debug("the body of a refused request went on, and was cut off")
    if request.transport is not None:
        request.transport.close()
