"""Events as readers of the REST API get them: of a call or of all, from this process or from another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.calls.publish import EventReader, Missed, Notice
from dialog.message import CallMetadata
from dialog.voip.peers import PeerLost, Peers

__all__ = ["Batch", "Feed", "Followed", "Told", "everywhere", "missed", "to_its_end", "told", "told_by"]

logger = logging.getLogger(__name__)

_ALIVE_S: Final = 15.0
_WAIT_S: Final = 5.0
"""How long an answer may be held back until there is something to tell; less than is waited for it."""
_FORGOTTEN_S: Final = 30.0
_BATCH: Final = 64
_BATCH_BYTES: Final = 256_000
_DROPPED: Final = "reader.dropped"
_NOBODY: Final = UUID(int=0)


class Told(Struct, frozen=True):
    """An event as it is sent."""

    kind: str
    """Its ``type``."""
    body: bytes
    """Its JSON object."""
    seq: int = -1
    """Its number in its call; -1: it has none."""


Feed: TypeAlias = AsyncGenerator[Told | None]
"""Events; ``None`` first of all, and again after every 15 s at most in which there was none."""


class Batch(Struct, frozen=True):
    """What has happened since it was last asked for."""

    told: list[Told]
    over: bool
    """Nothing comes any more."""


def missed(call_id: UUID = _NOBODY, seq: int = 0) -> Told:
    """The last thing that a reader gets who does not get all: from the event of that number on, if it is known."""
    return Told(_DROPPED, Missed(call_id, seq).to_json())


def told(happened: Notice | Missed) -> Told:
    """An event as it is sent."""
    if isinstance(happened, Missed):
        return Told(_DROPPED, happened.to_json())
    event = happened.event
    return Told(str(event.__struct_config__.tag), happened.to_json(), event.seq)


async def told_by(
    read: Callable[[], EventReader], may_see: Callable[[CallMetadata], bool], last: Callable[[], Told | None]
) -> Feed:
    """The events of a reader, which is made when the first one is asked for and closed with the feed.

    ``last``: the only one, if nothing comes any more: what it was asked for has ended before it was made.
    """
    with read() as reader:
        only = last()
        yield None
        if only is not None:
            yield only
            return
        while True:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    happened = await anext(reader)
            except TimeoutError:
                yield None
            except StopAsyncIteration:
                return
            else:
                if isinstance(happened, Missed) or may_see(happened.call):
                    yield told(happened)


class Followed:
    """A reader for somebody in another process, who asks for one batch after the other.

    An answer that is lost is asked for again, by its number. Whoever does not ask for half a minute is forgotten.
    """

    def __init__(
        self, reader: EventReader, may_see: Callable[[CallMetadata], bool], on_closed: Callable[[], object]
    ) -> None:
        self._reader = reader
        self._may_see = may_see
        self._on_closed = on_closed
        self._number = 0
        self._last = Batch([], over=False)
        self._turn = asyncio.Lock()
        self._forget = asyncio.get_running_loop().call_later(_FORGOTTEN_S, self.close)

    async def batch(self, number: int) -> Batch:
        """The batch of that number, from 1: a new one, or the last one again."""
        self._forget.cancel()
        try:
            async with self._turn:
                if number != self._number:
                    self._last = await self._next()
                    self._number = number
                return self._last
        finally:
            self._forget.cancel()
            self._forget = asyncio.get_running_loop().call_later(_FORGOTTEN_S, self.close)

    def close(self) -> None:
        """Nobody reads any more."""
        self._forget.cancel()
        self._reader.close()
        self._on_closed()

    async def _next(self) -> Batch:
        found: list[Told] = []
        size = 0
        try:
            async with asyncio.timeout(_WAIT_S):
                while not found or (self._reader.waiting and len(found) < _BATCH and size < _BATCH_BYTES):
                    happened = await anext(self._reader)
                    if isinstance(happened, Missed) or self._may_see(happened.call):
                        found.append(told(happened))
                        size += len(found[-1].body)
        except TimeoutError:
            return Batch(found, over=False)
        except StopAsyncIteration:
            return Batch(found, over=True)
        return Batch(found, over=found[-1].kind == _DROPPED)


async def to_its_end(feed: Feed, call_id: UUID) -> Feed:
    """The events of a call in another process; if that goes away its reader is told that the rest is missing."""
    seq = 0
    async with aclosing(feed):
        try:
            async for happened in feed:
                if happened is not None:
                    seq = happened.seq + 1
                yield happened
        except PeerLost as exc:
            logger.warning("%s", exc)
            yield missed(call_id, seq)


async def everywhere(own: Feed, peers: Peers, follow_node: Callable[[str], Awaitable[Feed]]) -> Feed:
    """The events of all processes, also of those that come later; ``follow_node`` has those of one of them.

    One that dies takes its calls with it, and ends nothing else. One that was away and is back has told something
    meanwhile: that is ``reader.dropped``, as for a reader that is too slow.
    """
    events: asyncio.Queue[Told] = asyncio.Queue(_BATCH)
    pumps: set[asyncio.Task[None]] = set()
    seen: set[str] = set()

    async def pump(feed: Feed) -> None:
        async with aclosing(feed):
            async for happened in feed:
                if happened is not None:
                    await events.put(happened)

    async def follow(node: str) -> None:
        if node in seen:
            await events.put(missed())
            return
        seen.add(node)
        try:
            await pump(await follow_node(node))
        except Exception as exc:
            if isinstance(exc, PeerLost) and node not in peers.others:
                return  # its calls are gone with it
            logger.warning("the events of process %s cannot be had: %s", node, exc)
            await events.put(missed())

    def came(node: str) -> None:
        start(follow(node), f"events of {node}")

    def start(work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        pumps.add(task)
        task.add_done_callback(pumps.discard)

    stop = peers.watch(came)
    try:
        start(pump(own), "events of this process")
        for node in peers.others:
            came(node)
        yield None
        while True:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    happened = await events.get()
            except TimeoutError:
                yield None
            else:
                yield happened
                if happened.kind == _DROPPED:
                    return
    finally:
        stop()
        tasks = tuple(pumps)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
