"""WAV files: 16-bit PCM and mu-law out; 16-bit PCM, mu-law and A-law in, mono or stereo.

The parser is our own because the ``wave`` module knows neither G.711 nor, before Python 3.12, the
extensible header that many programs write for plain PCM.

Source: Microsoft/IBM RIFF specification 1.0; WAVEFORMATEXTENSIBLE in mmreg.h.
"""

from __future__ import annotations

import os
import struct
import wave
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, TypeAlias

from dialog.audio.g711 import alaw_decode, mulaw_decode
from dialog.audio.pcm import pcm_bytes, samples
from dialog.errors import UnsupportedFormat

__all__ = ["read_wav", "write_wav"]

StrPath: TypeAlias = str | os.PathLike[str]

_PCM, _ALAW, _MULAW, _EXTENSIBLE = 1, 6, 7, 0xFFFE
_CODECS: dict[tuple[int, int], Callable[[bytes], bytes]] = {
    (_PCM, 16): bytes,
    (_ALAW, 8): alaw_decode,
    (_MULAW, 8): mulaw_decode,
}
# A program that writes to a pipe does not know the length: ffmpeg says 0xFFFFFFFF, sox 0x7FFFF000 and more.
_UNKNOWN_SIZE = 0x7FFFF000


def write_wav(
    path: StrPath,
    pcm: bytes | Iterable[bytes],
    sample_rate: int,
    *,
    channels: int = 1,
    encoding: Literal["s16le", "mulaw"] = "s16le",
) -> None:
    """Write audio in ``encoding``, given whole or as an iterable of chunks; stereo is interleaved, left first.

    Raises:
        OSError: The file cannot be written.
    """
    if encoding == "mulaw":
        _write_mulaw(path, b"".join((pcm,) if isinstance(pcm, bytes) else pcm), sample_rate, channels)
        return
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        for chunk in (pcm,) if isinstance(pcm, bytes) else pcm:
            file.writeframesraw(chunk)


def _write_mulaw(path: StrPath, data: bytes, sample_rate: int, channels: int) -> None:
    """What the ``wave`` module cannot: what is not PCM has a longer header, which says how many samples there are."""
    shape = struct.pack("<HHIIHHH", _MULAW, channels, sample_rate, sample_rate * channels, channels, 8, 0)
    chunks = ((b"fmt ", shape), (b"fact", struct.pack("<I", len(data) // channels)), (b"data", data))
    body = b"".join(name + struct.pack("<I", len(chunk)) + chunk + bytes(len(chunk) % 2) for name, chunk in chunks)
    Path(path).write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)


def read_wav(path: StrPath) -> tuple[bytes, int]:
    """The audio of a file as mono s16le, and its sample rate in Hz. Two channels become their mean.

    Raises:
        OSError: The file cannot be read.
        UnsupportedFormat: It is not a WAV file, is damaged, or holds something else than 16-bit PCM,
            mu-law or A-law in one or two channels; the message says which.
    """
    data = Path(path).read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise UnsupportedFormat(f"{path}: not a WAV file")
    shape: tuple[int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"fmt ":
            shape = _shape(path, data[at : at + size])
        elif name == b"data":
            if shape is None:
                raise UnsupportedFormat(f"{path}: damaged WAV file: audio before its format")
            left = len(data) - at
            if left < size < _UNKNOWN_SIZE:
                raise UnsupportedFormat(f"{path}: truncated WAV file: {left} of {size} bytes of audio")
            return _mono(path, shape, data[at : at + size])
        at += size + size % 2
    raise UnsupportedFormat(f"{path}: damaged WAV file: no audio in it")


def _shape(path: StrPath, chunk: bytes) -> tuple[int, int, int, int]:
    """Codec, channels, rate and bits of a sample."""
    if len(chunk) < 16:
        raise UnsupportedFormat(f"{path}: damaged WAV file: format of {len(chunk)} bytes")
    codec, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if codec == _EXTENSIBLE and len(chunk) >= 26:
        # The real codec opens the GUID of the sub-format.
        (codec,) = struct.unpack_from("<H", chunk, 24)
    return codec, channels, rate, bits


def _mono(path: StrPath, shape: tuple[int, int, int, int], data: bytes) -> tuple[bytes, int]:
    codec, channels, rate, bits = shape
    decode = _CODECS.get((codec, bits))
    if decode is None:
        what = f"{bits}-bit PCM" if codec == _PCM else f"codec {codec:#06x} with {bits} bits"
        raise UnsupportedFormat(f"{path}: {what}; save it as 16-bit PCM")
    if channels not in (1, 2):
        raise UnsupportedFormat(f"{path}: {channels} channels; save it as mono or stereo")
    if rate == 0:
        raise UnsupportedFormat(f"{path}: damaged WAV file: sample rate 0")
    pcm = decode(data[: len(data) - len(data) % (channels * bits // 8)])
    if channels == 1:
        return pcm, rate
    both = samples(pcm)
    return pcm_bytes([(left + right) >> 1 for left, right in zip(both[0::2], both[1::2], strict=True)]), rate
