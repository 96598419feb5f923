"""One call with both its ends in the test's hands: the agent's VoIP, and whoever is at the other end of the line.

A rig is what the conformance suite needs of a way to carry calls. A new carrier or bridge brings one, and its line in
``RIGS``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web
from steady import steady_clock
from web_server import serving, until

from dialog.audio.g711 import alaw_encode, mulaw_encode
from dialog.audio.tones import sine
from dialog.clock import Clock
from dialog.errors import StateError
from dialog.message import ALAW_8K, MULAW_8K, PCM_24K, AudioFormat
from dialog.net.listening import unlisten
from dialog.testing.call import CallEnded
from dialog.testing.caller import Caller
from dialog.testing.sip import SIPPhone
from dialog.testing.stream_call import dial_stream
from dialog.testing.twilio_rest import TwilioRestEmulator
from dialog.testing.web import WebCaller
from dialog.testing.webrtc import RtcCaller
from dialog.voip.call import Call, CallSettings
from dialog.voip.carrier.gateway import PhoneGateway
from dialog.voip.memory import MemoryCarrier, MemoryLine, memory_call
from dialog.voip.sip.gateway import SIPGateway
from dialog.voip.streams.gateway import StreamGateway
from dialog.voip.twilio.gateway import TwilioGateway
from dialog.voip.voip import VoIP
from dialog.voip.web.gateway import WebGateway
from dialog.voip.web.rtc.settings import WebRTC

sys.path.insert(0, str(Path(__file__).parents[1] / "workers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "telnyx"))
import bridges
from telnyx_phone import House, house

__all__ = ["CLOCK", "RIGS", "FarEnd", "speech", "until"]

CLOCK = steady_clock(4.0)
SETTINGS = CallSettings(settle_s=0.2, lost_s=8.0, rejoin_s=8.0)
OnVoip = Callable[[VoIP], object]
ACCOUNT, TOKEN = "AC" + "0" * 32, "secret-token"


def speech(ms: float, audio_format: AudioFormat = MULAW_8K) -> bytes:
    """Something that is heard."""
    if audio_format == MULAW_8K:
        return mulaw_encode(sine(300, ms))
    if audio_format == ALAW_8K:
        return alaw_encode(sine(300, ms))
    assert audio_format.encoding == "s16le"
    return sine(300, ms, sample_rate=audio_format.sample_rate)


class FarEnd(ABC):
    """The person on the phone, and their carrier."""

    voip: VoIP
    """The agent's side."""
    transfers: bool = True
    """Callers can be connected to somebody else."""
    reconnects: bool = True
    """The carrier opens another stream where one breaks."""
    clock: Clock = CLOCK
    slack_ms: float = 0.0
    """How long what was sent may still sound, or not sound yet: packets are held back until they are in order."""

    def speech(self, ms: float) -> bytes:
        """Something that is heard, in the call's format."""
        return speech(ms, self.voip.audio_format)

    @abstractmethod
    def say(self, audio: bytes) -> None:
        """Speak, at the pace of speech, and be silent afterwards."""

    @abstractmethod
    def press(self, digits: str) -> None:
        """Press keys."""

    @abstractmethod
    async def hang_up(self) -> None:
        """End the call."""

    @abstractmethod
    async def lose_stream(self) -> None:
        """The media connection breaks; the carrier opens another one."""

    @abstractmethod
    def heard_ms(self) -> float:
        """How much of the agent's audio has sounded so far."""

    @abstractmethod
    async def wait_gone(self) -> None:
        """Wait until nothing of the call is left on any side."""


class _Memory(FarEnd):
    def __init__(self, call: Call, carrier: MemoryCarrier, voip: VoIP) -> None:
        self.call = call
        self.carrier = carrier
        self.voip = voip
        self.line.pump()

    @property
    def line(self) -> MemoryLine:
        return self.carrier.lines[-1]

    def say(self, audio: bytes) -> None:
        self.line.say(audio)

    def press(self, digits: str) -> None:
        self.line.press(digits)

    async def hang_up(self) -> None:
        self.line.hang_up()

    async def lose_stream(self) -> None:
        self.line.drop()
        await until(lambda: self.voip.state == "lost")
        line = MemoryLine(clock=CLOCK)
        self.carrier.lines.append(line)
        line.join(self.call)
        line.pump()

    def heard_ms(self) -> float:
        return sum(len(line.heard_audio) for line in self.carrier.lines) / 8

    async def wait_gone(self) -> None:
        await asyncio.wait_for(self.call.wait_closed(), 10)
        for line in self.carrier.lines:
            await line.wait_closed()


@asynccontextmanager
async def direct(on_voip: OnVoip):
    """Both halves in one process."""
    carrier = MemoryCarrier(transfer="failed")
    call, _ = memory_call(on_voip, clock=CLOCK, carrier=carrier, line=MemoryLine(clock=CLOCK), settings=SETTINGS)
    far = _Memory(call, carrier, call.voip)
    try:
        yield far
    finally:
        if call.state != "ended":
            await far.hang_up()
        await far.wait_gone()


