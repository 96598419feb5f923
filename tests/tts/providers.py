"""The voices that the conformance suite runs against. A new provider is one more entry of PROVIDERS.

Their emulators are told to spell: each character of a text becomes ``MS_PER_CHAR`` of a constant that is
its code, so that audio can be read back, and a test can tell what was spoken, what was lost and what twice.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dialog.message import PCM_24K, AudioFormat
from dialog.net.reconnect import Backoff
from dialog.testing.aura import AuraEmulator
from dialog.testing.azure_tts import AzureTTSEmulator
from dialog.testing.cartesia import CartesiaEmulator, ContextFault
from dialog.testing.elevenlabs import ElevenLabsEmulator
from dialog.testing.openai_speech import OpenAISpeechEmulator
from dialog.testing.server import EmulatorServer, Faults
from dialog.tts import deepgram, elevenlabs
from dialog.tts.azure import AzureTTS
from dialog.tts.cartesia import CartesiaTTS
from dialog.tts.deepgram import DeepgramTTS
from dialog.tts.elevenlabs import ElevenLabsTTS
from dialog.tts.openai import OpenAITTS
from dialog.tts.tts import TTS

MS_PER_CHAR = 40
"""More than may be missing of a word that counts as spoken."""
FAST = Backoff(first_s=0.01, limit_s=0.05, give_up_s=1.0)


def spell(text: str, audio_format: AudioFormat) -> bytes:
    """Audio that says which characters it is of."""
    sample = (lambda code: bytes((0, code))) if audio_format.sample_bytes == 2 else (lambda code: bytes((code,)))
    samples = audio_format.size(MS_PER_CHAR) // audio_format.sample_bytes
    return b"".join(sample(ord(char)) * samples for char in text)


def read(audio: bytes, audio_format: AudioFormat) -> str:
    """The characters of such audio; of one that is cut short, its half."""
    width, step = audio_format.sample_bytes, audio_format.size(MS_PER_CHAR)
    return "".join(chr(audio[at + width - 1]) for at in range(step // 2, len(audio) - width + 1, step))


_CARTESIA = {"pcm_mulaw": "mulaw", "pcm_alaw": "alaw", "pcm_s16le": "s16le"}


class Cartesia(CartesiaEmulator):
    def audio(self, text, *, number=0, encoding="pcm_mulaw", rate=8000):
        return spell(text, AudioFormat(_CARTESIA[encoding], rate))


class ElevenLabs(ElevenLabsEmulator):
    def audio(self, text, *, number=0, audio_format):
        return spell(text, audio_format)


class Aura(AuraEmulator):
    def audio(self, text, *, number=0, audio_format):
        return spell(text, audio_format)


class OpenAISpeech(OpenAISpeechEmulator):
    def audio(self, text, *, number=0, audio_format=PCM_24K):
        return spell(text, audio_format)


class Azure(AzureTTSEmulator):
    def audio(self, text, *, number=0, audio_format):
        return spell(text, audio_format)


@dataclass(frozen=True, kw_only=True)
class Provider:
    name: str
    emulator: type[EmulatorServer]
    voice: type[TTS]
    socket: bool = True
    """One WebSocket per call; else a request per sentence."""
    base_url: Callable[[Any], str] = lambda emulator: emulator.url
    preface: int = 0
    """Messages of the emulator before the first audio of a connection."""
    cancels: bool = True
    """A cancelled part goes on arriving for a while."""
    emulating: Mapping[str, Any] = field(default_factory=dict)
    speaking: Mapping[str, Any] = field(default_factory=lambda: {"backoff": FAST})
    wrong_voice: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    """Arguments of emulator and voice with which the voice does not exist."""
    quota: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the emulator with which the account has nothing left."""
    other_voice: str
    """One that is not its own."""
    only_own: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the emulator with which that one does not exist."""
    audio_field: str = ""
    """Where a message with the name of a context has its audio."""
    asked: Callable[[Any], list[str]]
    """The voices that the emulator was asked for, text by text."""

    def emulate(self, **options):
        return self.emulator(**{"ms_per_char": MS_PER_CHAR, "speed": 100, **self.emulating, **options})

    def make(self, emulator, **options):
        given = {"api_key": emulator.api_key, "base_url": self.base_url(emulator), **self.speaking, **options}
        return self.voice(**given)

    def __str__(self):
        return self.name


def received(emulator):
    """The messages that came, each with the handshake of its connection."""
    handshakes = [request for request in emulator.requests if request.headers.get("Upgrade")]
    return [(handshakes[frame.connection], frame.json()) for frame in emulator.frames if not frame.sent]


CHUNKS = {"chunk_ms": 3 * MS_PER_CHAR}
"""Whole characters."""

PROVIDERS = (
    Provider(
        name="cartesia",
        emulator=Cartesia,
        voice=CartesiaTTS,
        emulating={"timings_first": True, **CHUNKS},
        wrong_voice=({"context_faults": {n: ContextFault(status=404, message="no such voice") for n in range(9)}}, {}),
        quota={"context_faults": {n: ContextFault(status=402, message="no credits left") for n in range(9)}},
        other_voice="a-wolf",
        audio_field="data",
        only_own={"context_faults": {n: ContextFault(status=404, message="no such voice") for n in (1, 2, 3, 4)}},
        asked=lambda emulator: [told["voice"]["id"] for _, told in received(emulator) if told.get("transcript")],
    ),
    Provider(
        name="elevenlabs",
        emulator=ElevenLabs,
        voice=ElevenLabsTTS,
        emulating=CHUNKS,
        wrong_voice=({"voices": ["another"]}, {}),
        quota={"quota": 3},
        other_voice="a-wolf",
        audio_field="audio",
        only_own={"voices": [elevenlabs.DEFAULT_VOICE]},
        asked=lambda emulator: [
            request.path.split("/")[3] for request, told in received(emulator) if told.get("text", "").strip()
        ],
    ),
    Provider(
        name="openai",
        emulator=OpenAISpeech,
        voice=OpenAITTS,
        socket=False,
        base_url=lambda emulator: emulator.base_url,
        cancels=False,
        speaking={},
        wrong_voice=({}, {"voice": "nobody"}),
        quota={"refusal_code": "insufficient_quota", "faults": Faults(refuse=429)},
        other_voice="ash",
        asked=lambda emulator: [body["voice"] for body in emulator.bodies],
    ),
    Provider(
        name="aura",
        emulator=Aura,
        voice=DeepgramTTS,
        emulating=CHUNKS,
        preface=1,
        wrong_voice=({"models": ["aura-2-zeus-en"]}, {}),
        quota={"faults": Faults(refuse=402)},
        other_voice="aura-2-zeus-en",
        only_own={"models": [deepgram.DEFAULT_MODEL]},
        asked=lambda emulator: [
            request.values("model")[0] for request, told in received(emulator) if told["type"] == "Speak"
        ],
    ),
    Provider(
        name="azure",
        emulator=Azure,
        voice=AzureTTS,
        socket=False,
        emulating=CHUNKS,
        cancels=False,
        speaking={},
        wrong_voice=({"voices": ["en-US-AvaMultilingualNeural"]}, {"voice": "en-US-NobodyNeural"}),
        quota={"refusal_text": "Quota exceeded.", "faults": Faults(refuse=429)},
        other_voice="de-DE-KatjaNeural",
        only_own={"voices": ["en-US-AvaMultilingualNeural"]},
        asked=lambda emulator: [re.findall(r'<voice name="([^"]*)"', document)[0] for document in emulator.documents],
    ),
)
