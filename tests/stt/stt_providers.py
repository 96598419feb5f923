"""Every recogniser that listens over a socket, with its emulator: one entry each, for the conformance suite.

To add one, add an entry to :data:`PROVIDERS`. Its emulator takes ``sentences`` and ``faults``, has an
``api_key``, counts in ``said`` the sentences that were heard, notes in ``violations`` what the service would not
take, and asks ``hears`` (see :class:`dialog.testing.hearing.Script`).
"""

from __future__ import annotations

import asyncio
import math
from array import array
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any
from uuid import uuid4

from dialog.audio.g711 import mulaw_encode
from dialog.message import MULAW_8K, Message
from dialog.net.azure import parse_usp
from dialog.net.reconnect import Backoff
from dialog.stt.azure import AzureSTT
from dialog.stt.cartesia import CartesiaSTT
from dialog.stt.deepgram import DeepgramSTT
from dialog.stt.echo import OwnSpeech
from dialog.stt.elevenlabs import ElevenLabsSTT
from dialog.stt.flux import DeepgramFluxSTT
from dialog.stt.openai import OpenAIRealtimeSTT
from dialog.stt.streaming import StreamingSTT
from dialog.stt.stt import STT
from dialog.testing.azure_stt import AzureSTTEmulator
from dialog.testing.cartesia_stt import CartesiaSTTEmulator
from dialog.testing.deepgram import DeepgramEmulator
from dialog.testing.elevenlabs_stt import ElevenLabsSTTEmulator
from dialog.testing.flux import FluxEmulator
from dialog.testing.openai_realtime_stt import OpenAIRealtimeSTTEmulator
from dialog.testing.server import Frame


def binary(frame: Frame) -> bytes:
    """The audio of a frame, where audio goes as it is."""
    return frame.data if isinstance(frame.data, bytes) else b""


def in_json(frame: Frame) -> bytes:
    """The audio of a frame, where audio goes as base64 in a message."""
    message = frame.json()
    return b64decode(message.get("audio") or message.get("audio_base_64") or "")


def in_usp(frame: Frame) -> bytes:
    """The audio of a frame, where audio has headers of its own, and pretends to be a WAV file."""
    message = parse_usp(frame.data)
    return message.body if message.path == "audio" and "content-type" not in message.headers else b""


def deepgram(**options: Any) -> DeepgramEmulator:
    return DeepgramEmulator(interim_s=0.3, **options)


