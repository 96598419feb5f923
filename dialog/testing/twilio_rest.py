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
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import parse_qs, urlencode

import aiohttp
from aiohttp import web

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.testing.callee import CalledPhone, Callee
from dialog.testing.server import EmulatorServer, Faults
from dialog.testing.signing import sign
from dialog.testing.twilio_calls import FINAL, CallUpdate, EmulatedCall, call_json
from dialog.testing.twilio_messages import EmulatedMessage, message_json, new_message
from dialog.testing.twilio_recordings import SILENCE_WAV, EmulatedRecording, Recordings
from dialog.testing.twilio_requests import E164, Asked, Handler, RestRefusal
from dialog.testing.twilio_transcriptions import EmulatedTranscription, Transcriptions

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
        self._recordings = Recordings(self, self._report)
        self._transcriptions = Transcriptions(self, self._report)
        self.recordings: dict[str, EmulatedRecording] = self._recordings.all
        self.transcriptions: dict[str, EmulatedTranscription] = self._transcriptions.all
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
        recordings, transcriptions = self._recordings, self._transcriptions
        return [
            web.post(f"{base}/Calls.json", self._asked(self._create_call)),
            web.get(f"{base}/Calls.json", self._asked(self._list_calls)),
            web.get(f"{base}/Calls/{{call}}/Events.json", self._asked(self._list_events)),
            web.get(f"{base}/Calls/{{call}}.json", self._asked(self._fetch_call)),
            web.post(f"{base}/Calls/{{call}}.json", self._asked(self._update_call)),
            web.post(f"{base}/Calls/{{call}}/Recordings.json", self._asked(recordings.create)),
            web.post(f"{base}/Calls/{{call}}/Recordings/{{recording}}.json", self._asked(recordings.update)),
            web.get(f"{base}/Recordings/{{recording}}.json", self._asked(recordings.fetch)),
            web.delete(f"{base}/Recordings/{{recording}}.json", self._asked(recordings.delete)),
            web.get(
                f"{base}/Recordings/{{recording:RE[0-9a-f]+}}{{ext:(\\.wav|\\.mp3)?}}", self._asked(recordings.media)
            ),
            web.post(f"{base}/Messages.json", self._asked(self._create_message)),
            web.get(f"{base}/Messages/{{message}}.json", self._asked(self._fetch_message)),
            web.post(f"{base}/Calls/{{call}}/Transcriptions.json", self._asked(transcriptions.create)),
            web.post(
                f"{base}/Calls/{{call}}/Transcriptions/{{transcription}}.json", self._asked(transcriptions.update)
            ),
        ]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal in the shape that is switched on."""
        code = {401: 20003, 404: 20404, 429: 20429}.get(status, 20500)
        return RestRefusal(status, code, "refused").response(problem_json=self.problem_json)

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
        if call is None or call.status in FINAL:
            return
        call.status = status
        self._recordings.end_call(sid)
        self._transcriptions.end_call(sid)
        self.changed()

    def transcribe(self, call_sid: str, text: str, *, track: str = "inbound_track", final: bool = True) -> None:
        """Send words of a call to its running transcriptions."""
        self._transcriptions.hear(call_sid, text, track, final=final)

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

    async def _create_call(self, asked: Asked) -> web.Response:
        form = asked.form
        if not form.get("To"):
            raise RestRefusal(400, 21201, "No 'To' number is specified")
        if len(form.get("Twiml", "")) > 4000:
            raise RestRefusal(400, 21218, "Twiml is too long")
        if not (form.get("Twiml") or form.get("Url")):
            raise RestRefusal(400, 21205, "Url parameter is required.")
        if not E164.fullmatch(form["To"]):
            raise RestRefusal(400, 21211, f"The phone number you are attempting to call, {form['To']}, is not valid.")
        call = self.add_call(from_=form.get("From", ""), to=form["To"], status="queued", direction="outbound-api")
        call.form = form
        self.placed.append(call)
        self._ring(call)
        self.changed()
        if self.answers_lost > 0:
            self.answers_lost -= 1
            raise RestRefusal(500, 20500, "An internal server error has occurred")
        if self.stream_first and call.phone is not None:
            await call.phone.answered.wait()
        return web.json_response(call_json(self.account_sid, call), status=201)

    def _ring(self, call: EmulatedCall) -> None:
        callee = self.callees.get(call.to, self.any_callee)
        if callee is None:
            return

        def note(status: str) -> None:
            if status in FINAL:
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

    async def _list_calls(self, asked: Asked) -> web.Response:
        query = asked.query
        calls = [
            call_json(self.account_sid, call)
            for call in reversed(self.calls.values())
            if query.get("To", call.to) == call.to
            and query.get("From", call.from_) == call.from_
            and query.get("Status", call.status) == call.status
        ]
        return self._page(asked, "calls", calls)

    async def _list_events(self, asked: Asked) -> web.Response:
        call = self.calls.get(asked.names["call"])
        if call is None:
            raise asked.missing()
        events = [{"request": {"url": url, "method": "POST"}, "response": {}} for url in call.requested]
        return self._page(asked, "events", events)

    def _page(self, asked: Asked, name: str, items: list[dict[str, Any]]) -> web.Response:
        size = int(asked.query.get("PageSize", "50"))
        page = {
            name: items[:size],
            "end": len(items[:size]) - 1,
            "first_page_uri": asked.path,
            "next_page_uri": None,
            "page": 0,
            "page_size": size,
            "previous_page_uri": None,
            "start": 0,
            "uri": asked.path,
        }
        return web.json_response(page)

    async def _fetch_call(self, asked: Asked) -> web.Response:
        call = self.calls.get(asked.names["call"])
        if call is None:
            raise asked.missing()
        return web.json_response(call_json(self.account_sid, call))

    async def _update_call(self, asked: Asked) -> web.Response:
        call = self.calls.get(asked.names["call"])
        if call is None:
            raise asked.missing()
        if call.status in FINAL:
            raise RestRefusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        form = asked.form
        status, twiml = form.get("Status", ""), form.get("Twiml", "")
        if len(twiml) > 4000:
            raise RestRefusal(400, 21218, "Twiml is too long")
        update = CallUpdate(call_sid=call.sid, status=status, twiml=twiml, url=form.get("Url", ""))
        call.updates.append(update)
        if status in FINAL:
            self.end_call(call.sid, status)
        if call.on_update is not None:
            result = call.on_update(update)
            if inspect.isawaitable(result):
                await result
        self.changed()
        return web.json_response(call_json(self.account_sid, call))

    async def _create_message(self, asked: Asked) -> web.Response:
        message = new_message(asked.form, senders=self.senders, unsubscribed=self.unsubscribed)
        self.messages.append(message)
        self.changed()
        return web.json_response(message_json(self.account_sid, message), status=201)

    async def _fetch_message(self, asked: Asked) -> web.Response:
        sid = asked.names["message"]
        found = next((message for message in self.messages if message.sid == sid), None)
        if found is None:
            raise asked.missing()
        return web.json_response(message_json(self.account_sid, found))

    def _report(self, url: str, fields: dict[str, str]) -> None:
        async def send() -> None:
            await self.callback(url, fields)

        task = asyncio.get_running_loop().create_task(send(), name="Twilio callback")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def _asked(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Let ``handler`` answer who may ask."""

        async def answer(request: web.Request) -> web.Response:
            try:
                return await handler(await self._read(request))
            except RestRefusal as refusal:
                return refusal.response(problem_json=self.problem_json)

        return answer

    async def _read(self, request: web.Request) -> Asked:
        if not self._authorized(request):
            raise RestRefusal(401, 20003, "Authenticate")
        text = (await request.read()).decode()
        form = {name: " ".join(values) for name, values in parse_qs(text, keep_blank_values=True).items()}
        asked = Asked(path=request.path, names=request.match_info, query=request.query, form=form)
        if asked.names["account"] != self.account_sid:
            raise asked.missing()
        return asked

    def _authorized(self, request: web.Request) -> bool:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:
            return False
        return scheme.lower() == "basic" and (user, password) in self._logins
