"""Sounds that are not speech: what a caller hears while nobody speaks, and under the voice.

Two of them are made here, so that a call needs no file for them: :func:`thinking` and :func:`hold`.
"""

from __future__ import annotations

from functools import cache, lru_cache

from msgspec import Struct

from dialog.audio import tones
from dialog.audio.convert import Converter
from dialog.audio.mix import mix
from dialog.audio.wav import StrPath, read_wav
from dialog.message import PCM_8K, AudioFormat

__all__ = ["Sound", "hold", "thinking"]

_LONGEST_MS = 180_000.0
"""A longer round is no background but a programme, and it is held in memory by every process that plays it."""


class Sound(Struct, frozen=True, gc=False):
    """A piece of audio that never changes: one round of a background, a signal.

    Raises:
        ValueError: It holds no whole sample, or lasts more than three minutes.
    """

    data: bytes
    audio_format: AudioFormat = PCM_8K

    def __post_init__(self) -> None:
        width = self.audio_format.sample_bytes
        if not self.data or len(self.data) % width:
            raise ValueError(
                f"a sound has whole samples of {width} bytes, and at least one; got {len(self.data)} bytes"
            )
        if self.duration_ms > _LONGEST_MS:
            raise ValueError(
                f"a sound lasts at most {_LONGEST_MS / 1000:.0f} s, got {self.duration_ms / 1000:.0f} s: "
                "it is repeated, so give one round of it"
            )

    @classmethod
    def from_wav(cls, path: StrPath) -> Sound:
        """The audio of a WAV file; two channels become one.

        Raises:
            OSError: The file cannot be read.
            UnsupportedFormat: It is no WAV file of 16-bit PCM, mu-law or A-law.
            ValueError: It holds no audio, or more than three minutes.
        """
        pcm, sample_rate = read_wav(path)
        return cls(pcm, AudioFormat("s16le", sample_rate))

    @property
    def duration_ms(self) -> float:
        """How long one round of it lasts."""
        return self.audio_format.ms(len(self.data))

    def fitted(self, audio_format: AudioFormat) -> Sound:
        """The same sound in another format; calls that ask for the same get the same object.

        Raises:
            MissingExtra: The rates differ and numpy is not installed.
            UnsupportedFormat: The rates are not convertible.
        """
        return self if self.audio_format == audio_format else _fitted(self, audio_format)

    def __repr__(self) -> str:
        return f"<Sound {self.duration_ms:.0f} ms {self.audio_format.encoding} {self.audio_format.sample_rate} Hz>"


@lru_cache(maxsize=32)
def _fitted(sound: Sound, audio_format: AudioFormat) -> Sound:
    convert = Converter(sound.audio_format, audio_format)
    return Sound(convert.process(sound.data) + convert.flush(), audio_format)


@cache
def thinking() -> Sound:
    """Somebody types, with pauses: six seconds, keys that peak near -12 dBFS. For waits of some seconds.

    It is made at the first call, in some 20 ms.
    """
    return Sound(tones.typing(6000.0, level_dbfs=-40.0))


@cache
def hold() -> Sound:
    """Slow, soft notes of one chord, one a second: eight seconds, around -28 dBFS. For longer waits.

    It is made at the first call, in some 60 ms: call it once where a program starts.
    """
    second = PCM_8K.size(1000.0)
    melody = (523.25, 659.26, 783.99, 659.26, 440.0, 523.25, 659.26, 523.25)
    notes = {hz: tones.pluck(hz, 2400.0, level_dbfs=-20.0) for hz in set(melody)}
    out = b""
    for at, hz in enumerate(melody):
        out = mix(out, bytes(at * second) + notes[hz])
    end = len(melody) * second
    return Sound(mix(out[:end], out[end:]))  # the last notes fade under the first of the next round
