"""One call: what its requests mean, and what becomes of its agent's wishes."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from secrets import randbits
from typing import Any, Final, Literal, Protocol

from dialog.clock import Clock
from dialog.errors import CarrierError, ConfigurationError, NotSupportedError, RemoteProtocolError, StateError
from dialog.voip.call import Call
from dialog.voip.line import Line
from dialog.voip.link import SendDigits, TransferTo
from dialog.voip.sip import sdp
from dialog.voip.sip.leg import Leg, refer_target
from dialog.voip.sip.media import RtpPort, RtpWire
from dialog.voip.sip.messages import ALLOWED, Incoming, Reply, Where, reply
from dialog.voip.sip.rtp import Digit, Heard
from dialog.voip.sip.transactions import T1_S, T2_S, Transactions

__all__ = ["Network", "SIPSession"]

logger = logging.getLogger(__name__)

_ACKNOWLEDGED_S: Final = 32.0
_REQUEST_S: Final = 8.0
_RING_S: Final = 30.0
_MARGIN_S: Final = 10.0
_SIGNAL: Final = re.compile(r"^\s*(?:Signal\s*=\s*)?([0-9*#A-Da-d])\s*$", re.MULTILINE)
_FRAGMENT: Final = re.compile(r"SIP/2\.0 ([1-6][0-9]{2})")


class Network(Protocol):
    """The socket of all calls."""

    @property
    def transactions(self) -> Transactions:
        """Requests and answers."""
        ...

    @property
    def clock(self) -> Clock:
        """Time of the calls."""
        ...

    def via(self, peer: Where, branch: str) -> str:
        """The Via of a request of ours."""
        ...

    def media_host(self, peer: Where) -> str:
        """Our IP address as a peer reaches it."""
        ...

    def contact(self, peer: Where) -> str:
        """Our address as a peer reaches it, as a ``Contact``."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a task that is awaited before the socket is closed."""
        ...


