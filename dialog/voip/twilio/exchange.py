"""What Twilio's requests tell whoever passes them on."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, query_call
from dialog.voip.carrier.record import call_id_of
from dialog.voip.twilio.forms import FINAL_STATUSES, VoiceForm, decode_form, metadata_of

__all__ = ["TwilioExchange"]


class TwilioExchange(Exchange):
    """Forms name their call by our own id in the URL, or else by its CallSid."""

    nameless: ClassVar[tuple[Endpoint, ...]] = ("voice", "status")

    def _call_of(self, fields: Fields) -> UUID | None:
        named = query_call(fields)
        if named is not None:
            return named
        call_sid = next((value for name, value in fields if name == "CallSid"), "")
        return call_id_of(call_sid) if call_sid else None

    def _metadata(self, call_id: UUID, fields: Fields) -> CallMetadata:
        try:
            form = decode_form(VoiceForm, fields)
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc
        return metadata_of(call_id, form, fields)

    def _generation(self, fields: Fields) -> int:
        text = next((value for name, value in fields if name == "generation"), "")
        return int(text) if text.isdecimal() and len(text) < 10 else 1

    def _wants_more(self, endpoint: Endpoint, fields: Fields) -> bool:
        values = dict(fields)
        if values.get("CallStatus") in FINAL_STATUSES:
            return False
        if endpoint == "dial":
            if "held" in values:  # waited for somebody whom nobody calls any more
                return True
            return "back" in values and values.get("DialCallStatus") not in ("completed", "answered")
        return endpoint == "after"
