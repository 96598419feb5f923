"""What Twilio asks and reports of its calls, and what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from dialog.errors import RemoteProtocolError
from dialog.voip.admission import Declined, Reject, Say
from dialog.voip.carrier.http import Endpoint, Fields, Refusal, Response, Site, query_call
from dialog.voip.carrier.record import call_id_of
from dialog.voip.carrier.switchboard import MAX_ATTEMPTS, Switchboard, SwitchboardSettings
from dialog.voip.carrier.token import StreamTokens
from dialog.voip.inbox import Inbox
from dialog.voip.twilio import twiml
from dialog.voip.twilio.commands import TwilioCommands
from dialog.voip.twilio.forms import (
    FINAL_STATUSES,
    AfterForm,
    DialForm,
    VoiceForm,
    decode_form,
    message_of,
    metadata_of,
)
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.reports import Reports, end_reason, named_record
from dialog.voip.twilio.voip import TwilioVoIP
from dialog.voip.twilio.webhooks import xml
from dialog.voip.voip import VoIP

__all__ = ["TwilioSwitchboard"]


class TwilioSwitchboard(Switchboard[TwilioRecord, str]):
    """The calls of an account; an answer is a TwiML document."""

    carrier: ClassVar[str] = "twilio"
    voip_class: ClassVar[type[VoIP]] = TwilioVoIP

    def __init__(
        self,
        settings: SwitchboardSettings,
        commands: TwilioCommands,
        tokens: StreamTokens,
        on_voip: Callable[[TwilioVoIP], object],
        **options: Any,
    ) -> None:
        """``options`` are those of :class:`Switchboard`."""
        super().__init__(settings, commands, tokens, on_voip, **options)
        commands.record_of = self.record_of
        self._rest = commands.rest
        self.inbox = Inbox()
        self.reports: Reports = Reports(self._records)
        self.on_returned: Callable[[UUID], object] = lambda _: None
        """Told of callers who have waited in a conference that is over, and come back; set by the gateway."""

    def check_account(self, fields: Fields) -> None:
        """Check that a request is of our account.

        Raises:
            Refusal: 403.
        """
        account = next((value for name, value in fields if name == "AccountSid"), "")
        if account and account != self._settings.account_id:
            raise Refusal(403, "the request is of another account")

    async def respond(self, endpoint: Endpoint, fields: Fields, site: Site) -> Response:
        """Answer a checked webhook.

        Raises:
            Refusal: It lacks what it needs, or is of another account.
        """
        self.check_account(fields)
        try:
            match endpoint:
                case "voice":
                    return xml(await self._voice(fields, site))
                case "after":
                    return xml(self._after(fields))
                case "dial":
                    return xml(self._dial(fields))
                case "sms":
                    return xml(twiml.messages(*await self.inbox.receive(message_of(fields))))
                case "media":
                    raise Refusal(400, "this is a WebSocket endpoint")
                case _:
                    self.reports.take(endpoint, fields)
        except RemoteProtocolError as exc:
            raise Refusal(400, str(exc)) from exc
        return Response()

    def document(self, record: TwilioRecord, generation: int = 1) -> str:
        """The TwiML that announces a stream of a call; the same whenever it is asked for."""
        document = record.documents.get(generation)
        if document is None:
            site, call_id = record.site, record.call_id
            document = record.documents[generation] = twiml.connect_stream(
                site.media,
                action=site.url("after", call=call_id, generation=generation),
                status_callback=site.url("stream", call=call_id),
                parameters=self._stream_parameters(record, generation),
            )
        return document

    async def redirect(self, call_sid: str, document: str) -> None:
        """Let a call go on with another document.

        Raises:
            CarrierError: Twilio refused.
        """
        await self._rest.redirect(call_sid, document)

    async def hang_up(self, carrier_call_id: str) -> None:
        """Tell Twilio that a call is over.

        Raises:
            CarrierError: It could not be told.
        """
        await self._rest.hangup(carrier_call_id)

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self._closing = True
        await self.inbox.close()
        await super().close()

    def _new_record(self, call_id: UUID, carrier_call_id: str, site: Site) -> TwilioRecord:
        return TwilioRecord(call_id, carrier_call_id, site)

    def _taken(self, record: TwilioRecord) -> str:
        return self.document(record)

    def _declined(self, decision: Declined) -> str:
        match decision:
            case Reject(reason):
                return twiml.reject(reason)
            case Say(text, language):
                return twiml.say(text, language=language)
            case _:
                return decision.text

    def _over(self) -> str:
        return twiml.hangup()

    async def _voice(self, fields: Fields, site: Site) -> str:
        form = decode_form(VoiceForm, fields)
        outbound = form.direction.startswith("outbound")
        call_id = (query_call(fields) if outbound else None) or call_id_of(form.call_sid)
        record = self._records.get(call_id)
        if form.call_status in FINAL_STATUSES:  # somebody sends status callbacks here
            if record is not None and record.call is not None:
                record.call.end(end_reason(form.call_status, record.call))
            return twiml.hangup()
        if record is None:
            finished = self._finished.get(call_id)
            if finished is not None:
                return finished
            if self._closing:
                raise Refusal(503, "the gateway is closing")
            if self.draining:
                return self._declined(self._settings.when_busy)
            record = TwilioRecord(call_id, form.call_sid, site)
            self._records[call_id] = record
            record.answer = self._spawn(self._admit(record, metadata_of(call_id, form, fields)), f"admit {call_id}")
        elif record.call is not None and record.call.state == "ended":
            return self._finished.get(call_id) or twiml.hangup()
        elif outbound:
            record.progressed("answered", form.call_sid)
        assert record.answer is not None or record.call is not None
        if record.answer is None:  # the stream was here first
            return self.document(record, 1)
        try:
            return await asyncio.shield(record.answer)
        except asyncio.CancelledError:
            if not record.answer.cancelled():
                raise  # it is this request that was given up
            raise Refusal(503, "the gateway is closing") from None

    def _after(self, fields: Fields) -> str:
        """A stream has ended; what shall Twilio do now?"""
        form = decode_form(AfterForm, fields)
        call_id, record = named_record(self._records, fields)
        call = record.call if record is not None else None
        if record is None or call is None:
            return (self._finished.get(call_id) if call_id else None) or twiml.hangup()
        text = next((value for name, value in fields if name == "generation"), "")
        generation = int(text) if text.isdecimal() and len(text) < 10 else call.generation
        if form.call_status in FINAL_STATUSES:
            call.end(end_reason(form.call_status, call))
        if call.state == "ended":
            return self._finished.get(record.call_id) or twiml.hangup()
        if generation < call.generation:
            return self.document(record, call.generation)  # delivered again, or late
        if call.state == "offered":
            record.attempts += 1
            if record.attempts > MAX_ATTEMPTS:
                call.end("never_connected", "Twilio could not open the stream")
                return twiml.hangup()
        if call.state == "live":
            # Twilio knows before we do that the socket is gone.
            call.stream_closed(call.line)
        if not call.wants_stream():
            return twiml.hangup()
        return self.document(record, call.generation + 1)

    def _dial(self, fields: Fields) -> str:
        """A transfer failed, or its conversation is over."""
        form = decode_form(DialForm, fields)
        call_id, record = named_record(self._records, fields)
        call = record.call if record is not None else None
        if record is None or call is None or call.state == "ended":
            return (self._finished.get(call_id) if call_id else None) or twiml.hangup()
        held = any(name == "held" for name, _ in fields)
        if form.dial_call_status in ("completed", "answered") and not held:
            call.end("transferred")
            return twiml.hangup()
        if form.call_status in FINAL_STATUSES:
            call.end(end_reason(form.call_status, call))
            return twiml.hangup()
        if not held and not any(name == "back" for name, _ in fields):
            call.end("transfer_failed", form.dial_call_status)
            return twiml.hangup()
        if held:
            self.on_returned(record.call_id)
        call.returned("transfer_failed")
        if not call.wants_stream():
            return twiml.hangup()
        return self.document(record, call.generation + 1)
