"""The carrier's side of a simulated call: signed webhooks, TwiML carried out, call states.

Facts: Twilio, "Twilio's request to your application" and the TwiML reference. A verb that the
simulation cannot make audible (Say, Play, Gather …) is recorded and passed over.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import aiohttp
from msgspec import Struct
from yarl import URL

from dialog.clock import Clock
from dialog.errors import DialogError, RemoteProtocolError
from dialog.testing import twiml
from dialog.testing.conference import Conference, conference
from dialog.testing.faults import CallFaults
from dialog.testing.signing import sign
from dialog.testing.twiml import Verb

__all__ = [
    "CallStatus",
    "Carrier",
    "CarrierSide",
    "Leg",
    "Refused",
    "TransferOutcome",
    "Warned",
    "is_loopback",
    "local_url",
    "tls_trouble",
]

CallStatus = Literal["queued", "ringing", "in-progress", "completed", "busy", "failed", "no-answer", "canceled"]
TransferOutcome = Literal["completed", "busy", "no-answer", "failed", "canceled"]

WEBHOOK_TIMEOUT_S = 15.0
DOCUMENT_LIMIT = 50
"""TwiML documents of one call, against redirects in a circle."""
_BODY_LIMIT = 256 * 1024


class Refused(DialogError):
    """A webhook was not answered with TwiML; ``status`` is the HTTP status, 0 without any answer."""

    code = "refused"

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(f"webhook {url}: {reason}")
        self.status = status


class Warned(NamedTuple):
    """An entry of the carrier's debugger: its code (31920, 31951 …) and what happened."""

    code: int
    detail: str