class SIPSession:
    """The SIP and RTP side of a call, from its INVITE to its BYE.

    ``on_over`` is called once, when nothing more is said about it.
    """

    def __init__(
        self, invite: Incoming, leg: Leg, media: sdp.Media, network: Network, on_over: Callable[[], object]
    ) -> None:
        self.invite = invite
        self.leg = leg
        self.media = media
        self.call: Call | None = None
        """``None`` until it is accepted."""
        self.admission: asyncio.Task[None] | None = None
        self.taken: asyncio.Future[None] | None = None
        self.state: Literal["trying", "answered", "confirmed", "over"] = "trying"
        self._network = network
        self._on_over = on_over
        self._port: RtpPort | None = None
        self._line: Line | None = None
        self._acknowledged = asyncio.Event()
        self._answering: asyncio.Task[None] | None = None
        self._goodbye: asyncio.Task[None] | None = None
        self._session = randbits(31)
        self._version = 1
        self._transfer: Literal["", "asked", "ringing"] = ""
        self._failed = False
        """A transfer has failed before it was known to have begun."""
        self._patience: asyncio.TimerHandle | None = None

    # Answering.

    async def prepare(self, call: Call, host: str, ports: range, quiet_s: float) -> None:
        """Get ready for the call's audio.

        Raises:
            StateError: There is no port left for it.
        """
        self.call = call
        with call.scope.entered():  # what the socket reads is the call's
            port = self._port = await RtpPort.open(host, ports, self._network.clock, quiet_s=quiet_s)
        port.on_heard = self._heard
        port.on_mark = self._played
        port.on_quiet = self._lost
        port.on_back = self._resume
        if self.state == "over":
            port.close()

    def accept(self) -> None:
        """Answer the call; its stream begins when the other side has heard of it."""
        assert self._port is not None
        if self.state != "trying":
            return
        self.state = "answered"
        self._port.connect(self.media, self.leg.peer[0])
        self._answer_invite(self.invite)

    def withdraw(self, code: int, phrase: str) -> None:
        """Refuse a call that is still being decided about."""
        self.decline(code, phrase)
        if self.admission is not None:
            self.admission.cancel()

    def decline(self, code: int, phrase: str) -> None:
        """Refuse the call."""
        if self.state == "trying":
            self._network.transactions.answer(self.invite, reply(self.invite, code, phrase, to_tag=self.leg.local_tag))
            self._over()

    # What comes.

    def acknowledge(self, request: Incoming) -> None:
        """Take the ACK to our answer."""
        self._acknowledged.set()
        if self.state == "answered":
            self.state = "confirmed"
            self._begin()
        elif self.state == "confirmed" and request.message.body:
            try:
                self._describe(request)  # the answer to what we have offered
            except (RemoteProtocolError, NotSupportedError) as exc:  # an ACK cannot be refused
                logger.warning("call %s: its audio stays as it was: %s", self.leg.call_id, exc)

    def cancel(self) -> None:
        """The caller has hung up before the call was answered."""
        if self.state == "trying":
            self.withdraw(487, "Request Terminated")
            if self.call is not None:
                self.call.end("caller_hangup", "before the call was answered")

    def receive(self, request: Incoming) -> None:
        """Answer a request within the call."""
        answer = self._network.transactions.answer
        if self.state == "over":
            answer(request, reply(request, 481, "Call/Transaction Does Not Exist"))
            return
        if not self.leg.in_order(request):
            answer(request, reply(request, 500, "Server Internal Error", headers=[("Retry-After", "1")]))
            return
        try:
            match request.method:
                case "BYE":
                    answer(request, reply(request, 200, "OK"))
                    self._left()
                case "INVITE" | "UPDATE":
                    self._renew(request)
                case "INFO":
                    answer(request, reply(request, 200, "OK"))
                    self._info(request)
                case "NOTIFY":
                    answer(request, reply(request, 200, "OK"))
                    self._notified(request)
                case "OPTIONS":
                    answer(request, reply(request, 200, "OK", headers=[("Allow", ALLOWED)]))
                case _:
                    answer(request, reply(request, 405, "Method Not Allowed", headers=[("Allow", ALLOWED)]))
        except RemoteProtocolError as exc:
            logger.warning("call %s: %s", self.leg.call_id, exc)
            answer(request, reply(request, 400, "Bad Request"))
        except NotSupportedError as exc:
            logger.warning("call %s: %s", self.leg.call_id, exc)
            answer(request, reply(request, 488, "Not Acceptable Here"))

    # What the agent wants.

    async def hang_up(self, reason: str) -> None:
        """End the call and tell the other side.

        Raises:
            CarrierError: It has not answered.
        """
        assert self.call is not None
        self.call.end(reason)
        if self._goodbye is not None:
            await asyncio.shield(self._goodbye)

    async def transfer(self, command: TransferTo) -> None:
        """Ask the other side to call somebody else instead (REFER, RFC 3515).

        Raises:
            CarrierError: It refuses, or does not answer.
        """
        call = self.call
        assert call is not None
        try:
            target = refer_target(command.tel, self.leg.peer)
        except ConfigurationError as exc:
            raise CarrierError("sip", self.leg.call_id, f"transfer: {exc}") from exc
        await self._streaming("transfer")
        self._transfer, self._failed = "asked", False
        try:
            answer = await self._request("REFER", [("Refer-To", f"<{target}>"), ("Referred-By", self.leg.contact)])
        except BaseException:
            self._transfer = ""
            raise
        if answer.code >= 300:
            self._transfer = ""
            raise CarrierError(
                "sip",
                self.leg.call_id,
                f"the transfer was refused with {answer.code} {answer.phrase}; does the PBX allow it for this line?",
                status=answer.code,
            )
        if call.state == "ended":
            return
        self._transfer = "ringing"
        ring_s = _RING_S if command.back_within_s is None else command.back_within_s
        call.moving("transfer", ring_s + _MARGIN_S)
        call.stream_stopped(self._line)
        if self._failed:
            self._came_back()
        elif command.back_within_s is not None:
            clock = self._network.clock
            self._patience = clock.call_at(clock.now() + ring_s, self._came_back)

    async def press(self, command: SendDigits) -> None:
        """Press keys towards the other side.

        Raises:
            CarrierError: One of them is no key, or the other side takes none.
        """
        assert self.call is not None
        await self._streaming("press keys")
        assert self._port is not None
        try:
            await self._port.press(command.digits)
        except (ValueError, NotSupportedError) as exc:
            raise CarrierError("sip", self.leg.call_id, f"press keys: {exc}") from exc
        self.call.stayed("digits")

    def call_ended(self) -> None:
        """The call has ended, for whatever reason: tell the other side unless it knows.

        Before the call was answered that is up to whoever decides about it.
        """
        if self.state in ("answered", "confirmed"):
            self._goodbye = self._network.spawn(self._say_goodbye(), f"hang up {self.leg.call_id}")
            self._over()

    async def _streaming(self, what: str) -> None:
        """Wait until the other side has heard that the call was answered.

        Raises:
            CarrierError: It has not, or the call is over.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_REQUEST_S):
                await self._acknowledged.wait()
        if self.state != "confirmed" or self._line is None:
            raise CarrierError("sip", self.leg.call_id, f"{what}: the call has no stream")

    # Streams.

    def _begin(self) -> None:
        """Start a stream on the port that is there."""
        call, port = self.call, self._port
        if call is None or port is None or call.state in ("live", "ended"):
            return
        wire = RtpWire(call.voip.audio_format)
        port.wire = wire
        try:
            self._line = call.join(wire, call.generation + 1)
        except StateError as exc:
            logger.info("call %s: its stream has nothing to join: %s", self.leg.call_id, exc)

    def _heard(self, heard: Heard) -> None:
        line = self._line
        if line is None or line.closed:
            return
        if isinstance(heard, Digit):
            line.receive_digit(heard.key)
        else:
            line.receive_audio(heard.data, heard.at_ms)

    def _played(self, mark: str) -> None:
        if self._line is not None:
            self._line.receive_mark(mark)

    def _lost(self) -> None:
        """Nothing comes any more, and nobody has hung up."""
        if self.call is not None and self.state == "confirmed":
            self.call.stream_closed(self._line)

    def _resume(self) -> None:
        if self.call is not None and self.call.state == "lost":
            self._begin()

    # Within the call.

    def _renew(self, request: Incoming) -> None:
        """The other side changes what it has described, or shows that it is alive.

        Raises:
            RemoteProtocolError: What it describes is malformed.
            NotSupportedError: It is not the call's audio any more; the call goes on as it was.
        """
        if request.message.body:
            self._describe(request)
        self.leg.retarget(request)
        self._version += 1
        if request.method == "INVITE":
            self._acknowledged.clear()
            self._answer_invite(request)
            return
        headers = [("Contact", self.leg.contact), ("Allow", ALLOWED)]
        body = self._description(request) if request.message.body else ""
        self._network.transactions.answer(request, reply(request, 200, "OK", headers=headers, body=body))

    def _describe(self, request: Incoming) -> None:
        assert self._port is not None
        text = request.message.body.decode("utf-8", "replace")
        self.media = sdp.parse(text, only=self.media.audio_format)
        self._port.connect(self.media, self.leg.peer[0])

    def _description(self, request: Incoming) -> str:
        assert self._port is not None
        host = self._network.media_host(self.leg.peer)
        if request.message.body:
            return sdp.answer(self.media, host, self._port.port, self._session, self._version)
        return sdp.offer(host, self._port.port, self._session, self._version, self.media)

    def _answer_invite(self, request: Incoming) -> None:
        headers = [
            *(("Record-Route", route) for route in request.message.headers.getlist("Record-Route")),
            ("Contact", self.leg.contact),
            ("Allow", ALLOWED),
        ]
        data = reply(request, 200, "OK", to_tag=self.leg.local_tag, headers=headers, body=self._description(request))
        self._network.transactions.begin(request)
        if self._answering is not None:
            self._answering.cancel()
        self._answering = self._network.spawn(self._repeat(request, data), f"answer {self.leg.call_id}")

    async def _repeat(self, request: Incoming, data: bytes) -> None:
        """Answer until that is acknowledged (RFC 3261, section 13.3.1.4)."""
        again_s = T1_S
        try:
            async with asyncio.timeout(_ACKNOWLEDGED_S):
                while True:
                    self._network.transactions.answer(request, data)
                    try:
                        await asyncio.wait_for(self._acknowledged.wait(), again_s)
                    except TimeoutError:
                        again_s = min(2 * again_s, T2_S)
                    else:
                        return
        except TimeoutError:
            logger.warning("call %s: our answer was never acknowledged", self.leg.call_id)
            if self.call is not None:
                self.call.end("never_connected", "the answer was not acknowledged (ACK)")

    def _info(self, request: Incoming) -> None:
        kind = (request.message.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if kind not in ("application/dtmf-relay", "application/dtmf") or self._line is None or self._line.closed:
            return
        found = _SIGNAL.search(request.message.body[:200].decode("utf-8", "replace"))
        if found is not None:
            self._line.receive_digit(found.group(1).upper())

    def _notified(self, request: Incoming) -> None:
        """What has become of a transfer (RFC 3515, section 2.4.5)."""
        found = _FRAGMENT.match(request.message.body[:100].decode("utf-8", "replace"))
        event = (request.message.headers.get("Event") or "").partition(";")[0].strip().lower()
        if event != "refer" or found is None or not self._transfer or self.call is None:
            return
        code = int(found.group(1))
        if 200 <= code < 300:
            self.call.end("transferred")
        elif code >= 300 and self._transfer == "asked":
            self._failed = True
        elif code >= 300:
            self._came_back()

    def _came_back(self) -> None:
        """Nobody has answered the transfer: the caller is still here."""
        self._transfer = ""
        self._stop_patience()
        if self.call is not None:
            self.call.returned("transfer_failed")
            self._begin()

    def _left(self) -> None:
        """The other side has hung up; after a transfer that is its end, if not its outcome."""
        self._over()
        if self.call is None:
            return
        if self._transfer:
            self.call.end("transferred", "unconfirmed")
        else:
            self.call.end("caller_hangup")

    async def _request(self, method: str, headers: list[tuple[str, str]]) -> Reply:
        transactions = self._network.transactions
        branch = transactions.branch()
        data = self.leg.request(method, self._network.via(self.leg.peer, branch), headers)
        return await transactions.request(method, branch, data, self.leg.peer, timeout_s=_REQUEST_S)

    async def _say_goodbye(self) -> None:
        try:
            answer = await self._request("BYE", [])
        except CarrierError as exc:
            logger.warning("call %s: %s", self.leg.call_id, exc)
        else:
            logger.debug("call %s: BYE was answered with %d", self.leg.call_id, answer.code)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _over(self) -> None:
        if self.state == "over":
            return
        self.state = "over"
        self._stop_patience()
        self._acknowledged.set()
        if self._port is not None:
            self._port.close()
        self._on_over()
