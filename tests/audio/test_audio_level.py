"""Loudness, and the gain that evens it out."""

from __future__ import annotations

import itertools
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import alaw_decode, alaw_encode, mulaw_decode, mulaw_encode
from dialog.audio.level import SILENCE_DBFS, LevelNormaliser, level_dbfs, peak
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K

FRAME_MS = 20


def frames(pcm: bytes, size: int = 320) -> list[bytes]:
    return [pcm[at : at + size] for at in range(0, len(pcm), size)]


@pytest.mark.parametrize("level", [-3.1, -20.0, -40.0, -55.0])
def test_level_of_a_tone_in_every_encoding(level: float) -> None:
    pcm = tones.sine(1000, 20, level_dbfs=level)
    assert level_dbfs(pcm, "s16le") == pytest.approx(level, abs=0.1)
    assert level_dbfs(mulaw_encode(pcm), "mulaw") == pytest.approx(level, abs=0.4)
    assert level_dbfs(alaw_encode(pcm), "alaw") == pytest.approx(level, abs=0.4)


def test_full_scale_is_nought() -> None:
    assert level_dbfs(b"\x00\x80" * 160, "s16le") == pytest.approx(0.0, abs=1e-9)
    assert peak(b"\x00\x80" * 160, "s16le") == 32768


def test_silence_has_the_lowest_level() -> None:
    assert level_dbfs(MULAW_8K.silence(20), "mulaw") == SILENCE_DBFS
    assert level_dbfs(bytes(320), "s16le") == SILENCE_DBFS
    for encoding in ("mulaw", "alaw", "s16le"):
        assert level_dbfs(b"", encoding) == SILENCE_DBFS
        assert peak(b"", encoding) == 0


@given(st.binary(max_size=300))
def test_g711_is_measured_like_its_samples(data: bytes) -> None:
    for encoding, decode in (("mulaw", mulaw_decode), ("alaw", alaw_decode)):
        pcm = decode(data)
        assert level_dbfs(data, encoding) == pytest.approx(level_dbfs(pcm, "s16le"), abs=1e-6)
        assert peak(data, encoding) == peak(pcm, "s16le")


def test_long_audio_is_measured_like_short_audio() -> None:
    data = mulaw_encode(tones.noise(20, level_dbfs=-30))
    assert level_dbfs(data * 100, "mulaw") == pytest.approx(level_dbfs(data, "mulaw"))


def test_half_a_sample_is_refused() -> None:
    for function in (level_dbfs, peak):
        with pytest.raises(ValueError, match="whole samples"):
            function(b"\x00\x00\x00", "s16le")


@pytest.mark.parametrize("audio_format", [MULAW_8K, ALAW_8K, PCM_8K])
@pytest.mark.parametrize(("before", "after"), [(-32.0, -22.0), (-40.0, -28.0), (-12.0, -22.0), (-5.0, -17.0)])
def test_speech_reaches_the_target_or_the_most_gain(audio_format, before: float, after: float) -> None:
    encode = {"mulaw": mulaw_encode, "alaw": alaw_encode, "s16le": bytes}[audio_format.encoding]
    normaliser = LevelNormaliser(audio_format)
    chunk = encode(tones.sine(500, FRAME_MS, level_dbfs=before))
    out = [normaliser.process(chunk) for _ in range(500)]
    assert level_dbfs(out[-1], audio_format.encoding) == pytest.approx(after, abs=0.7)
    assert {len(one) for one in out} == {len(chunk)}


def test_gain_changes_gently() -> None:
    normaliser = LevelNormaliser(PCM_8K)
    chunk = tones.sine(500, FRAME_MS, level_dbfs=-32)
    gains = []
    for _ in range(300):
        normaliser.process(chunk)
        gains.append(normaliser.gain_db)
    steps = [new - old for old, new in itertools.pairwise(gains)]
    assert max(steps) <= 0.5
    assert gains[49] <= 3.5  # 3 dB after a second
    assert gains[-1] == pytest.approx(10, abs=0.5)


def test_a_pause_changes_nothing() -> None:
    normaliser = LevelNormaliser(PCM_8K)
    for _ in range(300):
        normaliser.process(tones.sine(500, FRAME_MS, level_dbfs=-32))
    gain = normaliser.gain_db
    hiss = tones.noise(FRAME_MS, level_dbfs=-60)
    for _ in range(500):
        normaliser.process(hiss)
    assert normaliser.gain_db == gain


def test_a_sudden_shout_is_not_amplified_into_the_limit() -> None:
    normaliser = LevelNormaliser(PCM_16K, limit_dbfs=-1.0)
    for _ in range(500):
        normaliser.process(tones.sine(500, FRAME_MS, level_dbfs=-36, sample_rate=16000))
    assert normaliser.gain_db == 12
    shout = tones.sine(500, FRAME_MS, level_dbfs=-10, sample_rate=16000)
    out = normaliser.process(shout)
    assert peak(out, "s16le") <= 32767 * 10 ** (-1 / 20)
    assert level_dbfs(out, "s16le") > level_dbfs(shout, "s16le")


def test_a_much_quieter_speaker_is_reached_in_time() -> None:
    normaliser = LevelNormaliser(MULAW_8K)
    loud, quiet = (mulaw_encode(tones.sine(500, FRAME_MS, level_dbfs=level)) for level in (-22, -42))
    for _ in range(200):
        normaliser.process(loud)
    normaliser.process(quiet)
    assert normaliser.gain_db == 0  # one quiet moment is not a new speaker
    for _ in range(1000):
        normaliser.process(quiet)
    assert normaliser.gain_db == 12


def test_reset_brings_the_gain_back_to_nought() -> None:
    normaliser = LevelNormaliser(PCM_8K)
    for _ in range(100):
        normaliser.process(tones.sine(500, FRAME_MS, level_dbfs=-36))
    assert normaliser.gain_db > 0
    normaliser.reset()
    assert normaliser.gain_db == 0
    quiet = tones.noise(FRAME_MS, level_dbfs=-70)
    assert normaliser.process(quiet) is quiet


@given(st.lists(st.tuples(st.floats(-60, 0), st.integers(1, 400)), min_size=1, max_size=60), st.randoms())
@settings(max_examples=60)
def test_no_sample_is_clipped_whatever_comes(shape: list[tuple[float, int]], random) -> None:
    limit = 32767 * 10 ** (-1 / 20)
    normaliser = LevelNormaliser(PCM_8K, most_gain_db=30)
    for level, count in shape:
        most = int(32767 * 10 ** (level / 20))
        values = [random.randint(-most, most) for _ in range(count)]
        out = struct.unpack(f"<{count}h", normaliser.process(struct.pack(f"<{count}h", *values)))
        gain = 10 ** (normaliser.gain_db / 20)
        assert all(abs(new - old * gain) <= 0.52 for old, new in zip(values, out, strict=True))
        assert max(map(abs, out)) <= max(limit, *map(abs, values)) + 0.52
        assert math.isfinite(gain)


@pytest.mark.parametrize("wrong", [{"most_gain_db": -1.0}, {"most_cut_db": -1.0}, {"limit_dbfs": 1.0}])
def test_contradicting_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="normaliser needs"):
        LevelNormaliser(PCM_8K, **wrong)
