"""A Twilio account's REST API on loopback: calls, recordings, transcriptions, messages.

::

    async with TwilioRestEmulator(auth_token="secret") as twilio:
        gateway = TwilioGateway(account_sid=twilio.account_sid, auth_token="secret", base_url=twilio.url, …)
        twilio.add_call("CA…", on_update=caller.updated)

Calls that the gateway places reach the telephones in :attr:`~TwilioRestEmulator.callees`.
Who plays a call's other side otherwise says so with :meth:`~TwilioRestEmulator.add_call`, is told what the
gateway does to the call, and says with :meth:`~TwilioRestEmulator.end_call` when it is over. Recording
and transcription callbacks are signed and sent as Twilio does.

Source: Twilio REST API 2010-04-01; the shapes are checked with the official client.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import logging
import re
import secrets
import struct
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import aiohttp
import msgspec
from aiohttp import web

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.testing.callee import CalledPhone, Callee
from dialog.testing.server import EmulatorServer, Faults
from dialog.testing.signing import sign

__all__ = [
    "SILENCE_WAV",
    "CallUpdate",
    "EmulatedCall",
    "EmulatedMessage",
    "EmulatedRecording",
    "EmulatedTranscription",
    "TwilioRestEmulator",
]

logger = logging.getLogger(__name__)

_E164 = re.compile(r"\+[1-9]\d{6,14}")
_FINAL = ("completed", "busy", "failed", "no-answer", "canceled")
SILENCE_WAV = (
    # WAVE_FORMAT_MULAW (7), two channels, 8000 Hz; then 20 ms of silence.
    b"RIFF" + struct.pack("<I4s4sIHHIIHHH4sI", 358, b"WAVE", b"fmt ", 18, 7, 2, 8000, 16000, 2, 8, 0, b"data", 320)
) + b"\xff" * 320


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUpdate:
    """What the gateway did to a call."""

    call_sid: str
    status: str = ""
    """``completed`` or ``canceled``: the call is over."""
    twiml: str = ""
    """The document that the call goes on with: its stream stops."""
    url: str = ""
    """Where that document is to be fetched."""


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


@dataclass(slots=True, kw_only=True)
class EmulatedCall:
    """A call resource."""

    sid: str
    status: str = "in-progress"
    from_: str = "+15551230001"
    to: str = "+15551230002"
    direction: str = "inbound"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    form: dict[str, str] = field(default_factory=dict[str, str])
    """The request that placed it."""
    phone: CalledPhone | None = None
    """The telephone that was called."""
    answered_by: str | None = None
    requested: list[str] = field(default_factory=list[str])
    """The gateway's addresses that were called back for it."""
    updates: list[CallUpdate] = field(default_factory=list[CallUpdate])
    on_update: Callable[[CallUpdate], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedMessage:
    """A message resource."""

    sid: str
    to: str
    from_: str
    """Empty while a messaging service has not chosen the sender."""
    body: str
    messaging_service_sid: str = ""
    status: str = "queued"


class TwilioRestEmulator(EmulatorServer):
    """The REST API of one account; see the module's docstring."""

    def __init__(
        self,
        *,
        account_sid: str = "AC" + "0" * 32,
        auth_token: str = "twilio-auth-token",  # noqa: S107  # an emulator's
        api_key: str = "",
        api_secret: str = "",
        port: int = 0,
        faults: Faults | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare the account.

        Args:
            account_sid: Of the account.
            auth_token: Signs callbacks, and is the password of requests.
            api_key: A user that is accepted as well.
            api_secret: Its password.
            port: 0: one that is free.
            faults: What goes wrong from the start.
            clock: Time of the telephones that are called.
        """
        super().__init__(port=port, faults=faults)
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.calls: dict[str, EmulatedCall] = {}
        self.recordings: dict[str, EmulatedRecording] = {}
        self.transcriptions: dict[str, EmulatedTranscription] = {}
        self.callees: dict[str, Callee] = {}
        """How the telephones of these numbers behave; those of others only ring, for ever."""
        self.any_callee: Callee | None = None
        """… unless this is how."""
        self.placed: list[EmulatedCall] = []
        """Every call that was placed, oldest first."""
        self.answers_lost: int = 0
        """So many calls are placed, and the request is answered 500 all the same."""
        self.stream_first = False
        """A call is answered, and its stream has started, before the request that places it is answered."""
        self.messages: list[EmulatedMessage] = []
        """Every text message that was taken, oldest first."""
        self.unsubscribed: set[str] = set()
        """Numbers that have answered STOP."""
        self.senders: set[str] | None = None
        """Numbers of the account that can send messages; ``None``: any can."""
        self.recording_wav = SILENCE_WAV
        """What every recording's media is."""
        self.media_missing: int = 0
        """How often media is answered 404 before it is there."""
        self.media_redirect = ""
        """Where media requests are sent, if anywhere."""
        self.problem_json = False
        """Report errors as problem details instead of the older shape."""
        self.callbacks: list[tuple[str, dict[str, str], int]] = []
        """Every callback that was sent: URL, form, and the status of the answer (0: none came)."""
        self._logins = {(account_sid, auth_token)}
        if api_key:
            self._logins.add((api_key, api_secret))
        self._session: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._phones: set[asyncio.Task[None]] = set()
        self._clock = clock

    def routes(self) -> Iterable[web.RouteDef]:
        """The subset of 2010-04-01 that a voice agent uses."""
        base = "/2010-04-01/Accounts/{account}"
        return [
            web.post(f"{base}/Calls.json", self._create_call),
            web.get(f"{base}/Calls.json", self._list_calls),
            web.get(f"{base}/Calls/{{call}}/Events.json", self._list_events),
            web.get(f"{base}/Calls/{{call}}.json", self._fetch_call),
            web.post(f"{base}/Calls/{{call}}.json", self._update_call),
            web.post(f"{base}/Calls/{{call}}/Recordings.json", self._create_recording),
            web.post(f"{base}/Calls/{{call}}/Recordings/{{recording}}.json", self._update_recording),
            web.get(f"{base}/Recordings/{{recording}}.json", self._fetch_recording),
            web.delete(f"{base}/Recordings/{{recording}}.json", self._delete_recording),
            web.get(f"{base}/Recordings/{{recording:RE[0-9a-f]+}}{{ext:(\\.wav|\\.mp3)?}}", self._media),
            web.post(f"{base}/Messages.json", self._create_message),
            web.get(f"{base}/Messages/{{message}}.json", self._fetch_message),
            web.post(f"{base}/Calls/{{call}}/Transcriptions.json", self._create_transcription),
            web.post(f"{base}/Calls/{{call}}/Transcriptions/{{transcription}}.json", self._update_transcription),
        ]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal in the shape that is switched on."""
        return self._error(status, {401: 20003, 404: 20404, 429: 20429}.get(status, 20500), "refused")

    def add_call(
        self,
        sid: str = "",
        *,
        from_: str = "+15551230001",
        to: str = "+15551230002",
        status: str = "in-progress",
        direction: str = "inbound",
        on_update: Callable[[CallUpdate], object] | None = None,
    ) -> EmulatedCall:
        """Let the account have a call; ``on_update`` hears when the gateway ends or redirects it.

        If it returns an awaitable, the gateway's request is answered after that.
        """
        sid = sid or "CA" + secrets.token_hex(16)
        call = EmulatedCall(sid=sid, status=status, from_=from_, to=to, direction=direction, on_update=on_update)
        self.calls[sid] = call
        return call

    def end_call(self, sid: str, status: str = "completed") -> None:
        """The call is over: recordings are completed, transcriptions stop, and their callbacks go out."""
        call = self.calls.get(sid)
        if call is None or call.status in _FINAL:
            return
        call.status = status
        for recording in self.recordings.values():
            if recording.call_sid == sid and recording.status in ("in-progress", "paused", "stopped"):
                recording.status = "completed"
                self._report_recording(recording)
        for transcription in self.transcriptions.values():
            if transcription.call_sid == sid and transcription.status == "in-progress":
                self._stop_transcription(transcription)
        self.changed()

    def transcribe(self, call_sid: str, text: str, *, track: str = "inbound_track", final: bool = True) -> None:
        """Send words of a call to its running transcriptions."""
        for transcription in self.transcriptions.values():
            if transcription.call_sid == call_sid and transcription.status == "in-progress":
                data = msgspec.json.encode({"transcript": text, "confidence": 0.95}).decode()
                self._report_transcription(
                    transcription,
                    "transcription-content",
                    LanguageCode=transcription.form.get("LanguageCode", "en-US"),
                    Track=track,
                    TranscriptionData=data,
                    Final="true" if final else "false",
                )

    async def callback(self, url: str, fields: dict[str, str]) -> int:
        """POST a signed form as Twilio does; returns the status of the answer, 0 if there was none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": sign(self.auth_token, url, fields.items()),
        }
        status = 0
        try:
            async with self._session.post(url, data=urlencode(fields), headers=headers) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as exc:
            logger.warning("the callback to %s failed: %r", url, exc)
        self.callbacks.append((url, fields, status))
        self.changed()
        return status

    async def wait_hung_up(self, timeout_s: float = 10.0) -> None:
        """Wait until nobody is on a telephone that was called, and all has been reported.

        Raises:
            TimeoutError: Somebody still is.
        """
        async with asyncio.timeout(timeout_s):
            while self._phones:
                await asyncio.wait(tuple(self._phones))

    async def close(self) -> None:
        """Hang up the telephones, wait for callbacks under way, then stop."""
        for task in tuple(self._phones):
            task.cancel()
        await asyncio.gather(*self._phones, return_exceptions=True)
        if self._sending:
            await asyncio.wait(tuple(self._sending), timeout=2.0)
        for task in tuple(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None
        await super().close()

    async def _create_call(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        if not form.get("To"):
            return self._error(400, 21201, "No 'To' number is specified")
        if len(form.get("Twiml", "")) > 4000:
            return self._error(400, 21218, "Twiml is too long")
        if not (form.get("Twiml") or form.get("Url")):
            return self._error(400, 21205, "Url parameter is required.")
        if not _E164.fullmatch(form["To"]):
            return self._error(400, 21211, f"The phone number you are attempting to call, {form['To']}, is not valid.")
        call = self.add_call(from_=form.get("From", ""), to=form["To"], status="queued", direction="outbound-api")
        call.form = form
        self.placed.append(call)
        self._ring(call)
        self.changed()
        if self.answers_lost > 0:
            self.answers_lost -= 1
            return self._error(500, 20500, "An internal server error has occurred")
        if self.stream_first and call.phone is not None:
            await call.phone.answered.wait()
        return self._json(self._call_json(call), 201)

    def _ring(self, call: EmulatedCall) -> None:
        callee = self.callees.get(call.to, self.any_callee)
        if callee is None:
            return

        def note(status: str) -> None:
            if status in _FINAL:
                self.end_call(call.sid, status)
            else:
                call.status = status
            self.changed()

        async def deliver(url: str, fields: dict[str, str]) -> int:
            call.requested.append(url)
            call.answered_by = fields.get("AnsweredBy", call.answered_by)
            return await self.callback(url, fields)

        phone = call.phone = CalledPhone(
            callee,
            call_sid=call.sid,
            account_sid=self.account_sid,
            auth_token=self.auth_token,
            form=call.form,
            clock=self._clock,
            deliver=deliver,
            note=note,
        )
        # As at Twilio, the request is answered before anything has come of it.
        call.on_update = lambda update: self._at_the_phone(
            phone.update(status=update.status, twiml=update.twiml, url=update.url)
        )
        self._at_the_phone(phone.run())

    def _at_the_phone(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="telephone")
        self._phones.add(task)
        task.add_done_callback(self._phones.discard)

    async def _list_calls(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        query = request.query
        calls = [
            self._call_json(call)
            for call in reversed(self.calls.values())
            if query.get("To", call.to) == call.to
            and query.get("From", call.from_) == call.from_
            and query.get("Status", call.status) == call.status
        ]
        return self._page(request, "calls", calls)

    async def _list_events(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return self._missing(request)
        events = [{"request": {"url": url, "method": "POST"}, "response": {}} for url in call.requested]
        return self._page(request, "events", events)

    def _page(self, request: web.Request, name: str, items: list[dict[str, Any]]) -> web.Response:
        size = int(request.query.get("PageSize", "50"))
        page = {
            name: items[:size],
            "end": len(items[:size]) - 1,
            "first_page_uri": request.path,
            "next_page_uri": None,
            "page": 0,
            "page_size": size,
            "previous_page_uri": None,
            "start": 0,
            "uri": request.path,
        }
        return self._json(page)

    async def _fetch_call(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        call = self.calls.get(request.match_info["call"])
        return self._missing(request) if call is None else self._json(self._call_json(call))

    async def _update_call(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return self._missing(request)
        if call.status in _FINAL:
            return self._error(400, 21220, "Call is not in-progress. Cannot redirect.")
        status, twiml = form.get("Status", ""), form.get("Twiml", "")
        if len(twiml) > 4000:
            return self._error(400, 21218, "Twiml is too long")
        update = CallUpdate(call_sid=call.sid, status=status, twiml=twiml, url=form.get("Url", ""))
        call.updates.append(update)
        if status in _FINAL:
            self.end_call(call.sid, status)
        if call.on_update is not None:
            result = call.on_update(update)
            if inspect.isawaitable(result):
                await result
        self.changed()
        return self._json(self._call_json(call))

    async def _create_recording(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return self._missing(request)
        if call.status != "in-progress":
            return self._error(400, 21220, "Requested resource is not eligible for recording")
        recording = EmulatedRecording(
            sid="RE" + secrets.token_hex(16),
            call_sid=call.sid,
            channels=2 if form.get("RecordingChannels") == "dual" else 1,
            track=form.get("RecordingTrack", "both"),
            callback=form.get("RecordingStatusCallback", ""),
            events=tuple(form.get("RecordingStatusCallbackEvent", "completed").split()),
            form=form,
        )
        self.recordings[recording.sid] = recording
        self.changed()
        return self._json(self._recording_json(recording), 201)

    async def _update_recording(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        sid, call_sid = request.match_info["recording"], request.match_info["call"]
        running = [r for r in self.recordings.values() if r.call_sid == call_sid and r.status == "in-progress"]
        recording = self.recordings.get(sid)
        if sid == "Twilio.CURRENT":
            recording = running[0] if len(running) == 1 else None
        if recording is None or recording.call_sid != call_sid:
            return self._missing(request)
        recording.status = form.get("Status", recording.status)
        self.changed()
        return self._json(self._recording_json(recording))

    async def _fetch_recording(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        recording = self.recordings.get(request.match_info["recording"])
        return self._missing(request) if recording is None else self._json(self._recording_json(recording))

    async def _delete_recording(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        if self.recordings.pop(request.match_info["recording"], None) is None:
            return self._missing(request)
        self.changed()
        return web.Response(status=204)

    async def _media(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        recording = self.recordings.get(request.match_info["recording"])
        if recording is None or recording.status != "completed":
            return self._missing(request)
        if self.media_missing > 0:
            self.media_missing -= 1
            return self._missing(request)
        if request.query.get("RequestedChannels") == "2" and recording.channels != 2:
            return self._error(400, 21100, "The recording has one channel")
        if self.media_redirect:
            return web.Response(status=307, headers={"Location": self.media_redirect})
        return web.Response(body=self.recording_wav, content_type="audio/x-wav")

    async def _create_transcription(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        call = self.calls.get(request.match_info["call"])
        if call is None:
            return self._missing(request)
        if call.status != "in-progress":
            return self._error(400, 21220, "Call is not in-progress.")
        transcription = EmulatedTranscription(
            sid="GT" + secrets.token_hex(16), call_sid=call.sid, callback=form.get("StatusCallbackUrl", ""), form=form
        )
        self.transcriptions[transcription.sid] = transcription
        self._report_transcription(
            transcription,
            "transcription-started",
            LanguageCode=form.get("LanguageCode", "en-US"),
            Track=form.get("Track", "both_tracks"),
            TranscriptionEngine=form.get("TranscriptionEngine", "google"),
            ProviderConfiguration="{}",
            PartialResults=form.get("PartialResults", "false"),
        )
        self.changed()
        return self._json(self._transcription_json(transcription), 201)

    async def _update_transcription(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        transcription = self.transcriptions.get(request.match_info["transcription"])
        if transcription is None or transcription.call_sid != request.match_info["call"]:
            return self._missing(request)
        if form.get("Status") == "stopped" and transcription.status == "in-progress":
            self._stop_transcription(transcription)
        return self._json(self._transcription_json(transcription))

    async def _create_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        to, from_, body = form.get("To", ""), form.get("From", ""), form.get("Body", "")
        service = form.get("MessagingServiceSid", "")
        refusal = self._message_refusal(to, from_, body, service)
        if refusal is not None:
            return self._error(400, *refusal)
        message = EmulatedMessage(
            sid="SM" + secrets.token_hex(16),
            to=to,
            from_=from_,
            body=body,
            messaging_service_sid=service,
            # With a service the sender is chosen later.
            status="accepted" if service else "queued",
        )
        self.messages.append(message)
        self.changed()
        return self._json(self._message_json(message), 201)

    def _message_refusal(self, to: str, from_: str, body: str, service: str) -> tuple[int, str] | None:
        """Code and text, if Twilio would not take such a message."""
        if not to:
            return 21604, "A 'To' phone number is required."
        if not _E164.fullmatch(to):
            return 21211, f"Invalid 'To' Phone Number: {to}"
        if not from_ and not service:
            return 21603, "A 'From' phone number is required."
        if from_ and self.senders is not None and from_ not in self.senders:
            return 21606, f"The 'From' phone number provided ({from_}) is not a valid message-capable Twilio number."
        if not body:
            return 21602, "Message body is required."
        if len(body) > 1600:
            return 21617, "The concatenated message body exceeds the 1600 character limit"
        if to in self.unsubscribed:
            return 21610, "Attempt to send to unsubscribed recipient"
        return None

    async def _fetch_message(self, request: web.Request) -> web.Response:
        form = await self._form(request)
        if isinstance(form, web.Response):
            return form
        sid = request.match_info["message"]
        found = next((message for message in self.messages if message.sid == sid), None)
        return self._missing(request) if found is None else self._json(self._message_json(found))

    def _stop_transcription(self, transcription: EmulatedTranscription) -> None:
        transcription.status = "stopped"
        self._report_transcription(transcription, "transcription-stopped")

    def _report_recording(self, recording: EmulatedRecording) -> None:
        if not recording.callback or recording.status not in recording.events:
            return
        url = f"{self.url}/2010-04-01/Accounts/{self.account_sid}/Recordings/{recording.sid}"
        fields = {
            "AccountSid": self.account_sid,
            "CallSid": recording.call_sid,
            "RecordingSid": recording.sid,
            "RecordingUrl": url,
            "RecordingStatus": recording.status,
            "RecordingDuration": "1",
            "RecordingChannels": str(recording.channels),
            "RecordingTrack": recording.track,
            "RecordingStartTime": _now(),
            "RecordingSource": "StartCallRecordingAPI",
            "ErrorCode": "0",
        }
        self._send(self.callback(recording.callback, fields))

    def _report_transcription(self, transcription: EmulatedTranscription, event: str, **more: str) -> None:
        transcription.sequence += 1
        fields = {
            "AccountSid": self.account_sid,
            "CallSid": transcription.call_sid,
            "TranscriptionSid": transcription.sid,
            "TranscriptionEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(),
            "SequenceId": str(transcription.sequence),
            **more,
        }
        if transcription.callback:
            self._send(self.callback(transcription.callback, fields))

    def _send(self, work: Coroutine[Any, Any, object]) -> None:
        async def send() -> None:
            await work

        task = asyncio.get_running_loop().create_task(send(), name="Twilio callback")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _form(self, request: web.Request) -> dict[str, str] | web.Response:
        """The form of an authorized request, repeated fields joined by spaces; else the refusal."""
        if not self._authorized(request):
            return self._error(401, 20003, "Authenticate")
        if request.match_info["account"] != self.account_sid:
            return self._missing(request)
        text = (await request.read()).decode()
        return {name: " ".join(values) for name, values in parse_qs(text, keep_blank_values=True).items()}

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            return False
        return scheme.lower() == "basic" and (user, password) in self._logins

    def _missing(self, request: web.Request) -> web.Response:
        return self._error(404, 20404, f"The requested resource {request.path} was not found")

    def _error(self, status: int, code: int, message: str) -> web.Response:
        more = f"https://www.twilio.com/docs/errors/{code}"
        if self.problem_json:
            problem = {"type": more, "title": message, "status": status, "code": code, "detail": message}
            return web.json_response(problem, status=status, content_type="application/problem+json")
        error = {"code": code, "message": message, "more_info": more, "status": status}
        return web.json_response(error, status=status)

    def _json(self, body: dict[str, Any], status: int = 200) -> web.Response:
        return web.json_response(body, status=status)

    def _call_json(self, call: EmulatedCall) -> dict[str, Any]:
        uri = f"/2010-04-01/Accounts/{self.account_sid}/Calls/{call.sid}"
        return {
            "sid": call.sid,
            "account_sid": self.account_sid,
            "parent_call_sid": None,
            "to": call.to,
            "to_formatted": call.to,
            "from": call.from_,
            "from_formatted": call.from_,
            "phone_number_sid": "PN" + "0" * 32,
            "status": call.status,
            "start_time": _now(),
            "end_time": _now() if call.status in _FINAL else None,
            "duration": "1" if call.status in _FINAL else None,
            "price": None,
            "price_unit": "USD",
            "direction": call.direction,
            "answered_by": call.answered_by,
            "api_version": "2010-04-01",
            "forwarded_from": None,
            "group_sid": None,
            "caller_name": None,
            "queue_time": "0",
            "trunk_sid": None,
            "date_created": format_datetime(call.created),
            "date_updated": _now(),
            "uri": f"{uri}.json",
            "subresource_uris": {"recordings": f"{uri}/Recordings.json"},
        }

    def _recording_json(self, recording: EmulatedRecording) -> dict[str, Any]:
        return {
            "sid": recording.sid,
            "account_sid": self.account_sid,
            "call_sid": recording.call_sid,
            "conference_sid": None,
            "status": recording.status,
            "channels": recording.channels,
            "source": "StartCallRecordingAPI",
            "track": recording.track,
            "start_time": _now(),
            "duration": "1" if recording.status == "completed" else None,
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "encryption_details": None,
            "api_version": "2010-04-01",
            "date_created": _now(),
            "date_updated": _now(),
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Recordings/{recording.sid}.json",
        }

    def _message_json(self, message: EmulatedMessage) -> dict[str, Any]:
        base = f"/2010-04-01/Accounts/{self.account_sid}/Messages/{message.sid}"
        return {
            "sid": message.sid,
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": message.body,
            "date_created": _now(),
            "date_sent": None,
            "date_updated": _now(),
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": message.from_ or None,
            "messaging_service_sid": message.messaging_service_sid or None,
            "num_media": "0",
            "num_segments": "0" if message.messaging_service_sid else "1",
            "price": None,
            "price_unit": None,
            "status": message.status,
            "subresource_uris": {"media": f"{base}/Media.json"},
            "to": message.to,
            "uri": f"{base}.json",
        }

    def _transcription_json(self, transcription: EmulatedTranscription) -> dict[str, Any]:
        base = f"/2010-04-01/Accounts/{self.account_sid}/Calls/{transcription.call_sid}"
        return {
            "sid": transcription.sid,
            "account_sid": self.account_sid,
            "call_sid": transcription.call_sid,
            "name": transcription.form.get("Name"),
            "status": transcription.status,
            "date_updated": _now(),
            "uri": f"{base}/Transcriptions/{transcription.sid}.json",
        }


def _now() -> str:
    return format_datetime(datetime.now(UTC))
