"""Events for readers in other processes: batches that are asked for again, readers that stay away, processes that go."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from uuid import UUID, uuid4

import pytest

from dialog.calls.events import CallEnded, DigitPressed
from dialog.calls.publish import CallEvents
from dialog.message import CallMetadata
from dialog.server.api import feeds
from dialog.server.api.feeds import Batch, Followed, Told, everywhere, missed, to_its_end
from dialog.voip.peers import PeerLost


def call(call_id: UUID | None = None) -> CallMetadata:
    return CallMetadata(call_id=call_id or uuid4(), carrier="memory")


def press(events: CallEvents, of: CallMetadata, seq: int) -> None:
    events.publish(of, DigitPressed(seq=seq, at_s=0.0, digit="1"))


def seqs(batch: Batch) -> list[int]:
    return [told.seq for told in batch.told]


async def test_a_batch_whose_answer_was_lost_is_the_same_again() -> None:
    events, one = CallEvents(), call()
    followed = Followed(events.read(one.call_id), lambda _: True, lambda: None)
    press(events, one, 0)
    press(events, one, 1)
    first = await followed.batch(1)
    assert seqs(first) == [0, 1]
    press(events, one, 2)
    assert await followed.batch(1) is first
    assert seqs(await followed.batch(2)) == [2]
    # The question is there twice, because an answer was late.
    both = [asyncio.create_task(followed.batch(3)) for _ in range(2)]
    await asyncio.sleep(0)
    press(events, one, 3)
    assert [seqs(batch) for batch in await asyncio.gather(*both)] == [[3], [3]]
    events.publish(one, CallEnded(seq=4, at_s=1.0, reason="caller_hangup"))
    assert seqs(await followed.batch(4)) == [4]
    assert await followed.batch(5) == Batch([], over=True)
    followed.close()


async def test_a_batch_has_a_bound_and_an_end_of_its_waiting(monkeypatch) -> None:
    monkeypatch.setattr(feeds, "_WAIT_S", 0.01)
    monkeypatch.setattr(feeds, "_BATCH", 3)
    events, one = CallEvents(), call()
    followed = Followed(events.read(limit=5), lambda each: each is one, lambda: None)
    assert await followed.batch(1) == Batch([], over=False)
    for seq in range(4):
        press(events, one, seq)
    press(events, call(), 0)  # not for this reader's eyes
    assert seqs(await followed.batch(2)) == [0, 1, 2]
    assert seqs(await followed.batch(3)) == [3]
    for seq in range(4, 12):  # too many: the last is told to be missing
        press(events, one, seq)
    assert seqs(await followed.batch(4)) == [4, 5, 6]
    last = await followed.batch(5)
    assert last.over
    assert last.told[-1].kind == "reader.dropped"
    followed.close()


async def test_whoever_does_not_ask_any_more_is_forgotten(monkeypatch) -> None:
    monkeypatch.setattr(feeds, "_FORGOTTEN_S", 0.01)
    events, closed = CallEvents(), asyncio.Event()
    reader = events.read()
    Followed(reader, lambda _: True, closed.set)
    await asyncio.wait_for(closed.wait(), 5)
    press(events, call(), 0)
    assert reader.waiting == 0


class Others:
    """Processes that come and go, as far as readers can tell."""

    def __init__(self, *nodes: str) -> None:
        self.others = set(nodes)
        self.feeds: dict[str, asyncio.Queue[Told | Exception]] = {}
        self.watchers: list = []

    def watch(self, told):
        self.watchers.append(told)
        return lambda: self.watchers.remove(told)

    def came(self, node: str) -> None:
        self.others.add(node)
        for told in self.watchers:
            told(node)

    async def follow(self, node: str):
        return self._read(self.feeds.setdefault(node, asyncio.Queue()))

    async def _read(self, queue):
        while True:
            happened = await queue.get()
            if isinstance(happened, Exception):
                raise happened
            yield happened

    async def tell(self, node: str, happened: Told | Exception) -> None:
        async with asyncio.timeout(5):
            while node not in self.feeds:
                await asyncio.sleep(0)
        self.feeds[node].put_nowait(happened)


async def nothing():
    yield None
    await asyncio.Event().wait()


async def following(feed) -> Told:
    async with asyncio.timeout(5):
        while (happened := await anext(feed)) is None:
            pass
    return happened


async def test_all_processes_are_one_stream_also_those_that_come_later() -> None:
    peers = Others("one")
    async with aclosing(everywhere(nothing(), peers, peers.follow)) as feed:
        assert await anext(feed) is None
        await peers.tell("one", Told("a", b"{}"))
        assert (await following(feed)).kind == "a"
        peers.came("two")
        await peers.tell("two", Told("b", b"{}"))
        assert (await following(feed)).kind == "b"
        peers.others.remove("one")
        await peers.tell("one", PeerLost("it is gone"))
        await peers.tell("two", Told("c", b"{}"))
        assert (await following(feed)).kind == "c", "one that dies ends nothing else"
        peers.came("one")  # it was only cut off: what it told meanwhile is missing
        assert (await following(feed)).kind == "reader.dropped"
        with pytest.raises(StopAsyncIteration):
            await anext(feed)
    assert peers.watchers == []


@pytest.mark.parametrize("error", [PeerLost("no answer"), RuntimeError("broken")])
async def test_a_process_that_is_there_and_cannot_be_followed_is_told(error) -> None:
    peers = Others("one")
    async with aclosing(everywhere(nothing(), peers, peers.follow)) as feed:
        assert await anext(feed) is None
        await peers.tell("one", error)
        assert (await following(feed)).kind == "reader.dropped"


async def test_the_reader_of_a_call_whose_process_dies_is_told_where_its_knowledge_ends() -> None:
    async def feed():
        yield Told("a", b"{}", 7)
        raise PeerLost("it is gone")

    call_id = uuid4()
    assert [told async for told in to_its_end(feed(), call_id)] == [Told("a", b"{}", 7), missed(call_id, 8)]
