"""Finds a worker for a call, and another one when that is lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

from dialog.calls.checkpoint import Checkpoint
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import DialogError, UserCodeError
from dialog.voip.admission import NoWorker
from dialog.voip.consults import CONSULT_WORKER
from dialog.voip.voip import VoIP
from dialog.workers.cover import Cover
from dialog.workers.frames import Refused, Taken
from dialog.workers.hosting import HostingSettings, Placement

__all__ = ["Search", "Seeker"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 0.2


class Seeker(Protocol):
    """A call that needs a worker."""

    voip: VoIP
    checkpoint: Checkpoint | None

    async def offer(self, node: str) -> Taken | Refused:
        """Offer the call to a worker, and wait for its answer."""
        ...

    def withdraw(self) -> None:
        """No worker has the call, nor shall one that was offered it."""

    def fail(self, error: DialogError) -> None:
        """Tell what went wrong."""


class Search:
    """Offers a call to one worker after the other, until one takes it, or the caller has waited for too long."""

    def __init__(self, call: Seeker, placement: Placement, settings: HostingSettings, cover: Cover) -> None:
        """``cover`` says what is to be said meanwhile."""
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first worker has the call, or the call is in the queue."""
        self._call = call
        self._placement = placement
        self._settings = settings
        self._cover = cover
        self._taken_at = 0.0
        self._losses = 0
        """Workers in a row that were lost soon after they had taken the call."""
        self._lost = asyncio.Event()

    def found(self) -> None:
        """A worker has taken the call."""
        self._taken_at = SYSTEM_CLOCK.now()
        self._cover.end_hold()

    def lost(self) -> None:
        """The worker of the call is gone: somebody else is looked for."""
        soon = SYSTEM_CLOCK.now() - self._taken_at < self._settings.losses_within_s
        self._losses = self._losses + 1 if soon else 0
        self._lost.set()

    def refuse(self, error: DialogError) -> None:
        """Nobody takes the call; too late once somebody has."""
        if not self.taken.done():
            self.taken.set_exception(error)
            self.taken.exception()  # whoever waits still sees it; nobody has to

    async def run(self) -> None:
        """Find the first worker, and another one whenever it is lost, until nobody can be found."""
        try:
            async with asyncio.timeout(self._settings.admit_s):
                await self._assign()
        except TimeoutError:
            if not await self._queue():
                return
        except UserCodeError as exc:
            self.refuse(exc)
            return
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._call.voip.metadata.parameter(CONSULT_WORKER):
                # Whoever asked for it was there, and is gone with it: the one who waits is brought back at once.
                await self._cover.give_up("lost_worker")
                return
            if self._losses >= self._settings.max_losses:
                call_id = self._call.voip.metadata.call_id
                self._call.fail(
                    NoWorker(f"call {call_id}: {self._losses} workers in a row died with it; it is given up")
                )
                await self._cover.settle()
                await self._cover.give_up("lost_worker")
                return
            if not await self._hand_over():
                return

    async def _queue(self) -> bool:
        """No worker in time: hold the line, if there is a queue; whether a worker came."""
        settings, call_id = self._settings, self._call.voip.metadata.call_id
        if settings.queue_s <= 0:
            self.refuse(NoWorker(f"call {call_id}: no worker had room within {settings.admit_s:g} s"))
            return False
        self._settled()
        self._cover.hold()
        try:
            async with asyncio.timeout(self._call.voip.clock.real(settings.queue_s)):
                await self._assign()
        except (TimeoutError, UserCodeError) as exc:
            waited = NoWorker(f"call {call_id}: no worker had room within {settings.queue_s:g} s on hold")
            self._call.fail(exc if isinstance(exc, UserCodeError) else waited)
            self._cover.end_hold()
            await self._cover.give_up("no_worker")
            return False
        return True

    async def _hand_over(self) -> bool:
        """Find another worker for a call that has lost its own; whether one was found."""
        settings, call_id = self._settings, self._call.voip.metadata.call_id
        covering = asyncio.create_task(
            self._cover.apologise(self._call.checkpoint), name=f"call {call_id} without a worker"
        )
        try:
            async with asyncio.timeout(settings.resume_s):
                await self._cover.settle()
                await self._assign()
        except (TimeoutError, UserCodeError) as exc:
            nobody = NoWorker(f"call {call_id}: no other worker took it within {settings.resume_s:g} s")
            self._call.fail(exc if isinstance(exc, UserCodeError) else nobody)
            await self._cover.give_up("lost_worker")
            return False
        finally:
            covering.cancel()
            await asyncio.wait([covering])
        return True

    async def _assign(self) -> None:
        """Offer the call to one worker after the other until one takes it; the caller bounds it.

        Raises:
            UserCodeError: ``on_voip`` raised, as it would with any other.
        """
        metadata = self._call.voip.metadata
        refused: set[str] = set()
        while True:
            node = await self._placement.choose(metadata, refused)
            try:
                answer = await self._call.offer(node)
            except BaseException:
                self._call.withdraw()  # nobody waits for the answer any more
                raise
            if isinstance(answer, Taken):
                logger.info("call %s: taken by worker %s", metadata.call_id, node)
                self._settled()
                return
            self._call.withdraw()
            refused.add(node)
            if answer.reason == "error":
                raise UserCodeError(f"call {metadata.call_id}: worker {node}: {answer.detail}")
            if self._placement.full_for(metadata, refused):
                refused.clear()  # whoever has room again will do
                await asyncio.sleep(_RETRY_S)

    def _settled(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)
