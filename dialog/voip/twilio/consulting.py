"""Warm transfers: the caller waits in a conference while somebody else is asked, and meets them there.

::

    caller   live ─► conference, music ─────────────────────► together, both calls have ended for us
    person              rings, live: is told ─► conference ─►
                             └ busy, silent, refuses, leaves ─► the caller gets a stream again

Source: Twilio, TwiML ``<Conference>``; Conference status callbacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final
from uuid import UUID

from dialog.errors import CarrierError, ConfigurationError, DialogError
from dialog.voip.call import Call
from dialog.voip.carrier.outbound import OutgoingCall
from dialog.voip.consults import CONSULT_OF, CONSULT_WORKER
from dialog.voip.link import Consult
from dialog.voip.twilio import twiml
from dialog.voip.twilio.outbound import TwilioOutbound
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.switchboard import TwilioSwitchboard

__all__ = ["Consultations"]

logger = logging.getLogger(__name__)

_JOIN_S: Final = 15.0
_CLOSE_S: Final = 5.0


class Consultations:
    """Carries out :class:`~dialog.voip.link.Consult` and :class:`~dialog.voip.link.JoinCalls`."""

    def __init__(self, switchboard: TwilioSwitchboard, outbound: TwilioOutbound) -> None:
        self._switchboard = switchboard
        self._outbound = outbound
        self._joined: set[UUID] = set()
        """Calls that are on their way to the one whom they meet, or are there."""
        self._waiting: dict[UUID, UUID] = {}
        """Callers who wait, and the call to the one who is asked."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def consult(self, call: Call, record: TwilioRecord, command: Consult) -> None:
        """Let the caller wait, and call somebody about it; if that comes to nothing the caller is brought back.

        Raises:
            CarrierError: Twilio refused the one or the other; the caller is on the way back if they had left.
        """
        site = record.site
        metadata = call.metadata
        ours = metadata.from_ if metadata.direction == "outbound" else metadata.to
        try:
            wanted = OutgoingCall(
                to=command.tel,
                from_=command.from_ or ours,
                ring_s=command.ring_s,
                call_id=command.call_id,
                parameters=((CONSULT_OF, str(record.call_id)), (CONSULT_WORKER, command.worker), *command.parameters),
            )
        except ConfigurationError as exc:
            raise CarrierError("twilio", str(record.call_id), f"consult: {exc}") from exc
        waiting = twiml.conference(
            _room(record.call_id),
            action=site.url("dial", call=record.call_id, held=1),
            status_callback=site.url("conference", call=record.call_id, other=command.call_id),
            starts=False,
            label="caller",
            wait_url=command.hold_url,
        )
        await self._switchboard.redirect(record.carrier_call_id, waiting)
        self._waiting[record.call_id] = command.call_id
        call.moving("consult", command.within_s)
        try:
            voip = await self._outbound.place(wanted, site)
        except DialogError as exc:
            await self.bring_back(record.call_id)
            if isinstance(exc, CarrierError):
                raise
            raise CarrierError("twilio", str(record.call_id), f"nobody could be asked: {exc}") from exc
        other = self._switchboard.find(voip.metadata.call_id)
        if other is None:
            await self.bring_back(record.call_id)
            return
        other.on_ended(lambda: self._asked(record.call_id, other))
        call.on_ended(lambda: self._left(call, other))
        self._spawn(self._bound(other, command.talk_s), f"bound of {command.call_id}")

    async def join(self, call: Call, record: TwilioRecord, other_id: UUID) -> None:
        """Bring the one who was asked to the caller who waits.

        Raises:
            CarrierError: One of them is gone, or Twilio refused.
        """
        other = self._switchboard.find(other_id)
        other_record = self._switchboard.record(other_id)
        if other is None or other_record is None or other.state == "ended" or call.state == "ended":
            raise CarrierError("twilio", str(record.call_id), "join: one of the two calls has ended")
        if other.metadata.parameter(CONSULT_OF) != str(record.call_id):
            raise CarrierError("twilio", str(record.call_id), f"join: call {other_id} was not placed by consult()")
        document = twiml.conference(
            _room(record.call_id),
            status_callback=record.site.url("conference", call=record.call_id, other=other_id),
            starts=True,
            label="consulted",
        )
        self._joined.update((record.call_id, other_id))
        try:
            with other.going("transfer", _JOIN_S):
                await self._switchboard.redirect(other_record.carrier_call_id, document)
        except BaseException:
            self._joined.difference_update((record.call_id, other_id))
            raise
        other.moving("transfer", _JOIN_S)

    def conference(self, call_id: UUID, other_id: UUID, event: str, call_sid: str) -> None:
        """Twilio reports of the conference of a call, or of somebody in it."""
        if event == "participant-leave":
            record = self._switchboard.record(call_id)
            waits = self._waiting.get(call_id) == other_id  # they have not met
            if waits and record is not None and record.call is not None and record.carrier_call_id == call_sid:
                self._joined.difference_update((call_id, other_id))
                record.call.end("caller_hangup", "while they waited")
            return
        if event != "conference-start":
            return
        for one in (call_id, other_id):
            call = self._switchboard.find(one)
            if call is not None:
                call.end("transferred")

    async def bring_back(self, call_id: UUID) -> None:
        """The caller has waited in vain: the agent talks to them again."""
        call, record = self._switchboard.find(call_id), self._switchboard.record(call_id)
        if call is None or record is None or call.state == "ended":
            return
        self._waiting.pop(call_id, None)
        call.returned("transfer_failed")
        try:
            await self._switchboard.redirect(
                record.carrier_call_id, self._switchboard.document(record, call.generation + 1)
            )
        except CarrierError as exc:
            logger.info("call %s: its caller did not come back: %s", call_id, exc)
            call.end("caller_hangup", "while they waited")

    async def close(self) -> None:
        """Wait for what is under way, which has its own bound; all calls have ended."""
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _asked(self, call_id: UUID, other: Call) -> None:
        """The call to the one who was asked has ended; unless they met, or may have, the caller comes back."""
        self._joined.discard(other.metadata.call_id)
        if other.voip.end is None or other.voip.end.reason != "transferred":
            self._spawn(self.bring_back(call_id), f"bring back {call_id}")

    def _left(self, call: Call, other: Call) -> None:
        """The caller's call has ended."""
        self._waiting.pop(call.metadata.call_id, None)
        joined = call.metadata.call_id in self._joined
        self._joined.discard(call.metadata.call_id)
        if not joined and other.state != "ended":
            self._spawn(self._dismiss(other, "caller_left"), f"hang up {other.metadata.call_id}")

    async def _bound(self, other: Call, talk_s: float) -> None:
        """Nobody lets a caller wait for ever: who takes too long to decide is hung up on."""
        try:
            await other.voip.wait_answered()
            async with asyncio.timeout(other.clock.real(talk_s)):
                await other.wait_ended()
        except TimeoutError:
            if other.metadata.call_id not in self._joined:
                await self._dismiss(other, "undecided")
        except DialogError as exc:
            logger.debug("call %s: %s", other.metadata.call_id, exc)

    async def _dismiss(self, other: Call, reason: str) -> None:
        try:
            await other.voip.hangup(reason=reason)
        except DialogError as exc:
            logger.info("%s", exc)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _room(call_id: UUID) -> str:
    """The conference of a call; its name is known to nobody else."""
    return f"dialog-{call_id}"
