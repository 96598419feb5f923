"""Calls that are placed through Twilio."""

from __future__ import annotations

from datetime import datetime

from dialog.clock import Clock
from dialog.errors import CarrierError
from dialog.voip.carrier.outbound import OutboundCalls, OutgoingCall
from dialog.voip.pacing import Pacing
from dialog.voip.twilio.placing import PlacedCalls, Placement
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.switchboard import TwilioSwitchboard

__all__ = ["TwilioOutbound"]


class TwilioOutbound(OutboundCalls[TwilioRecord, Placement]):
    """Places the calls of one gateway."""

    def __init__(self, switchboard: TwilioSwitchboard, placed: PlacedCalls, pacing: Pacing, clock: Clock) -> None:
        super().__init__(switchboard, pacing, clock)
        self.placed = placed
        self._documents = switchboard

    def _placement(self, record: TwilioRecord, wanted: OutgoingCall) -> Placement:
        site = record.site
        return Placement(
            to=wanted.to,
            from_=wanted.from_,
            twiml=self._documents.document(record),
            url=site.url("voice", call=wanted.call_id),
            status_url=site.url("status", call=wanted.call_id),
            verdict_url=site.url("verdict", call=wanted.call_id),
            ring_s=wanted.ring_s,
            detection=wanted.detection,
            send_digits=wanted.send_digits,
        )

    async def _request(self, placement: Placement) -> str:
        return await self.placed.place(placement)

    async def _look_up(self, record: TwilioRecord, placement: Placement, since: datetime, doubt: CarrierError) -> None:
        try:
            found = await self.placed.find(
                record.call_id,
                to=placement.to,
                from_=placement.from_,
                since=since,
                others=self._switchboard.carrier_call_ids,
            )
        except CarrierError:
            raise doubt from None
        if found is None:
            raise CarrierError(
                "twilio",
                str(record.call_id),
                f"it was not placed ({doubt})",
                status=doubt.status,
                carrier_code=doubt.carrier_code,
            ) from doubt
        record.progressed("dialling", found.call_sid)
