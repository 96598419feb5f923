"""A SIP gateway on a port of its own, and what its agents are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager

from steady import steady_clock

from dialog.audio.g711 import mulaw_encode
from dialog.audio.tones import sine
from dialog.message import CallEnd, Message, Playback, StreamStarted, StreamStopped
from dialog.voip.call import CallSettings
from dialog.voip.sip.gateway import SIPGateway
from dialog.voip.sip.voip import SIPVoIP
from dialog.voip.voip import VoIP

__all__ = ["CLOCK", "SETTINGS", "Desk", "a_gateway", "speech", "until"]

CLOCK = steady_clock(4.0)
SETTINGS = CallSettings(settle_s=0.2)


def speech(ms: float) -> bytes:
    """Something that is heard."""
    return mulaw_encode(sine(300, ms))


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for what happens at the other end."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.005)


class Desk:
    """Takes calls, and notes what it is told."""

    def __init__(self, then: Callable[[SIPVoIP], object] = lambda voip: None) -> None:
        self.voips: list[SIPVoIP] = []
        self.life: list[str] = []
        self.ends: list[CallEnd] = []
        self.digits: list[str] = []
        self.audio: list[Message[bytes]] = []
        self.reports: list[Playback] = []
        self._then = then

    def __call__(self, voip: SIPVoIP) -> None:
        self.voips.append(voip)
        voip.on(VoIP.STREAMING_STARTED, self._started)
        voip.on(VoIP.STREAMING_STOPPED, self._stopped)
        voip.on(VoIP.ENDED, self.ends.append)
        voip.on(VoIP.DTMF, self.digits.append)
        voip.on(VoIP.MESSAGE, self.audio.append)
        voip.on(VoIP.PLAYBACK, self.reports.append)
        self._then(voip)

    @property
    def loud_ms(self) -> int:
        """How much of the caller's audio was no silence."""
        heard = b"".join(each.data for each in self.audio)
        return sum(20 for at in range(0, len(heard), 160) if len(set(heard[at : at + 160])) > 8)

    def _started(self, started: StreamStarted) -> None:
        self.life.append(f"live {started.generation} {started.resumed}".strip())

    def _stopped(self, stopped: StreamStopped) -> None:
        self.life.append(stopped.reason)


@asynccontextmanager
async def a_gateway(desk: Callable[[SIPVoIP], object], **options):
    """A gateway that listens; nothing of its calls is left in the end."""
    given = {"host": "127.0.0.1", "port": 0, "peers": ["127.0.0.1"], "clock": CLOCK, "call_settings": SETTINGS}
    gateway = SIPGateway(**(given | options))
    gateway.on("voip", desk)
    async with gateway:
        yield gateway
        await until(lambda: not gateway.calls)
