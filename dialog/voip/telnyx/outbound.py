"""Calls that are placed through Telnyx."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.voip.carrier.outbound import OutboundCalls, OutgoingCall
from dialog.voip.pacing import Pacing
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.telnyx.rest import TelnyxRest
from dialog.voip.telnyx.switchboard import TelnyxSwitchboard

__all__ = ["Placement", "TelnyxOutbound"]


class Placement(Struct, frozen=True):
    """What Telnyx is asked for; asking again with the same id places no second call."""

    fields: dict[str, Any]
    command_id: str

    def __repr__(self) -> str:
        return f"<Placement {self.command_id}>"


class TelnyxOutbound(OutboundCalls[TelnyxRecord, Placement]):
    """Places the calls of one gateway."""

    def __init__(self, switchboard: TelnyxSwitchboard, rest: TelnyxRest, pacing: Pacing, clock: Clock) -> None:
        super().__init__(switchboard, pacing, clock)
        self._streams = switchboard
        self._rest = rest

    def check(self) -> None:
        """See :meth:`OutboundCalls.check`."""
        if not self._switchboard.account_id:
            raise ConfigurationError(
                "to place calls TelnyxGateway needs connection_id, that of a Call Control application"
            )

    def _placement(self, record: TelnyxRecord, wanted: OutgoingCall) -> Placement:
        detection = wanted.detection
        fields: dict[str, Any] = {
            **self._streams.stream_fields(record, 1),
            "connection_id": self._switchboard.account_id,
            "to": wanted.to,
            "from": wanted.from_,
            "timeout_secs": max(5, round(wanted.ring_s)),
            "webhook_url": record.site.url("voice", call=wanted.call_id),
        }
        if wanted.send_digits:
            fields["send_digits_on_answer"] = wanted.send_digits
        if detection is not None:
            fields["answering_machine_detection"] = "greeting_end" if detection.hears_out else "detect"
        return Placement(fields, str(wanted.call_id))

    async def _request(self, placement: Placement) -> str:
        return await self._rest.dial(placement.fields, command_id=placement.command_id)
