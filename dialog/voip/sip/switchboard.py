"""The calls of a SIP gateway: who may call, who takes it, and which request is whose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final
from uuid import UUID, uuid5

from msgspec import Struct
from msgspec.structs import replace

from dialog.calls.feed import declined
from dialog.calls.publish import CallEvents
from dialog.errors import CarrierError, NotSupportedError, RemoteProtocolError, StateError, UserCodeError
from dialog.message import CallMetadata
from dialog.recent import Recent
from dialog.voip.admission import Accept, Declined, NoWorker, Offer, Reject, Resolver, Workers, decide
from dialog.voip.call import Call, CallSettings
from dialog.voip.closing import wait_idle, wait_over
from dialog.voip.link import Command, CommandResult, Hangup, SendDigits, TransferTo
from dialog.voip.refusals import Refusals
from dialog.voip.sip import sdp
from dialog.voip.sip.leg import Leg
from dialog.voip.sip.messages import ALLOWED, Incoming, Where, parse, party, reply
from dialog.voip.sip.session import Network, SIPSession
from dialog.voip.sip.voip import SIPVoIP
from dialog.voip.voip import VoIP

__all__ = ["SIPSettings", "SIPSwitchboard"]

logger = logging.getLogger(__name__)

_NAMESPACE: Final = UUID("6f8d3c6e-6f39-5d0c-9d0d-5f8f0c6c9a51")
_MAX_MESSAGE: Final = 16_384
_KEEP_ALIVE: Final = b"\r\n\0 "
_PHRASES: Final = {
    400: "Bad Request",
    405: "Method Not Allowed",
    420: "Bad Extension",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    486: "Busy Here",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    503: "Service Unavailable",
    603: "Decline",
}

_SECRET: Final = ("authorization", "proxy-authorization")
"""Headers that are nobody's business: parameters are kept in the call log."""


class SIPSettings(Struct, frozen=True, kw_only=True):
    """How calls are taken."""

    peers: Sequence[IPv4Network | IPv6Network]
    """Who may call."""
    host: str
    """Of the sockets for audio."""
    rtp_ports: range = range(0)
    resolver: Resolver | None = None
    resolver_timeout_s: float = 3.0
    when_busy: Declined = Reject("busy")
    call: CallSettings = CallSettings()
    quiet_s: float = 30.0
    """How long nothing may be heard before a call is lost."""
    close_timeout_s: float = 5.0


