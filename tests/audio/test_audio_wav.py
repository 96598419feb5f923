"""WAV files."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.audio import tones
from dialog.audio.g711 import alaw_decode, alaw_encode, mulaw_decode, mulaw_encode
from dialog.audio.wav import read_wav, write_wav
from dialog.errors import UnsupportedFormat


def riff(*chunks: tuple[bytes, bytes], data_size: int | None = None) -> bytes:
    body = b""
    for name, content in chunks:
        size = data_size if name == b"data" and data_size is not None else len(content)
        body += name + struct.pack("<I", size) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(codec: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, extra: bytes = b"") -> tuple[bytes, bytes]:
    width = channels * bits // 8
    return b"fmt ", struct.pack("<HHIIHH", codec, channels, rate, rate * width, width, bits) + extra


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audio.wav"


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_what_was_written_is_read(path: Path, rate: int) -> None:
    pcm = tones.sine(300, 50, sample_rate=rate)
    write_wav(path, pcm, rate)
    assert read_wav(path) == (pcm, rate)


def test_the_header_is_the_canonical_one(path: Path) -> None:
    write_wav(str(path), [b"\x01\x00\x02\x00", b"\x03\x00\x04\x00"], 8000, channels=2)
    assert path.read_bytes() == riff(fmt(channels=2), (b"data", b"\x01\x00\x02\x00\x03\x00\x04\x00"))


def test_the_wave_module_reads_it(path: Path) -> None:
    pcm = tones.sine(300, 30)
    write_wav(path, iter([pcm, pcm]), 16000)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        assert file.readframes(file.getnframes()) == pcm * 2


def test_no_audio_is_a_file_too(path: Path) -> None:
    write_wav(path, b"", 8000)
    assert read_wav(path) == (b"", 8000)


def test_stereo_becomes_the_mean_of_both_sides(path: Path) -> None:
    write_wav(path, struct.pack("<6h", 100, 300, -32768, -32768, 32767, -32767), 8000, channels=2)
    assert read_wav(path) == (struct.pack("<3h", 200, -32768, 0), 8000)


@pytest.mark.parametrize(
    ("codec", "encode", "decode"), [(7, mulaw_encode, mulaw_decode), (6, alaw_encode, alaw_decode)]
)
def test_g711_files_are_decoded(path: Path, codec: int, encode, decode) -> None:
    data = encode(tones.sine(300, 20))
    path.write_bytes(riff(fmt(codec, bits=8, extra=b"\x00\x00"), (b"fact", struct.pack("<I", 160)), (b"data", data)))
    assert read_wav(path) == (decode(data), 8000)


def test_the_extensible_header_of_plain_pcm_is_understood(path: Path) -> None:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    extra = struct.pack("<HHI", 22, 16, 4) + guid
    path.write_bytes(riff(fmt(0xFFFE, extra=extra), (b"data", b"\x01\x00")))
    assert read_wav(path) == (b"\x01\x00", 8000)


def test_other_chunks_are_skipped_also_odd_ones(path: Path) -> None:
    path.write_bytes(riff((b"LIST", b"odd"), fmt(), (b"note", b"x"), (b"data", b"\x05\x00"), (b"id3 ", b"tail")))
    assert read_wav(path) == (b"\x05\x00", 8000)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_stream_without_a_length_is_read_to_its_end(path: Path, size: int) -> None:
    path.write_bytes(riff(fmt(), (b"data", b"\x05\x00\x06\x00"), data_size=size))
    assert read_wav(path) == (b"\x05\x00\x06\x00", 8000)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a WAV file"),
        (b"ID3\x04 an mp3 file, perhaps", "not a WAV file"),
        (riff((b"data", b"\x00\x00"), fmt()), "audio before its format"),
        (riff(fmt()), "no audio in it"),
        (riff((b"fmt ", b"\x01\x00")), "format of 2 bytes"),
        (riff(fmt(bits=8), (b"data", b"\x80")), "8-bit PCM"),
        (riff(fmt(bits=24), (b"data", bytes(3))), "24-bit PCM"),
        (riff(fmt(codec=3, bits=32), (b"data", bytes(4))), "codec 0x0003 with 32 bits"),
        (riff(fmt(channels=6), (b"data", bytes(12))), "6 channels"),
        (riff(fmt(channels=0), (b"data", bytes(12))), "0 channels"),
        (riff(fmt(rate=0), (b"data", bytes(12))), "sample rate 0"),
        (riff(fmt(), (b"data", bytes(4)), data_size=100), "truncated WAV file: 4 of 100 bytes"),
    ],
)
def test_anything_else_is_refused_by_name(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UnsupportedFormat, match=says) as caught:
        read_wav(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_os_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_wav(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wav") / "any.wav"


@given(data=st.binary(max_size=80), cut=st.integers(0, 60))
def test_no_input_breaks_the_parser(scratch: Path, data: bytes, cut: int) -> None:
    scratch.write_bytes(riff(fmt(), (b"data", bytes(20)))[:cut] + data)
    try:
        pcm, rate = read_wav(scratch)
    except UnsupportedFormat:
        return
    assert len(pcm) % 2 == 0
    assert rate > 0
