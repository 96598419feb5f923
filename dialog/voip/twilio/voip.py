"""The agent's side of a call over Twilio."""

from __future__ import annotations

from dialog.voip.voip import VoIP

__all__ = ["TwilioVoIP"]


class TwilioVoIP(VoIP):
    """A call over Twilio Media Streams: 8000 Hz mu-law both ways, in whatever process its agent runs."""

    @property
    def call_sid(self) -> str:
        """Twilio's id of the call: ``CA`` and 32 hex digits."""
        return self.metadata.carrier_call_id

    @property
    def account_sid(self) -> str:
        """Twilio's id of the account: ``AC`` and 32 hex digits."""
        return self.metadata.account_id
