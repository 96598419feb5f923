"""A Telnyx account on loopback: Call Control commands, signed webhooks, media streams, telephones.

::

    async with TelnyxEmulator() as telnyx:
        gateway = TelnyxGateway(api_key=telnyx.api_key, public_key=telnyx.public_key, base_url=telnyx.url, …)
        telnyx.webhook_url = "http://127.0.0.1:8080/telnyx"  # of the application
        async with telnyx.dial() as caller:
            greeting = await caller.listen()

Calls that the gateway places reach the telephones in :attr:`~TelnyxEmulator.callees`.

Facts: Telnyx API v2, Call Control, "Webhook fundamentals"; the shapes are checked with the official client.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import web

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, MissingExtra
from dialog.testing.call import CallerEvent, CallSpec
from dialog.testing.callee import Callee
from dialog.testing.caller import Dialling
from dialog.testing.carrier import Leg, TransferOutcome
from dialog.testing.faults import CallFaults
from dialog.testing.server import EmulatorServer, Faults
from dialog.testing.telnyx_call import TelnyxCaller, TelnyxLeg
from dialog.testing.twilio_recordings import SILENCE_WAV
from dialog.testing.voice import Voice

__all__ = ["Delivered", "TelnyxCommand", "TelnyxEmulator"]

logger = logging.getLogger(__name__)

_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_ACTIONS: Final = frozenset(
    {
        "answer",
        "reject",
        "hangup",
        "transfer",
        "streaming_start",
        "streaming_stop",
        "send_dtmf",
        "bridge",
        "playback_start",
        "playback_stop",
        "record_start",
        "record_stop",
        "speak",
        "transcription_start",
    }
)
_PARKED: Final = frozenset({"answer", "reject", "hangup", "transfer"})
"""What may be done with a call that was not answered."""
_AMD: Final = {"human": "human", "fax": "fax_detected"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TelnyxCommand:
    """A command that was carried out."""

    call_control_id: str
    action: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A webhook that was sent, and the status of its answer (0: none came)."""

    url: str
    event_type: str
    body: dict[str, Any]
    status: int


