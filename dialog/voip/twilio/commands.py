"""What an agent asks of the carrier, put into TwiML and REST."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Protocol

from dialog.errors import CarrierError, MissingPublicURL, NotSupportedError
from dialog.voip.call import Call
from dialog.voip.carrier.http import Site
from dialog.voip.link import (
    Command,
    CommandResult,
    Consult,
    Hangup,
    JoinCalls,
    RemoveRecording,
    SendDigits,
    SendSMS,
    StartRecording,
    StartTranscription,
    StopRecording,
    TransferTo,
    UseClientTool,
)
from dialog.voip.twilio import twiml
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.twilio.rest import TwilioRest

if TYPE_CHECKING:
    from dialog.voip.twilio.consulting import TwilioConsultations

__all__ = ["TwilioCommands"]

logger = logging.getLogger(__name__)

_DIGITS: Final = re.compile(r"[0-9A-D#*wW]+")
_RING_S: Final = 30.0
_MARGIN_S: Final = 10.0


class Records(Protocol):
    """Where the commands find what the gateway knows of a call."""

    def __call__(self, call: Call, /) -> TwilioRecord | None: ...


class TwilioCommands:
    """Carries out commands; every failure is a :class:`~dialog.errors.CarrierError` that names the call."""

    def __init__(self, rest: TwilioRest) -> None:
        self.rest = rest
        self.record_of: Records = lambda _: None
        """Set by the gateway."""
        self.consultations: TwilioConsultations | None = None
        """Likewise."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Carry out one command.

        Raises:
            CarrierError: Twilio refused or could not be reached.
            MissingPublicURL: Twilio must call back, and nobody told us our address.
        """
        record = self.record_of(call)
        if record is None:
            if isinstance(command, Hangup):
                return None  # nothing is left to hang up
            raise CarrierError("twilio", str(call.metadata.call_id), "the call is over")
        if isinstance(command, Hangup):
            await self._hangup(call, record, command.reason)
            return None
        if not record.carrier_call_id:
            raise CarrierError("twilio", str(call.metadata.call_id), "the call has no CallSid yet: wait for the stream")
        match command:
            case UseClientTool():
                raise NotSupportedError(f"call {call.metadata.call_id}: a telephone has no tools")
            case Consult():
                self._site(record, "consult")
                await self._together().consult(call, record, command)
            case JoinCalls(other):
                await self._together().join(call, record, other)
            case TransferTo():
                await self._transfer(call, record, command)
            case SendDigits():
                await self._digits(call, record, command)
            case StartRecording(status_url):
                url = status_url or self._site(record, "start_recording").url("recording", call=record.call_id)
                record.recording_id = await self.rest.start_recording(record.carrier_call_id, status_url=url)
            case SendSMS(to=to, from_=from_, text=text):
                return await self.rest.send_message(to=to, text=text, from_=from_, call_sid=record.carrier_call_id)
            case StopRecording():
                await self.rest.stop_recording(record.carrier_call_id, record.recording_id)
            case RemoveRecording():
                if not record.recording_id:
                    raise CarrierError("twilio", record.carrier_call_id, "there is no recording of this call to remove")
                await self.rest.remove_recording(record.carrier_call_id, record.recording_id)
            case StartTranscription(status_url=status_url, engine=engine, language=language, options=options):
                url = status_url or self._site(record, "start_transcription").url("transcription", call=record.call_id)
                await self.rest.start_transcription(
                    record.carrier_call_id, status_url=url, engine=engine, language=language, options=options
                )
        return None

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording."""
        return self.rest.download(url)

    def _together(self) -> TwilioConsultations:
        assert self.consultations is not None, "set by the gateway"
        return self.consultations

    async def hangup_quietly(self, call: Call) -> None:
        """Tell Twilio that a call is over; a failure is only logged."""
        record = self.record_of(call)
        if record is None or not record.carrier_call_id:
            return
        try:
            await self.rest.hangup(record.carrier_call_id)
        except CarrierError as exc:
            logger.warning("%s", exc)

    async def close(self) -> None:
        """Wait for what is under way, which has its own bound, and close the connections."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))
        if self.consultations is not None:
            await self.consultations.close()
        await self.rest.close()

    async def _hangup(self, call: Call, record: TwilioRecord, reason: str) -> None:
        # The end comes first: it closes the socket, upon which Twilio asks what to do next and is told
        # to hang up, even if the request below fails. That request outlives whoever waits for it, since
        # the end of the call disposes them.
        call.end(reason)
        if record.carrier_call_id:
            task = asyncio.create_task(
                self.rest.hangup(record.carrier_call_id), name=f"hang up {record.carrier_call_id}"
            )
            self._tasks.add(task)
            task.add_done_callback(self._hung_up)
            await asyncio.shield(task)

    def _hung_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("%s failed: %s", task.get_name(), error)  # whoever waits for it hears of it too

    async def _transfer(self, call: Call, record: TwilioRecord, command: TransferTo) -> None:
        site = self._site(record, "transfer_to")
        ring_s = _RING_S if command.back_within_s is None else command.back_within_s
        query: dict[str, object] = {"call": record.call_id}
        if command.back_within_s is not None:
            query["back"] = 1
        document = twiml.dial(
            command.tel,
            action=site.url("dial", **query),
            status_callback=site.url("number", call=record.call_id),
            timeout_s=max(5, round(ring_s)),
        )
        await self.rest.redirect(record.carrier_call_id, document)
        call.moving("transfer", ring_s + _MARGIN_S)

    async def _digits(self, call: Call, record: TwilioRecord, command: SendDigits) -> None:
        if not _DIGITS.fullmatch(command.digits):
            raise CarrierError("twilio", record.carrier_call_id, "digits may be 0-9 A-D # * w W only")
        site = self._site(record, "send_digits")
        then = site.url("after", call=record.call_id, generation=call.generation)
        await self.rest.redirect(record.carrier_call_id, twiml.play_digits(command.digits, then=then))
        call.moving("digits", call.settings.digits_s + command.lasts_s)

    def _site(self, record: TwilioRecord, what: str) -> Site:
        if not record.site.public:
            raise MissingPublicURL(
                f"call {record.call_id}: {what} needs an address that Twilio can call back: give TwilioGateway its "
                "webhook_url (or trust_forwarded_headers=True behind a proxy that sets them)"
            )
        return record.site
