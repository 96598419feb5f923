"""Work for a peer ends when the peer leaves, and what it raises is told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dialog.net.presence import while_there


async def stays() -> None:
    await asyncio.Event().wait()


async def raises(error: Exception) -> None:
    raise error


ERRORS = [(ConnectionResetError("gone"), logging.INFO), (KeyError("a bug of ours"), logging.ERROR)]


@pytest.mark.parametrize(("error", "level"), ERRORS)
async def test_a_peer_that_leaves_is_no_failure_and_a_failure_is_not_taken_for_one(caplog, error, level):
    caplog.set_level(logging.INFO, "dialog.net.presence")
    async with asyncio.timeout(5):
        await while_there(raises(error), stays())
    assert [record.levelno for record in caplog.records] == [level]


async def test_a_failure_to_look_whether_the_peer_is_there_is_told_and_ends_the_work(caplog):
    async with asyncio.timeout(5):
        await while_there(stays(), raises(ValueError("what is that?")))
    assert "what is that?" in caplog.text


async def test_the_work_has_ended_when_its_peer_has_left():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def leaves() -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await while_there(work(), leaves())
    assert ended.is_set()
