"""Gateways that reach each other over a fabric."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from secrets import randbits
from typing import Any, Final
from uuid import UUID

from dialog.message import MULAW_8K, AudioFormat
from dialog.voip.peers import Adoption, MediaEnd, MediaWire, Orphan, Owner, PeerLost
from dialog.workers.fabric import Fabric
from dialog.workers.frames import MAX_FRAME, Frame
from dialog.workers.peerframes import Ask, Located, RelayOpened, Told, Where
from dialog.workers.relay import Relay, RelayedStream, RelayEnd
from dialog.workers.ticker import Ticker

__all__ = ["FabricPeers"]

logger = logging.getLogger(__name__)

_ASK_S: Final = 10.0
"""Below the 15 s that a carrier waits for a webhook."""
_FIND_S: Final = 0.5
_CLOSE_S: Final = 1.0
_MOST_BYTES: Final = MAX_FRAME - 1000
"""Of a request or an answer: a larger frame would break the connection, and with it what others say over it."""


class FabricPeers:
    """:class:`~dialog.voip.peers.Peers` over a :class:`~dialog.workers.fabric.Fabric`.

    Whoever knows the others tells of them: :meth:`came` and :meth:`gone`. Frames come to :meth:`receive`, of the
    fabric itself or of somebody who shares it.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.others: set[str] = set()
        """The gateways that are there."""
        self._watchers: tuple[Callable[[str], object], ...] = ()
        self._fabric = fabric
        self._owner: Owner | None = None
        self._number = randbits(48)
        self._questions: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._finding: set[UUID] = set()
        self._ends: dict[int, RelayEnd] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._over = asyncio.Event()
        self._over.set()
        self._ticker = Ticker(self._tick)

    # Peers.

    @property
    def node(self) -> str:
        """See :class:`~dialog.voip.peers.Peers`."""
        return self._fabric.node

    async def start(self, owner: Owner) -> None:
        """See :class:`~dialog.voip.peers.Peers`."""
        self._owner = owner

    async def close(self) -> None:
        """See :class:`~dialog.voip.peers.Peers`."""
        self._owner = None
        with suppress(TimeoutError):  # what the gateway has closed is said to its other end
            async with asyncio.timeout(_CLOSE_S):
                await self._over.wait()
        self._ticker.stop()
        for node in tuple(self.others):
            self.gone(node, "this gateway is closing")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def watch(self, told: Callable[[str], object]) -> Callable[[], None]:
        """See :class:`~dialog.voip.peers.Peers`."""
        watcher = partial(told)  # equal to itself alone: one may watch twice
        self._watchers = (*self._watchers, watcher)

        def stop() -> None:
            self._watchers = tuple(each for each in self._watchers if each is not watcher)

        return stop

    def reaches(self, node: str) -> bool:
        """See :class:`~dialog.voip.peers.Peers`."""
        return node in self.others

    async def find(self, call_id: UUID) -> str:
        """See :class:`~dialog.voip.peers.Peers`."""
        if not self.others:
            return ""
        self._finding.add(call_id)
        asked = {self._ask(node, call_id, Where(self._next())): node for node in self.others}
        waiting = set(asked)
        try:
            async with asyncio.timeout(_FIND_S):
                while waiting:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    if any(each.result() for each in done):
                        break
        except TimeoutError:
            logger.warning("call %s: not every gateway said within %g s whether it has it", call_id, _FIND_S)
        finally:
            self._finding.discard(call_id)
            for each in waiting:
                each.cancel()
        found = [node for each, node in asked.items() if not each.cancelled() and each.done() and each.result()]
        return min(found, default="")

    async def ask(self, node: str, call_id: UUID, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Peers`."""
        if len(request) > _MOST_BYTES:
            raise PeerLost(f"call {call_id}: a request of {len(request)} bytes is too large for gateway {node}")
        answer = self._ask(node, call_id, Ask(self._next(), request))
        try:
            async with asyncio.timeout(_ASK_S):
                told: bytes | None = await answer
        except TimeoutError:
            raise PeerLost(f"call {call_id}: gateway {node} did not answer within {_ASK_S:g} s") from None
        if told is None:
            raise PeerLost(f"call {call_id}: gateway {node} is gone, or failed")
        return told

    def relay(
        self, node: str, call_id: UUID, opening: bytes, wire: MediaWire, audio_format: AudioFormat = MULAW_8K
    ) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Peers`."""
        number = self._next()
        end = Relay(self._fabric, node, call_id, number, opening=opening, wire=wire, audio_format=audio_format)
        self._idle.clear()
        self._keep(end)
        return end

    async def wait_idle(self) -> None:
        """See :class:`~dialog.voip.peers.Peers`."""
        await self._idle.wait()

    async def adopt(self, orphan: Orphan) -> Adoption | None:
        """See :class:`~dialog.voip.peers.Peers`; a subclass that knows of agents which survive a gateway can."""
        del orphan
        return None

    # The fabric's side.

    def came(self, node: str) -> None:
        """Another gateway is there."""
        self.others.add(node)
        for told in self._watchers:
            told(node)

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        body = frame.body
        match body:
            case Ask(number, request):
                self._spawn(self._answer(sender, frame.call_id, number, request), f"answer gateway {sender}")
            case Where(number):
                self._send(sender, frame.call_id, Located(number, self._here(sender, frame.call_id)))
            case Told(number, answer):
                self._answered(sender, number, answer)
            case Located(number, here):
                self._answered(sender, number, here)
            case _:
                self._relayed(sender, frame)

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self.others.discard(node)
        for asked, answer in tuple(self._questions.values()):
            if asked == node and not answer.done():
                answer.set_result(None)
        for end in tuple(self._ends.values()):
            if end.stream.peer == node:
                end.lost(reason)
        self._sweep()

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`; questions that were lost run into their bounds."""
        for end in self._ends.values():
            end.stream.repeat()

    def _relayed(self, sender: str, frame: Frame) -> None:
        end = self._ends.get(frame.epoch)
        if end is None:
            if self._owner is None or frame.seq != 1 or not isinstance(frame.body, RelayOpened):
                return  # of a stream that is over
            end = RelayedStream(self._fabric, sender, frame.call_id, frame.epoch, self._owner)
            self._keep(end)
        elif end.stream.peer != sender:
            return
        end.receive(frame)
        if end.over:
            self._sweep()

    def _here(self, sender: str, call_id: UUID) -> bool:
        if self._owner is None:
            return False
        # Both of us were asked to take it, at the same time: one of us does.
        return self._owner.holds(call_id) or (call_id in self._finding and self.node < sender)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, node: str, call_id: UUID, body: Ask | Where) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions[body.number] = (node, answer)
        answer.add_done_callback(lambda _: self._questions.pop(body.number, None))
        self._send(node, call_id, body)
        return answer

    def _answered(self, sender: str, number: int, answer: object) -> None:
        node, waiting = self._questions.get(number, ("", None))
        if waiting is not None and node == sender and not waiting.done():
            waiting.set_result(answer)

    async def _answer(self, sender: str, call_id: UUID, number: int, request: bytes) -> None:
        answer: bytes | None = None
        try:
            if self._owner is not None:
                async with asyncio.timeout(_ASK_S):
                    answer = await self._owner.answer(request)
            if answer is not None and len(answer) > _MOST_BYTES:
                logger.error("call %s: an answer of %d bytes is too large for gateway %s", call_id, len(answer), sender)
                answer = None
        except Exception:  # the other gateway is waiting
            logger.exception("call %s: a request that gateway %s passed on failed", call_id, sender)
        self._send(sender, call_id, Told(number, answer))

    def _send(self, node: str, call_id: UUID, body: Ask | Told | Where | Located) -> None:
        self._fabric.send(node, Frame(call_id, 0, 0, body))

    def _keep(self, end: RelayEnd) -> None:
        self._ends[end.stream.epoch] = end
        self._over.clear()
        self._ticker.start()

    def _tick(self, now: float) -> None:
        for end in tuple(self._ends.values()):
            end.tick(now)
        self._sweep()

    def _sweep(self) -> None:
        for number, end in tuple(self._ends.items()):
            if end.over:
                del self._ends[number]
        if not any(isinstance(end, Relay) for end in self._ends.values()):
            self._idle.set()
        if not self._ends:
            self._over.set()
            self._ticker.stop()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        # In a context of its own: a request belongs to no call before its owner says so.
        task = asyncio.get_running_loop().create_task(work, name=name, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
