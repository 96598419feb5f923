"""The hook for noise suppression, with a small filter as an example."""

from __future__ import annotations

import math
from uuid import uuid4

import pytest

from dialog.audio import tones
from dialog.audio.filter import AudioFilter, CallerFilter
from dialog.audio.g711 import mulaw_decode, mulaw_encode
from dialog.audio.level import LevelNormaliser, level_dbfs
from dialog.audio.pcm import clip, pcm_bytes, samples
from dialog.errors import ConfigurationError, DialogError, UserCodeError
from dialog.message import MULAW_8K, AudioFormat, Message


class HumFilter:
    """Takes mains hum away: a high-pass of 120 Hz, with its state from one frame to the next."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._keep = math.exp(-2 * math.pi * 120 / audio_format.sample_rate)
        self._before = self._out = 0.0

    def process(self, data: bytes) -> bytes:
        out = []
        for value in samples(mulaw_decode(data)):
            self._out = self._keep * (self._out + value - self._before)
            self._before = value
            out.append(round(self._out))
        return mulaw_encode(pcm_bytes(clip(out)))


def frames(pcm: bytes) -> list[Message[bytes]]:
    data = mulaw_encode(pcm)
    return [Message(uuid=CALL, data=data[at : at + 160], at_ms=at / 8) for at in range(0, len(data), 160)]


CALL = uuid4()


def test_a_filter_works_on_every_frame_and_keeps_the_clock() -> None:
    failures: list[DialogError] = []
    hum = CallerFilter(HumFilter, MULAW_8K, failures.append)
    messages = frames(tones.sine(50, 1000, level_dbfs=-20))
    filtered = [hum.process(message) for message in messages]
    assert [(one.uuid, one.at_ms, len(one.data)) for one in filtered] == [
        (one.uuid, one.at_ms, len(one.data)) for one in messages
    ]
    assert level_dbfs(b"".join(one.data for one in filtered)) < -26
    voice = frames(tones.sine(500, 1000, level_dbfs=-20))
    assert level_dbfs(b"".join(hum.process(one).data for one in voice)) == pytest.approx(-20, abs=1)
    assert failures == []


def test_a_class_that_takes_the_format_is_a_factory() -> None:
    quiet = CallerFilter(LevelNormaliser, MULAW_8K, pytest.fail)
    louder = [quiet.process(message) for message in frames(tones.sine(500, 4000, level_dbfs=-34))]
    assert level_dbfs(louder[-1].data) > -26


def test_audio_that_is_not_changed_is_not_copied() -> None:
    class Nothing:
        def process(self, data: bytes) -> bytes:
            return data

    (message,) = frames(bytes(320))
    assert CallerFilter(lambda _: Nothing(), MULAW_8K, pytest.fail).process(message) is message


class _Raises:
    calls = 0

    def process(self, data: bytes) -> bytes:
        self.calls += 1
        raise RuntimeError("no model")


class _Shortens:
    calls = 0

    def process(self, data: bytes) -> bytes:
        self.calls += 1
        return data[1:]


@pytest.mark.parametrize(("broken", "what"), [(_Raises(), "no model"), (_Shortens(), "159 bytes came out of 160")])
def test_a_filter_that_fails_is_told_once_and_left_out(broken: AudioFilter, what: str) -> None:
    failures: list[DialogError] = []
    caller = CallerFilter(lambda _: broken, MULAW_8K, failures.append)
    messages = frames(bytes(960))
    assert [caller.process(message) for message in messages] == messages
    (failure,) = failures
    assert isinstance(failure, UserCodeError)
    assert what in str(failure)
    assert broken.calls == 1  # type: ignore[attr-defined]


def test_a_filter_that_cannot_be_made_is_refused() -> None:
    def broken(_: AudioFormat) -> AudioFilter:
        raise RuntimeError("no such file")

    def contradicts(_: AudioFormat) -> AudioFilter:
        raise ConfigurationError("only 16 kHz")

    with pytest.raises(UserCodeError, match="no such file"):
        CallerFilter(broken, MULAW_8K, pytest.fail)
    with pytest.raises(ConfigurationError, match="only 16 kHz"):
        CallerFilter(contradicts, MULAW_8K, pytest.fail)
