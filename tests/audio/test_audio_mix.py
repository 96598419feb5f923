"""Sums of audio and beds under it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import alaw_decode, alaw_encode, mulaw_decode, mulaw_encode
from dialog.audio.level import level_dbfs
from dialog.audio.mix import Bed, amplify, mix, mix_frames
from dialog.audio.pcm import pcm_bytes, samples
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K

SAMPLES = st.lists(st.integers(-32768, 32767), max_size=50)


def pack(values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}h", *values)


def unpack(pcm: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(pcm) // 2}h", pcm))


@given(SAMPLES, SAMPLES)
def test_a_mix_is_the_sum_held_within_16_bits(a: list[int], b: list[int]) -> None:
    count = max(len(a), len(b))
    sums = [
        max(-32768, min(32767, x + y))
        for x, y in zip(a + [0] * (count - len(a)), b + [0] * (count - len(b)), strict=True)
    ]
    assert unpack(mix(pack(a), pack(b))) == sums
    assert mix(pack(b), pack(a)) == mix(pack(a), pack(b))


@pytest.mark.parametrize(
    ("encoding", "decode", "encode"), [("mulaw", mulaw_decode, mulaw_encode), ("alaw", alaw_decode, alaw_encode)]
)
@given(a=st.binary(max_size=60), b=st.binary(max_size=60))
def test_a_mix_of_g711_is_the_code_of_the_sum(encoding, decode, encode, a: bytes, b: bytes) -> None:
    count = min(len(a), len(b))
    longer = a if len(a) > len(b) else b
    assert mix(a, b, encoding) == encode(mix(decode(a[:count]), decode(b[:count]))) + longer[count:]


def test_what_was_not_heard_of_a_bed_comes_again() -> None:
    bed = Bed(pack(list(range(1, 8))), line=PCM_8K, gain_db=0)
    first = bed.next(40)
    bed.back(22)
    assert bed.next(22) == first[-22:]
    bed.back(1000)
    assert bed.next(40) == first


@given(SAMPLES, st.floats(-40, 40))
def test_amplification_is_held_within_16_bits(values: list[int], gain_db: float) -> None:
    factor = 10 ** (gain_db / 20)
    for old, new in zip(values, unpack(amplify(pack(values), gain_db)), strict=True):
        assert new == max(-32768, min(32767, round(old * factor)))


def test_no_gain_is_the_same_object() -> None:
    pcm = tones.noise(20)
    assert amplify(pcm, 0) is pcm


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="whole samples"):
        mix(b"\x00\x00\x00", b"\x00\x00")
    with pytest.raises(ValueError, match="whole samples"):
        amplify(b"\x00", 3)


def test_a_bed_goes_round_without_a_seam() -> None:
    pcm = pack(list(range(1, 8)))
    bed = Bed(pcm, line=PCM_8K, gain_db=0)
    taken = b"".join(bed.take(ms) for ms in (0.25, 0.5, 1, 2.5, 0.125))
    assert unpack(taken) == [1 + at % 7 for at in range(35)]


def test_a_bed_lies_under_a_voice_at_its_gain() -> None:
    bed = Bed(tones.sine(400, 1000, level_dbfs=-10), gain_db=-20)
    silence = MULAW_8K.silence(20)
    assert level_dbfs(bed.under(silence)) == pytest.approx(-30, abs=0.5)
    voice = mulaw_encode(tones.sine(1000, 20, level_dbfs=-12))
    out = bed.under(voice)
    assert len(out) == len(voice)
    assert level_dbfs(out) == pytest.approx(-12, abs=0.4)
    assert out != voice


def test_taking_and_mixing_move_the_same_position() -> None:
    first, second = (Bed(tones.noise(100, seed=4), line=PCM_8K, gain_db=0) for _ in range(2))
    mixed = first.under(bytes(320)) + first.take(30) + first.under(bytes(160))
    assert mixed == second.take(60)


def test_a_bed_of_another_rate_is_fitted_to_the_line() -> None:
    bed = Bed(tones.sine(500, 400, sample_rate=16000), source=PCM_16K, line=ALAW_8K, gain_db=-6)
    bed.take(40)
    out = bed.take(100)
    assert len(out) == 800
    assert level_dbfs(out, "alaw") == pytest.approx(-26, abs=0.4)


def test_a_bed_without_audio_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        Bed(b"")


def test_a_silent_voice_over_a_silent_bed_stays_silent() -> None:
    assert mulaw_decode(Bed(bytes(320)).under(MULAW_8K.silence(40))) == bytes(640)


def test_any_number_of_voices_are_mixed():
    one, two, three = pcm_bytes([1, 2, 3]), pcm_bytes([10, 20]), pcm_bytes([100])
    assert list(samples(mix_frames(one, two, three))) == [111, 22, 3]
    assert (mix_frames(), mix_frames(two)) == (b"", two)
    quiet = mulaw_encode(pcm_bytes([0, 0]))
    assert mix_frames(quiet, quiet, encoding="mulaw") == mix(quiet, quiet, "mulaw")
