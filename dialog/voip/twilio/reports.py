"""What Twilio reports of a call beside its voice webhooks: recordings, transcriptions, states.

Reports come in any order, more than once, and after the call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal
from uuid import UUID

from dialog.errors import CarrierError
from dialog.message import Progress, TranscriptStatus
from dialog.voip.call import Call
from dialog.voip.carrier.http import Endpoint, Fields, query_call
from dialog.voip.carrier.record import call_id_of
from dialog.voip.twilio.forms import (
    FINAL_STATUSES,
    AnsweredByForm,
    CallStatusForm,
    ConferenceForm,
    NumberStatusForm,
    RecordingForm,
    StreamStatusForm,
    TranscriptionForm,
    decode_form,
    decode_transcription_data,
)
from dialog.voip.twilio.record import TwilioRecord
from dialog.voip.voip import VoIP

__all__ = ["Reports", "end_reason", "named_record"]

logger = logging.getLogger(__name__)

_TRANSCRIPT_STATES: dict[str, Literal["started", "content", "stopped", "error"]] = {
    "transcription-started": "started",
    "transcription-content": "content",
    "transcription-stopped": "stopped",
    "transcription-error": "error",
}
_PROGRESS: dict[str, Progress] = {
    "queued": "dialling",
    "initiated": "dialling",
    "ringing": "ringing",
    "in-progress": "answered",
}
_ANSWERERS: dict[str, Literal["human", "machine", "fax"]] = {"human": "human", "machine": "machine", "fax": "fax"}
_TRACKS: dict[str, Literal["caller", "agent"]] = {"inbound_track": "caller", "outbound_track": "agent"}


class Reports:
    """Hands reports to the calls that they are about."""

    def __init__(self, records: dict[UUID, TwilioRecord]) -> None:
        self._records = records
        self.on_conference: Callable[[UUID, UUID, str, str], object] = _nobody
        """Told of the caller, of whom they meet, what happened, and to which CallSid; set by the gateway."""

    def take(self, endpoint: Endpoint, fields: Fields) -> None:
        """Take the report that came to ``endpoint``.

        Raises:
            RemoteProtocolError: It lacks what it needs.
            Refusal: 400, the call's id in its URL is malformed.
        """
        match endpoint:
            case "number":
                self._number(fields)
            case "stream":
                self._stream(fields)
            case "status":
                self._status(fields)
            case "verdict":
                self._verdict(fields)
            case "conference":
                self._conference(fields)
            case "recording":
                self._recording(fields)
            case "transcription":
                self._transcription(fields)
            case _:
                raise ValueError(f"{endpoint} is not for reports")

    def _number(self, fields: Fields) -> None:
        form = decode_form(NumberStatusForm, fields)
        _, record = named_record(self._records, fields)
        if record is not None and record.call is not None and form.call_status in ("in-progress", "answered"):
            record.call.end("transferred")

    def _stream(self, fields: Fields) -> None:
        form = decode_form(StreamStatusForm, fields)
        call_id, _ = named_record(self._records, fields)
        if form.stream_event == "stream-error":
            logger.warning("call %s: Twilio reports a stream error: %.200s", call_id, form.stream_error)

    def _status(self, fields: Fields) -> None:
        form = decode_form(CallStatusForm, fields)
        call_id, record = named_record(self._records, fields)
        if record is None:
            record = self._records.get(call_id_of(form.call_sid))
        if record is None or record.call is None:
            return
        if form.call_status not in FINAL_STATUSES:
            if form.call_status in _PROGRESS:
                record.progressed(_PROGRESS[form.call_status], form.call_sid)
            return
        record.progressed("dialling", form.call_sid)  # at least that far it has come
        if record.call.state != "ended":
            code = form.sip_response_code if form.call_status != "completed" else ""
            record.call.end(end_reason(form.call_status, record.call), f"SIP {code}" if code else "")
        else:
            logger.debug("call %s: Twilio confirms the end (%s)", call_id, form.call_status)

    def _verdict(self, fields: Fields) -> None:
        form = decode_form(AnsweredByForm, fields)
        call_id, record = named_record(self._records, fields)
        if record is None or record.call is None or record.watch is None:
            logger.info("call %s: who answered it (%s) is known too late", call_id, form.answered_by)
            return
        who = form.answered_by.partition("_")[0]
        # Beep, silence or something else: in all three cases it has said what it had to say.
        over = form.answered_by.startswith("machine_end")
        with record.call.scope.entered():
            record.watch.verdict(_ANSWERERS.get(who, "unknown"), greeting_over=over)

    def _conference(self, fields: Fields) -> None:
        form = decode_form(ConferenceForm, fields)
        call_id, other = query_call(fields), query_call(fields, "other")
        if call_id is not None and other is not None:
            self.on_conference(call_id, other, form.status_callback_event, form.call_sid)

    def _recording(self, fields: Fields) -> None:
        form = decode_form(RecordingForm, fields)
        call_id, record = named_record(self._records, fields)
        if record is None or record.call is None:
            logger.info("call %s: a recording report (%s) came too late", call_id, form.recording_status)
            return
        record.recording_id = form.recording_sid or record.recording_id
        if record.repeated(("recording", form.recording_sid, form.recording_status)):
            return
        with record.call.scope.entered():
            if form.recording_status == "completed" and form.recording_url:
                record.call.voip.receive(VoIP.RECORDING_URL, form.recording_url)
            elif form.recording_status in ("absent", "failed"):
                record.call.voip.fail(
                    CarrierError(
                        "twilio",
                        record.carrier_call_id,
                        f"the recording is {form.recording_status} (error {form.error_code or 'not given'}): "
                        "there is nothing to fetch",
                    )
                )

    def _transcription(self, fields: Fields) -> None:
        form = decode_form(TranscriptionForm, fields)
        call_id, record = named_record(self._records, fields)
        if record is None or record.call is None:
            logger.info("call %s: a transcription report (%s) came too late", call_id, form.transcription_event)
            return
        state = _TRANSCRIPT_STATES.get(form.transcription_event)
        if state is None:
            logger.debug("call %s: ignored the unknown %.60r", call_id, form.transcription_event)
            return
        key = ("transcription", form.transcription_sid, form.sequence_id, form.transcription_event)
        if form.sequence_id and record.repeated(key):
            return
        text, confidence = "", None
        if state == "content":
            data = decode_transcription_data(form.transcription_data)
            text, confidence = data.transcript, data.confidence
        elif state == "error":
            text = f"{form.transcription_error_code} {form.transcription_error}".strip()
        status = TranscriptStatus(
            state=state,
            track=_TRACKS.get(form.track, ""),
            text=text,
            final=form.final,
            confidence=confidence,
            at=form.timestamp,
        )
        with record.call.scope.entered():
            record.call.voip.receive(VoIP.TRANSCRIPT, status)


def _nobody(_caller: UUID, _other: UUID, _event: str, _call_sid: str) -> None:
    """No conference is of interest."""


def named_record(records: dict[UUID, TwilioRecord], fields: Fields) -> tuple[UUID | None, TwilioRecord | None]:
    """The call that a callback URL of ours names, and what is known of it.

    Raises:
        Refusal: 400, the name is malformed.
    """
    call_id = query_call(fields)
    return call_id, records.get(call_id) if call_id is not None else None


def end_reason(status: str, call: Call) -> str:
    """How a call ended, from the final status that Twilio reports."""
    if status in ("busy", "failed", "no-answer", "canceled"):
        return status.replace("-", "_")
    return "never_connected" if call.generation == 0 else "caller_hangup"
