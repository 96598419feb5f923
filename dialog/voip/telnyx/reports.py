"""What Telnyx reports beside the life of a call: who answered, recordings, transcriptions."""

from __future__ import annotations

import logging
from typing import Final, Literal

from dialog.errors import CarrierError
from dialog.message import TranscriptStatus
from dialog.voip.telnyx.events import CallEvent
from dialog.voip.telnyx.record import TelnyxRecord
from dialog.voip.voip import VoIP

__all__ = ["Reports"]

logger = logging.getLogger(__name__)

Who = Literal["human", "machine", "fax", "unknown"]

_VERDICTS: Final[dict[str, Who]] = {
    "human": "human",
    "human_residence": "human",
    "human_business": "human",
    "machine": "machine",
    "fax_detected": "fax",
}
_TRACKS: Final[dict[str, Literal["caller", "agent"]]] = {"inbound": "caller", "outbound": "agent"}


class Reports:
    """Hands reports to the calls that they are about; each comes here once."""

    def take(self, record: TelnyxRecord, event: CallEvent) -> None:
        """Take a report; one that is unknown is ignored."""
        if record.call is not None:
            with record.call.scope.entered():
                self._take(record, event)

    def _take(self, record: TelnyxRecord, event: CallEvent) -> None:
        match event.event_type:
            case "call.machine.detection.ended" | "call.machine.premium.detection.ended":
                self._verdict(record, event.payload.result or "", greeting_over=False)
            case "call.machine.greeting.ended" | "call.machine.premium.greeting.ended":
                self._verdict(record, "machine", greeting_over=True)
            case "call.recording.saved":
                self._recording(record, event)
            case "call.recording.error":
                self._failed(record, f"the recording failed ({event.payload.reason or 'no reason given'})")
            case "call.transcription":
                self._transcription(record, event)
            case _:
                logger.debug("call %s: Telnyx tells %.60r", record.call_id, event.event_type)

    def over(self, record: TelnyxRecord) -> None:
        """The call is over, and with it its transcription, of which Telnyx does not tell."""
        if record.transcribed and record.call is not None:
            record.transcribed = False
            with record.call.scope.entered():
                record.call.voip.receive(VoIP.TRANSCRIPT, TranscriptStatus(state="stopped"))

    def _verdict(self, record: TelnyxRecord, result: str, *, greeting_over: bool) -> None:
        watch = record.watch
        if watch is None:
            return
        who: Who = _VERDICTS.get(result, "unknown")
        if who == "machine" and not greeting_over and watch.hears_out:
            return  # it goes on talking: its end is told
        watch.verdict(who, greeting_over=greeting_over)

    def _recording(self, record: TelnyxRecord, event: CallEvent) -> None:
        urls = event.payload.recording_urls
        url = (urls.wav or urls.mp3) if urls is not None else None
        if not url:
            self._failed(record, "the recording has no address: there is nothing to fetch")
        elif record.call is not None:
            record.call.voip.receive(VoIP.RECORDING_URL, url)

    def _failed(self, record: TelnyxRecord, reason: str) -> None:
        if record.call is not None:
            record.call.voip.fail(CarrierError("telnyx", record.carrier_call_id, reason))

    def _transcription(self, record: TelnyxRecord, event: CallEvent) -> None:
        data = event.payload.transcription_data
        if data is None or record.call is None:
            return
        status = TranscriptStatus(
            state="content",
            track=_TRACKS.get(data.transcription_track, ""),
            text=data.transcript,
            final=data.is_final,
            confidence=data.confidence,
            at=event.occurred_at,
        )
        record.call.voip.receive(VoIP.TRANSCRIPT, status)
