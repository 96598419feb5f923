"""Change of sample rate on a stream."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.resample import Resampler, can_resample
from dialog.errors import MissingExtra, UnsupportedFormat

RATES = (8000, 16000, 22050, 24000, 44100, 48000)
PAIRS = list(itertools.permutations(RATES, 2))


def whole(resampler: Resampler, pcm: bytes) -> bytes:
    return resampler.process(pcm) + resampler.flush()


def level_after(resampler: Resampler, hz: float) -> float:
    """Level in dB of a tone behind the resampler, relative to before, without its ends."""
    pcm = tones.sine(hz, 500, level_dbfs=-9, sample_rate=resampler.source_rate)
    out = np.frombuffer(whole(resampler, pcm), "<i2").astype(float)
    middle = out[len(out) // 4 : -len(out) // 4]
    return 20 * math.log10(max(1e-3, float(np.sqrt((middle**2).mean()))) / (32767 * 10 ** (-9 / 20)))


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_telephone_band_passes(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    lower = min(source, target)
    for part in (0.0375, 0.125, 0.25, 0.375, 0.4):  # 300 to 3200 Hz of 8 kHz
        assert level_after(resampler, part * lower) == pytest.approx(0, abs=0.1)
    assert level_after(resampler, 0.425 * lower) > -1.0


@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair[0] > pair[1]])
def test_what_the_lower_rate_cannot_carry_is_stopped(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    for part in (0.52, 0.54, 0.6, 0.625, 0.75, 0.9, 1.0, 1.3, 2.1):
        if part * target < source / 2:
            assert level_after(resampler, part * target) < -50


@pytest.mark.parametrize(("source", "target"), [pair for pair in PAIRS if pair[0] < pair[1]])
def test_a_higher_rate_adds_no_images(source: int, target: int) -> None:
    for part in (0.1, 0.25, 0.4, 0.45):
        pcm = tones.sine(part * source, 500, level_dbfs=-9, sample_rate=source)
        out = np.frombuffer(whole(Resampler(source, target), pcm), "<i2").astype(float)
        middle = out[len(out) // 4 : -len(out) // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.kaiser(len(middle), 14)))
        hz = np.fft.rfftfreq(len(middle), 1 / target)
        others = spectrum[np.abs(hz - part * source) > 60]
        assert 20 * math.log10(others.max() / spectrum.max()) < -50


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_nothing_is_shifted_and_nothing_is_missing(source: int, target: int) -> None:
    pcm = tones.sine(440, 250, sample_rate=source)
    out = np.frombuffer(whole(Resampler(source, target), pcm), "<i2")
    assert len(out) == -(-len(pcm) // 2 * target // source)
    wanted = np.frombuffer(tones.sine(440, 250, sample_rate=target), "<i2")
    middle = slice(target // 50, len(out) - target // 50)
    assert np.abs(out[middle].astype(int) - wanted[: len(out)][middle]).max() <= 6


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_constant_stays_exactly_that(source: int, target: int) -> None:
    out = np.frombuffer(whole(Resampler(source, target), np.full(source // 10, 12345, "<i2").tobytes()), "<i2")
    edge = target // 200
    assert set(out[edge:-edge]) == {12345}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_two_milliseconds_are_held_at_most(source: int, target: int) -> None:
    resampler = Resampler(source, target)
    assert resampler.delay_ms <= 2.0
    fed = made = 0
    for _ in range(50):
        step = source // 1000
        fed += step
        made += len(resampler.process(bytes(2 * step))) // 2
        # What came out lags what went in by no more than the stated delay (and the output sample under way).
        assert fed / source - made / target <= resampler.delay_ms / 1000 + 1 / target


@given(
    pair=st.sampled_from(PAIRS),
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 3000), max_size=12),
)
@settings(max_examples=80)
def test_output_does_not_depend_on_how_the_input_was_cut(pair: tuple[int, int], seed: int, cuts: list[int]) -> None:
    pcm = tones.noise(60, level_dbfs=-6, seed=seed, sample_rate=pair[0])[:3000] + b"\x01"
    resampler = Resampler(*pair)
    wanted = whole(resampler, pcm)
    edges = [0, *sorted(cuts), len(pcm)]
    parts = [resampler.process(pcm[start:stop]) for start, stop in itertools.pairwise(edges)]
    assert b"".join(parts) + resampler.flush() == wanted


def test_long_input_in_one_piece_equals_small_pieces() -> None:
    for pair in ((24000, 8000), (22050, 8000), (8000, 44100)):
        pcm = tones.noise(3000, seed=3, sample_rate=pair[0])
        resampler = Resampler(*pair)
        pieces = [resampler.process(pcm[at : at + 321]) for at in range(0, len(pcm), 321)]
        assert b"".join(pieces) + resampler.flush() == whole(Resampler(*pair), pcm)


def test_loud_input_is_held_within_16_bits() -> None:
    pcm = (b"\xff\x7f" * 40 + b"\x00\x80" * 40) * 20
    out = np.frombuffer(whole(Resampler(8000, 16000), pcm), "<i2").reshape(-1, 80)
    # Without the limit, the overshoot at each edge would wrap around to the other sign.
    assert (out[0::2, 4:-4] > 25000).all()
    assert (out[1::2, 4:-4] < -25000).all()
    assert out.max() == 32767
    assert out.min() == -32768


def test_reset_forgets_what_is_held() -> None:
    resampler = Resampler(16000, 8000)
    pcm = tones.noise(50, sample_rate=16000)
    wanted = whole(Resampler(16000, 8000), pcm)
    resampler.process(tones.noise(33, seed=5, sample_rate=16000) + b"\x05")
    resampler.reset()
    assert whole(resampler, pcm) == wanted
    assert whole(resampler, pcm) == wanted  # flush leaves it as new


def test_no_audio_gives_no_audio() -> None:
    resampler = Resampler(8000, 16000)
    assert resampler.process(b"") == b""
    assert resampler.flush() == b""
    assert whole(resampler, b"\x01") == b""


@pytest.mark.parametrize("pair", [(0, 8000), (8000, -1), (8000, 47999)])
def test_rates_without_a_short_ratio_are_refused(pair: tuple[int, int]) -> None:
    assert not can_resample(*pair)
    with pytest.raises(UnsupportedFormat, match="Hz"):
        Resampler(*pair)


@pytest.mark.parametrize("rate", [11025, 12000, 32000])
def test_other_usual_rates_work(rate: int) -> None:
    assert level_after(Resampler(rate, 8000), 1000) == pytest.approx(0, abs=0.1)


def test_without_numpy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    # A ratio that no other test has put into the cache of tables.
    with pytest.raises(MissingExtra, match=r"dialog\[audio\]"):
        Resampler(8000, 56000)
