"""The agent's side of a call that is a media socket."""

from __future__ import annotations

from dialog.voip.voip import VoIP

__all__ = ["StreamVoIP"]


class StreamVoIP(VoIP):
    """A call of :class:`~dialog.voip.streams.gateway.StreamGateway`, in whatever process its agent runs.

    ``metadata.carrier`` says whose it is. Its audio is what the carrier streams.
    """

    @property
    def carrier_call_id(self) -> str:
        """The carrier's id of the call."""
        return self.metadata.carrier_call_id
