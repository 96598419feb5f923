"""What a gateway knows about one call of Twilio's."""

from __future__ import annotations

from uuid import UUID

from dialog.voip.carrier.http import Site
from dialog.voip.carrier.record import CallRecord

__all__ = ["TwilioRecord"]


class TwilioRecord(CallRecord[str]):
    """A call, and the documents that announced its streams."""

    __slots__ = ("documents",)

    def __init__(self, call_id: UUID, carrier_call_id: str, site: Site) -> None:
        super().__init__(call_id, carrier_call_id, site)
        self.documents: dict[int, str] = {}
        """By the generation of the stream."""