class OpenAIRealtime(OpenAIRealtimeSTTEmulator):
    """Its clients want the version in the address."""

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One recogniser."""

    name: str
    factory: Callable[..., StreamingSTT]
    """Called with api_key, base_url and what all recognisers take."""
    emulator: Callable[..., Any]
    audio: Callable[[Frame], bytes] = binary
    """The audio that a received frame brings."""
    silence_ms: int = 900
    """Silence that ends an utterance for sure."""
    ends_alone: bool = True
    """Ends utterances by itself; else the suite finalizes."""
    manual: bool = False
    """Somebody else ends the turns."""
    words_while_speaking: bool = True
    """Tells words while they are said; else only when the utterance is over."""
    knows_times: bool = True
    """Knows when an utterance was said, if only nearly."""
    tells_speakers: Mapping[str, Any] | None = None
    """What it needs to tell speakers apart; ``None``: it cannot."""

    def __str__(self) -> str:
        return self.name


PROVIDERS = [
    Provider(name="deepgram", factory=DeepgramSTT, emulator=deepgram, tells_speakers={"options": {"diarize": True}}),
    Provider(name="deepgram-manual", factory=DeepgramSTT, emulator=deepgram, manual=True, ends_alone=False),
    Provider(name="flux", factory=DeepgramFluxSTT, emulator=FluxEmulator),
    Provider(name="cartesia", factory=CartesiaSTT, emulator=CartesiaSTTEmulator),
    Provider(name="cartesia-manual", factory=CartesiaSTT, emulator=CartesiaSTTEmulator, manual=True, ends_alone=False),
    Provider(
        name="openai",
        factory=OpenAIRealtimeSTT,
        emulator=OpenAIRealtime,
        audio=in_json,
        words_while_speaking=False,
        tells_speakers={"model": "gpt-4o-transcribe-diarize"},
    ),
    Provider(
        name="openai-manual",
        factory=OpenAIRealtimeSTT,
        emulator=OpenAIRealtime,
        audio=in_json,
        manual=True,
        ends_alone=False,
        words_while_speaking=False,
        knows_times=False,
    ),
    Provider(
        name="elevenlabs",
        factory=ElevenLabsSTT,
        emulator=ElevenLabsSTTEmulator,
        audio=in_json,
        tells_speakers={"options": {"include_timestamps": True}},
    ),
    Provider(
        name="elevenlabs-manual",
        factory=ElevenLabsSTT,
        emulator=ElevenLabsSTTEmulator,
        audio=in_json,
        manual=True,
        ends_alone=False,
    ),
    Provider(name="azure", factory=AzureSTT, emulator=AzureSTTEmulator, audio=in_usp),
    Provider(
        name="azure-manual",
        factory=AzureSTT,
        emulator=AzureSTTEmulator,
        audio=in_usp,
        manual=True,
        ends_alone=False,
    ),
]

FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=2.0)
CALL = uuid4()
SENTENCES = ["a table for two", "at seven please", "by the window"]
_PITCH_HZ = (300.0, 700.0, 1400.0)


@cache
def _tone(sentence: int) -> bytes:
    step = 2 * math.pi * _PITCH_HZ[sentence] / 8000
    return mulaw_encode(array("h", [round(8000 * math.sin(i * step)) for i in range(8 * 4000)]).tobytes())


def speech(sentence: int, ms: int) -> bytes:
    """``SENTENCES[sentence]``, spoken: its pitch tells which it is, so it can be heard twice or from its middle."""
    return _tone(sentence)[: 8 * ms]


def silence(ms: int) -> bytes:
    return MULAW_8K.silence(ms)


def hears(onset: bytes) -> str:
    """The sentence that these 60 ms of speech belong to."""
    samples = array("h", onset)
    crossings = sum((a < 0) != (b < 0) for a, b in pairwise(samples))
    pitch = crossings / 2 / (len(samples) / 8000)
    return SENTENCES[min(range(3), key=lambda i: abs(_PITCH_HZ[i] - pitch))]


class Ear:
    """A recogniser, all that it told in its order, and the audio clock of the call it listens to."""

    def __init__(self, provider: Provider, emulator: Any, **options: Any) -> None:
        options.setdefault("api_key", emulator.api_key)
        options.setdefault("backoff", FAST)
        emulator.hears = hears
        self.provider, self.emulator = provider, emulator
        self.stt = provider.factory(base_url=emulator.url, **options)
        self.stt.manual_turns = provider.manual
        self.own = self.stt.own_speech = OwnSpeech()
        """What the caller hears of us."""
        self.at_ms = 0.0
        self.events: list[tuple[str, Any]] = []
        self._woken = asyncio.Event()
        self._taken = Counter[int]()
        self._first = emulator.connections
        for event in (STT.MESSAGE, STT.INTERIM, STT.VAD, STT.EAGER, STT.EAGER_WITHDRAWN, STT.ERROR):
            self.stt.on(event, lambda payload, event=event: self._keep(event, payload))
        receive = self.stt._receive

        def counting(data: str | bytes) -> None:
            self._taken[self._first + self.stt._connections - 1] += 1
            receive(data)
            self._woken.set()

        self.stt._receive = counting  # type: ignore[method-assign]

    def _keep(self, event: str, payload: Any) -> None:
        self.events.append((str(event), payload))
        self._woken.set()

    def told(self, event: str) -> list[Any]:
        return [payload for name, payload in self.events if name == event]

    @property
    def finals(self) -> list[str]:
        return [utterance.data for utterance in self.told("message")]

    @property
    def failures(self) -> list[Any]:
        return self.told("error")

    async def until(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._woken.clear()
                await self._woken.wait()

    async def connected(self, connections: int = 1) -> None:
        async with asyncio.timeout(5.0):
            while not (self.emulator.connections >= connections and self.stt._socket.connected and self.stt._ready):
                await asyncio.sleep(0)

    def say(self, audio: bytes, frame: int = 160) -> None:
        """All of it, at once."""
        for at in range(0, len(audio), frame):
            data = audio[at : at + frame]
            self.stt.post(Message(uuid=CALL, data=data, at_ms=self.at_ms))
            self.at_ms += len(data) / 8

    async def hear(self, audio: bytes, step: int = 800) -> None:
        """Say it as it would come, 100 ms at a time: the next when the service has answered to this one."""
        for at in range(0, len(audio), step):
            self.say(audio[at : at + step])
            await self.settled()

    async def settled(self) -> None:
        """The connection, if there is one, has heard all audio, and we have all that it said to it."""
        async with asyncio.timeout(5.0):
            while not self._settled():
                await asyncio.sleep(0)

    def _settled(self) -> bool:
        socket, number = self.stt._socket, self.emulator.connections - 1
        if socket.failed or not socket.connected or not self.emulator.sockets:
            return True
        frames = [frame for frame in self.emulator.frames if frame.connection == number]
        heard = sum(len(self.provider.audio(frame)) for frame in frames if not frame.sent)
        sent = sum(frame.sent for frame in frames)
        return self.stt._ready and heard / 8 >= self.stt._sent.time.sent_ms - 1 and self._taken[number] >= sent

    def heard_ms(self, connection: int) -> float:
        frames = [f for f in self.emulator.frames if not f.sent and f.connection == connection]
        return sum(len(self.provider.audio(frame)) for frame in frames) / 8

    async def utter(self, sentence: int, ms: int = 1200) -> None:
        """Say a sentence, and wait for its end as the provider finds it."""
        before = len(self.finals)
        await self.hear(speech(sentence, ms) + silence(self.provider.silence_ms))
        if not self.provider.ends_alone:
            self.stt.finalize()
        await self.until(lambda: len(self.finals) > before)
