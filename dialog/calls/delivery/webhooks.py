"""Tells other systems of calls: at least once, signed, in order per call, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Self

from aiohttp import ClientSession

from dialog.calls.delivery.courier import Courier
from dialog.calls.delivery.endpoint import WebhookEndpoint
from dialog.calls.delivery.outbox import DeadLetter, Outbox
from dialog.calls.delivery.retries import Retries
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport
from dialog.calls.store.log import CallLog
from dialog.calls.store.writing import Outgoing
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import ConfigurationError
from dialog.net import shared

__all__ = ["Webhooks"]

logger = logging.getLogger(__name__)

_DEFAULT_RETRIES = Retries()
_COUNT_S: Final = 15.0
"""How often it is counted what waits."""


class Webhooks:
    """Delivers messages of calls to endpoints, out of the call log's database.

    ::

        log = CallLog("sqlite:///calls.db")
        async with log, Webhooks(log, WebhookEndpoint(name="crm", url=…, secrets=(…,))):
            log.follow(gateway.events)
            await serve(gateway)

    A message is written in the transaction of the event that it tells of, and deleted when its receiver has answered
    2xx. So it is delivered at least once, across crashes, and sometimes twice: its id stays the same. Messages of one
    call come to an endpoint in their order; one that is not taken holds up those behind it, and no other call's.
    Several processes with one PostgreSQL share the work.

    ``/metrics`` of a gateway that the log follows tells what waits as the queues ``webhooks:NAME``, and what was given
    up as ``dead_letters:NAME``.

    Args:
        log: The call log. Make this before the log is opened, so that nothing is missed.
        endpoints: Where to.
        retries: When a message that was not taken is sent again, and when it is given up.
        clock: For tests.

    Raises:
        ConfigurationError: Two endpoints have the same name.
    """

    def __init__(
        self,
        log: CallLog,
        *endpoints: WebhookEndpoint,
        retries: Retries = _DEFAULT_RETRIES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if len({endpoint.name for endpoint in endpoints}) != len(endpoints):
            raise ConfigurationError("two webhook endpoints have the same name")
        self.endpoints = endpoints
        self._log = log
        self._retries = retries
        self._clock = clock
        self._couriers: list[Courier] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._session: shared.Lease[ClientSession] | None = None
        self._began = (datetime.now(UTC), clock.now())
        self._outbox = Outbox(log.engine)
        self._waiting: dict[str, int] = {}
        self._dead: dict[str, int] = {}
        for endpoint in endpoints:
            log.queues[f"webhooks:{endpoint.name}"] = partial(self._depth, endpoint.name)
            log.queues[f"dead_letters:{endpoint.name}"] = partial(self._depth, endpoint.name, dead=True)
        log.add_maker(self)

    async def open(self) -> None:
        """Begin to deliver; the log is open by then."""
        if self._tasks:
            return
        self._session = shared.session()
        self._couriers = [
            Courier(
                endpoint,
                self._outbox,
                self._session.value,
                retries=self._retries,
                clock=self._clock,
                now=self._now,
            )
            for endpoint in self.endpoints
        ]
        self._log.on_outgoing = self._wake
        self._tasks = [
            asyncio.get_running_loop().create_task(courier.run(), name=f"webhooks to {courier.endpoint.name}")
            for courier in self._couriers
        ]
        self._tasks.append(asyncio.get_running_loop().create_task(self._count(), name="count webhooks"))

    async def close(self) -> None:
        """Stop delivering; what is left is delivered by whoever opens it next. Calling it again is harmless."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for courier in self._couriers:
            try:
                await courier.release()
            except Exception as exc:  # the database is away: the leases end by themselves
                logger.debug("webhooks to %s: %r", courier.endpoint.name, exc)
        self._couriers = []
        session, self._session = self._session, None
        if session is not None:
            await session.release()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def messages(self, notice: Notice, report: SessionReport | None) -> Iterable[Outgoing]:
        """See :class:`~dialog.calls.store.writing.OutgoingMaker`."""
        for endpoint in self.endpoints:
            for message_id, kind, body in endpoint.render(notice, report):
                yield Outgoing(endpoint.name, notice.call.call_id, message_id, kind, body)

    async def waiting(self) -> dict[str, int]:
        """How many messages wait for each endpoint, in all processes."""
        return await self._outbox.waiting()

    async def dead_letters(self, limit: int = 100) -> list[DeadLetter]:
        """Messages that were given up, the oldest first."""
        return await self._outbox.dead(limit)

    async def redeliver(self, letters: Sequence[DeadLetter]) -> int:
        """Try dead letters again; how many there were."""
        count = await self._outbox.revive([letter.id for letter in letters], self._now())
        self._wake()
        return count

    async def _count(self) -> None:
        """For ``/metrics``: what is asked for there cannot be waited for."""
        while True:
            try:
                self._waiting, self._dead = await self._outbox.counts()
            except Exception as exc:  # the database is away: the call log tells of it
                logger.debug("webhooks cannot be counted: %r", exc)
            await asyncio.sleep(_COUNT_S)

    def _depth(self, endpoint: str, *, dead: bool = False) -> int:
        return (self._dead if dead else self._waiting).get(endpoint, 0)

    def _now(self) -> datetime:
        """The time of day: the system's, which may be set, or stand still while all of it sleeps; or a test's."""
        if self._clock is SYSTEM_CLOCK:
            return datetime.now(UTC)
        wall, since = self._began
        return wall + timedelta(seconds=self._clock.now() - since)

    def _wake(self) -> None:
        for courier in self._couriers:
            courier.wake()
