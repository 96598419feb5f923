"""A telephone that speaks SIP and RTP, to call a :class:`~dialog.voip.sip.gateway.SIPGateway` with in tests.

::

    async with SIPPhone.call("127.0.0.1", gateway.port, to="1000") as phone:
        phone.say(audio)  # G.711, at the pace of speech
        phone.press("1")

Sources: RFC 3261 (SIP), RFC 3264 (offer and answer), RFC 3515 (REFER), RFC 4733 (keys).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from secrets import token_hex
from typing import Final, Literal, cast

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, MissingExtra
from dialog.message import ALAW_8K, MULAW_8K, AudioFormat
from dialog.voip.sip.rtp import FRAME_S, Sender, decode

try:
    from sipmessage import Message, Request, Response
except ImportError as exc:
    raise MissingExtra("sipmessage", "sip") from exc

__all__ = ["SIPPhone", "SIPRefused"]

_WAIT_S: Final = 10.0
_FRAME: Final = 160
_TYPES: Final[dict[str, tuple[int, str]]] = {"mulaw": (0, "PCMU"), "alaw": (8, "PCMA")}
_KEYS: Final = 101
_PORT: Final = re.compile(r"^m=audio (\d+) RTP/AVP (\d+)", re.MULTILINE)
_QUIET: Final = 8
"""A frame of fewer different bytes is silence, or a hum."""

TransferOutcome = Literal["answered", "busy", "refused", "silent"]


class SIPRefused(DialogError):
    """The gateway did not take the call."""

    code = "refused"

    def __init__(self, status: int, phrase: str) -> None:
        super().__init__(f"{status} {phrase}")
        self.status = status


class SIPPhone:
    """A caller with a telephone. It sends audio all the time, as telephones do. Made by :meth:`call`."""

    def __init__(
        self, host: str, port: int, *, to: str, from_: str, clock: Clock, formats: Sequence[AudioFormat]
    ) -> None:
        self.call_id: str = f"{token_hex(8)}@test"
        self.to = to
        self.from_ = from_
        self.audio_format: AudioFormat = formats[0]
        """What was agreed on, once the call is answered."""
        self.heard: bytearray = bytearray()
        """All audio that has come, silence too, in the order in which it came."""
        self.keys: list[str] = []
        """Keys that the gateway has pressed."""
        self.requests: list[Request] = []
        """What the gateway has asked within the call."""
        self.answers: list[Response] = []
        """What it has answered."""
        self.transfer: TransferOutcome = "answered"
        """What becomes of a REFER: ``refused`` at once, ``busy`` or ``answered`` a moment later, or nothing."""
        self.acknowledges: bool = True
        """Send the ACK to the answer; a telephone that lost its network does not."""
        self.muted: bool = False
        """Send no audio at all."""
        self.over: asyncio.Event = asyncio.Event()
        """The gateway has hung up, or we have."""
        self._host = host
        self._port = port
        self._clock = clock
        self._formats = tuple(formats)
        self._tag = token_hex(4)
        self._remote = f"<sip:{to}@{host}:{port}>"
        self._target = f"sip:{to}@{host}:{port}"
        self._sequence = 0
        self._signalling = _Socket(self._receive)
        self._audio = _Socket(self._listen)
        self._sender = Sender(0, _KEYS)
        self._media: tuple[str, int] | None = None
        self._speech = bytearray()
        self._last_key = (0, -1)
        self._news = asyncio.Event()
        self._mouth: asyncio.Task[None] | None = None
        self._invite_branch = ""

    @classmethod
    @asynccontextmanager
    async def call(
        cls,
        host: str,
        port: int,
        *,
        to: str = "1000",
        from_: str = "+15550100",
        formats: Sequence[AudioFormat] = (MULAW_8K, ALAW_8K),
        headers: Mapping[str, str] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> AsyncGenerator[SIPPhone]:
        """Call a gateway; in the end it is hung up, unless it has been.

        Raises:
            SIPRefused: It does not take the call.
            TimeoutError: It does not answer within 10 s.
        """
        phone = cls(host, port, to=to, from_=from_, clock=clock, formats=formats)
        await phone.open()
        try:
            await phone.invite(headers or {})
            yield phone
            await phone.hang_up()
        finally:
            await phone.close()

    @property
    def heard_ms(self) -> float:
        """How much of the gateway's audio was no silence."""
        heard = bytes(self.heard)
        return sum(20 for at in range(0, len(heard), _FRAME) if len(set(heard[at : at + _FRAME])) > _QUIET)

    def say(self, audio: bytes) -> None:
        """Speak, at the pace of speech, and be silent afterwards."""
        self._speech += audio

    def press(self, digits: str, *, by: Literal["rtp", "info"] = "rtp") -> None:
        """Press keys, as most telephones tell it (RFC 4733), or by INFO requests."""
        if by == "rtp":
            self._sender.press(digits)
            return
        for digit in digits:
            body = f"Signal={digit}\r\nDuration=160\r\n"
            self._send(self._request("INFO", body=body, content_type="application/dtmf-relay"))

    async def open(self) -> None:
        """Open the sockets."""
        loop = asyncio.get_running_loop()
        for each in (self._signalling, self._audio):
            await loop.create_datagram_endpoint(lambda each=each: each, local_addr=(self._host, 0))  # type: ignore[misc]

    async def invite(self, headers: Mapping[str, str], *, direction: str = "sendrecv") -> Response:
        """Call, or change what was agreed on: ``direction`` puts the gateway on hold (``sendonly``).

        Raises:
            SIPRefused: The gateway does not take it.
            TimeoutError: It does not answer within 10 s.
        """
        body = self._offer(direction)
        data = self._request("INVITE", headers, body=body, content_type="application/sdp")
        sequence = self._sequence
        answer = await self._ask(data, "INVITE", sequence)
        if answer.code >= 300:
            self._send(self._request("ACK", sequence=sequence, branch=self._invite_branch))
            raise SIPRefused(answer.code, answer.phrase)
        self._remote = answer.headers["To"]
        self._target = answer.headers["Contact"].strip("<> ")
        found = _PORT.search(answer.body.decode())
        assert found is not None
        kind = int(found.group(2))
        self.audio_format = next(each for each in self._formats if _TYPES[each.encoding][0] == kind)
        self._sender.payload_type = kind
        self._media = (self._host, int(found.group(1)))
        if self.acknowledges:
            self.acknowledge(sequence)
        if self._mouth is None:
            self._mouth = asyncio.create_task(self._speak(), name="SIP phone")
        return answer

    def acknowledge(self, sequence: int) -> None:
        """Send the ACK to an answer."""
        self._send(self._request("ACK", sequence=sequence))

    def cancel(self) -> None:
        """Hang up while it is ringing."""
        self._send(self._request("CANCEL", sequence=self._sequence, branch=self._invite_branch, established=False))

    def send(self, data: bytes) -> None:
        """Send anything to the gateway's SIP socket."""
        self._signalling.send(data, (self._host, self._port))

    def send_audio(self, data: bytes) -> None:
        """Send anything to the socket of the call's audio."""
        assert self._media is not None
        self._audio.send(data, self._media)

    async def request(self, method: str, headers: Mapping[str, str] | None = None, body: str = "") -> Response:
        """Ask something within the call; its final answer.

        Raises:
            TimeoutError: There is none within 10 s.
        """
        data = self._request(method, headers or {}, body=body, content_type="text/plain" if body else "")
        return await self._ask(data, method, self._sequence)

    async def hang_up(self) -> None:
        """End the call; harmless when it is over."""
        if not self.over.is_set():
            with suppress(TimeoutError):
                await self.request("BYE")
            self.over.set()

    async def close(self) -> None:
        """Close the sockets."""
        self.over.set()
        if self._mouth is not None:
            self._mouth.cancel()
            await asyncio.wait([self._mouth])
        self._signalling.close()
        self._audio.close()

    # Signalling.

    def _request(
        self,
        method: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: str = "",
        content_type: str = "",
        sequence: int = 0,
        branch: str = "",
        established: bool = True,
    ) -> bytes:
        if not sequence:
            self._sequence += 1
            sequence = self._sequence
        branch = branch or f"z9hG4bK{token_hex(8)}"
        if method == "INVITE":
            self._invite_branch = branch
        own = f"{self._host}:{self._signalling.port}"
        lines = [
            f"{method} {self._target} SIP/2.0",
            f"Via: SIP/2.0/UDP {own};branch={branch};rport",
            "Max-Forwards: 70",
            f'From: "Caller" <sip:{self.from_}@{self._host}>;tag={self._tag}',
            f"To: {self._remote}" if established else f"To: <sip:{self.to}@{self._host}:{self._port}>",
            f"Call-ID: {self.call_id}",
            f"CSeq: {sequence} {method}",
            f"Contact: <sip:phone@{own}>",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
            *([f"Content-Type: {content_type}"] if content_type else []),
            f"Content-Length: {len(body.encode())}",
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _offer(self, direction: str) -> str:
        types = [_TYPES[each.encoding] for each in self._formats]
        lines = [
            "v=0",
            f"o=- 1 {self._sequence + 1} IN IP4 {self._host}",
            "s=-",
            f"c=IN IP4 {self._host}",
            "t=0 0",
            f"m=audio {self._audio.port} RTP/AVP {' '.join(str(number) for number, _ in types)} {_KEYS}",
            *(f"a=rtpmap:{number} {name}/8000" for number, name in types),
            f"a=rtpmap:{_KEYS} telephone-event/8000",
            f"a={direction}",
        ]
        return "\r\n".join(lines) + "\r\n"

    async def _ask(self, data: bytes, method: str, sequence: int) -> Response:
        async with asyncio.timeout(_WAIT_S):
            while True:
                self._send(data)
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        return await self._answer(method, sequence)

    async def _answer(self, method: str, sequence: int) -> Response:
        while True:
            for answer in self.answers:
                cseq = answer.cseq
                if cseq.method == method and cseq.sequence == sequence and answer.code >= 200:
                    return answer
            self._news.clear()
            await self._news.wait()

    def _send(self, data: bytes) -> None:
        self._signalling.send(data, (self._host, self._port))

    def _receive(self, data: bytes) -> None:
        message = Message.parse(data)
        if isinstance(message, Response):
            self.answers.append(message)
            self._news.set()
            return
        if not any(bytes(known) == bytes(message) for known in self.requests):
            self.requests.append(message)
            self._asked(message)
        elif message.method == "BYE":
            self._reply(message, 200, "OK")

    def _asked(self, request: Request) -> None:
        if request.method == "REFER":
            if self.transfer == "refused":
                self._reply(request, 603, "Decline")
                return
            self._reply(request, 202, "Accepted")
            self._tell("SIP/2.0 100 Trying", "active")
            if self.transfer != "silent":
                self._tell("SIP/2.0 200 OK" if self.transfer == "answered" else "SIP/2.0 486 Busy Here", "terminated")
        else:
            self._reply(request, 200, "OK")
            if request.method == "BYE":
                self.over.set()

    def _tell(self, fragment: str, state: str) -> None:
        headers = {"Event": "refer", "Subscription-State": state}
        self._send(self._request("NOTIFY", headers, body=fragment + "\r\n", content_type="message/sipfrag"))

    def _reply(self, request: Request, code: int, phrase: str) -> None:
        lines = [f"SIP/2.0 {code} {phrase}"]
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            lines += [f"{name}: {value}" for value in request.headers.getlist(name)]
        self._send(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode())

    # Audio.

    async def _speak(self) -> None:
        due = self._clock.now()
        while not self.over.is_set():
            packets = self._sender.keys()
            if packets is None:
                frame = bytes(self._speech[:_FRAME])
                del self._speech[:_FRAME]
                packets = [self._sender.audio(frame + self.audio_format.silence(20)[len(frame) :])]
            if not self.muted and self._media is not None:
                for packet in packets:
                    self._audio.send(packet, self._media)
            due += FRAME_S
            await self._clock.sleep(max(0.0, due - self._clock.now()))

    def _listen(self, data: bytes) -> None:
        packet = decode(data)
        if packet.payload_type == _KEYS:
            key = (packet.ssrc, packet.timestamp)
            if key != self._last_key:
                self._last_key = key
                self.keys.append("0123456789*#ABCD"[packet.payload[0]])
        else:
            self.heard += packet.payload


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def port(self) -> int:
        assert self._transport is not None
        number: int = self._transport.get_extra_info("sockname")[1]
        return number

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is no subclass of it before Python 3.12.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del addr  # only the gateway knows it
        self._receive(data)

    def send(self, data: bytes, where: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, where)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
