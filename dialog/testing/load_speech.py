"""What the callers of a load say: made once, cut into frames and encoded once, shared by all of them."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dialog.audio.g711 import mulaw_encode
from dialog.audio.pcm import clip, pcm_bytes
from dialog.errors import ConfigurationError
from dialog.testing.carrier_stream import FRAME_BYTES, FRAME_MS, SILENT_FRAME, SILENT_PAYLOAD
from dialog.testing.heard import is_silent, voiced_span
from dialog.testing.stream import Microphone
from dialog.testing.voice import Voice, load

__all__ = ["SharedMicrophone", "Utterance", "canned", "cut", "prepare"]

_LONGEST_S = 120
_MOST = 100
_PITCHES = (118.0, 142.0, 205.0)
_SYLLABLES = ((5, 3), (4, 2, 4), (7, 5))


class Utterance(NamedTuple):
    """Something to say: its frames as they go over the wire, and where in it the voice is."""

    payloads: tuple[str, ...]
    voice_start_ms: float
    voice_end_ms: float


class SharedMicrophone(Microphone):
    """Says utterances whose frames belong to all callers."""

    def __init__(self) -> None:
        super().__init__()
        self._utterance: Utterance | None = None
        self._at = 0
        self.begun_ms: float | None = None
        """When the newest utterance began, once it has."""

    @property
    def speaking(self) -> bool:
        """Whether something is still to be said."""
        return self._utterance is not None

    def say(self, utterance: Utterance) -> None:
        """Say this from the next frame on."""
        self._utterance, self._at, self.begun_ms = utterance, 0, None

    def take(self, at_ms: float) -> tuple[str, bytes]:
        """The next frame as base64; as it is, nobody needs it."""
        utterance = self._utterance
        if utterance is None:
            return SILENT_PAYLOAD, SILENT_FRAME
        if self._at == 0:
            self.begun_ms = at_ms
        payload = utterance.payloads[self._at]
        self._at += 1
        if self._at == len(utterance.payloads):
            self._utterance = None
        return payload, b""

    def clear(self) -> None:
        """Say no more."""
        self._utterance = None


@cache
def canned() -> tuple[bytes, ...]:
    """Utterances that sound like speech to whoever goes by the level: syllables in words, mu-law.

    A recogniser makes no words of them. 16 bit at 8 kHz of -22 dBFS, five syllables a second.
    """
    return tuple(
        mulaw_encode(b"".join(_word(pitch, count, number) for number, count in enumerate(words)))
        for pitch, words in zip(_PITCHES, _SYLLABLES, strict=True)
    )


def _word(pitch: float, syllables: int, number: int) -> bytes:
    """Vowels that rise and fall, each a little lower than the one before, and a short pause."""
    length, out = 1440, list[float]()
    for syllable in range(syllables):
        hertz = pitch * (1.08 - 0.03 * syllable - 0.02 * number)
        step = 2.0 * math.pi * hertz / 8000.0
        for at in range(length):
            swell = math.sin(math.pi * at / length) ** 0.5
            # The fundamental, and harmonics near the first two formants of a vowel.
            tone = math.sin(step * at) + 0.8 * math.sin(4 * step * at) + 0.4 * math.sin(9 * step * at)
            out.append(2600.0 * swell * (0.35 + 0.65 * swell) * tone)
    out += [0.0] * 640
    return pcm_bytes(clip(round(sample) for sample in out))


async def prepare(say: Sequence[str | bytes | Path], voice: Voice | None) -> tuple[bytes, ...]:
    """The audio of all that is to be said: canned speech, if that is nothing.

    Raises:
        MissingExtra: Text needs the ``local`` extra, or another ``voice``.
        ConfigurationError: A file cannot be used, an utterance is silent or longer than two minutes.
    """
    if len(say) > _MOST:
        raise ConfigurationError(f"{len(say)} utterances: at most {_MOST} are kept")
    audio: list[bytes] = []
    for what in say:
        name = f"utterance {len(audio) + 1}" if isinstance(what, bytes) else repr(str(what))
        try:
            spoken = await load(what, voice)
        except OSError as exc:
            raise ConfigurationError(f"{what!s} cannot be read: {exc}") from exc
        if is_silent(spoken):
            raise ConfigurationError(f"{name} is silent: it cannot be answered")
        if len(spoken) > _LONGEST_S * 8000:
            raise ConfigurationError(f"{name} takes {len(spoken) / 8000:.0f} s: at most {_LONGEST_S} s can be said")
        audio.append(spoken)
    return tuple(audio) or canned()


def cut(audio: bytes) -> Utterance:
    """Mu-law audio as frames; what is silent at its end is left out."""
    start, end = voiced_span(audio)
    audio = audio[: math.ceil(end / FRAME_MS) * FRAME_BYTES]
    frames = (audio[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\xff") for at in range(0, len(audio), FRAME_BYTES))
    return Utterance(tuple(b64encode(frame).decode() for frame in frames), start, end)