class _Bridged(_Memory):
    house: bridges.Bridge

    async def wait_gone(self) -> None:
        await super().wait_gone()
        await until(lambda: not self.house.host.calls)
        await until(lambda: not any(worker.left for worker in self.house.workers.values()))


@asynccontextmanager
async def _bridged(on_voip: OnVoip, medium: str):
    before, bridges.medium = bridges.medium, medium
    try:
        async with bridges.bridge(clock=CLOCK) as house:
            await house.worker("one", on_voip)
            carrier = MemoryCarrier(transfer="failed")
            call, _, voip = await house.ring(carrier=carrier)
            far = _Bridged(call, carrier, voip)
            far.house = house
            try:
                yield far
            finally:
                if call.state != "ended":
                    await far.hang_up()
                await far.wait_gone()
    finally:
        bridges.medium = before


def process(on_voip: OnVoip):
    """Over the sockets that join a gateway to its worker processes."""
    return _bridged(on_voip, "sockets")


def nats(on_voip: OnVoip):
    """Over a NATS server."""
    return _bridged(on_voip, "nats")


class _Phone(FarEnd):
    """A caller over the real sockets of Twilio's protocol."""

    def __init__(self, caller: Caller, gateway: PhoneGateway, voip: VoIP) -> None:
        self.caller = caller
        self.gateway = gateway
        self.voip = voip
        self._saying: set[asyncio.Task[object]] = set()

    def say(self, audio: bytes) -> None:
        task = asyncio.ensure_future(self.caller.say(audio, wait=False))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    def press(self, digits: str) -> None:
        self.caller.press(digits)

    async def hang_up(self) -> None:
        with suppress(CallEnded, StateError):
            await self.caller.hang_up()

    async def lose_stream(self) -> None:
        streams = self.caller.streams
        await self.caller.drop()
        await self.caller.wait_streaming(streams=streams + 1)

    def heard_ms(self) -> float:
        heard = bytes(self.caller._ear_track.data)
        return sum(20 for at in range(0, len(heard), 160) if len(set(heard[at : at + 160])) > 8)

    async def wait_gone(self) -> None:
        await until(lambda: not self.gateway.calls)


@asynccontextmanager
async def twilio(on_voip: OnVoip):
    """A real gateway, dialled as Twilio does, with the account's REST API."""
    voips: list[VoIP] = []

    def taken(voip: VoIP) -> None:
        voips.append(voip)
        on_voip(voip)

    async with TwilioRestEmulator(account_sid=ACCOUNT, auth_token=TOKEN) as rest:
        sock = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/twilio"
        gateway = TwilioGateway(
            account_sid=ACCOUNT,
            auth_token=TOKEN,
            webhook_url=url,
            base_url=rest.url,
            clock=CLOCK,
            call_settings=SETTINGS,
        )
        gateway.on("voip", taken)
        runner = web.AppRunner(gateway.app(), access_log=None)
        await runner.setup()
        await web.SockSite(runner, sock).start()
        sid, updates = "CA" + "1" * 32, set()
        try:
            async with Caller.dial(
                url, auth_token=TOKEN, account_sid=ACCOUNT, clock=CLOCK, call_sid=sid, transfer="no-answer"
            ) as caller:

                async def carry_out(update) -> None:
                    with suppress(StateError):  # the caller was faster
                        await caller.update(status=update.status, twiml=update.twiml, url=update.url)

                def updated(update) -> None:
                    updates.add(asyncio.ensure_future(carry_out(update)))

                rest.add_call(sid, on_update=updated)
                far = _Phone(caller, gateway, voips[0])
                try:
                    yield far
                finally:
                    await far.hang_up()
                    await far.wait_gone()
                    rest.end_call(sid)
                    if updates:
                        await asyncio.wait(updates)
        finally:
            await unlisten(runner)


class _Telnyx(_Phone):
    """A caller over the real sockets and webhooks of Telnyx's protocol."""

    def __init__(self, caller: Caller, there: House) -> None:
        super().__init__(caller, there.gateway, there.voip)


@asynccontextmanager
async def _telnyx(on_voip: OnVoip, **settings):
    async with house(on_voip, **settings) as there, there.telnyx.dial(transfer="no-answer") as caller:
        far = _Telnyx(caller, there)
        try:
            yield far
        finally:
            await far.hang_up()
            await far.wait_gone()


def telnyx(on_voip: OnVoip):
    """Telnyx's Call Control, with mu-law."""
    return _telnyx(on_voip)


def telnyx_l16(on_voip: OnVoip):
    """The same with 16-bit samples at 16 kHz."""
    return _telnyx(on_voip, codec="L16", sample_rate=16000)


class _Stream(_Phone):
    """A caller of a carrier that has nothing but a media socket."""

    transfers = False
    reconnects = False


