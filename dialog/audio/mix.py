"""Adding audio to audio: two voices in one track, music under a voice."""

from __future__ import annotations

import struct
from operator import add

from dialog.audio.convert import Converter
from dialog.audio.pcm import clip, pcm_bytes, samples
from dialog.message import MULAW_8K, PCM_8K, AudioFormat

__all__ = ["Bed", "amplify", "mix"]


def mix(a: bytes, b: bytes) -> bytes:
    """The sum of two pieces of s16le audio, held within 16 bits; the shorter one is followed by silence.

    Raises:
        ValueError: One ends in the middle of a sample.
    """
    if len(a) < len(b):
        a, b = b, a
    longer, shorter = samples(a), samples(b)
    count = len(shorter)
    # Adding and packing are both loops in C; only a sum that leaves 16 bits needs the slow way.
    try:
        head = struct.pack(f"<{count}h", *map(add, longer, shorter))
    except struct.error:
        head = pcm_bytes(clip(map(add, longer, shorter)))
    return head if count == len(longer) else head + a[2 * count :]


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

    The position moves with what is taken, so that the loop has no seam at a chunk's edge.

    Args:
        pcm: s16le audio of one round.
        source: Format of ``pcm``; converted once to the line's rate.
        line: Format of the line, for :meth:`take` and :meth:`under`.
        gain_db: How much louder than recorded; negative for a background.

    Raises:
        ValueError: ``pcm`` holds no whole sample.
        MissingExtra: The rates differ and numpy is not installed.
    """

    def __init__(
        self,
        pcm: bytes,
        *,
        source: AudioFormat = PCM_8K,
        line: AudioFormat = MULAW_8K,
        gain_db: float = -18.0,
    ) -> None:
        plain = AudioFormat("s16le", line.sample_rate)
        fit = Converter(source, plain)
        self._pcm = amplify(fit.process(pcm) + fit.flush(), gain_db)
        if len(self._pcm) < 2:
            raise ValueError("a bed needs at least one sample of audio")
        self._at = 0
        self._line = line
        self._decode = Converter(line, plain)
        self._encode = Converter(plain, line)

    def take(self, ms: float) -> bytes:
        """The next ``ms`` of the bed alone, in the line's format."""
        return self._encode.process(self._next(self._line.size(ms) // self._line.sample_bytes))

    def under(self, voice: bytes) -> bytes:
        """The voice, whole samples in the line's format, with the bed under it."""
        plain = self._decode.process(voice)
        return self._encode.process(mix(plain, self._next(len(plain) // 2)))

    def _next(self, count: int) -> bytes:
        start, stop = self._at, self._at + 2 * count
        size = len(self._pcm)
        self._at = stop % size
        if stop <= size:
            return self._pcm[start:stop]
        rounds = -(-stop // size)
        return (self._pcm * rounds)[start:stop]
