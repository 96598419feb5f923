"""The agent's side of a call over Telnyx."""

from __future__ import annotations

from dialog.voip.voip import VoIP

__all__ = ["TelnyxVoIP"]


class TelnyxVoIP(VoIP):
    """A call over Telnyx Media Streaming, in whatever process its agent runs.

    Its audio is what the gateway asks for: mu-law (``PCMU``), A-law (``PCMA``) or 16-bit samples (``L16``).
    """

    @property
    def call_control_id(self) -> str:
        """Telnyx's id of the call, for Call Control commands: ``v3:…``."""
        return self.metadata.carrier_call_id

    @property
    def connection_id(self) -> str:
        """The Call Control application that the call came in at, or was placed with."""
        return self.metadata.account_id
