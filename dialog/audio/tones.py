"""Made-up audio as s16le: tones, keys and noise for tests and emulators, sounds for callers who wait.

All of it is a function of its arguments: the same call gives the same bytes anywhere.
"""

from __future__ import annotations

import math
import random

from dialog.audio.pcm import clip, pcm_bytes

__all__ = ["dtmf", "noise", "pluck", "sine", "typing"]

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


def pluck(hz: float, ms: float, *, level_dbfs: float = -20.0, sample_rate: int = 8000) -> bytes:
    """A soft note that swells for 30 ms and fades away until ``ms``; it begins at about ``level_dbfs``."""
    step = 2.0 * math.pi * hz / sample_rate
    size = _amplitude(level_dbfs)
    count = _count(ms, sample_rate)
    swell = max(1, _count(30.0, sample_rate))
    # It falls by 40 dB on its way, and a little octave above makes it warmer than a test tone.
    fall = math.pow(0.01, 1.0 / max(1, count))
    out: list[int] = []
    for at in range(count):
        gain = size * min(1.0, at / swell) * min(1.0, (count - at) / swell)
        out.append(round(gain * (0.8 * math.sin(step * at) + 0.2 * math.sin(2.0 * step * at))))
        size *= fall
    return pcm_bytes(clip(out))


def typing(duration_ms: float, *, level_dbfs: float = -35.0, seed: int = 0, sample_rate: int = 8000) -> bytes:
    """Keys of a keyboard, a few in a row and then a pause.

    ``level_dbfs`` is the RMS level of the whole, pauses included: its peaks are some 28 dB above.
    """
    draw = random.Random(seed)
    count = _count(duration_ms, sample_rate)
    wave = [0.0] * count
    at = _count(40.0, sample_rate)
    length = _count(35.0, sample_rate)
    while at + length < count:
        for _ in range(draw.randint(2, 7)):
            strength, last = draw.uniform(0.5, 1.0), 0.0
            for offset in range(min(length, count - at)):
                # The click of the key, smoothed, which dies within some 5 ms, and the dull knock of its bottom.
                last = 0.5 * last + draw.uniform(-1.5, 1.5) * math.exp(-offset / (0.005 * sample_rate))
                knock = math.sin(2.0 * math.pi * 180.0 * offset / sample_rate) * math.exp(
                    -offset / (0.008 * sample_rate)
                )
                wave[at + offset] += strength * (0.5 * last + 0.5 * knock)
            at += _count(draw.uniform(70.0, 170.0), sample_rate)
            if at + length >= count:
                break
        at += _count(draw.uniform(250.0, 700.0), sample_rate)
    power = math.sqrt(sum(value * value for value in wave) / max(1, count))
    size = 32767.0 * math.pow(10.0, level_dbfs / 20.0) / power if power else 0.0
    return pcm_bytes(clip(round(size * value) for value in wave))


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
