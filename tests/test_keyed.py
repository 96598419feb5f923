"""The keyed mutex and the bounded body."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import LimitError, StateError
from dialog.keyed import BodyBuffer, KeyedMutex


async def test_calls_of_one_key_run_one_after_another_in_order():
    mutex = KeyedMutex()
    log: list[str] = []

    async def work(name: str) -> str:
        log.append(f"{name} in")
        await asyncio.sleep(0)
        log.append(f"{name} out")
        return name

    names = await asyncio.gather(*(mutex.call("k", lambda n=n: work(n)) for n in "abc"))
    assert names == ["a", "b", "c"]
    assert log == ["a in", "a out", "b in", "b out", "c in", "c out"]
    assert len(mutex) == 0


async def test_another_key_does_not_wait():
    mutex = KeyedMutex()
    await mutex.acquire("a")
    async with asyncio.timeout(1):
        await mutex.acquire("b")
    assert mutex.held("a")
    assert mutex.held("b")


async def test_the_queue_limit_refuses_the_next_one_and_runs_nothing():
    mutex = KeyedMutex(queue_limit=1)
    await mutex.acquire("k")
    waiter = asyncio.create_task(mutex.acquire("k"))
    await asyncio.sleep(0)
    ran = []
    with pytest.raises(LimitError, match="'k'"):
        await mutex.call("k", lambda: ran.append(1))
    assert not ran
    mutex.release("k")
    await waiter
    mutex.release("k")
    assert len(mutex) == 0


async def test_release_without_acquire_raises():
    mutex = KeyedMutex()
    with pytest.raises(StateError, match="without being acquired"):
        mutex.release("k")
    await mutex.acquire("k")
    mutex.release("k")
    with pytest.raises(StateError):
        mutex.release("k")


async def test_a_failing_call_releases_its_key():
    mutex = KeyedMutex()

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await mutex.call("k", fail)
    assert not mutex.held("k")


async def test_a_cancelled_waiter_leaves_the_queue():
    mutex = KeyedMutex(queue_limit=1)
    await mutex.acquire("k")
    first = asyncio.create_task(mutex.acquire("k"))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(mutex.acquire("k"))
    await asyncio.sleep(0)
    mutex.release("k")
    await second
    mutex.release("k")
    assert len(mutex) == 0


async def test_who_is_cancelled_at_the_moment_of_its_turn_passes_it_on():
    mutex = KeyedMutex()
    await mutex.acquire("k")
    first = asyncio.create_task(mutex.acquire("k"))
    second = asyncio.create_task(mutex.acquire("k"))
    await asyncio.sleep(0)
    mutex.release("k")  # now the first one's, which has not run yet
    first.cancel()
    async with asyncio.timeout(1):
        await second
    assert first.cancelled()
    mutex.release("k")
    assert len(mutex) == 0


async def test_a_release_may_come_between_a_cancellation_and_its_arrival():
    mutex = KeyedMutex()
    await mutex.acquire("k")
    waiter = asyncio.create_task(mutex.acquire("k"))
    await asyncio.sleep(0)
    waiter.cancel()
    mutex.release("k")
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert len(mutex) == 0


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="queue_limit"):
        KeyedMutex(queue_limit=-1)
    with pytest.raises(ValueError, match="limit"):
        BodyBuffer(-1)


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(0, 200))
def test_a_body_is_whole_or_refused(pieces: list[bytes], limit: int):
    buffer = BodyBuffer(limit)
    whole = b"".join(pieces)
    try:
        for piece in pieces:
            buffer.add(piece)
    except LimitError:
        assert len(whole) > limit
        with pytest.raises(LimitError):
            buffer.bytes()
    else:
        assert buffer.bytes() == whole
        assert len(whole) <= limit
