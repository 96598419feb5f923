"""The accounts of a service at its carriers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, field

from dialog.voip.admission import Declined, Reject
from dialog.voip.pacing import Pacing

if TYPE_CHECKING:  # each tenant loads those of its own carrier
    from dialog.sms.sms import SMS
    from dialog.voip.carrier.gateway import PhoneGateway

__all__ = ["TelnyxTenant", "TwilioTenant"]

_PACING = Pacing()


class TwilioTenant(Struct, frozen=True, kw_only=True):
    """An account at Twilio, with its own credentials and limit."""

    carrier: ClassVar[str] = "twilio"

    account_sid: str
    auth_token: str
    api_key: str = ""
    api_secret: str = ""
    base_url: str = ""
    """Of the carrier's REST API, instead of Twilio's."""
    messaging_service_sid: str = ""
    """Chooses the sender of text messages that name no number."""
    max_calls: int | None = None
    """Calls at the same time, placed ones included; ``None``: no limit of its own."""
    when_full: Declined = Reject("busy")
    """What callers are told then."""
    pacing: Pacing = _PACING
    """How fast calls are placed."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments of :class:`~dialog.voip.twilio.gateway.TwilioGateway`."""

    def __repr__(self) -> str:
        return f"<TwilioTenant {self.account_sid}>"

    @property
    def account_id(self) -> str:
        """By what calls tell their tenant."""
        return self.account_sid

    @property
    def secret(self) -> str:
        """What nobody else knows, and every process of the service does."""
        return self.auth_token

    def gateway(self, settings: Mapping[str, Any]) -> PhoneGateway[Any]:
        """The door of its calls; ``settings`` are those that the service gives to all."""
        from dialog.voip.twilio.gateway import TwilioGateway

        own: dict[str, Any] = {
            "account_sid": self.account_sid,
            "auth_token": self.auth_token,
            "api_key": self.api_key,
            "api_secret": self.api_secret,
            "base_url": self.base_url,
            "pacing": self.pacing,
        }
        return TwilioGateway(**{**settings, **own, **self.options})

    def sms(self) -> SMS:
        """Who sends its text messages."""
        from dialog.sms.twilio import TwilioSMS

        return TwilioSMS(
            account_sid=self.account_sid,
            auth_token=self.auth_token,
            messaging_service_sid=self.messaging_service_sid,
            api_key=self.api_key,
            api_secret=self.api_secret,
            base_url=self.base_url,
        )

    def owns(self, url: str) -> bool:
        """Whether a recording is of this account."""
        return self.account_sid in url


class TelnyxTenant(Struct, frozen=True, kw_only=True):
    """A Call Control application at Telnyx, with its own credentials and limit."""

    carrier: ClassVar[str] = "telnyx"
    messaging_service_sid: ClassVar[str] = ""

    api_key: str
    public_key: str
    connection_id: str
    """Of the Call Control application."""
    base_url: str = ""
    """Of the API, instead of Telnyx's."""
    max_calls: int | None = None
    """Calls at the same time, placed ones included; ``None``: no limit of its own."""
    when_full: Declined = Reject("busy")
    """What callers are told then."""
    pacing: Pacing = _PACING
    """How fast calls are placed."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments of :class:`~dialog.voip.telnyx.gateway.TelnyxGateway`."""

    def __repr__(self) -> str:
        return f"<TelnyxTenant {self.connection_id}>"

    @property
    def account_id(self) -> str:
        """By what calls tell their tenant."""
        return self.connection_id

    @property
    def secret(self) -> str:
        """What nobody else knows, and every process of the service does."""
        return self.api_key

    def gateway(self, settings: Mapping[str, Any]) -> PhoneGateway[Any]:
        """The door of its calls; ``settings`` are those that the service gives to all."""
        from dialog.voip.telnyx.gateway import TelnyxGateway

        own: dict[str, Any] = {
            "api_key": self.api_key,
            "public_key": self.public_key,
            "connection_id": self.connection_id,
            "base_url": self.base_url,
            "pacing": self.pacing,
        }
        return TelnyxGateway(**{**settings, **own, **self.options})

    def sms(self) -> SMS:
        """Who sends its text messages."""
        from dialog.sms.telnyx import TelnyxSMS

        return TelnyxSMS(api_key=self.api_key, base_url=self.base_url)

    def owns(self, url: str) -> bool:  # noqa: ARG002  # they lie in a storage whose addresses name nobody
        """Whether a recording is of this account."""
        return False
