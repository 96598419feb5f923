"""What ASGI servers and their peers do while something is sent to them."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dialog.net.asgi import while_there


async def stays():
    await asyncio.Event().wait()


async def raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "level"), [(ConnectionResetError("gone"), logging.INFO), (KeyError("a bug of ours"), logging.ERROR)]
)
async def test_a_peer_that_leaves_is_no_failure_and_a_failure_is_not_taken_for_one(caplog, error, level):
    caplog.set_level(logging.INFO, "dialog.net.asgi")
    async with asyncio.timeout(5):
        await while_there(raises(error), stays, "http.disconnect")
    assert [record.levelno for record in caplog.records] == [level]
