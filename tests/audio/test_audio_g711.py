"""The two phone codes, bit for bit."""

from __future__ import annotations

import struct
import warnings
from hashlib import sha256
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.audio import g711

EVERY_SAMPLE = struct.pack("<65536h", *range(-32768, 32768))
EVERY_BYTE = bytes(range(256))


@pytest.fixture(scope="module")
def audioop() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("audioop", reason="Python 3.13 has no audioop")


# Digests of what audioop of Python 3.11 gives, so that a Python without it is held to the same.
@pytest.mark.parametrize(
    ("function", "source", "digest"),
    [
        (g711.mulaw_encode, EVERY_SAMPLE, "81d633c9e6972a18c74a58720b96cb8ca0bdd096d4060b646dd708c3b846019a"),
        (g711.alaw_encode, EVERY_SAMPLE, "38488f6fd710f4686360edc4d38639f96c491595ef93f8eb8d62d5e07ca6ce7b"),
        (g711.mulaw_decode, EVERY_BYTE, "3dab54339e520bb2c924826e3b72a917a2b612e9fd12fc867500f1d983a75827"),
        (g711.alaw_decode, EVERY_BYTE, "e04788d110e58ff8c70c93b8480190d973e3b67876b6119abbaec766cc75c174"),
        (g711.mulaw_to_alaw, EVERY_BYTE, "a511897e1e42589f5c11a56615e0c29db268e20f82ee5cb81d7c42f812fe8f17"),
        (g711.alaw_to_mulaw, EVERY_BYTE, "29fe089f9333915612c7283f92586f175e6e9ff5819768e9545c11c87e5bea54"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_input_gives_what_audioop_gave(function, source, digest) -> None:
    assert sha256(function(source)).hexdigest() == digest


def test_every_input_gives_what_audioop_gives(audioop: ModuleType) -> None:
    assert g711.mulaw_encode(EVERY_SAMPLE) == audioop.lin2ulaw(EVERY_SAMPLE, 2)
    assert g711.alaw_encode(EVERY_SAMPLE) == audioop.lin2alaw(EVERY_SAMPLE, 2)
    assert g711.mulaw_decode(EVERY_BYTE) == audioop.ulaw2lin(EVERY_BYTE, 2)
    assert g711.alaw_decode(EVERY_BYTE) == audioop.alaw2lin(EVERY_BYTE, 2)


@pytest.mark.parametrize(
    ("sample", "mulaw", "alaw"),
    [
        (0, 0xFF, 0xD5),
        (-1, 0x7E, 0x55),
        (-8, 0x7E, 0x55),
        (1000, 0xCE, 0xFA),
        (-1000, 0x4E, 0x7A),
        (32124, 0x80, 0xAA),
        (32767, 0x80, 0xAA),
        (-32768, 0x00, 0x2A),
    ],
)
def test_known_samples(sample: int, mulaw: int, alaw: int) -> None:
    pcm = struct.pack("<h", sample)
    assert g711.mulaw_encode(pcm) == bytes([mulaw])
    assert g711.alaw_encode(pcm) == bytes([alaw])


def test_decoding_and_encoding_gives_every_byte_back_but_negative_zero() -> None:
    again = g711.mulaw_encode(g711.mulaw_decode(EVERY_BYTE))
    assert [code for code in EVERY_BYTE if again[code] != code] == [0x7F]
    assert again[0x7F] == 0xFF
    assert g711.alaw_encode(g711.alaw_decode(EVERY_BYTE)) == EVERY_BYTE


def test_direct_translation_is_the_way_over_pcm() -> None:
    assert g711.mulaw_to_alaw(EVERY_BYTE) == g711.alaw_encode(g711.mulaw_decode(EVERY_BYTE))
    assert g711.alaw_to_mulaw(EVERY_BYTE) == g711.mulaw_encode(g711.alaw_decode(EVERY_BYTE))


@given(st.binary(max_size=400))
def test_a_sequence_is_coded_sample_by_sample(data: bytes) -> None:
    pcm = data[: len(data) - len(data) % 2]
    for encode in (g711.mulaw_encode, g711.alaw_encode):
        assert encode(pcm) == b"".join(encode(pcm[at : at + 2]) for at in range(0, len(pcm), 2))


def test_the_error_of_a_round_trip_is_half_a_step() -> None:
    before = memoryview(EVERY_SAMPLE).cast("h")
    mulaw = memoryview(g711.mulaw_decode(g711.mulaw_encode(EVERY_SAMPLE))).cast("h")
    alaw = memoryview(g711.alaw_decode(g711.alaw_encode(EVERY_SAMPLE))).cast("h")
    for sample, by_mulaw, by_alaw in zip(before, mulaw, alaw, strict=True):
        size = abs(sample)
        # Sixteen steps in each doubling (mu-law counts from -132), and the bits that are cut off first.
        # The highest codes stand for 32124 and 32256.
        assert abs(sample - by_mulaw) <= max((size + 132) / 32 + 4, size - 32124)
        assert abs(sample - by_alaw) <= max(8, size / 32, size - 32256)


def test_long_audio_is_coded_like_short_audio() -> None:
    pcm = EVERY_SAMPLE * 2 + EVERY_SAMPLE[:2]
    assert g711.mulaw_encode(pcm) == g711.mulaw_encode(EVERY_SAMPLE) * 2 + g711.mulaw_encode(EVERY_SAMPLE[:2])


@pytest.mark.parametrize("size", [1, 319, 8193])
def test_half_a_sample_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="whole samples"):
        g711.mulaw_encode(bytes(size))
    with pytest.raises(ValueError, match="whole samples"):
        g711.alaw_encode(bytes(size))


def test_no_audio_is_no_audio() -> None:
    for function in (g711.mulaw_encode, g711.mulaw_decode, g711.alaw_encode, g711.alaw_decode):
        assert function(b"") == b""
