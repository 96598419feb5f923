"""Conversion between formats, and the choice of one."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.convert import Converter, negotiate
from dialog.audio.g711 import alaw_encode, mulaw_decode, mulaw_encode
from dialog.audio.level import level_dbfs
from dialog.errors import UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat

FORMATS = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K, AudioFormat("s16le", 22050), PCM_24K, AudioFormat("mulaw", 16000))
PCM_44K = AudioFormat("s16le", 44100)
PCM_22K = AudioFormat("s16le", 22050)


def in_format(audio_format: AudioFormat, pcm: bytes) -> bytes:
    return {"mulaw": mulaw_encode, "alaw": alaw_encode, "s16le": bytes}[audio_format.encoding](pcm)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_the_same_format_costs_nothing(audio_format: AudioFormat) -> None:
    data = audio_format.silence(20)
    converter = Converter(audio_format, audio_format)
    assert converter.identity
    assert converter.process(data) is data
    assert converter.flush() == b""


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(FORMATS, 2)))
def test_a_tone_survives_every_conversion(source: AudioFormat, target: AudioFormat) -> None:
    converter = Converter(source, target)
    tone = in_format(source, tones.sine(1000, 200, sample_rate=source.sample_rate))
    out = converter.process(tone) + converter.flush()
    assert target.ms(len(out)) == pytest.approx(200, abs=0.2)
    middle = out[target.size(50) : target.size(150)]
    assert level_dbfs(middle, target.encoding) == pytest.approx(-20, abs=0.4)


@given(
    pair=st.sampled_from(list(itertools.permutations(FORMATS, 2))),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
    seed=st.integers(0, 99),
)
@settings(max_examples=80)
def test_output_does_not_depend_on_how_the_input_was_cut(pair, cuts: list[int], seed: int) -> None:
    source, target = pair
    data = in_format(source, tones.noise(60, level_dbfs=-10, seed=seed, sample_rate=source.sample_rate))
    if source.encoding == "s16le":
        data += b"\x01"  # half a sample is left over
    converter = Converter(source, target)
    wanted = converter.process(data) + converter.flush()
    parts = [converter.process(data[start:stop]) for start, stop in itertools.pairwise([0, *sorted(cuts), len(data)])]
    assert b"".join(parts) + converter.flush() == wanted


def test_same_rate_conversion_holds_nothing_back() -> None:
    data = bytes(range(160))
    assert Converter(MULAW_8K, PCM_8K).process(data) == mulaw_decode(data)
    assert Converter(PCM_8K, ALAW_8K).process(mulaw_decode(data)) == alaw_encode(mulaw_decode(data))


def test_reset_drops_what_is_held_without_a_tail() -> None:
    for pair in ((PCM_8K, MULAW_8K), (PCM_24K, MULAW_8K)):
        data = tones.noise(20, seed=7, sample_rate=pair[0].sample_rate)
        fresh = Converter(*pair)
        wanted = fresh.process(data) + fresh.flush()
        converter = Converter(*pair)
        converter.process(b"\x11" * 101)
        converter.reset()
        assert converter.process(data) + converter.flush() == wanted


def test_unconvertible_rates_are_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="47999 Hz to 8000 Hz"):
        Converter(AudioFormat("s16le", 47999), MULAW_8K)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        (MULAW_8K, (PCM_16K, MULAW_8K), MULAW_8K),
        (MULAW_8K, (PCM_16K, ALAW_8K, PCM_8K), PCM_8K),
        (MULAW_8K, (PCM_16K, ALAW_8K), ALAW_8K),
        (MULAW_8K, (PCM_44K, PCM_22K, PCM_24K, PCM_16K), PCM_16K),
        (MULAW_8K, (PCM_44K, PCM_22K, PCM_24K), PCM_24K),
        (MULAW_8K, (PCM_44K, PCM_22K), PCM_22K),
        (PCM_24K, (MULAW_8K, PCM_16K, ALAW_8K), PCM_16K),
        (PCM_24K, (MULAW_8K, ALAW_8K), MULAW_8K),
        (PCM_16K, (AudioFormat("s16le", 47999), PCM_8K), PCM_8K),
    ],
)
def test_the_best_offer_is_taken(wanted: AudioFormat, offered: tuple[AudioFormat, ...], chosen: AudioFormat) -> None:
    assert negotiate(wanted, offered) == chosen


def test_no_usable_offer_is_an_error_that_lists_what_there_was() -> None:
    with pytest.raises(UnsupportedFormat, match="mulaw 8000 Hz among: none offered"):
        negotiate(MULAW_8K, ())
    with pytest.raises(UnsupportedFormat, match="s16le 47999 Hz"):
        negotiate(MULAW_8K, (AudioFormat("s16le", 47999),))


def test_importing_the_package_does_not_load_numpy() -> None:
    program = "import sys, dialog.audio, dialog.audio.tones; print('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout.strip() == "False"


def test_phone_formats_are_converted_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    for source, target in itertools.permutations((MULAW_8K, ALAW_8K, PCM_8K), 2):
        data = source.silence(20)
        assert target.ms(len(Converter(source, target).process(data))) == 20
