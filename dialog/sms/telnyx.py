"""Text messages by Telnyx.

Source: Telnyx API v2, Messages.
"""

from __future__ import annotations

from dialog.message import SentSMS
from dialog.sms.sms import SMS
from dialog.voip.telnyx.rest import TelnyxRest

__all__ = ["TelnyxSMS"]


class TelnyxSMS(SMS):
    """Sends text messages from a number of a Telnyx account, which has a messaging profile.

    Args:
        api_key: ``KEY…``.
        from_: The sender, in E.164.
        base_url: Instead of Telnyx's own, ``http(s)://host:port``.
        timeout_s: Longest time for a message, in seconds.

    Raises:
        ConfigurationError: The key is missing.
    """

    def __init__(self, *, api_key: str, from_: str = "", base_url: str = "", timeout_s: float = 10.0) -> None:
        self._rest = TelnyxRest(api_key, base_url=base_url, timeout_s=timeout_s)
        self._from = from_

    def __repr__(self) -> str:
        return f"<TelnyxSMS {self._rest!r}>"

    async def send_sms(self, to: str, text: str, *, from_: str = "") -> SentSMS:
        """See :meth:`dialog.sms.sms.SMS.send_sms`.

        Raises:
            CarrierError: A number is none, or Telnyx refused; the message says what to do.
        """
        return await self._rest.send_message(to=to, text=text, from_=from_ or self._from)

    async def close(self) -> None:
        """See :meth:`dialog.sms.sms.SMS.close`."""
        await self._rest.close()
