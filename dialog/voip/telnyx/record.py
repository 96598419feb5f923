"""What a gateway knows about one call of Telnyx's."""

from __future__ import annotations

import asyncio
from uuid import UUID

from dialog.voip.admission import Accept, Declined
from dialog.voip.carrier.http import Site
from dialog.voip.carrier.record import CallRecord
from dialog.voip.link import TransferTo

__all__ = ["TelnyxRecord"]


class TelnyxRecord(CallRecord[Accept | Declined]):
    """A call, and how far it has come in what it was told to do."""

    __slots__ = ("asked", "gone", "leg_id", "transcribed", "transfer", "wants_back")

    def __init__(self, call_id: UUID, carrier_call_id: str, site: Site) -> None:
        super().__init__(call_id, carrier_call_id, site)
        self.asked: int = 1
        """The generation of the newest stream that Telnyx was asked to open."""
        self.gone: asyncio.Event = asyncio.Event()
        """Set when Telnyx has said that the call is over, or was told so."""
        self.leg_id: str = ""
        """Telnyx's ``call_leg_id``, by which it keeps recordings."""
        self.transcribed: bool = False
        """Telnyx transcribes it, to its end."""
        self.transfer: TransferTo | None = None
        """The caller is being connected to somebody else."""
        self.wants_back: bool = False
        """That came to nothing, and the caller gets a stream again once the old one has stopped."""

    @property
    def deciding(self) -> bool:
        """It is still being decided whether to take it; whatever happens until then, that will be carried out."""
        return self.answer is not None and not self.answer.done()