class SIPSwitchboard:
    """All calls of a gateway. It is the carrier of their calls, too."""

    def __init__(
        self,
        settings: SIPSettings,
        network: Network,
        on_voip: Callable[[SIPVoIP], object],
        *,
        workers: Workers | None = None,
        events: CallEvents | None = None,
    ) -> None:
        """``on_voip`` is called with every call that is taken, unless there are ``workers`` to take it."""
        self.events: CallEvents = CallEvents() if events is None else events
        self.refusals = Refusals()
        self.draining = False
        """New calls are declined as when busy; those that are there go on."""
        self.closing = False
        self._settings = settings
        self._network = network
        self._on_voip = on_voip
        self._workers = workers
        self._sessions: dict[tuple[str, str], SIPSession] = {}
        """By Call-ID and our tag."""
        self._calls: dict[UUID, Call] = {}
        self._of: dict[UUID, SIPSession] = {}
        self._strangers: Recent[str, None] = Recent(100)
        self._garblers: Recent[str, None] = Recent(100)
        """Who has sent what cannot be read."""

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls of which something is left, oldest first."""
        return tuple(self._calls.values())

    def find(self, call: UUID | str) -> Call | None:
        """A call by its id, or by its Call-ID."""
        if isinstance(call, UUID):
            return self._calls.get(call)
        return self._calls.get(uuid5(_NAMESPACE, call))

    def receive(self, data: bytes, source: Where) -> None:
        """Take a datagram, whoever it is from and whatever is in it."""
        if not self._knows(source[0]):
            return
        if not data.strip(_KEEP_ALIVE):
            return
        if len(data) > _MAX_MESSAGE:
            self._malformed(source[0], f"{len(data)} bytes are too many")
            return
        try:
            message = parse(data, source)
        except RemoteProtocolError as exc:
            self._malformed(source[0], str(exc))
            return
        if isinstance(message, Incoming):
            self._request(message)
        else:
            self._network.transactions.receive(message)

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until every call has ended, at most ``timeout_s`` of the calls' clock; whether that came."""
        return await wait_idle(self.calls, self._network.clock, timeout_s)

    async def close(self) -> None:
        """End all calls and wait, within a bound, until nothing of them is left."""
        self.closing = True
        calls = self.calls
        for session in tuple(self._sessions.values()):
            if session.state == "trying":
                session.withdraw(503, _PHRASES[503])
        for call in calls:
            call.end("shutdown", "the gateway was closed")
        waits = [asyncio.create_task(call.wait_closed(), name=f"close {call.metadata.call_id}") for call in calls]
        await wait_over(waits, self._settings.close_timeout_s)
        self._calls.clear()

    # The carrier of its calls.

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Carry out a command.

        Raises:
            CarrierError: The other side refuses, or does not answer.
            NotSupportedError: A SIP line cannot do that.
        """
        session = self._of.get(call.metadata.call_id)
        if session is None:
            if isinstance(command, Hangup):
                return None  # nothing is left to hang up
            raise CarrierError("sip", str(call.metadata.call_id), "the call is over")
        match command:
            case Hangup(reason):
                await session.hang_up(reason)
            case TransferTo():
                await session.transfer(command)
            case SendDigits():
                await session.press(command)
            case _:
                raise NotSupportedError(
                    f"call {call.metadata.call_id}: a SIP line has no {type(command).__name__}; "
                    "record with gateway.add_tap, send messages with an SMS provider"
                )
        return None

    def download(self, url: str) -> AsyncIterator[bytes]:
        """There are no recordings.

        Raises:
            NotSupportedError: Always.
        """
        raise NotSupportedError(f"a SIP line keeps no recordings ({url})")

    # Requests.

    def _knows(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        if any(address in network for network in self._settings.peers):
            return True
        self.refusals.sip[0] += 1
        if host not in self._strangers:  # the internet is full of them: no answer, and one line each
            self._strangers[host] = None
            logger.warning("SIP from %s is ignored: it is none of the gateway's peers", host)
        return False

    def _request(self, request: Incoming) -> None:
        transactions = self._network.transactions
        session = self._sessions.get((request.call_id, request.to_tag)) if request.to_tag else None
        if request.method == "ACK":
            if session is not None:
                session.acknowledge(request)
            return
        if transactions.repeated(request):
            return
        if request.method == "CANCEL":
            self._cancel(request)
        elif session is not None:
            session.receive(request)
        elif request.to_tag:
            self._answer(request, 481)
        elif request.method == "INVITE":
            self._invite(request)
        elif request.method == "OPTIONS":
            transactions.answer(
                request, reply(request, 200, "OK", headers=[("Allow", ALLOWED), ("Accept", "application/sdp")])
            )
        else:
            self._answer(request, 405, ("Allow", ALLOWED))

    def _answer(self, request: Incoming, code: int, *headers: tuple[str, str]) -> None:
        self.refusals.sip[code] += 1
        self._network.transactions.answer(request, reply(request, code, _PHRASES[code], headers=headers))

    def _cancel(self, request: Incoming) -> None:
        for session in self._sessions.values():
            if session.invite.source == request.source and session.invite.branch == request.branch:
                self._network.transactions.answer(request, reply(request, 200, "OK", to_tag=session.leg.local_tag))
                session.cancel()
                return
        self._answer(request, 481)

    def _invite(self, request: Incoming) -> None:
        headers = request.message.headers
        call_id = uuid5(_NAMESPACE, request.call_id)
        required = headers.get("Require") or ""
        if self.closing:
            self._answer(request, 503)
        elif self.draining:
            self._answer(request, _status(self._settings.when_busy))
        elif call_id in self._calls or any(known == request.call_id for known, _ in self._sessions):
            self._answer(request, 482)
        elif required.strip():
            self._answer(request, 420, ("Unsupported", required))
        else:
            try:
                media = sdp.parse(request.message.body.decode("utf-8", "replace"))
                session = self._session(request, media, call_id)
            except RemoteProtocolError as exc:
                logger.warning("a call from %s is refused: %s", request.source[0], exc)
                self._answer(request, 400)
            except NotSupportedError as exc:
                logger.warning("a call from %s is refused: %s", request.source[0], exc)
                self._answer(request, 488)
            else:
                transactions = self._network.transactions
                transactions.answer(request, reply(request, 100, "Trying"))
                session.admission = self._network.spawn(self._admit(session, call_id), f"admit {call_id}")

    def _session(self, request: Incoming, media: sdp.Media, call_id: UUID) -> SIPSession:
        leg = Leg.answering(request, self._network.contact(request.source))
        key = request.call_id, leg.local_tag

        def over() -> None:
            self._sessions.pop(key, None)
            self._of.pop(call_id, None)

        session = self._sessions[key] = self._of[call_id] = SIPSession(request, leg, media, self._network, over)
        return session

    # Admission.

    async def _admit(self, session: SIPSession, call_id: UUID) -> None:
        try:
            code = await self._decide(session, call_id)
        except Exception:  # whatever it was, the other side is told
            logger.exception("call %s: it could not be taken", call_id)
            code = 500
        if code:
            self.refusals.sip[code] += 1
            session.decline(code, _PHRASES[code])
            if session.call is not None:
                session.call.end("no_worker" if code != 500 else "error", "nobody took it")
        else:
            session.accept()

    async def _decide(self, session: SIPSession, call_id: UUID) -> int:
        """0 to take the call, else what it is refused with."""
        metadata = _metadata(session.invite, call_id)
        settings = self._settings
        decision = await decide(settings.resolver, Offer(metadata), settings.resolver_timeout_s)
        if session.state != "trying":
            return 0
        if decision is None:
            return 500
        if not isinstance(decision, Accept):
            declined(self.events, metadata, type(decision).__name__.lower())
            return _status(decision)
        if decision.session:
            metadata = replace(metadata, session=decision.session)
        call = self._calls[call_id] = Call(
            metadata,
            self,
            settings=settings.call,
            clock=self._network.clock,
            voip_class=SIPVoIP,
            audio_format=session.media.audio_format,
            events=self.events,
            on_closed=partial(self._closed, session),
        )
        call.on_ended(session.call_ended)
        try:
            await session.prepare(call, settings.host, settings.rtp_ports, settings.quiet_s)
            call.offer(partial(self._offer, session))
            if session.taken is not None:
                await asyncio.shield(session.taken)
        except UserCodeError as exc:
            logger.exception("call %s: nobody took it", call_id, exc_info=exc.__cause__)
            return 500
        except (NoWorker, StateError) as exc:
            logger.error("call %s: %s", call_id, exc)  # noqa: TRY400
            return _status(settings.when_busy)
        return 480 if call.state == "ended" else 0

    def _offer(self, session: SIPSession, voip: VoIP) -> None:
        assert isinstance(voip, SIPVoIP)
        if self._workers is not None:
            session.taken = self._workers.take(voip)
        else:
            self._on_voip(voip)

    def _closed(self, session: SIPSession, call: Call) -> None:
        session.call_ended()  # a VoIP that was disposed of tells nobody that its call has ended
        self._calls.pop(call.metadata.call_id, None)

    def _malformed(self, host: str, why: str) -> None:
        self.refusals.sip[400] += 1
        known = host in self._garblers
        self._garblers[host] = None
        logger.log(
            logging.DEBUG if known else logging.WARNING, "a SIP message from %s is ignored: %s; told once", host, why
        )


def _status(decision: Declined) -> int:
    """How a decision is told in SIP, which has neither a voice nor documents of its own."""
    return 486 if isinstance(decision, Reject) and decision.reason == "busy" else 603


def _metadata(invite: Incoming, call_id: UUID) -> CallMetadata:
    headers = invite.message.headers
    return CallMetadata(
        call_id=call_id,
        carrier="sip",
        carrier_call_id=invite.call_id,
        from_=party(headers["From"]),
        to=invite.message.uri.user or party(headers["To"]),
        parameters=tuple(
            (name, value)
            for name in headers.keys()  # noqa: SIM118  # no mapping
            if name.lower() not in _SECRET
            for value in headers.getlist(name)
        ),
    )
