"""16-bit little-endian PCM as an array of numbers and back."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

__all__ = ["clip", "pcm_bytes", "samples"]

_BIG_ENDIAN = sys.byteorder == "big"


def samples(data: bytes) -> array[int]:
    """The samples of s16le audio, -32768 to 32767.

    Raises:
        ValueError: The audio ends in the middle of a sample.
    """
    if len(data) % 2:
        raise ValueError(f"s16le audio has whole samples of 2 bytes, got {len(data)} bytes")
    out = array("h", data)
    if _BIG_ENDIAN:
        out.byteswap()
    return out


def pcm_bytes(values: Iterable[int]) -> bytes:
    """s16le audio of samples.

    Raises:
        OverflowError: A sample is outside -32768 to 32767.
    """
    out = array("h", values)
    if _BIG_ENDIAN:
        out.byteswap()
    return out.tobytes()


def clip(values: Iterable[int]) -> list[int]:
    """Samples held within 16 bits."""
    return [-32768 if value < -32768 else min(value, 32767) for value in values]