class TelnyxEmulator(EmulatorServer):
    """The API of one account and its application; see the module's docstring."""

    def __init__(
        self,
        *,
        api_key: str = "KEY0190telnyx",
        connection_id: str = "1494404757140276705",
        webhook_url: str = "",
        seed: bytes = bytes(range(32)),
        port: int = 0,
        faults: Faults | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepare the account.

        Args:
            api_key: Of commands.
            connection_id: Of the Call Control application.
            webhook_url: Of the application, as configured in the portal.
            seed: 32 bytes, the private key that signs webhooks.
            port: 0: one that is free.
            faults: What goes wrong from the start.
            clock: Time of the calls.

        Raises:
            MissingExtra: The ``testing`` extra is not installed.
        """
        super().__init__(port=port, faults=faults)
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as exc:
            raise MissingExtra("cryptography", "testing") from exc
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.api_key = api_key
        self.connection_id = connection_id
        self.webhook_url = webhook_url
        self.public_key: str = b64encode(self._key.public_key().public_bytes_raw()).decode()
        """What the gateway checks signatures with."""
        self.legs: dict[str, TelnyxLeg] = {}
        """Every call leg, by its call_control_id."""
        self.commands: list[TelnyxCommand] = []
        """Every command that was carried out, oldest first."""
        self.delivered: list[Delivered] = []
        """Every webhook that was sent."""
        self.refuse: dict[str, tuple[int, int]] = {}
        """Actions (``dial`` among them) that are refused, with which status and code."""
        self.answers_lost: int = 0
        """So many commands are carried out, and answered 500 all the same."""
        self.repeat_webhooks: bool = False
        """Every webhook is delivered twice."""
        self.webhook_signature: Literal["valid", "wrong", "missing", "stale"] = "valid"
        self.late: dict[str, float] = {}
        """Event types that are delivered so many seconds late, after those that follow."""
        self.callees: dict[str, Callee] = {}
        """How the telephones of these numbers behave; those of others only ring."""
        self.recording_wav = SILENCE_WAV
        """What every recording is."""
        self.recordings: dict[str, str] = {}
        """The call legs of the recordings that are kept, by the recordings' ids."""
        self.media_missing: int = 0
        """How often a recording is answered 404 before it is there."""
        self.messages: list[dict[str, Any]] = []
        """Every text message that was taken."""
        self.messaging_url: str = ""
        """Where messages to the account are told, as configured for its messaging profile."""
        self._clock = clock
        self._transfers: dict[str, tuple[TransferOutcome, float]] = {}
        self._callers: dict[str, TelnyxCaller] = {}
        self._seen: set[tuple[str, str]] = set()
        self._dialled: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None
        self._jobs: set[asyncio.Task[Any]] = set()

    def routes(self) -> Iterable[web.RouteDef]:
        """The part of the API v2 that a voice agent uses."""
        return [
            web.post("/v2/calls", self._dial),
            web.get("/v2/calls/{call}", self._fetch),
            web.post("/v2/calls/{call}/actions/{action}", self._act),
            web.get("/v2/recordings", self._list_recordings),
            web.delete("/v2/recordings/{recording}", self._delete_recording),
            web.post("/v2/messages", self._message),
            web.get("/media/{recording}", self._media),
        ]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal as Telnyx writes it."""
        return _error(status, {401: 10009, 429: 10011}.get(status, 10007), "Refused", "refused on purpose")

    def dial(
        self,
        *,
        from_: str = "+15551230001",
        to: str = "+15551230002",
        transfer: TransferOutcome = "completed",
        transfer_s: float = 1.0,
        sends: str = "",
        faults: CallFaults | None = None,
        voice: Voice | None = None,
        light: bool = False,
        on_event: Callable[[CallerEvent], object] | None = None,
    ) -> Dialling:
        """Call a number of the account; ``await`` the result, or use it with ``async with``: a :class:`Caller`.

        The call is set up as soon as its media stream has started, or it is over.

        Args:
            from_: Number of the caller.
            to: Number that is dialled.
            transfer: How the other side of a transfer behaves.
            transfer_s: How long its conversation, or its ringing in vain, lasts, in seconds of the clock.
            sends: The codec of the caller's audio, where the call's cannot be turned into what was asked for.
            faults: What goes wrong on the media stream.
            voice: Speaks text; espeak by default.
            light: For load: no recording and no measuring of speech.
            on_event: Called with each event as it happens.
        """
        return Dialling(
            self._caller(
                from_,
                to,
                direction="inbound",
                transfer=transfer,
                transfer_s=transfer_s,
                sends=sends,
                faults=faults or CallFaults(),
                voice=voice,
                light=light,
                on_event=on_event,
            )
        )

    async def webhook(self, url: str, event_type: str, payload: Mapping[str, Any], *, event_id: str = "") -> int:
        """POST a signed webhook as Telnyx does; returns the status of the answer, 0 if there was none."""
        data = {
            "record_type": "event",
            "event_type": event_type,
            "id": event_id or str(uuid4()),
            "occurred_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "payload": dict(payload),
        }
        body = {"data": data, "meta": {"attempt": 1, "delivered_to": url}}
        status = 0
        for _ in range(2 if self.repeat_webhooks else 1):
            status = await self._post(url, msgspec.json.encode(body))
            self.delivered.append(Delivered(url=url, event_type=event_type, body=body, status=status))
            self.changed()
        return status

    async def transcribe(self, call_control_id: str, text: str, *, track: str = "inbound", final: bool = True) -> None:
        """Send words of a call that is transcribed."""
        leg = self.legs[call_control_id]
        words = {"transcript": text, "confidence": 0.97, "is_final": final, "transcription_track": track}
        await leg.tell("call.transcription", transcription_data=words)

    async def text(
        self, text: str, *, from_: str = "+15551230001", to: str = "+15551230002", media: Iterable[str] = ()
    ) -> int:
        """Send a text message to a number of the account; returns the status of the webhook's answer."""
        message = {
            "record_type": "message",
            "direction": "inbound",
            "id": str(uuid4()),
            "type": "MMS" if media else "SMS",
            "messaging_profile_id": str(uuid4()),
            "from": {"phone_number": from_, "carrier": "T-MOBILE USA, INC.", "line_type": "Wireless"},
            "to": [{"phone_number": to, "status": "webhook_delivered", "carrier": "Telnyx", "line_type": "Wireless"}],
            "cc": [],
            "text": text,
            "media": [{"url": url, "content_type": "image/jpeg", "size": 1024} for url in media],
            "encoding": "GSM-7",
            "parts": 1,
            "received_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        return await self.webhook(self.messaging_url, "message.received", message)

    async def wait_hung_up(self, timeout_s: float = 10.0) -> None:
        """Wait until nobody is on a telephone that was called, and all has been told.

        Raises:
            TimeoutError: Somebody still is.
        """
        async with asyncio.timeout(timeout_s):
            while self._jobs:
                await asyncio.wait(tuple(self._jobs))

    async def close(self) -> None:
        """Hang up the telephones, then stop."""
        for task in tuple(self._jobs):
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        for caller in tuple(self._callers.values()):
            await caller.close()
        if self._session is not None:
            await self._session.close()
            self._session = None
        await super().close()

    # Calls.

    def _caller(
        self,
        from_: str,
        to: str,
        *,
        direction: Literal["inbound", "outbound-api"],
        transfer: TransferOutcome,
        transfer_s: float,
        sends: str = "",
        faults: CallFaults | None = None,
        voice: Voice | None = None,
        light: bool = False,
        on_event: Callable[[CallerEvent], object] | None = None,
    ) -> TelnyxCaller:
        spec = CallSpec(
            url=self.webhook_url,
            auth_token="",
            account_sid=self.connection_id,
            from_=from_,
            to=to,
            clock=self._clock,
            direction=direction,
            call_sid=f"v3:{uuid4().hex}",
            faults=faults or CallFaults(),
            on_event=on_event,
        )
        leg = Leg(
            account_sid=self.connection_id,
            auth_token="",
            call_sid=spec.call_sid,
            from_=from_,
            to=to,
            direction=direction,
            status="ringing",
            parameters=(),
        )
        side = TelnyxLeg(leg, deliver=self._deliver, webhook_url=self.webhook_url)
        caller = TelnyxCaller(spec, side, placed=direction == "outbound-api", sends=sends, voice=voice, light=light)
        self.legs[spec.call_sid] = side
        self._callers[spec.call_sid] = caller
        self._transfers[spec.call_sid] = (transfer, transfer_s)
        return caller

    async def _deliver(self, url: str, event_type: str, payload: dict[str, Any]) -> int:
        late_s = self.late.get(event_type)
        if late_s is None:
            return await self.webhook(url, event_type, payload)
        self._spawn(self._later(late_s, url, event_type, payload), event_type)
        return 200

    async def _later(self, seconds: float, url: str, event_type: str, payload: dict[str, Any]) -> None:
        await self._clock.sleep(seconds)
        await self.webhook(url, event_type, payload)

    async def _post(self, url: str, body: bytes) -> int:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15))
        stamp = str(int(time.time()) - (3600 if self.webhook_signature == "stale" else 0))
        signature = b64encode(self._key.sign(f"{stamp}|".encode() + body)).decode()
        headers = {"Content-Type": "application/json", "telnyx-timestamp": stamp, "User-Agent": "telnyx-webhooks"}
        if self.webhook_signature != "missing":
            wrong = self.webhook_signature == "wrong"
            headers["telnyx-signature-ed25519"] = b64encode(bytes(64)).decode() if wrong else signature
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError) as exc:
            logger.warning("the webhook to %s failed: %r", url, exc)
            return 0

    async def _dial(self, request: web.Request) -> web.Response:
        fields = await self._fields(request, "dial")
        if isinstance(fields, web.Response):
            return fields
        for name in ("connection_id", "to", "from"):
            if not fields.get(name):
                return _error(422, 10004, "Missing required parameter", f"The '{name}' parameter is required.")
        if fields["connection_id"] != self.connection_id:
            return _error(422, 10015, "Invalid value for connection_id (Call Control App ID)", "It is not yours.")
        if not _E164.fullmatch(str(fields["to"])):
            return _error(422, 10016, "Phone number must be in +E164 format", f"{fields['to']} is not.")
        command_id = str(fields.get("command_id", ""))
        known = self._dialled.get(command_id) if command_id else None
        if known is None:
            callee = self.callees.get(str(fields["to"]), Callee(outcome="no-answer"))
            caller = self._caller(
                str(fields["from"]),
                str(fields["to"]),
                direction="outbound-api",
                transfer=callee.transfer,
                transfer_s=callee.transfer_s,
                light=callee.light,
            )
            caller.side.take(fields)
            known = self._dialled[command_id] = caller.call_sid
            self.commands.append(TelnyxCommand(call_control_id=known, action="dial", fields=fields))
            self._spawn(self._ring(caller, callee, fields), f"ring {known}")
        return self._answered_to({"data": {**_call(self.legs[known]), "is_alive": True}})

    async def _ring(self, caller: TelnyxCaller, callee: Callee, fields: dict[str, Any]) -> None:
        side = caller.side
        await side.tell("call.initiated", direction="outgoing", state="bridging")
        patience_s = float(fields.get("timeout_secs", 30))
        rings_s = patience_s if callee.outcome == "no-answer" and not callee.ring_s else callee.ring_s
        with suppress(TimeoutError):
            async with asyncio.timeout(self._clock.real(min(rings_s, patience_s))):
                await side.wait_over()
        if side.over:
            await side.end()
        elif callee.outcome != "answers" or rings_s > patience_s:
            side.finish("no-answer" if callee.outcome == "answers" else callee.outcome)
            await side.end()
        else:
            await self._pick_up(caller, callee, fields)

    async def _pick_up(self, caller: TelnyxCaller, callee: Callee, fields: dict[str, Any]) -> None:
        side = caller.side
        side.answer({})
        if fields.get("send_digits_on_answer"):
            caller.noted("keys", str(fields["send_digits_on_answer"]))
        self._spawn(self._judge(side, callee, fields), f"judge {caller.call_sid}")
        set_up = asyncio.ensure_future(caller.set_up())
        side.stream(fields)
        try:
            await set_up
            if callee.on_answer is not None:
                await callee.on_answer(caller)
                await caller.hang_up()
            else:
                await caller.wait_ended(timeout_s=3600)
        except DialogError as exc:
            logger.info("%s: the one who was called: %s", caller.call_sid, exc)
            await caller.hang_up()
        finally:
            set_up.cancel()
            await caller.close()

    async def _judge(self, side: TelnyxLeg, callee: Callee, fields: dict[str, Any]) -> None:
        kind = fields.get("answering_machine_detection", "disabled")
        if kind == "disabled" or not callee.answered_by:
            return
        await self._clock.sleep(callee.verdict_s)
        who = callee.answered_by.partition("_")[0]
        await side.tell("call.machine.detection.ended", result=_AMD.get(who, who if who == "machine" else "not_sure"))
        if kind == "greeting_end" and who == "machine":
            await side.tell("call.machine.greeting.ended", result="beep_detected")

    # Commands.

    async def _act(self, request: web.Request) -> web.Response:
        action, call = request.match_info["action"], request.match_info["call"]
        if action not in _ACTIONS:
            return _error(404, 10005, "Resource not found", "There is no such action.")
        fields = await self._fields(request, action)
        if isinstance(fields, web.Response):
            return fields
        leg = self.legs.get(call)
        if leg is None:
            return _error(404, 90015, "Invalid Call Control ID", "The call control id is not known.")
        command_id = str(fields.get("command_id", ""))
        if (call, command_id) in self._seen:
            return self._answered_to({"data": {"result": "ok"}})
        if leg.over:
            return _error(422, 90018, "Call has already ended", "This call is no longer active.")
        if not leg.answered and action not in _PARKED:
            return _error(422, 90034, "Call not answered yet", "This command can't be issued before that.")
        problem = _problem(action, fields)
        if problem:
            return _error(422, 10015, "Invalid value", problem)
        if action == "bridge" and not self._can_be_bridged(fields):
            return _error(422, 90018, "Call has already ended", "The call to bridge with is not active.")
        if command_id:
            self._seen.add((call, command_id))
        self.commands.append(TelnyxCommand(call_control_id=call, action=action, fields=fields))
        leg.take(fields)
        self._carry_out(leg, action, fields)
        self.changed()
        return self._answered_to(
            {"data": {"result": "ok", **({"recording_id": leg.recording_id} if leg.recording_id else {})}}
        )

    def _carry_out(self, leg: TelnyxLeg, action: str, fields: dict[str, Any]) -> None:
        match action:
            case "answer":
                leg.answer(fields)
            case "reject":
                leg.finish("busy" if fields.get("cause") == "USER_BUSY" else "failed")
                leg.cause = "user_busy" if fields.get("cause") == "USER_BUSY" else "call_rejected"
            case "hangup":
                leg.finish("completed" if leg.answered else "canceled")
            case "streaming_start":
                leg.stream(fields)
            case "streaming_stop" if leg.on_stop is not None:
                leg.on_stop()
            case "speak":
                leg.spawn(leg.speak(fields, self._clock.sleep), "speak")
            case "playback_start":
                leg.playback = fields
                leg.spawn(leg.play(fields, self._clock.sleep), "playback")
            case "playback_stop":
                leg.stop_playback()
            case "bridge":
                other = self.legs[str(fields["call_control_id"])]
                self._spawn(self._bridge(leg, other), f"bridge {leg.leg.call_sid}")
            case "transfer":
                self._spawn(self._transfer(leg, fields), f"transfer {leg.leg.call_sid}")
            case "record_start":
                leg.recording_id = str(uuid4())
                self.recordings[leg.recording_id] = leg.leg_id
                self._spawn(self._record(leg), f"record {leg.leg.call_sid}")
            case "record_stop":
                self._spawn(self._saved(leg), f"save {leg.leg.call_sid}")
            case "transcription_start":
                leg.transcribes = True
            case _:
                leg.note(action, str(fields.get("digits", "")))

    def _can_be_bridged(self, fields: dict[str, Any]) -> bool:
        other = self.legs.get(str(fields.get("call_control_id", "")))
        return other is not None and other.answered and not other.over

    async def _bridge(self, leg: TelnyxLeg, other: TelnyxLeg) -> None:
        """Connect two calls; when one of them is over so is the other."""
        leg.bridged_with, other.bridged_with = other, leg
        for each in (leg, other):
            await each.tell("call.bridged")
        legs = [asyncio.ensure_future(each.wait_over()) for each in (leg, other)]
        try:
            await asyncio.wait(legs, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in legs:
                waiting.cancel()
        for each in (leg, other):
            each.finish("completed")

    async def _transfer(self, leg: TelnyxLeg, fields: dict[str, Any]) -> None:
        """Dial the other side; if it answers, bridge the two."""
        outcome, seconds = self._transfers[leg.leg.call_sid]
        other = Leg(
            account_sid=self.connection_id,
            auth_token="",
            call_sid=f"v3:{uuid4().hex}",
            from_=leg.leg.to,
            to=str(fields["to"]),
            direction="outbound-api",
            status="ringing",
            parameters=(),
        )
        side = TelnyxLeg(other, deliver=self._deliver, webhook_url=fields.get("webhook_url", leg.webhook_url))
        side.session_id = leg.session_id
        side.client_state = fields.get("target_leg_client_state")
        self.legs[other.call_sid] = side
        await side.tell("call.initiated", direction="outgoing", state="bridging")
        if outcome == "completed":
            side.answered = True
            await side.tell("call.answered")
            await leg.tell("call.bridged")
            await side.tell("call.bridged")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._clock.real(min(seconds, float(fields.get("timeout_secs", 30))))):
                await leg.wait_over()
        side.finish(outcome)
        await side.end()
        if outcome == "completed":
            leg.finish("completed")  # nobody is left to talk to

    async def _record(self, leg: TelnyxLeg) -> None:
        recording = leg.recording_id
        await leg.wait_over()
        if leg.recording_id == recording:
            await self._saved(leg)

    async def _saved(self, leg: TelnyxLeg) -> None:
        recording, leg.recording_id = leg.recording_id, ""
        if recording:
            await leg.tell(
                "call.recording.saved",
                channels="dual",
                recording_urls={"wav": f"{self.url}/media/{recording}"},
                public_recording_urls={},
            )

    async def _fetch(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        leg = self.legs.get(request.match_info["call"])
        if leg is None:
            return _error(404, 10005, "Resource not found", "The call is not known.")
        return web.json_response({"data": {**_call(leg), "is_alive": not leg.over}})

    async def _list_recordings(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        wanted = request.query.get("filter[call_leg_id]", "")
        found = [
            {"record_type": "recording", "id": recording, "call_leg_id": leg, "status": "completed"}
            for recording, leg in self.recordings.items()
            if wanted in ("", leg)
        ]
        return web.json_response(
            {"data": found, "meta": {"page_number": 1, "total_pages": 1, "total_results": len(found)}}
        )

    async def _delete_recording(self, request: web.Request) -> web.Response:
        if refused := self._unauthorized(request):
            return refused
        recording = request.match_info["recording"]
        if self.recordings.pop(recording, None) is None:
            return _error(404, 10005, "Resource not found", "There is no such recording.")
        return web.json_response({"data": {"record_type": "recording", "id": recording}})

    async def _media(self, request: web.Request) -> web.Response:
        if self.media_missing:
            self.media_missing -= 1
            return web.Response(status=404)
        if request.match_info["recording"] not in self.recordings:
            return web.Response(status=404)
        return web.Response(body=self.recording_wav, content_type="audio/wav")

    async def _message(self, request: web.Request) -> web.Response:
        fields = await self._fields(request, "message")
        if isinstance(fields, web.Response):
            return fields
        if not (fields.get("from") and fields.get("to") and fields.get("text")):
            return _error(422, 10004, "Missing required parameter", "from, to and text are required.")
        message = {
            "record_type": "message",
            "id": str(uuid4()),
            "from": {"phone_number": fields["from"]},
            "to": [{"phone_number": fields["to"], "status": "queued"}],
            "text": fields["text"],
        }
        self.messages.append(message)
        self.changed()
        return web.json_response({"data": message})

    async def _fields(self, request: web.Request, action: str) -> dict[str, Any] | web.Response:
        if refused := self._unauthorized(request):
            return refused
        if action in self.refuse:
            status, code = self.refuse[action]
            return _error(status, code, "Refused", f"{action} is refused on purpose")
        try:
            fields: Any = await request.json()
        except ValueError:
            return _error(400, 10001, "Malformed JSON", "The body is no JSON.")
        if not isinstance(fields, dict):
            return _error(400, 10001, "Malformed JSON", "The body is no object.")
        return cast("dict[str, Any]", fields)

    def _unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {self.api_key}":
            return None
        return _error(401, 10009, "Authentication failed", "No key found matching the ID with the provided secret.")

    def _answered_to(self, body: dict[str, Any]) -> web.Response:
        if self.answers_lost:
            self.answers_lost -= 1
            return _error(500, 10007, "Unexpected error", "Something went wrong.")
        return web.json_response(body)

    def _spawn(self, work: Any, name: str) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(work, name=name)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)


def _problem(action: str, fields: dict[str, Any]) -> str:
    """What Telnyx does not accept in a command; empty: nothing."""
    if action == "transfer" and not re.fullmatch(r"\+[1-9]\d{6,14}|sip:.+", str(fields.get("to", ""))):
        return "The 'to' parameter must be in +E164 format, or a SIP URI."
    if action == "reject" and fields.get("cause") not in ("CALL_REJECTED", "USER_BUSY", "NOT_FOUND"):
        return "The 'cause' parameter is not valid."
    if action == "send_dtmf" and not re.fullmatch(r"[0-9A-DwW*#]+", str(fields.get("digits", ""))):
        return "The 'digits' parameter is not valid."
    if action == "speak" and not (fields.get("payload") and fields.get("voice")):
        return "The 'payload' and 'voice' parameters are required."
    if action == "playback_start":
        return _playback_problem(fields)
    if fields.get("stream_url") and fields.get("stream_bidirectional_mode") not in (None, "rtp", "mp3"):
        return "The 'stream_bidirectional_mode' parameter is not valid."
    return ""


def _playback_problem(fields: dict[str, Any]) -> str:
    sources = [name for name in ("audio_url", "media_name", "playback_content") if fields.get(name)]
    if len(sources) != 1:
        return "Exactly one of 'audio_url', 'media_name' and 'playback_content' is required."
    if sources == ["audio_url"] and not re.fullmatch(r"https?://\S+", str(fields["audio_url"])):
        return "The 'audio_url' parameter must be an HTTP(S) URL."
    if sources == ["playback_content"] and not _is_audio(str(fields["playback_content"])):
        return "The 'playback_content' parameter must be a base64 encoded MP3 or WAV file."
    loop = fields.get("loop", 1)
    if loop != "infinity" and not (isinstance(loop, int) and 1 <= loop <= 100):
        return "The 'loop' parameter must be an integer between 1 and 100, or infinity."
    return ""


def _is_audio(content: str) -> bool:
    try:
        data = b64decode(content, validate=True)
    except ValueError:
        return False
    return (data[:4] == b"RIFF" and data[8:12] == b"WAVE") or data[:3] == b"ID3" or data[:1] == b"\xff"


def _call(leg: TelnyxLeg) -> dict[str, Any]:
    return {
        "record_type": "call",
        "call_control_id": leg.leg.call_sid,
        "call_leg_id": leg.leg_id,
        "call_session_id": leg.session_id,
        "client_state": leg.client_state,
    }


def _error(status: int, code: int, title: str, detail: str) -> web.Response:
    body: dict[str, Any] = {"errors": [{"code": str(code), "title": title, "detail": detail, "meta": {}}]}
    return web.json_response(body, status=status)
