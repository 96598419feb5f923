"""Text messages by Twilio.

Source: Twilio REST API 2010-04-01, Messages.
"""

from __future__ import annotations

from dialog.errors import ConfigurationError
from dialog.message import SentSMS
from dialog.sms.sms import SMS
from dialog.voip.twilio.rest import TwilioRest

__all__ = ["TwilioSMS"]


class TwilioSMS(SMS):
    """Sends text messages from a number of a Twilio account, or by one of its messaging services.

    Args:
        account_sid: ``AC…``, also with an API key.
        auth_token: Used unless there is an API key.
        from_: The sender: a number in E.164 that can send, a short code, or an alphanumeric sender id.
        messaging_service_sid: ``MG…``: Twilio chooses the sender instead.
        api_key: ``SK…``.
        api_secret: Of the API key.
        base_url: Instead of Twilio's own, ``http(s)://host:port``.
        timeout_s: Longest time for a message, in seconds.

    Raises:
        ConfigurationError: Credentials are missing, or the sender can be none.
    """

    def __init__(
        self,
        *,
        account_sid: str,
        auth_token: str = "",
        from_: str = "",
        messaging_service_sid: str = "",
        api_key: str = "",
        api_secret: str = "",
        base_url: str = "",
        timeout_s: float = 10.0,
    ) -> None:
        if messaging_service_sid and not messaging_service_sid.startswith("MG"):
            raise ConfigurationError("messaging_service_sid of Twilio begins with MG; a number is given as from_")
        self._rest = TwilioRest(
            account_sid, auth_token, api_key=api_key, api_secret=api_secret, base_url=base_url, timeout_s=timeout_s
        )
        self._from = from_
        self._service = messaging_service_sid

    def __repr__(self) -> str:
        return f"<TwilioSMS {self._rest.account_sid}>"

    async def send_sms(self, to: str, text: str, *, from_: str = "") -> SentSMS:
        """See :meth:`dialog.sms.sms.SMS.send_sms`.

        Raises:
            CarrierError: A number is none, or Twilio refused; the message says what to do.
        """
        service = "" if from_ else self._service
        return await self._rest.send_message(to=to, text=text, from_=from_ or self._from, service_sid=service)

    async def close(self) -> None:
        """See :meth:`dialog.sms.sms.SMS.close`."""
        await self._rest.close()
