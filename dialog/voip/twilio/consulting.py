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
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import UUID

from dialog.errors import CarrierError, ConfigurationError, DialogError
from dialog.message import StreamStopped
from dialog.voip.call import Call
from dialog.voip.carrier.outbound import OutgoingCall
from dialog.voip.consults import CONSULT_OF, CONSULT_WORKER
from dialog.voip.lifecycle import DOUBT_S
from dialog.voip.link import Consult
from dialog.voip.twilio import twiml
from dialog.voip.twilio.outbound import TwilioOutbound
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.rest import has_ended
from dialog.voip.twilio.switchboard import TwilioSwitchboard
from dialog.voip.voip import VoIP

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
        waits = partial(self._check_waits, record.call_id, command.call_id)
        self._waiting[record.call_id] = command.call_id
        call.on_ended(lambda: self._left(call, record, command.call_id))
        accepted = False
        try:
            await self._switchboard.redirect(record.carrier_call_id, waiting)
            accepted = True
            call.moving("consult", command.within_s)
            voip = await self._outbound.place(wanted, site, before=waits)
        except BaseException as exc:
            if not accepted and isinstance(exc, CarrierError) and not exc.in_doubt:
                self._waiting.pop(record.call_id, None)  # they never left
                raise
            if not accepted and call.state == "live":
                self._spawn(self._mind(call, command.call_id), f"mind {record.call_id}")
                raise
            coming = self.bring_back(record.call_id)
            if coming is None or not isinstance(exc, DialogError):
                raise
            await asyncio.shield(coming)
            if isinstance(exc, CarrierError):
                raise
            raise CarrierError("twilio", str(record.call_id), f"nobody could be asked: {exc}") from exc
        if self._waiting.get(record.call_id) == command.call_id:
            call.moving("consult", command.within_s)  # it may have waited for its turn
        other = self._switchboard.find(voip.metadata.call_id)
        if other is None:
            self.bring_back(record.call_id)
            return
        other.on_ended(lambda: self._asked(record.call_id, other))
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
        if self._waiting.get(record.call_id) != other_id:
            raise CarrierError("twilio", str(record.call_id), "join: the caller does not wait any more")
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
        except BaseException as exc:
            if isinstance(exc, CarrierError) and not exc.in_doubt:  # else they may be on their way all the same
                self._joined.difference_update((record.call_id, other_id))
            raise
        other.moving("transfer", _JOIN_S)

    def conference(self, call_id: UUID, other_id: UUID, event: str, call_sid: str) -> None:
        """Twilio reports of the conference of a call, or of somebody in it."""
        if self._waiting.get(call_id) != other_id:
            return  # they have met, or the caller is back: it comes late
        if event == "participant-leave":
            record = self._switchboard.record(call_id)
            if record is not None and record.call is not None and record.carrier_call_id == call_sid:
                record.call.end("caller_hangup", "while they waited")
        elif event == "conference-start":
            for one in (call_id, other_id):
                call = self._switchboard.find(one)
                if call is not None:
                    call.end("transferred")

    def returned(self, call_id: UUID) -> None:
        """The conference is over, and Twilio has been told to bring the caller back."""
        self._waiting.pop(call_id, None)

    def bring_back(self, call_id: UUID) -> asyncio.Task[None] | None:
        """The caller has waited in vain: the agent talks to them again. ``None``: there is nobody to bring back."""
        self._waiting.pop(call_id, None)
        call, record = self._switchboard.find(call_id), self._switchboard.record(call_id)
        if call is None or record is None or call.state == "ended":
            return None
        call.returned("transfer_failed")
        return self._spawn(self._bring_back(call, record, call.generation), f"bring back {call_id}")

    async def _mind(self, call: Call, other_id: UUID) -> None:
        """Bring the caller back if they leave after all: whether Twilio was told is not known."""
        call_id, left = call.metadata.call_id, asyncio.Event()

        def stopped(_: StreamStopped) -> None:
            left.set()

        call.voip.on(VoIP.STREAMING_STOPPED, stopped)
        with suppress(TimeoutError):
            async with asyncio.timeout(call.clock.real(DOUBT_S)):
                await left.wait()
        call.voip.off(VoIP.STREAMING_STOPPED, stopped)
        if self._waiting.get(call_id) != other_id:
            return
        if left.is_set():
            self.bring_back(call_id)
        else:
            del self._waiting[call_id]

    async def _bring_back(self, call: Call, record: TwilioRecord, generation: int) -> None:
        document = self._switchboard.document(record, generation + 1)
        for last in (False, True):
            try:
                await self._switchboard.redirect(record.carrier_call_id, document)
            except CarrierError as exc:
                if call.state == "ended" or call.generation > generation:
                    return  # it has come about all the same
                if exc.in_doubt and not last:
                    continue
                logger.warning("call %s: its caller does not come back: %s", record.call_id, exc)
                if call.state != "live":
                    call.end("caller_hangup" if has_ended(exc) else "lost", "while they waited")
                    await self._hang_up(record)
            return

    async def close(self) -> None:
        """Wait for what is under way, which has its own bound; all calls have ended."""
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _check_waits(self, call_id: UUID, other_id: UUID) -> None:
        """Check that the caller still waits for the one who is about to be called.

        Raises:
            CarrierError: They do not.
        """
        if self._waiting.get(call_id) != other_id:
            raise CarrierError("twilio", str(call_id), "consult: the caller does not wait any more")

    def _asked(self, call_id: UUID, other: Call) -> None:
        """The call to the one who was asked has ended; unless they met, or may have, the caller comes back."""
        other_id, end = other.metadata.call_id, other.voip.end
        met = other_id in self._joined and end is not None and end.reason == "transferred"
        self._joined.discard(other_id)
        if self._waiting.get(call_id) != other_id:
            return
        if not met:
            self.bring_back(call_id)
        elif end is not None and (call := self._switchboard.find(call_id)) is not None:
            call.end(end.reason, end.detail)

    def _left(self, call: Call, record: TwilioRecord, other_id: UUID) -> None:
        """The caller's call has ended."""
        waited = self._waiting.get(record.call_id) == other_id
        if waited:
            del self._waiting[record.call_id]
        reason = call.voip.end.reason if call.voip.end is not None else ""
        joined = record.call_id in self._joined
        self._joined.discard(record.call_id)
        other = self._switchboard.find(other_id)
        if joined and reason in ("transferred", "lost") and (other is None or other.state != "live"):
            return  # they have met, or may have
        if other is not None and other.state != "ended":
            self._spawn(self._dismiss(other, "caller_left"), f"hang up {other_id}")
        if waited and reason not in ("caller_hangup", "transferred"):
            self._spawn(self._hang_up(record), f"hang up {record.call_id}")  # else the music would never end

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

    async def _hang_up(self, record: TwilioRecord) -> None:
        try:
            await self._switchboard.hang_up(record.carrier_call_id)
        except CarrierError as exc:
            logger.warning("%s", exc)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _room(call_id: UUID) -> str:
    """The conference of a call; its name is known to nobody else."""
    return f"dialog-{call_id}"
