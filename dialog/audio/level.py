"""How loud audio is, and a gentle hand on the gain.

Levels are RMS in dBFS: 0 is a square wave that fills 16 bits, a full sine is -3, speech on a phone
line is around -20 to -30, and :data:`SILENCE_DBFS` stands for nothing at all.
"""

from __future__ import annotations

import math
from functools import lru_cache
from operator import itemgetter
from typing import Literal, TypeAlias

from dialog.audio.g711 import ALAW_SAMPLES, MULAW_SAMPLES, alaw_encode, mulaw_encode
from dialog.audio.pcm import clip, pcm_bytes, samples
from dialog.message import MULAW_8K, AudioFormat

__all__ = ["SILENCE_DBFS", "LevelNormaliser", "level_dbfs", "peak"]

Encoding: TypeAlias = Literal["mulaw", "alaw", "s16le"]

SILENCE_DBFS = -96.0
"""The lowest level that is reported: less than one step of 16 bits."""

_FULL = 32768.0
_SQUARES = {
    "mulaw": tuple((value / _FULL) ** 2 for value in MULAW_SAMPLES),
    "alaw": tuple((value / _FULL) ** 2 for value in ALAW_SAMPLES),
}
_CODES = {"mulaw": MULAW_SAMPLES, "alaw": ALAW_SAMPLES}
_SILENCE_POWER = 10.0 ** (SILENCE_DBFS / 10.0)
_BLOCK = 4096


def _ranks(codes: tuple[int, ...]) -> tuple[bytes, tuple[int, ...]]:
    """Byte to place among all magnitudes, and place to magnitude: the loudest byte is a maximum of bytes."""
    magnitudes = sorted({abs(value) for value in codes})
    place = {magnitude: rank for rank, magnitude in enumerate(magnitudes)}
    return bytes(place[abs(value)] for value in codes), tuple(magnitudes)


_RANKS = {"mulaw": _ranks(MULAW_SAMPLES), "alaw": _ranks(ALAW_SAMPLES)}


def level_dbfs(data: bytes, encoding: Encoding = "mulaw") -> float:
    """RMS level of audio in dBFS, at least :data:`SILENCE_DBFS`; of no audio at all too.

    Raises:
        ValueError: s16le audio ends in the middle of a sample.
    """
    size = len(data)
    if encoding == "s16le":
        values = samples(data)
        # A Euclidean norm is the root of a sum of squares, in one C loop.
        power = (math.hypot(*values) / _FULL) ** 2 / max(1, len(values))
    elif size <= 1:
        power = _SQUARES[encoding][data[0]] if size else 0.0
    elif size <= _BLOCK:
        power = sum(itemgetter(*data)(_SQUARES[encoding])) / size
    else:
        squares = _SQUARES[encoding]
        power = math.fsum(squares[code] * data.count(code) for code in range(256)) / size
    return 10.0 * math.log10(power) if power > _SILENCE_POWER else SILENCE_DBFS


def peak(data: bytes, encoding: Encoding = "mulaw") -> int:
    """The greatest magnitude of a sample, 0 to 32768; 0 of no audio.

    Raises:
        ValueError: s16le audio ends in the middle of a sample.
    """
    if not data:
        return 0
    if encoding == "s16le":
        values = samples(data).tolist()
        return max(max(values), -min(values))  # noqa: PLW3301  # unpacking would copy them
    place, magnitudes = _RANKS[encoding]
    return magnitudes[max(data.translate(place))]


class LevelNormaliser:
    """Brings speech slowly to a steady level, chunk by chunk, without delay and without clipping.

    The level is followed on chunks that hold speech; in silence the gain stays. It rises by
    at most 3 dB a second and falls by 20, in half-decibel steps; a chunk that amplification would take
    past the limit takes the gain down at once. Bytes out are as many as bytes in. G.711 is amplified
    by a look-up from byte to byte and never decoded.

    Args:
        audio_format: Format of the audio, G.711 or s16le.
        target_dbfs: RMS level of speech to reach.
        most_gain_db: Never amplify by more, so that noise is not pulled up.
        most_cut_db: Never attenuate by more (the limit does, if it must).
        gate_dbfs: What is quieter is not speech.
        limit_dbfs: No peak is amplified to more than this.
    """

    def __init__(
        self,
        audio_format: AudioFormat = MULAW_8K,
        *,
        target_dbfs: float = -22.0,
        most_gain_db: float = 12.0,
        most_cut_db: float = 12.0,
        gate_dbfs: float = -48.0,
        limit_dbfs: float = -1.0,
    ) -> None:
        if most_gain_db < 0 or most_cut_db < 0 or limit_dbfs > 0:
            raise ValueError("a normaliser needs most_gain_db >= 0, most_cut_db >= 0 and limit_dbfs <= 0")
        self._format = audio_format
        self._target = target_dbfs
        self._most_gain = most_gain_db
        self._most_cut = most_cut_db
        self._gate = gate_dbfs
        self._limit = 32767.0 * 10.0 ** (limit_dbfs / 20.0)
        self.reset()

    @property
    def gain_db(self) -> float:
        """The gain that is applied now."""
        return self._step / 2.0

    def reset(self) -> None:
        """Start again, for another stream."""
        self._power: float | None = None
        self._wanted = 0.0
        self._step = 0
        """The gain in half decibels."""

    def process(self, data: bytes) -> bytes:
        """The chunk at its new level.

        Raises:
            ValueError: s16le audio ends in the middle of a sample.
        """
        if not data:
            return data
        encoding = self._format.encoding
        seconds = self._format.ms(len(data)) / 1000.0
        self._follow(level_dbfs(data, encoding), seconds)
        step = round(self._wanted * 2.0)
        if step > 0:
            room = math.floor(40.0 * math.log10(self._limit / max(1, peak(data, encoding))))
            if step > room:
                step = max(0, room)
                self._wanted = step / 2.0
        self._step = step
        return data if step == 0 else _amplify(data, encoding, step)

    def _follow(self, level: float, seconds: float) -> None:
        if level > self._gate:
            power = 10.0 ** (level / 10.0)
            if self._power is None:
                self._power = power
            elif power > self._power / 30.0:  # 15 dB under the speech: a pause, an echo, the next room
                share = 1.0 - math.exp(-seconds / (0.3 if power > self._power else 1.5))
                self._power += share * (power - self._power)
            else:
                # Somebody quieter took over: get there, slowly.
                self._power *= math.exp(-seconds / 3.0)
        if self._power is None or level <= self._gate:
            return
        ideal = self._target - 10.0 * math.log10(self._power)
        ideal = min(self._most_gain, max(-self._most_cut, ideal))
        self._wanted = min(self._wanted + 3.0 * seconds, max(self._wanted - 20.0 * seconds, ideal))


def _amplify(data: bytes, encoding: Encoding, step: int) -> bytes:
    if encoding == "s16le":
        # Whole numbers, rounded by the half that is added: twice as fast as round() of a float.
        factor = round(10.0 ** (step / 40.0) * 1048576)
        return pcm_bytes([value * factor + 524288 >> 20 for value in samples(data)])
    return data.translate(gain_table(encoding, step))


@lru_cache(maxsize=128)
def gain_table(encoding: Encoding, step: int) -> bytes:
    """What each byte of G.711 becomes at another level; ``step`` is the gain in half decibels."""
    factor = 10.0 ** (step / 40.0)
    pcm = pcm_bytes(clip(round(value * factor) for value in _CODES[encoding]))
    return mulaw_encode(pcm) if encoding == "mulaw" else alaw_encode(pcm)
