"""Warm transfers: the caller waits while somebody else is asked, and meets them or comes back.

::

    caller   live ─► waits, music ─────────────────────────► together, both calls have ended for us
    person           rings, live: is told ─► on the way ─►
                        └ busy, silent, refuses, leaves ─► the caller gets a stream again

How a carrier lets somebody wait, and two meet, its subclass knows.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic
from uuid import UUID

from dialog.errors import CarrierError, ConfigurationError, DialogError
from dialog.message import StreamStopped
from dialog.voip.call import Call
from dialog.voip.carrier.outbound import OutboundCalls, OutgoingCall
from dialog.voip.carrier.switchboard import RecordT, Switchboard
from dialog.voip.consults import CONSULT_OF, CONSULT_WORKER
from dialog.voip.lifecycle import DOUBT_S
from dialog.voip.link import Consult
from dialog.voip.voip import VoIP

__all__ = ["Consultations"]

logger = logging.getLogger(__name__)

_JOIN_S: Final = 15.0
_CLOSE_S: Final = 5.0


class Consultations(ABC, Generic[RecordT]):
    """Carries out :class:`~dialog.voip.link.Consult` and :class:`~dialog.voip.link.JoinCalls`."""

    def __init__(self, switchboard: Switchboard[RecordT, Any], outbound: OutboundCalls[RecordT, Any]) -> None:
        self._calls = switchboard
        self._outbound = outbound
        self._joined: set[UUID] = set()
        """Calls that are on their way to the one whom they meet, or are there."""
        self._waiting: dict[UUID, UUID] = {}
        """Callers who wait, and the call to the one who is asked."""
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def _hold(self, record: RecordT, command: Consult) -> None:
        """Take the caller's stream away, and let them hear something else.

        Raises:
            CarrierError: The carrier refused; with ``in_doubt`` the caller may be gone all the same.
        """

    @abstractmethod
    async def _meet(self, record: RecordT, other: RecordT) -> None:
        """Bring the one who was asked to the caller who waits.

        Raises:
            CarrierError: The carrier refused; with ``in_doubt`` they may be on their way all the same.
        """

    @abstractmethod
    async def _fetch(self, call: Call, record: RecordT, generation: int) -> None:
        """Let the caller have a stream again, the one after ``generation``; what fails is seen to here."""

    @abstractmethod
    async def _stop_waiting(self, record: RecordT) -> None:
        """The caller's call was ended by us while they waited: nobody is to be left with the music."""

    async def consult(self, call: Call, record: RecordT, command: Consult) -> None:
        """Let the caller wait, and call somebody about it; if that comes to nothing the caller is brought back.

        Raises:
            CarrierError: The carrier refused the one or the other; the caller is on the way back if they had left.
        """
        call_id, other_id = record.call_id, command.call_id
        wanted = self._wanted(call, command)
        self._waiting[call_id] = other_id
        call.on_ended(lambda: self._left(call, record, other_id))
        await self._let_wait(call, record, command)
        try:
            waits = partial(self._check_waits, call_id, other_id)
            voip = await self._outbound.place(wanted, record.site, before=waits)
        except BaseException as exc:
            comes = await self._give_back(call_id, exc)
            if comes and isinstance(exc, DialogError) and not isinstance(exc, CarrierError):
                raise self._error(call_id, f"nobody could be asked: {exc}") from exc
            raise
        if self._waiting.get(call_id) == other_id:
            call.moving("consult", command.within_s)  # it may have waited for its turn
        other = self._calls.find(voip.metadata.call_id)
        if other is None:
            self.bring_back(call_id)
            return
        other.on_ended(lambda: self._asked(call_id, other))
        self._spawn(self._bound(other, command.talk_s), f"bound of {other_id}")

    def _wanted(self, call: Call, command: Consult) -> OutgoingCall:
        metadata = call.metadata
        ours = metadata.from_ if metadata.direction == "outbound" else metadata.to
        about = ((CONSULT_OF, str(metadata.call_id)), (CONSULT_WORKER, command.worker))
        try:
            self._outbound.check()
            return OutgoingCall(
                to=command.tel,
                from_=command.from_ or ours,
                ring_s=command.ring_s,
                call_id=command.call_id,
                parameters=(*about, *command.parameters),
            )
        except ConfigurationError as exc:
            raise self._error(metadata.call_id, f"consult: {exc}") from exc

    async def _let_wait(self, call: Call, record: RecordT, command: Consult) -> None:
        try:
            await self._hold(record, command)
        except BaseException as exc:
            if isinstance(exc, CarrierError) and not exc.in_doubt:
                self._waiting.pop(record.call_id, None)  # they never left
            elif call.state == "live":
                self._spawn(self._mind(call, command.call_id), f"mind {record.call_id}")
            else:
                await self._give_back(record.call_id, exc)
            raise
        call.moving("consult", command.within_s)

    async def _give_back(self, call_id: UUID, exc: BaseException) -> bool:
        """Nobody is asked: whoever wanted it hears of that when the caller is on the way back; whether they are."""
        coming = self.bring_back(call_id)
        if coming is not None and isinstance(exc, DialogError):
            await asyncio.shield(coming)
        return coming is not None

    async def join(self, call: Call, record: RecordT, other_id: UUID) -> None:
        """Bring the one who was asked to the caller who waits.

        Raises:
            CarrierError: One of them is gone, or the carrier refused.
        """
        call_id = record.call_id
        other, other_record = self._calls.find(other_id), self._calls.record(other_id)
        if other is None or other_record is None or other.state == "ended" or call.state == "ended":
            raise self._error(call_id, "join: one of the two calls has ended")
        if other.metadata.parameter(CONSULT_OF) != str(call_id):
            raise self._error(call_id, f"join: call {other_id} was not placed by consult()")
        if self._waiting.get(call_id) != other_id:
            raise self._error(call_id, "join: the caller does not wait any more")
        self._joined.update((call_id, other_id))
        try:
            with other.going("transfer", _JOIN_S):
                await self._meet(record, other_record)
        except BaseException as exc:
            if isinstance(exc, CarrierError) and not exc.in_doubt:  # else they may be on their way all the same
                self._joined.difference_update((call_id, other_id))
            raise
        other.moving("transfer", _JOIN_S)

    def met(self, call_id: UUID, other_id: UUID) -> None:
        """The caller and the one who was asked talk to each other; news that come late are ignored."""
        if not self._waits(call_id, other_id):
            return
        for one in (call_id, other_id):
            call = self._calls.find(one)
            if call is not None:
                call.end("transferred")

    def returned(self, call_id: UUID) -> None:
        """The caller does not wait any more, and the carrier has been told to bring them back."""
        self._waiting.pop(call_id, None)

    def bring_back(self, call_id: UUID) -> asyncio.Task[None] | None:
        """The caller has waited in vain: the agent talks to them again. ``None``: there is nobody to bring back."""
        self._waiting.pop(call_id, None)
        call, record = self._calls.find(call_id), self._calls.record(call_id)
        if call is None or record is None or call.state == "ended":
            return None
        call.returned("transfer_failed")
        return self._spawn(self._fetch(call, record, call.generation), f"bring back {call_id}")

    async def close(self) -> None:
        """Wait for what is under way, which has its own bound; all calls have ended."""
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _waits(self, call_id: UUID, other_id: UUID) -> bool:
        """Whether the caller waits, and for that one."""
        return self._waiting.get(call_id) == other_id

    async def _mind(self, call: Call, other_id: UUID) -> None:
        """Bring the caller back if they leave after all: whether the carrier was told is not known."""
        call_id, left = call.metadata.call_id, asyncio.Event()

        def stopped(_: StreamStopped) -> None:
            left.set()

        call.voip.on(VoIP.STREAMING_STOPPED, stopped)
        with suppress(TimeoutError):
            async with asyncio.timeout(call.clock.real(DOUBT_S)):
                await left.wait()
        call.voip.off(VoIP.STREAMING_STOPPED, stopped)
        if not self._waits(call_id, other_id):
            return
        if left.is_set():
            self.bring_back(call_id)
        else:
            del self._waiting[call_id]

    async def _check_waits(self, call_id: UUID, other_id: UUID) -> None:
        """Check that the caller still waits for the one who is about to be called.

        Raises:
            CarrierError: They do not.
        """
        if not self._waits(call_id, other_id):
            raise self._error(call_id, "consult: the caller does not wait any more")

    def _asked(self, call_id: UUID, other: Call) -> None:
        """The call to the one who was asked has ended; unless they met, or may have, the caller comes back."""
        other_id, end = other.metadata.call_id, other.voip.end
        met = other_id in self._joined and end is not None and end.reason == "transferred"
        self._joined.discard(other_id)
        if not self._waits(call_id, other_id):
            return
        if not met:
            self.bring_back(call_id)
        elif end is not None and (call := self._calls.find(call_id)) is not None:
            call.end(end.reason, end.detail)

    def _left(self, call: Call, record: RecordT, other_id: UUID) -> None:
        """The caller's call has ended."""
        waited = self._waits(record.call_id, other_id)
        if waited:
            del self._waiting[record.call_id]
        reason = call.voip.end.reason if call.voip.end is not None else ""
        joined = record.call_id in self._joined
        self._joined.discard(record.call_id)
        other = self._calls.find(other_id)
        if joined and reason in ("transferred", "lost") and (other is None or other.state != "live"):
            return  # they have met, or may have
        if other is not None and other.state != "ended":
            self._spawn(self._dismiss(other, "caller_left"), f"hang up {other_id}")
        if waited and reason not in ("caller_hangup", "transferred"):
            self._spawn(self._stop_waiting(record), f"hang up {record.call_id}")

    async def _bound(self, other: Call, talk_s: float) -> None:
        """Nobody lets a caller wait for ever: who takes too long to decide is hung up on."""
        try:
            await other.voip.wait_answered()
            async with asyncio.timeout(other.clock.real(talk_s)):
                await other.wait_ended()
        except TimeoutError:
            if other.metadata.call_id not in self._joined or other.state == "live":
                await self._dismiss(other, "undecided")
        except DialogError as exc:
            logger.debug("call %s: %s", other.metadata.call_id, exc)

    async def _dismiss(self, other: Call, reason: str) -> None:
        try:
            await other.voip.hangup(reason=reason)
        except DialogError as exc:
            logger.info("%s", exc)

    def _error(self, call_id: UUID, reason: str) -> CarrierError:
        return CarrierError(self._calls.carrier, str(call_id), reason)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
