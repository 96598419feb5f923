"""Calls over Twilio: Media Streams, webhooks, TwiML and REST.

Names are loaded when they are first used: an agent in a worker process needs :class:`TwilioVoIP` and
neither the gateway nor the ``twilio`` package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dialog.voip.carrier.token import StreamTokens
    from dialog.voip.twilio.gateway import TwilioGateway
    from dialog.voip.twilio.rest import TwilioRest
    from dialog.voip.twilio.signature import SignatureChecker
    from dialog.voip.twilio.stream import TwilioStream
    from dialog.voip.twilio.voip import TwilioVoIP

__all__ = [
    "SignatureChecker",
    "StreamTokens",
    "TwilioGateway",
    "TwilioRest",
    "TwilioStream",
    "TwilioVoIP",
]

_HOMES = {
    "SignatureChecker": f"{__name__}.signature",
    "StreamTokens": "dialog.voip.carrier.token",
    "TwilioGateway": f"{__name__}.gateway",
    "TwilioRest": f"{__name__}.rest",
    "TwilioStream": f"{__name__}.stream",
    "TwilioVoIP": f"{__name__}.voip",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
