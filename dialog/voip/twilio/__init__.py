"""Calls over Twilio: Media Streams, webhooks, TwiML and REST."""

from __future__ import annotations

from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.twilio.offer import Accept, Decision, Offer, Reject, Resolver, Say
from dialog.voip.twilio.rest import TwilioRest
from dialog.voip.twilio.signature import SignatureChecker
from dialog.voip.twilio.stream import TwilioStream
from dialog.voip.twilio.token import StreamTokens
from dialog.voip.twilio.voip import TwilioVoIP

__all__ = [
    "Accept",
    "Decision",
    "Offer",
    "Reject",
    "Resolver",
    "Say",
    "SignatureChecker",
    "StreamTokens",
    "TwilioGateway",
    "TwilioRest",
    "TwilioStream",
    "TwilioVoIP",
]
