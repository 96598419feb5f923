"""Made-up audio for tests, emulators and benchmarks: tones, keys and noise as s16le.

All of it is a function of its arguments: the same call gives the same bytes anywhere.
"""

from __future__ import annotations

import math
import random

from dialog.audio.pcm import clip, pcm_bytes

__all__ = ["dtmf", "noise", "sine"]

_ROWS = (697, 770, 852, 941)
_COLUMNS = (1209, 1336, 1477, 1633)
_KEYS = {key: (_ROWS[at // 4], _COLUMNS[at % 4]) for at, key in enumerate("123A456B789C*0#D")}


def _count(ms: float, sample_rate: int) -> int:
    return round(ms * sample_rate / 1000.0)


def _amplitude(level_dbfs: float) -> float:
    """Peak of a sine with this RMS level."""
    return 32767.0 * math.sqrt(2.0) * math.pow(10.0, level_dbfs / 20.0)


def sine(hz: float, ms: float, *, level_dbfs: float = -20.0, sample_rate: int = 8000) -> bytes:
    """A tone of ``hz`` that lasts ``ms``; ``level_dbfs`` is its RMS level, above -3 it is clipped."""
    step = 2.0 * math.pi * hz / sample_rate
    size = _amplitude(level_dbfs)
    return pcm_bytes(clip(round(size * math.sin(step * at)) for at in range(_count(ms, sample_rate))))


def noise(ms: float, *, level_dbfs: float = -40.0, seed: int = 0, sample_rate: int = 8000) -> bytes:
    """White Gaussian noise of an RMS level, the same for the same seed."""
    size = 32767.0 * 10.0 ** (level_dbfs / 20.0)
    draw = random.Random(seed).gauss
    return pcm_bytes(clip(round(draw(0.0, size)) for _ in range(_count(ms, sample_rate))))


def dtmf(
    digits: str,
    *,
    tone_ms: float = 100.0,
    pause_ms: float = 100.0,
    level_dbfs: float = -12.0,
    sample_rate: int = 8000,
) -> bytes:
    """The two-tone signals of keys ``0-9 * # A-D``, each followed by a pause.

    Source: ITU-T Q.23 for the frequencies; Q.24 asks for at least 40 ms of tone and of pause.

    Raises:
        ValueError: A key does not exist.
    """
    unknown = sorted(set(digits.upper()) - _KEYS.keys())
    if unknown:
        raise ValueError(f"not keys of a phone: {' '.join(unknown)}")
    pause = bytes(2 * _count(pause_ms, sample_rate))
    # Two tones of equal power: each is 3 dB under their sum.
    size = _amplitude(level_dbfs - 10.0 * math.log10(2.0))
    out: list[bytes] = []
    for key in digits.upper():
        low, high = (2.0 * math.pi * hz / sample_rate for hz in _KEYS[key])
        wave = (round(size * (math.sin(low * at) + math.sin(high * at))) for at in range(_count(tone_ms, sample_rate)))
        out += (pcm_bytes(clip(wave)), pause)
    return b"".join(out)
