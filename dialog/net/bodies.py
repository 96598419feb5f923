"""The bodies of requests, read within bounds whatever server they come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable

from dialog.errors import LimitError
from dialog.keyed import BodyBuffer

__all__ = ["read_body"]


async def read_body(
    pieces: AsyncIterable[bytes], refuse: Callable[[int, str], Exception], *, limit: int, timeout_s: float
) -> bytes:
    """Return the whole body of a request: ``request.content.iter_any()``, or :class:`~dialog.net.asgi.RequestBody`.

    Args:
        pieces: Of the body.
        refuse: Makes the exception of a status and a sentence: 413, 408, or 400 where the request broke off.
        limit: Longest body, in bytes.
        timeout_s: How long it may take.
    """
    buffer = BodyBuffer(limit)
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in pieces:
                buffer.add(piece)
    except LimitError as exc:
        raise refuse(413, str(exc)) from exc
    except TimeoutError as exc:
        raise refuse(408, f"the body did not come within {timeout_s:g} s") from exc
    except ConnectionError as exc:
        raise refuse(400, "the request broke off") from exc
    return buffer.bytes()
