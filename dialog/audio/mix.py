"""Adding audio to audio: two voices in one track, music under a voice."""

from __future__ import annotations

import struct
from functools import cache
from operator import add, itemgetter

from dialog.audio.convert import Converter
from dialog.audio.g711 import ALAW_SAMPLES, MULAW_SAMPLES, alaw_encode, mulaw_encode
from dialog.audio.level import Encoding, gain_table
from dialog.audio.pcm import clip, pcm_bytes, samples
from dialog.message import MULAW_8K, PCM_8K, AudioFormat

__all__ = ["Bed", "amplify", "mix", "mix_frames"]


def mix(a: bytes, b: bytes, encoding: Encoding = "s16le") -> bytes:
    """The sum of two pieces of audio, held within 16 bits; the shorter one is followed by silence.

    G.711 is mixed by a look-up of both bytes at once: half the time of decoding, adding and encoding.

    Raises:
        ValueError: One ends in the middle of a sample.
    """
    if len(a) < len(b):
        a, b = b, a
    if encoding != "s16le":
        return _mix_codes(a, b, encoding) if b else a
    longer, shorter = samples(a), samples(b)
    count = len(shorter)
    # Adding and packing are both loops in C; only a sum that leaves 16 bits needs the slow way.
    try:
        head = struct.pack(f"<{count}h", *map(add, longer, shorter))
    except struct.error:
        head = pcm_bytes(clip(map(add, longer, shorter)))
    return head if count == len(longer) else head + a[2 * count :]


def mix_frames(*frames: bytes, encoding: Encoding = "s16le") -> bytes:
    """The sum of any number of pieces of audio that begin together, held within 16 bits: several voices in one track.

    Shorter ones are followed by silence; of none there is nothing.

    Raises:
        ValueError: One ends in the middle of a sample.
    """
    mixed = b""
    for frame in frames:
        mixed = mix(mixed, frame, encoding) if mixed else frame
    return mixed


def _mix_codes(longer: bytes, shorter: bytes, encoding: Encoding) -> bytes:
    count = len(shorter)
    # Both bytes side by side are one number of 16 bits. Sums are symmetrical, so is the table: which of
    # the two is the high byte does not matter.
    pairs = bytearray(2 * count)
    pairs[0::2] = longer[:count]
    pairs[1::2] = shorter
    both = memoryview(pairs).cast("H")
    table = _sums(encoding)
    head = bytes([table[both[0]]]) if count == 1 else bytes(itemgetter(*both)(table))
    return head if count == len(longer) else head + longer[count:]


@cache
def _sums(encoding: Encoding) -> bytes:
    """The code of the sum of every two codes: 64 kB, made once, in some 20 ms."""
    values, encode = (MULAW_SAMPLES, mulaw_encode) if encoding == "mulaw" else (ALAW_SAMPLES, alaw_encode)
    return b"".join(encode(pcm_bytes(clip(one + other for other in values))) for one in values)


def amplify(data: bytes, gain_db: float) -> bytes:
    """s16le audio, louder or (with a negative gain) quieter, held within 16 bits.

    Raises:
        ValueError: It ends in the middle of a sample.
    """
    if gain_db == 0:
        return data
    factor = 10.0 ** (gain_db / 20.0)
    return pcm_bytes(clip(round(value * factor) for value in samples(data)))


class Bed:
    """Sound that goes on under a call, in a loop: an office, music on hold.

    The position moves with what is taken, so that the loop has no seam at a chunk's edge. It is kept in
    the line's own encoding, so G.711 gets its gain by a look-up and is never decoded.

    Args:
        audio: One round of it, in the format ``source``.
        source: Format of ``audio``; converted once to the line's.
        line: Format of the line, for what is taken.
        gain_db: How much louder than recorded, in half decibels; negative for a background.

    Raises:
        ValueError: ``audio`` holds no whole sample.
        MissingExtra: The rates differ and numpy is not installed.
    """

    def __init__(
        self,
        audio: bytes,
        *,
        source: AudioFormat = PCM_8K,
        line: AudioFormat = MULAW_8K,
        gain_db: float = -18.0,
    ) -> None:
        fit = Converter(source, line)
        self._audio = fit.process(audio) + fit.flush()
        if len(self._audio) < line.sample_bytes:
            raise ValueError("a bed needs at least one sample of audio")
        self._line = line
        self._gain = round(2 * gain_db)
        """In half decibels."""
        self._taken = 0

    def take(self, ms: float) -> bytes:
        """The next ``ms`` of the bed alone, in the line's format."""
        return self.next(self._line.size(ms))

    def under(self, voice: bytes, *, duck_db: float = 0.0) -> bytes:
        """The voice, whole samples in the line's format, with the bed under it, ``duck_db`` quieter than alone."""
        return mix(voice, self.next(len(voice), duck_db=duck_db), self._line.encoding)

    def next(self, size: int, *, duck_db: float = 0.0) -> bytes:
        """The next ``size`` bytes, whole samples, ``duck_db`` quieter than set."""
        total = len(self._audio)
        start = self._taken % total
        self._taken += size
        data = self._audio[start : start + size]
        if len(data) < size:
            rounds = -(-(start + size) // total)
            data = (self._audio * rounds)[start : start + size]
        gain = self._gain - round(2 * duck_db)
        if gain == 0:
            return data
        encoding = self._line.encoding
        return amplify(data, gain / 2) if encoding == "s16le" else data.translate(gain_table(encoding, gain))

    def back(self, size: int) -> None:
        """The last ``size`` bytes were not heard: they come again. Not further than to its start."""
        self._taken = max(0, self._taken - size)
