"""Text messages: the interface of who sends them, and what a message must be.

::

    async with TwilioSMS(account_sid=…, auth_token=…, from_="+15550100") as sms:
        sent = await sms.send_sms("+15550123", "Your table is booked.")

In a call there is :meth:`dialog.voip.voip.VoIP.send_sms`, which needs no credentials where the agent is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final, Self

from dialog.errors import ConfigurationError
from dialog.message import SentSMS

__all__ = ["SMS", "check_e164", "check_text"]

_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_MAX_TEXT: Final = 1600
"""Characters that carriers take in one message, which they send in parts."""


def check_e164(number: str) -> str:
    """Return ``number``, a telephone number in E.164: ``+``, the country, 7 to 15 digits in all.

    Source: ITU-T E.164, 6.2.

    Raises:
        ConfigurationError: It is none; the message does not repeat it.
    """
    if not _E164.fullmatch(number):
        raise ConfigurationError(
            "no number in E.164: write + and the country first, without blanks, such as +15551230002"
            if number
            else "there is no number to write to"
        )
    return number


def check_text(text: str) -> str:
    """Return ``text``, which can be sent as a message.

    Raises:
        ConfigurationError: It is blank, or longer than 1600 characters.
    """
    if not text.strip():
        raise ConfigurationError("the message has no text")
    if len(text) > _MAX_TEXT:
        raise ConfigurationError(f"the message has {len(text)} characters, at most {_MAX_TEXT} can be sent")
    return text


class SMS(ABC):
    """Sends text messages; needs no call. One may serve a whole program; it belongs to one event loop."""

    @abstractmethod
    async def send_sms(self, to: str, text: str, *, from_: str = "") -> SentSMS:
        """Hand a message to the carrier; it is on its way then, and not delivered yet.

        It is never sent a second time for an answer that did not come.

        Args:
            to: A number in E.164, such as ``+15551230002``.
            text: Up to 1600 characters.
            from_: The sender, if not the one that this was made with.

        Raises:
            CarrierError: A number is none, or the carrier refused; the message says what to do.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close its connections; a later message opens them again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
