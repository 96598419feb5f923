"""Bodies of requests: whole within their bounds, and refused by status outside of them."""

from __future__ import annotations

import asyncio

import pytest

from dialog.net.asgi import RequestBody
from dialog.net.bodies import read_body


class Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read(*messages: dict, limit: int = 10, timeout_s: float = 5.0) -> bytes:
    """Read what an ASGI server tells of a body; after that it tells nothing."""
    told = list(messages)

    async def receive():
        if not told:
            await asyncio.get_running_loop().create_future()
        return told.pop(0)

    return await read_body(RequestBody(receive), Refused, limit=limit, timeout_s=timeout_s)


def piece(data: bytes, *, more: bool) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_a_body_comes_whole_in_however_many_pieces():
    assert await read({"type": "http.request"}) == b""
    assert await read(piece(b"hello", more=True), piece(b"", more=True), piece(b"there", more=False)) == b"hellothere"


@pytest.mark.parametrize(
    ("messages", "status", "reason"),
    [
        ([piece(b"hello", more=True), piece(b"others", more=True)], 413, "larger than 10 bytes"),
        ([piece(b"hello", more=True)], 408, "did not come within 0.01 s"),
        ([piece(b"hello", more=True), {"type": "http.disconnect"}], 400, "broke off"),
    ],
)
async def test_a_body_that_is_too_long_too_slow_or_broken_off_is_refused(messages, status, reason):
    with pytest.raises(Refused, match=reason) as refused:
        await read(*messages, timeout_s=0.01)
    assert refused.value.status == status