class Leg(Struct, kw_only=True):
    """One call as the carrier knows it."""

    account_sid: str
    auth_token: str
    call_sid: str
    from_: str
    to: str
    direction: str
    status: CallStatus
    parameters: tuple[tuple[str, str], ...]
    """Further fields of every webhook."""

    def __repr__(self) -> str:
        return f"<Leg {self.call_sid} {self.status}>"

    def fields(self) -> list[tuple[str, str]]:
        """The fields that every voice webhook carries."""
        return [
            ("AccountSid", self.account_sid),
            ("ApiVersion", "2010-04-01"),
            ("CallSid", self.call_sid),
            ("CallStatus", self.status),
            ("Called", self.to),
            ("Caller", self.from_),
            ("Direction", self.direction),
            ("From", self.from_),
            ("To", self.to),
            *self.parameters,
        ]


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` names this machine."""
    if host is None or host == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def local_url(url: str, public: str, dialled: str) -> str:
    """Where to connect for ``url``: addresses of the public origin are reached at the dialled one."""
    wanted, reach = urlsplit(url), urlsplit(dialled)
    if wanted.netloc not in (urlsplit(public).netloc, reach.netloc):
        return url
    secure = reach.scheme in ("https", "wss")
    scheme = ("wss" if secure else "ws") if wanted.scheme in ("ws", "wss") else ("https" if secure else "http")
    return urlunsplit((scheme, reach.netloc, wanted.path, wanted.query, ""))


class CarrierSide:
    """What a carrier knows of one call, whatever it is told in."""

    def __init__(self, leg: Leg, note: Callable[[str, str], None]) -> None:
        self.leg = leg
        self.verbs: list[Verb] = []
        """Everything that was carried out."""
        self.warnings: list[Warned] = []
        self.over: bool = False
        self.room: Conference | None = None
        """The conference that the call is in."""
        self._note = note
        self._interrupt = asyncio.Event()

    def warn(self, code: int, detail: str) -> None:
        """Write into the debugger; a hundred entries are kept."""
        if len(self.warnings) < 100:
            self.warnings.append(Warned(code, detail))
        self._note("warning", f"{code} {detail}")

    def finish(self, status: CallStatus) -> None:
        """The call is over, unless it was already."""
        if not self.over:
            self.over = True
            self.leg.status = status
            self._interrupt.set()


class Carrier(CarrierSide):
    """Carries out the TwiML of one call. It does not know media: ``connect`` runs a stream to its end."""

    def __init__(
        self,
        leg: Leg,
        *,
        session: aiohttp.ClientSession,
        clock: Clock,
        public: str,
        dialled: str,
        connect: Callable[[Verb, str], Awaitable[None]],
        note: Callable[[str, str], None],
        faults: CallFaults,
        transfer: TransferOutcome,
        transfer_s: float,
    ) -> None:
        super().__init__(leg, note)
        self._session = session
        self._clock = clock
        self._public = public
        self._dialled = dialled
        self._connect = connect
        self._faults = faults
        self._transfer: TransferOutcome = transfer
        self._transfer_s = transfer_s
        self._base = public
        self._moved: tuple[Verb, ...] | None = None
        self._callback_number = 0

    def move(self, document: tuple[Verb, ...]) -> None:
        """Let the call go on with another document; whatever runs is left."""
        self._moved = document
        self._interrupt.set()

    async def fetch(self, url: str, method: str = "POST", extra: Iterable[tuple[str, str]] = ()) -> tuple[Verb, ...]:
        """Request TwiML.

        Raises:
            Refused: No 2xx answer with a TwiML document came within 15 s.
        """
        self._base = urljoin(self._base, url)
        status, content_type, body = await self._request(self._base, method, [*self.leg.fields(), *extra])
        if not 200 <= status < 300:
            raise Refused(self._base, status, f"answered {status} instead of TwiML (11200): {body[:200]!r}")
        if content_type not in ("text/xml", "application/xml"):
            raise Refused(self._base, status, f"content type {content_type} instead of text/xml (12300)")
        try:
            return twiml.parse(body)
        except RemoteProtocolError as exc:
            raise Refused(self._base, status, str(exc)) from exc

    async def notify(self, url: str, method: str, fields: Iterable[tuple[str, str]]) -> None:
        """Deliver a status callback; a failure is a warning, as at the carrier."""
        try:
            status, _, _ = await self._request(urljoin(self._base, url), method, list(fields))
        except Refused as exc:
            self.warn(11200, str(exc))
        else:
            if not 200 <= status < 300:
                self.warn(11200, f"callback {url} was answered {status}")

    async def call_status(self, url: str, *, seconds: float | None = None) -> None:
        """Deliver the call's state; ``seconds`` is its duration, when it is over."""
        extra = [
            ("CallbackSource", "call-progress-events"),
            ("SequenceNumber", str(self._callback_number)),
            ("Timestamp", formatdate(usegmt=True)),
        ]
        self._callback_number += 1
        if seconds is not None:
            extra += [("CallDuration", str(round(seconds))), ("SipResponseCode", "200")]
        await self.notify(url, "POST", [*self.leg.fields(), *extra])

    async def stream_status(self, verb: Verb, stream_sid: str, event: str, error: str = "") -> None:
        """Deliver the state of a stream to its ``statusCallback``, if it has one."""
        url = verb.get("statusCallback")
        if url:
            fields = [
                ("AccountSid", self.leg.account_sid),
                ("CallSid", self.leg.call_sid),
                ("StreamSid", stream_sid),
                ("StreamName", verb.get("name", stream_sid)),
                ("StreamEvent", event),
                ("Timestamp", time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())),
                *([("StreamError", error)] if error else []),
            ]
            await self.notify(url, verb.get("statusCallbackMethod", "POST"), fields)

    async def perform(self, document: tuple[Verb, ...]) -> None:
        """Carry out ``document`` and those that follow it, until the call is over."""
        following: tuple[Verb, ...] | None = document
        for _ in range(DOCUMENT_LIMIT):
            if following is None:
                break
            try:
                following = await self._perform(following)
            except Refused as exc:
                self.warn(11200, str(exc))
                break
            if self.over:
                return
            if self._moved is not None:
                following, self._moved = self._moved, None
                self._interrupt.clear()
        self.finish("completed")

    async def _perform(self, document: tuple[Verb, ...]) -> tuple[Verb, ...] | None:
        """Carry out verbs; returns the document that follows, or ``None`` at the end."""
        for verb in document:
            if self.over or self._moved is not None:
                return None
            self.verbs.append(verb)
            self._note("verb", verb.name)
            if verb.name == "Reject":
                self.finish("busy" if verb.get("reason") == "busy" else "failed")
                return None
            self.leg.status = "in-progress"
            if verb.name == "Hangup":
                return None
            if verb.name == "Redirect":
                return await self.fetch(verb.text, verb.get("method", "POST"))
            if verb.name == "Pause":
                await self._pause(float(verb.get("length", "1")))
            elif verb.name == "Connect":
                await self._connected(verb)
            elif verb.name == "Dial":
                outcome = await self._dial(verb)
                if self._goes_on() and verb.get("action"):
                    fields = [("DialCallStatus", outcome)]
                    return await self.fetch(verb.get("action"), verb.get("method", "POST"), fields)
                continue
            if verb.name == "Connect" and self._goes_on() and verb.get("action"):
                return await self.fetch(verb.get("action"), verb.get("method", "POST"))
        return None

    def _goes_on(self) -> bool:
        return not self.over and self._moved is None

    async def _connected(self, verb: Verb) -> None:
        stream = verb.find("Stream")
        if stream is None:
            self.warn(12200, "<Connect> without <Stream>")
            return
        url = stream.get("url")
        base = urlsplit(self._base)
        sockets = urlunsplit(("wss" if base.scheme == "https" else "ws", base.netloc, base.path, "", ""))
        parts = urlsplit(urljoin(sockets, url))
        if parts.query:
            self.warn(31920, "the stream URL has a query string, which Twilio drops")
            parts = parts._replace(query="")
        if parts.scheme != "wss" and not is_loopback(parts.hostname):
            self.warn(31922, f"the stream URL has scheme {parts.scheme!r}, not wss")
            return
        await self._connect(stream, urlunsplit(parts._replace(fragment="")))

    async def _dial(self, verb: Verb) -> TransferOutcome:
        number = verb.find("Number")
        room = verb.find("Conference")
        if room is not None:
            await self._confer(room)
            return "completed"
        callback = number.get("statusCallback") if number is not None else ""
        if (
            self._transfer == "completed"
            and number is not None
            and callback
            and "answered" in number.get("statusCallbackEvent", "completed")
        ):
            fields = [*self.leg.fields(), ("ParentCallSid", self.leg.call_sid)]
            fields = [(k, "in-progress" if k == "CallStatus" else v) for k, v in fields]
            await self.notify(callback, number.get("statusCallbackMethod", "POST"), fields)
        await self._pause(self._transfer_s)  # it is talked, or it rings in vain
        return self._transfer

    async def _confer(self, verb: Verb) -> None:
        """Take part in a conference until it is over, or the call moves on or ends."""
        room = conference(self.leg.account_sid, verb.text)
        self.room = room
        url, wanted = verb.get("statusCallback"), verb.get("statusCallbackEvent").split()

        async def note(event: str, call_sid: str) -> None:
            self._note(event, call_sid)
            if not url or event.partition("-")[2] not in wanted:
                return
            fields = [
                ("AccountSid", self.leg.account_sid),
                ("ConferenceSid", room.sid),
                ("FriendlyName", verb.text),
                ("StatusCallbackEvent", event),
                ("Timestamp", formatdate(usegmt=True)),
            ]
            if call_sid:
                fields += [("CallSid", call_sid), ("ParticipantLabel", verb.get("participantLabel"))]
            await self.notify(url, verb.get("statusCallbackMethod", "POST"), fields)

        await room.enter(self.leg.call_sid, note, starts=verb.get("startConferenceOnEnter", "true") == "true")
        over = asyncio.ensure_future(room.over.wait())
        moved = asyncio.ensure_future(self._interrupt.wait())
        try:
            await asyncio.wait([over, moved], return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            moved.cancel()
            await asyncio.wait([over, moved])
            self.room = None
            await room.leave(self.leg.call_sid, ends=verb.get("endConferenceOnExit", "false") == "true")

    async def _pause(self, seconds: float | None) -> None:
        """Wait, unless the call moves on or ends; ``None``: until it does."""
        try:
            async with asyncio.timeout(None if seconds is None else self._clock.real(seconds)):
                await self._interrupt.wait()
        except TimeoutError:
            return

    async def _request(self, url: str, method: str, fields: list[tuple[str, str]]) -> tuple[int, str, str]:
        parts = urlsplit(url)
        public = urlunsplit(parts._replace(fragment=""))
        data: str | None = None
        headers = {"User-Agent": "TwilioProxy/1.1", "Accept": "*/*"}
        if method.upper() == "GET":
            query = urlencode(fields)
            public = urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query, fragment=""))
            signature = sign(self.leg.auth_token, public)
        else:
            data = urlencode(fields)
            headers["Content-Type"] = "application/x-www-form-urlencoded; charset=UTF-8"
            signature = sign(self.leg.auth_token, public, fields)
        if self._faults.webhook_signature == "wrong":
            signature = sign("not the token", public)
        if self._faults.webhook_signature != "missing":
            headers["X-Twilio-Signature"] = signature
        target = URL(local_url(public, self._public, self._dialled), encoded=True)  # as it was signed
        timeout = aiohttp.ClientTimeout(total=WEBHOOK_TIMEOUT_S)
        try:
            async with self._session.request(method, target, data=data, headers=headers, timeout=timeout) as response:
                body = await response.content.read(_BODY_LIMIT)
                while not response.content.at_eof() and len(body) < _BODY_LIMIT:
                    body += await response.content.read(_BODY_LIMIT)
                return response.status, response.content_type, body.decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise Refused(public, 0, f"no answer from {target} (11200): {_trouble(exc)}") from exc


def _trouble(exc: Exception) -> str:
    """What happened to a request, without the session's inner life."""
    if isinstance(exc, TimeoutError):
        return f"timed out after {WEBHOOK_TIMEOUT_S:g} s"
    cause = getattr(exc, "os_error", exc)
    if isinstance(cause, ssl.SSLError):
        return tls_trouble(cause)
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return f"{type(exc).__name__}: {exc}"


_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")
"""What versions of OpenSSL say of an answer that is no TLS at all."""


def tls_trouble(exc: ssl.SSLError) -> str:
    """Why there is no TLS. Its ``errno`` is OpenSSL's: taken for the system's it would tell of permissions."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate is refused: {exc.verify_message}"
    hint = " (does it speak http://?)" if exc.reason in _NO_TLS else ""
    return f"no TLS: {(exc.reason or str(exc)).replace('_', ' ').lower()}{hint}"