@asynccontextmanager
async def _stream(on_voip: OnVoip, carrier: str, sample_rate: int = 8000):
    voips: list[VoIP] = []

    def taken(voip: VoIP) -> None:
        voips.append(voip)
        on_voip(voip)

    token = "a secret of the tests"
    gateway = StreamGateway(token=token, clock=CLOCK, call_settings=SETTINGS)
    gateway.on("voip", taken)
    async with serving(gateway) as url:
        address = f"{url}?token={token.replace(' ', '%20')}"
        async with dial_stream(address, carrier=carrier, sample_rate=sample_rate, clock=CLOCK) as caller:
            await until(lambda: voips)
            far = _Stream(caller, gateway, voips[0])
            yield far
            await far.hang_up()
            await far.wait_gone()


def plivo(on_voip: OnVoip):
    """Plivo's audio streams, with mu-law."""
    return _stream(on_voip, "plivo")


def exotel(on_voip: OnVoip):
    """Exotel's, with 16-bit samples."""
    return _stream(on_voip, "exotel", 16000)


class _Client(FarEnd):
    """A client of the browser's protocol."""

    transfers = False

    def __init__(self, caller: WebCaller, gateway: WebGateway, voip: VoIP) -> None:
        self.caller = caller
        self.gateway = gateway
        self.voip = voip

    def say(self, audio: bytes) -> None:
        self.caller.say(audio)

    def press(self, digits: str) -> None:
        self.caller.press(digits)

    async def hang_up(self) -> None:
        await self.caller.hang_up()

    async def lose_stream(self) -> None:
        await self.caller.drop()
        await self.caller.resume()

    def heard_ms(self) -> float:
        return self.caller.heard_ms

    async def wait_gone(self) -> None:
        await until(lambda: not self.gateway.calls)


@asynccontextmanager
async def _web(
    on_voip: OnVoip, audio_format: AudioFormat, *, asgi: bool = False, caller_class=WebCaller, clock: Clock = CLOCK
):
    """A real gateway, to which a client connects as a page does."""
    voips: list[VoIP] = []

    def taken(voip: VoIP) -> None:
        voips.append(voip)
        on_voip(voip)

    gateway = WebGateway(clock=clock, call_settings=SETTINGS, webrtc=WebRTC())
    gateway.on("voip", taken)
    async with (
        serving(gateway, asgi=asgi) as url,
        caller_class.connect(url, token=gateway.token(), audio=[audio_format], clock=clock) as caller,
    ):
        far = _Client(caller, gateway, voips[0])
        far.clock = clock
        far.slack_ms = 300.0 if caller_class is RtcCaller else 0.0
        yield far
        await far.hang_up()
        await far.wait_gone()


def client(on_voip: OnVoip):
    """A browser's protocol with a browser's audio."""
    return _web(on_voip, PCM_24K)


def client_asgi(on_voip: OnVoip):
    """The same with a telephone's audio, served by an ASGI server."""
    return _web(on_voip, MULAW_8K, asgi=True)


SIP_CLOCK = Clock()
"""Nothing is ahead of what sounds here: a loop that is late on a busy machine is heard."""


class _Telephone(FarEnd):
    """A telephone that speaks SIP and RTP."""

    def __init__(self, phone: SIPPhone, gateway: SIPGateway, voip: VoIP) -> None:
        self.phone = phone
        self.gateway = gateway
        self.voip = voip

    def say(self, audio: bytes) -> None:
        self.phone.say(audio)

    def press(self, digits: str) -> None:
        self.phone.press(digits)

    async def hang_up(self) -> None:
        await self.phone.hang_up()

    async def lose_stream(self) -> None:
        self.phone.muted = True
        await until(lambda: self.voip.state == "lost")
        self.phone.muted = False

    def heard_ms(self) -> float:
        return self.phone.heard_ms

    async def wait_gone(self) -> None:
        await until(lambda: not self.gateway.calls)


@asynccontextmanager
async def sip(on_voip: OnVoip):
    """A real gateway, which a telephone calls."""
    voips: list[VoIP] = []

    def taken(voip: VoIP) -> None:
        voips.append(voip)
        on_voip(voip)

    gateway = SIPGateway(
        host="127.0.0.1", port=0, peers=["127.0.0.1"], clock=SIP_CLOCK, call_settings=SETTINGS, quiet_s=2.0
    )
    gateway.on("voip", taken)
    async with gateway, SIPPhone.call("127.0.0.1", gateway.port, formats=[ALAW_8K], clock=SIP_CLOCK) as phone:
        phone.transfer = "busy"
        far = _Telephone(phone, gateway, voips[0])
        yield far
        await far.hang_up()
        await far.wait_gone()


def webrtc(on_voip: OnVoip):
    """A browser's protocol over WebRTC, whose packets come and go one by one: not as fast as the others."""
    return _web(on_voip, PCM_24K, caller_class=RtcCaller, clock=steady_clock(2.0))


RIGS = {
    "direct": direct,
    "twilio": twilio,
    "telnyx": telnyx,
    "telnyx-l16": telnyx_l16,
    "plivo": plivo,
    "exotel": exotel,
    "process": process,
    "nats": nats,
    "web": client,
    "web-asgi": client_asgi,
    "sip": sip,
    "webrtc": webrtc,
}
