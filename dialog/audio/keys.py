"""Whether a frame of audio is the two-tone signal of a phone's key, by products with sines in C loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import mul

__all__ = ["is_key"]

_LOW = (697.0, 770.0, 852.0, 941.0)
_HIGH = (1209.0, 1336.0, 1477.0, 1633.0)
_WHOLE = 0.55
"""Part of the energy that the two tones must have: they may be 1.5 % off, where 20 ms show them at half."""
_TONE = 0.06
"""Part that the weaker of them must have: 12 dB under the other."""

_Wave = tuple[tuple[float, ...], tuple[float, ...]]


def is_key(values: Sequence[int], sample_rate: int) -> bool:
    """Whether samples (about 20 ms of them) are one key, ``0-9 * # A-D``, and little else.

    A key that fills less than half of the samples is not recognised. It takes some 50 us, half of
    it for most of what is not a key.

    Source: ITU-T Q.23 for the frequencies; Q.24 for the difference of their levels, with some room.
    """
    count = len(values)
    energy: float = sum(map(mul, values, values))
    if not energy:
        return False
    low, high = _waves(count, sample_rate)
    lower = _loudest(values, low) / energy
    if lower < _TONE:
        return False
    upper = _loudest(values, high) / energy
    return upper >= _TONE and lower + upper >= _WHOLE


def _loudest(values: Sequence[int], waves: tuple[_Wave, ...]) -> float:
    best = 0.0
    for cosine, sine in waves:
        real: float = sum(map(mul, values, cosine))
        imaginary: float = sum(map(mul, values, sine))
        best = max(best, real * real + imaginary * imaginary)
    return best


@lru_cache(maxsize=8)
def _waves(count: int, sample_rate: int) -> tuple[tuple[_Wave, ...], tuple[_Wave, ...]]:
    """Both groups' sines, of a size that makes the square of a product the energy of that part."""
    size = math.sqrt(2.0 / count)

    def wave(hz: float) -> _Wave:
        step = 2.0 * math.pi * hz / sample_rate
        return (
            tuple(size * math.cos(step * at) for at in range(count)),
            tuple(size * math.sin(step * at) for at in range(count)),
        )

    return tuple(map(wave, _LOW)), tuple(map(wave, _HIGH))
