"""Transcriptions of the emulated Twilio account, and what is told of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from dialog.testing.twilio_requests import Asked, RestRefusal, now

if TYPE_CHECKING:
    from dialog.testing.twilio_rest import TwilioRestEmulator

__all__ = ["EmulatedTranscription", "Transcriptions"]


@dataclass(slots=True, kw_only=True)
class EmulatedTranscription:
    """A transcription resource."""

    sid: str
    call_sid: str
    status: str = "in-progress"
    callback: str = ""
    sequence: int = 0
    form: dict[str, str] = field(default_factory=dict[str, str])
    """The request that created it."""


class Transcriptions:
    """What is asked of transcriptions; ``report`` sends a callback."""

    def __init__(self, account: TwilioRestEmulator, report: Callable[[str, dict[str, str]], object]) -> None:
        self._account = account
        self._report = report
        self.all: dict[str, EmulatedTranscription] = {}

    async def create(self, asked: Asked) -> web.Response:
        """Begin to transcribe a call."""
        call, form = self._account.calls.get(asked.names["call"]), asked.form
        if call is None:
            raise asked.missing()
        if call.status != "in-progress":
            raise RestRefusal(400, 21220, "Call is not in-progress.")
        transcription = EmulatedTranscription(
            sid="GT" + secrets.token_hex(16), call_sid=call.sid, callback=form.get("StatusCallbackUrl", ""), form=form
        )
        self.all[transcription.sid] = transcription
        self._tell(
            transcription,
            "transcription-started",
            LanguageCode=form.get("LanguageCode", "en-US"),
            Track=form.get("Track", "both_tracks"),
            TranscriptionEngine=form.get("TranscriptionEngine", "google"),
            ProviderConfiguration="{}",
            PartialResults=form.get("PartialResults", "false"),
        )
        self._account.changed()
        return web.json_response(self._json(transcription), status=201)

    async def update(self, asked: Asked) -> web.Response:
        """Stop one."""
        transcription = self.all.get(asked.names["transcription"])
        if transcription is None or transcription.call_sid != asked.names["call"]:
            raise asked.missing()
        if asked.form.get("Status") == "stopped" and transcription.status == "in-progress":
            self._stop(transcription)
        return web.json_response(self._json(transcription))

    def hear(self, call_sid: str, text: str, track: str, *, final: bool) -> None:
        """Words were said in a call."""
        for transcription in self._running(call_sid):
            self._tell(
                transcription,
                "transcription-content",
                LanguageCode=transcription.form.get("LanguageCode", "en-US"),
                Track=track,
                TranscriptionData=msgspec.json.encode({"transcript": text, "confidence": 0.95}).decode(),
                Final="true" if final else "false",
            )

    def end_call(self, call_sid: str) -> None:
        """The call is over."""
        for transcription in self._running(call_sid):
            self._stop(transcription)

    def _running(self, call_sid: str) -> list[EmulatedTranscription]:
        return [each for each in self.all.values() if each.call_sid == call_sid and each.status == "in-progress"]

    def _stop(self, transcription: EmulatedTranscription) -> None:
        transcription.status = "stopped"
        self._tell(transcription, "transcription-stopped")

    def _tell(self, transcription: EmulatedTranscription, event: str, **more: str) -> None:
        transcription.sequence += 1
        fields = {
            "AccountSid": self._account.account_sid,
            "CallSid": transcription.call_sid,
            "TranscriptionSid": transcription.sid,
            "TranscriptionEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(),
            "SequenceId": str(transcription.sequence),
            **more,
        }
        if transcription.callback:
            self._report(transcription.callback, fields)

    def _json(self, transcription: EmulatedTranscription) -> dict[str, Any]:
        base = f"/2010-04-01/Accounts/{self._account.account_sid}/Calls/{transcription.call_sid}"
        return {
            "sid": transcription.sid,
            "account_sid": self._account.account_sid,
            "call_sid": transcription.call_sid,
            "name": transcription.form.get("Name"),
            "status": transcription.status,
            "date_updated": now(),
            "uri": f"{base}/Transcriptions/{transcription.sid}.json",
        }
