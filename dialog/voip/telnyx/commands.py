"""What an agent asks of the carrier, put into Call Control commands."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from dialog.errors import CarrierError, MissingPublicURL, NotSupportedError
from dialog.voip.call import Call
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
)
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.telnyx.rest import HAS_ENDED, TelnyxRest

if TYPE_CHECKING:
    from dialog.voip.telnyx.consulting import TelnyxConsultations

__all__ = ["TelnyxCommands"]

logger = logging.getLogger(__name__)

_DIGITS: Final = re.compile(r"[0-9A-D#*wW]+")
_RING_S: Final = 30.0
_MARGIN_S: Final = 10.0
_ENGINES: Final = {"deepgram": "Deepgram", "google": "Google", "telnyx": "Telnyx", "azure": "Azure"}


class TelnyxCommands:
    """Carries out commands; every failure is a :class:`~dialog.errors.CarrierError` that names the call."""

    def __init__(self, rest: TelnyxRest) -> None:
        self.rest = rest
        self.record_of: Callable[[Call], TelnyxRecord | None] = lambda _: None
        """Set by the switchboard."""
        self.consultations: TelnyxConsultations | None = None
        """Set by the gateway."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Carry out one command.

        Raises:
            CarrierError: Telnyx refused or could not be reached.
            MissingPublicURL: Telnyx must call back, and nobody told us our address.
            NotSupportedError: There is no such thing over Telnyx.
        """
        record = self.record_of(call)
        if record is None:
            if isinstance(command, Hangup):
                return None  # nothing is left to hang up
            raise CarrierError("telnyx", str(call.metadata.call_id), "the call is over")
        if isinstance(command, Hangup):
            await self._hangup(call, record, command.reason)
            return None
        ours = record.carrier_call_id
        if not ours:
            raise CarrierError("telnyx", str(call.metadata.call_id), "Telnyx has no id for the call yet: wait for it")
        match command:
            case Consult():
                self._check_public(record, "consult")
                await self._together().consult(call, record, command)
            case JoinCalls(other):
                await self._together().join(call, record, other)
            case TransferTo():
                await self._transfer(call, record, command)
            case SendDigits(digits):
                if not _DIGITS.fullmatch(digits):
                    raise CarrierError("telnyx", ours, "digits may be 0-9 A-D # * w W only")
                await self.rest.command(ours, "send_dtmf", {"digits": digits})
                call.stayed("digits")
            case StartRecording(status_url):
                if status_url:
                    raise NotSupportedError(
                        f"call {record.call_id}: Telnyx reports to the call's own webhook: give no status_url"
                    )
                await self.rest.command(ours, "record_start", {"format": "wav", "channels": "dual"})
            case StopRecording():
                await self._unless_over(self.rest.command(ours, "record_stop"))
            case RemoveRecording():
                await self.rest.remove_recordings(ours, call_leg_id=record.leg_id)
            case SendSMS(to=to, from_=from_, text=text):
                return await self.rest.send_message(to=to, text=text, from_=from_, call=ours)
            case StartTranscription():
                await self._transcribe(record, command)
            case _:
                what = type(command).__name__
                raise NotSupportedError(f"call {record.call_id}: {what} is not there for calls over Telnyx")
        return None

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording."""
        return self.rest.download(url)

    async def hangup_quietly(self, call: Call) -> None:
        """Tell Telnyx that a call is over; a failure is only logged."""
        record = self.record_of(call)
        if record is None or not record.carrier_call_id or record.gone.is_set():
            return
        record.gone.set()
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

    def _together(self) -> TelnyxConsultations:
        assert self.consultations is not None, "set by the gateway"
        return self.consultations

    def _check_public(self, record: TelnyxRecord, what: str) -> None:
        if not record.site.public:
            raise MissingPublicURL(
                f"call {record.call_id}: {what} needs an address that Telnyx can call back: give TelnyxGateway "
                "its webhook_url"
            )

    async def _hangup(self, call: Call, record: TelnyxRecord, reason: str) -> None:
        # The end comes first: it closes the socket. The request outlives whoever waits for it, since the end of
        # the call disposes them.
        if record.deciding:
            call.end(reason)
            return
        told = not record.carrier_call_id or record.gone.is_set()
        record.gone.set()
        call.end(reason)
        if not told:
            task = asyncio.create_task(self.rest.hangup(record.carrier_call_id), name=f"hang up {record.call_id}")
            self._tasks.add(task)
            task.add_done_callback(self._hung_up)
            await asyncio.shield(task)

    def _hung_up(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("%s failed: %s", task.get_name(), error)  # whoever waits for it hears of it too

    async def _transfer(self, call: Call, record: TelnyxRecord, command: TransferTo) -> None:
        self._check_public(record, "transfer_to")
        ring_s = _RING_S if command.back_within_s is None else command.back_within_s
        fields: dict[str, Any] = {
            "to": command.tel,
            "timeout_secs": max(5, round(ring_s)),
            "webhook_url": record.site.url("voice", call=record.call_id),
        }
        record.transfer, record.wants_back = command, False
        try:
            await self.rest.command(record.carrier_call_id, "transfer", fields)
        except BaseException:
            if call.state != "moving":  # else it is carried out all the same
                record.transfer = None
            raise
        if record.transfer is not command and not record.wants_back:
            return  # it has failed already, and the answer comes late
        call.moving("transfer", ring_s + _MARGIN_S)
        # The agent has nothing to do with the ringing. If this fails, the stream ends with the transfer.
        try:
            await self.rest.command(record.carrier_call_id, "streaming_stop")
        except CarrierError as exc:
            logger.info("%s", exc)

    async def _transcribe(self, record: TelnyxRecord, command: StartTranscription) -> None:
        if command.status_url:
            raise NotSupportedError(
                f"call {record.call_id}: Telnyx sends transcripts to the call's own webhook: give no status_url"
            )
        engine = _ENGINES.get(command.engine, command.engine)
        fields: dict[str, Any] = {
            "transcription_engine": engine,
            "transcription_tracks": "both",
            "transcription_engine_config": {"transcription_engine": engine, "language": command.language},
            **dict(command.options),
        }
        await self.rest.command(record.carrier_call_id, "transcription_start", fields)
        record.transcribed = True

    async def _unless_over(self, command: Any) -> None:
        try:
            await command
        except CarrierError as exc:
            if exc.carrier_code != HAS_ENDED:
                raise
