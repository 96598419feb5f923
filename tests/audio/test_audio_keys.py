"""Keys of a phone in single frames."""

from __future__ import annotations

import random

import pytest

from dialog.audio import tones
from dialog.audio.keys import is_key
from dialog.audio.mix import mix
from dialog.audio.pcm import samples


def frames(pcm: bytes, sample_rate: int = 8000) -> list[list[int]]:
    size = sample_rate // 25
    return [list(samples(pcm[at : at + size])) for at in range(0, len(pcm) - size + 1, size)]


@pytest.mark.parametrize("key", "0123456789*#ABCD")
@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_every_key_is_known_over_noise(key: str, sample_rate: int) -> None:
    tone = tones.dtmf(key, tone_ms=200, pause_ms=0, level_dbfs=-20, sample_rate=sample_rate)
    noisy = mix(tone, tones.noise(200, level_dbfs=-32, seed=ord(key), sample_rate=sample_rate))
    assert all(is_key(frame, sample_rate) for frame in frames(noisy, sample_rate))


def test_tones_of_unequal_level_are_keys_up_to_a_point() -> None:
    low = tones.sine(770, 20, level_dbfs=-20)
    assert is_key(frames(mix(low, tones.sine(1336, 20, level_dbfs=-28)))[0], 8000)
    assert not is_key(frames(mix(low, tones.sine(1336, 20, level_dbfs=-40)))[0], 8000)


@pytest.mark.parametrize(
    "pcm",
    [
        tones.sine(770, 20),
        tones.sine(1336, 20),
        mix(tones.sine(350, 20), tones.sine(440, 20)),
        mix(tones.sine(480, 20), tones.sine(620, 20)),
        mix(tones.sine(697, 20), tones.sine(2000, 20)),
        tones.noise(20, level_dbfs=-20),
        bytes(320),
    ],
    ids=["low only", "high only", "dial tone", "busy tone", "low and another", "noise", "silence"],
)
def test_other_sounds_are_no_keys(pcm: bytes) -> None:
    assert not is_key(frames(pcm)[0], 8000)


def test_nothing_is_no_key() -> None:
    assert not is_key([], 8000)


def test_voices_are_no_keys() -> None:
    rng = random.Random(7)
    taken = 0
    for _ in range(500):
        pitch = rng.uniform(80, 300)
        pcm = bytes(320)
        for harmonic in range(1, int(3400 / pitch)):
            pcm = mix(pcm, tones.sine(pitch * harmonic, 20, level_dbfs=-30 - rng.uniform(0, 25)))
        taken += is_key(frames(pcm)[0], 8000)
    assert taken <= 2
