"""What the simulated caller says: text, audio or a WAV file, made into mu-law at 8 kHz."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path

from dialog.audio.g711 import mulaw_encode
from dialog.errors import ConfigurationError

__all__ = ["Voice", "espeak", "load"]

Voice = Callable[[str], Awaitable[bytes]]
"""Speaks a text as mu-law at 8 kHz."""


async def load(what: str | bytes | Path, voice: Voice | None) -> bytes:
    """Mu-law audio at 8 kHz of a text, of a WAV file, or as it is.

    Raises:
        MissingExtra: Text, and nothing is installed that speaks it; or a file of another sample rate
            without the ``audio`` extra.
        ConfigurationError: A file that is not 16-bit PCM WAV.
    """
    if isinstance(what, bytes):
        return what
    if isinstance(what, Path):
        return await asyncio.to_thread(_read, what)
    return await (voice or espeak())(what)


def espeak(voice: str = "en-us+m3", *, rate: int = 160) -> Voice:
    """A caller's voice from espeak-ng: ``voice`` as ``dialog.tts.espeak`` takes it, ``rate`` in words a minute.

    The default is one that the offline recogniser understands well (see docs/local-speech.md), and not
    one that an agent speaks with by default.

    Raises:
        MissingExtra: The ``local`` extra is not installed (when it speaks).
        ConfigurationError: There is no such voice (when it speaks).
    """

    async def say(text: str) -> bytes:
        return await asyncio.to_thread(_synthesise, text, voice, rate)

    return say


def _synthesise(text: str, voice: str, rate: int) -> bytes:
    from dialog.tts.espeak import speak

    return mulaw_encode(speak(text, voice=voice, rate=rate))


def _read(path: Path) -> bytes:
    try:
        with wave.open(str(path), "rb") as reader:
            channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
            frames = reader.readframes(reader.getnframes())
    except (wave.Error, EOFError) as exc:
        raise ConfigurationError(f"{path} is not a PCM WAV file: {exc}") from exc
    if width != 2:
        raise ConfigurationError(f"{path} has {8 * width} bits a sample: 16 are needed")
    if channels > 1:  # the first channel
        pairs = memoryview(frames)
        frames = b"".join(pairs[n : n + 2] for n in range(0, len(frames), 2 * channels))
    return _encode(frames, rate)


def _encode(pcm: bytes, rate: int) -> bytes:
    if rate != 8000:
        from dialog.audio.resample import Resampler

        resampler = Resampler(rate, 8000)
        pcm = resampler.process(pcm) + resampler.flush()
    return mulaw_encode(pcm)
