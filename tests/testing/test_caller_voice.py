"""What the simulated caller can say."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

import pytest

from dialog.errors import ConfigurationError
from dialog.testing.heard import voiced_span
from dialog.testing.voice import espeak, load
from dialog.tts._espeak import installed


def write(path: Path, *, rate: int, channels: int, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        samples = [round(9000 * math.sin(2 * math.pi * 400 * n / rate)) for n in range(rate // 2)]
        for sample in samples:
            frame = (sample, *([0] * (channels - 1)))
            writer.writeframesraw(struct.pack(f"<{channels}h", *frame) if width == 2 else bytes(width * channels))
    return path


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (8000, 2), (16000, 1), (44100, 2)])
async def test_a_wav_file_is_said_whatever_its_rate(tmp_path: Path, rate: int, channels: int) -> None:
    audio = await load(write(tmp_path / "a.wav", rate=rate, channels=channels), None)
    assert len(audio) == 4000
    assert voiced_span(audio) == (0, 500)


async def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="8 bits"):
        await load(write(tmp_path / "b.wav", rate=8000, channels=1, width=1), None)
    (tmp_path / "c.wav").write_bytes(b"nothing of the kind")
    with pytest.raises(ConfigurationError, match=r"c\.wav is not"):
        await load(tmp_path / "c.wav", None)


async def test_audio_is_taken_as_it_is_and_text_goes_to_the_voice() -> None:
    async def voice(text: str) -> bytes:
        return text.encode()

    assert await load(b"\x01\x02", voice) == b"\x01\x02"
    assert await load("hello", voice) == b"hello"


@pytest.mark.skipif(not installed(), reason="the local extra is not installed")
async def test_espeak_speaks_text() -> None:
    audio = await espeak()("When are you open on Sunday?")
    start, end = voiced_span(audio)
    assert 900 < end - start < 4000


@pytest.mark.skipif(not installed(), reason="the local extra is not installed")
async def test_a_voice_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match="klingon"):
        await espeak("klingon")("Hello")
