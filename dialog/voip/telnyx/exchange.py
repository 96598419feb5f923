"""What Telnyx's requests tell whoever passes them on."""

from __future__ import annotations

from uuid import UUID

from dialog.errors import RemoteProtocolError
from dialog.message import CallMetadata
from dialog.voip.carrier.exchange import Exchange
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Response, Site, query_call
from dialog.voip.carrier.record import call_id_of
from dialog.voip.telnyx.events import CallEvent, decode_event, metadata_of
from dialog.voip.telnyx.stream import decode_state
from dialog.voip.telnyx.webhooks import BODY

__all__ = ["TelnyxExchange", "body_of", "event_of"]


def body_of(fields: Fields) -> str:
    """The body of a webhook."""
    return next((value for name, value in fields if name == BODY), "")


def event_of(fields: Fields) -> CallEvent:
    """The event of a webhook.

    Raises:
        Refusal: 400.
    """
    try:
        return decode_event(body_of(fields))
    except RemoteProtocolError as exc:
        raise Refusal(400, str(exc)) from exc


class TelnyxExchange(Exchange):
    """Webhooks name their call by our own id in the URL, once the call was answered; or by its call_control_id."""

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """See :meth:`Exchange.respond`; what tells of messages is of no call."""
        if endpoint == "sms":
            return await self._switchboard.respond(endpoint, fields, site)
        return await super().respond(endpoint, fields, site)

    def _call_of(self, fields: Fields) -> UUID | None:
        named = query_call(fields)
        if named is not None:
            return named
        carrier_call_id = event_of(fields).payload.call_control_id
        return call_id_of(carrier_call_id) if carrier_call_id else None

    def _metadata(self, call_id: UUID, fields: Fields) -> CallMetadata:
        try:
            return metadata_of(call_id, body_of(fields))
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc

    def _generation(self, fields: Fields) -> int:
        token = decode_state(event_of(fields).payload.client_state).get("token", "")
        text = token.partition(".")[0]  # it came back with a signed webhook
        return int(text) if text.isdecimal() and len(text) < 10 else 1

    def _wants_more(self, endpoint: Endpoint, fields: Fields) -> bool:  # noqa: ARG002  # there is but one
        return event_of(fields).leaves_alone
