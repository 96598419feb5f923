"""Audio whose length is that of a text, for emulators of voices: a test knows to the sample what it must hear."""

from __future__ import annotations

import math
from array import array
from functools import lru_cache

from dialog.audio.g711 import alaw_encode, mulaw_encode
from dialog.message import AudioFormat

__all__ = ["tone"]


def tone(text: str, audio_format: AudioFormat, *, ms_per_char: float, number: int = 0) -> bytes:
    """A sine of ``ms_per_char`` for each character of ``text``, whose pitch tells ``number`` apart."""
    size = audio_format.size(len(text) * ms_per_char)
    second = _second(audio_format, number % 12)
    return (second * (size // len(second) + 1))[:size]


@lru_cache(maxsize=64)
def _second(audio_format: AudioFormat, number: int) -> bytes:
    """One second, which joins itself without a seam."""
    rate = audio_format.sample_rate
    pitch = 300 + 50 * number
    pcm = array("h", [round(8000 * math.sin(2 * math.pi * pitch * i / rate)) for i in range(rate)]).tobytes()
    if audio_format.encoding == "mulaw":
        return mulaw_encode(pcm)
    return alaw_encode(pcm) if audio_format.encoding == "alaw" else pcm
