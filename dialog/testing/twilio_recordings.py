"""Recordings of the emulated Twilio account, and what is told of them."""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from dialog.testing.twilio_requests import Asked, RestRefusal, now

if TYPE_CHECKING:
    from dialog.testing.twilio_rest import TwilioRestEmulator

__all__ = ["SILENCE_WAV", "EmulatedRecording", "Recordings"]

SILENCE_WAV = (
    # WAVE_FORMAT_MULAW (7), two channels, 8000 Hz; then 20 ms of silence.
    b"RIFF" + struct.pack("<I4s4sIHHIIHHH4sI", 358, b"WAVE", b"fmt ", 18, 7, 2, 8000, 16000, 2, 8, 0, b"data", 320)
) + b"\xff" * 320


@dataclass(slots=True, kw_only=True)
class EmulatedRecording:
    """A recording resource."""

    sid: str
    call_sid: str
    status: str = "in-progress"
    channels: int = 1
    track: str = "both"
    callback: str = ""
    events: tuple[str, ...] = ("completed",)
    form: dict[str, str] = field(default_factory=dict[str, str])
    """The request that created it."""


class Recordings:
    """What is asked of recordings; ``report`` sends a callback."""

    def __init__(self, account: TwilioRestEmulator, report: Callable[[str, dict[str, str]], object]) -> None:
        self._account = account
        self._report = report
        self.all: dict[str, EmulatedRecording] = {}

    async def create(self, asked: Asked) -> web.Response:
        """Begin to record a call."""
        call = self._account.calls.get(asked.names["call"])
        if call is None:
            raise asked.missing()
        if call.status != "in-progress":
            raise RestRefusal(400, 21220, "Requested resource is not eligible for recording")
        form = asked.form
        recording = EmulatedRecording(
            sid="RE" + secrets.token_hex(16),
            call_sid=call.sid,
            channels=2 if form.get("RecordingChannels") == "dual" else 1,
            track=form.get("RecordingTrack", "both"),
            callback=form.get("RecordingStatusCallback", ""),
            events=tuple(form.get("RecordingStatusCallbackEvent", "completed").split()),
            form=form,
        )
        self.all[recording.sid] = recording
        self._account.changed()
        return web.json_response(self._json(recording), status=201)

    async def update(self, asked: Asked) -> web.Response:
        """Pause or stop one, or the one that runs."""
        sid, call_sid = asked.names["recording"], asked.names["call"]
        running = [r for r in self.all.values() if r.call_sid == call_sid and r.status == "in-progress"]
        recording = self.all.get(sid)
        if sid == "Twilio.CURRENT":
            recording = running[0] if len(running) == 1 else None
        if recording is None or recording.call_sid != call_sid:
            raise asked.missing()
        recording.status = asked.form.get("Status", recording.status)
        self._account.changed()
        return web.json_response(self._json(recording))

    async def fetch(self, asked: Asked) -> web.Response:
        """Tell of one."""
        recording = self.all.get(asked.names["recording"])
        if recording is None:
            raise asked.missing()
        return web.json_response(self._json(recording))

    async def delete(self, asked: Asked) -> web.Response:
        """Forget one."""
        if self.all.pop(asked.names["recording"], None) is None:
            raise asked.missing()
        self._account.changed()
        return web.Response(status=204)

    async def media(self, asked: Asked) -> web.Response:
        """Give its audio, as far as the account's faults let it."""
        account, recording = self._account, self.all.get(asked.names["recording"])
        if recording is None or recording.status != "completed":
            raise asked.missing()
        if account.media_missing > 0:
            account.media_missing -= 1
            raise asked.missing()
        if asked.query.get("RequestedChannels") == "2" and recording.channels != 2:
            raise RestRefusal(400, 21100, "The recording has one channel")
        if account.media_redirect:
            return web.Response(status=307, headers={"Location": account.media_redirect})
        return web.Response(body=account.recording_wav, content_type="audio/x-wav")

    def end_call(self, call_sid: str) -> None:
        """The call is over: its recordings are there."""
        for recording in self.all.values():
            if recording.call_sid == call_sid and recording.status in ("in-progress", "paused", "stopped"):
                recording.status = "completed"
                self._tell(recording)

    def _tell(self, recording: EmulatedRecording) -> None:
        if not recording.callback or recording.status not in recording.events:
            return
        account = self._account
        url = f"{account.url}/2010-04-01/Accounts/{account.account_sid}/Recordings/{recording.sid}"
        fields = {
            "AccountSid": account.account_sid,
            "CallSid": recording.call_sid,
            "RecordingSid": recording.sid,
            "RecordingUrl": url,
            "RecordingStatus": recording.status,
            "RecordingDuration": "1",
            "RecordingChannels": str(recording.channels),
            "RecordingTrack": recording.track,
            "RecordingStartTime": now(),
            "RecordingSource": "StartCallRecordingAPI",
            "ErrorCode": "0",
        }
        self._report(recording.callback, fields)

    def _json(self, recording: EmulatedRecording) -> dict[str, Any]:
        return {
            "sid": recording.sid,
            "account_sid": self._account.account_sid,
            "call_sid": recording.call_sid,
            "conference_sid": None,
            "status": recording.status,
            "channels": recording.channels,
            "source": "StartCallRecordingAPI",
            "track": recording.track,
            "start_time": now(),
            "duration": "1" if recording.status == "completed" else None,
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "encryption_details": None,
            "api_version": "2010-04-01",
            "date_created": now(),
            "date_updated": now(),
            "uri": f"/2010-04-01/Accounts/{self._account.account_sid}/Recordings/{recording.sid}.json",
        }
