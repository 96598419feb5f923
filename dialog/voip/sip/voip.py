"""The agent's side of a call over SIP."""

from __future__ import annotations

from dialog.voip.voip import VoIP

__all__ = ["SIPVoIP"]


class SIPVoIP(VoIP):
    """A call of a telephone system of your own: G.711 both ways, in whatever process its agent runs.

    The headers of the INVITE are parameters of :attr:`metadata`: ``voip.metadata.parameter("X-Campaign")``. It can be
    transferred and press keys, but a SIP line neither records nor sends text messages.
    """

    @property
    def sip_call_id(self) -> str:
        """What both sides call the call: the ``Call-ID`` of the INVITE."""
        return self.metadata.carrier_call_id
