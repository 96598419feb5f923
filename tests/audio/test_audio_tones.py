"""Made-up audio."""

from __future__ import annotations

import math
import struct

import pytest

from dialog.audio import tones
from dialog.audio.level import level_dbfs, peak


def power_at(pcm: bytes, hz: float, sample_rate: int = 8000) -> float:
    """Amplitude of one frequency (Goertzel's sum, done plainly)."""
    values = struct.unpack(f"<{len(pcm) // 2}h", pcm)
    turn = 2 * math.pi * hz / sample_rate
    real = sum(value * math.cos(turn * at) for at, value in enumerate(values))
    imaginary = sum(value * math.sin(turn * at) for at, value in enumerate(values))
    return 2 * math.hypot(real, imaginary) / len(values)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_tone_has_its_length_level_and_pitch(rate: int) -> None:
    pcm = tones.sine(1000, 100, level_dbfs=-20, sample_rate=rate)
    assert len(pcm) == 2 * rate // 10
    assert level_dbfs(pcm, "s16le") == pytest.approx(-20, abs=0.05)
    assert power_at(pcm, 1000, rate) == pytest.approx(3277 * math.sqrt(2), rel=0.01)
    assert power_at(pcm, 1500, rate) < 50


def test_noise_is_the_same_for_the_same_seed() -> None:
    assert tones.noise(50, seed=1) == tones.noise(50, seed=1)
    assert tones.noise(50, seed=1) != tones.noise(50, seed=2)
    assert level_dbfs(tones.noise(500, level_dbfs=-30), "s16le") == pytest.approx(-30, abs=0.3)


@pytest.mark.parametrize(
    ("key", "low", "high"), [("1", 697, 1209), ("5", 770, 1336), ("#", 941, 1477), ("d", 941, 1633)]
)
def test_a_key_has_its_two_tones_and_a_pause(key: str, low: int, high: int) -> None:
    pcm = tones.dtmf(key, tone_ms=100, pause_ms=50, level_dbfs=-12)
    assert len(pcm) == 2 * 1200
    tone, pause = pcm[:1600], pcm[1600:]
    assert not any(pause)
    assert power_at(tone, low) == pytest.approx(power_at(tone, high), rel=0.05)
    assert level_dbfs(tone, "s16le") == pytest.approx(-12, abs=0.2)
    assert max(power_at(tone, 852), power_at(tone, 1100)) < power_at(tone, low) / 10


def test_keys_follow_one_another() -> None:
    assert tones.dtmf("12") == tones.dtmf("1") + tones.dtmf("2")
    assert tones.dtmf("") == b""


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="not keys of a phone: X"):
        tones.dtmf("12X")


def test_too_loud_is_clipped_and_does_not_wrap() -> None:
    assert peak(tones.sine(400, 20, level_dbfs=6), "s16le") == 32768
