"""Warm transfers over Twilio: the caller waits in a conference, and the other one comes into it.

Source: Twilio, TwiML ``<Conference>``; Conference status callbacks.
"""

from __future__ import annotations

import logging
from uuid import UUID

from dialog.errors import CarrierError
from dialog.voip.call import Call
from dialog.voip.carrier.consulting import Consultations
from dialog.voip.link import Consult
from dialog.voip.twilio import twiml
from dialog.voip.twilio.outbound import TwilioOutbound
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.rest import has_ended
from dialog.voip.twilio.switchboard import TwilioSwitchboard

__all__ = ["TwilioConsultations"]

logger = logging.getLogger(__name__)


class TwilioConsultations(Consultations[TwilioRecord]):
    """The conferences of a gateway."""

    def __init__(self, switchboard: TwilioSwitchboard, outbound: TwilioOutbound) -> None:
        super().__init__(switchboard, outbound)
        self._switchboard = switchboard

    def conference(self, call_id: UUID, other_id: UUID, event: str, call_sid: str) -> None:
        """Twilio reports of the conference of a call, or of somebody in it."""
        if event == "conference-start":
            self.met(call_id, other_id)
        elif event == "participant-leave" and self._waits(call_id, other_id):
            record = self._switchboard.record(call_id)
            if record is not None and record.call is not None and record.carrier_call_id == call_sid:
                record.call.end("caller_hangup", "while they waited")

    async def _hold(self, record: TwilioRecord, command: Consult) -> None:
        site, call_id = record.site, record.call_id
        document = twiml.conference(
            _room(call_id),
            action=site.url("dial", call=call_id, held=1),
            status_callback=site.url("conference", call=call_id, other=command.call_id),
            starts=False,
            label="caller",
            wait_url=command.hold_url,
        )
        await self._switchboard.redirect(record.carrier_call_id, document)

    async def _meet(self, record: TwilioRecord, other: TwilioRecord) -> None:
        document = twiml.conference(
            _room(record.call_id),
            status_callback=record.site.url("conference", call=record.call_id, other=other.call_id),
            starts=True,
            label="consulted",
        )
        await self._switchboard.redirect(other.carrier_call_id, document)

    async def _fetch(self, call: Call, record: TwilioRecord, generation: int) -> None:
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
                    await self._stop_waiting(record)
            return

    async def _stop_waiting(self, record: TwilioRecord) -> None:
        try:
            await self._switchboard.hang_up(record.carrier_call_id)
        except CarrierError as exc:
            logger.warning("%s", exc)


def _room(call_id: UUID) -> str:
    """The conference of a call; its name is known to nobody else."""
    return f"dialog-{call_id}"
