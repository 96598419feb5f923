"""What a chain of voices knows of each of them, and of the parts that they speak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from dialog.audio.convert import Converter
from dialog.errors import DialogError, ProviderError
from dialog.message import AudioFormat, Failure, Message
from dialog.net.circuit import Circuit
from dialog.net.contexts import PartKey
from dialog.participant import Event, Participant
from dialog.tts.coverage import Coverage, SpokenRate
from dialog.tts.tts import TTS

__all__ = ["ChainPart", "Voice", "rehearse"]

_REHEARSAL_S = 5.0
_TEXT = "Okay."
"""What a voice that failed is asked to say, to nobody, when it is tried again."""


class Voice:
    """One of the chain: the voice as it is now, and whether it is worth asking."""

    def __init__(self, tts: TTS, place: int, label: str) -> None:
        self.tts = tts
        self.place = place
        self.label = label
        self.circuit: Circuit
        self.rate = SpokenRate()
        self.format: AudioFormat
        self.listeners: list[tuple[Event[Any], Callable[[Any], object]]] = []
        self.used = False
        self.open = False
        self.gone = False
        """It cannot be asked any more as it is, only made anew."""
        self.last_audio = 0.0
        self.error: DialogError | None = None
        """Told since it made audio last."""
        self.failing: Failure | None = None
        """Told just now: a part that ends at once ends because of it …"""
        self.consequences: Failure | None = None
        """… and one did."""
        self.down: DialogError | None = None
        """Why it failed last."""


class ChainPart:
    """A part that is being spoken."""

    def __init__(self, key: PartKey, voice: Voice, converter: Converter, speaker: str) -> None:
        self.key = key
        self.speaker = speaker
        """The voice that was asked for."""
        self.voice = voice
        self.converter = converter
        self.tried = {voice}
        self.covered = Coverage()
        """Of the present voice."""
        self.base_ms = 0.0
        """Where the audio of the present voice begins."""
        self.audio_ms = 0.0
        self.done = False
        self.expected_since: float | None = None
        """Since when the voice has text that it could speak."""


async def rehearse(tts: TTS, label: str, audio_format: AudioFormat) -> DialogError | None:
    """Let an unopened voice say a word to nobody; what is wrong with it, if anything. It raises what ``tts`` raises."""
    said = asyncio.Event()
    errors: list[DialogError] = []

    def heard(message: Message[bytes]) -> None:
        if (message.data or message.done) and not said.is_set():
            if not message.data:
                errors.append(ProviderError(label, "said nothing", retryable=True))
            said.set()

    def failed(failure: Failure) -> None:
        if failure.fatal:
            errors.append(failure.error)
            said.set()

    tts.on(TTS.MESSAGE, heard)
    tts.on(Participant.ERROR, failed)
    tts.open(audio_format)
    tts.post(Message(uuid=uuid4(), data=_TEXT, done=True))
    try:
        async with asyncio.timeout(_REHEARSAL_S):
            await said.wait()
    except TimeoutError:
        errors.append(ProviderError(label, f"no audio for {_REHEARSAL_S:g} s", retryable=True))
    return errors[0] if errors else None
