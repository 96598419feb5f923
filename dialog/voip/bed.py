"""What sounds on a line beside the voice: a background, and a sign that somebody is at work."""

from __future__ import annotations

from typing import Literal, TypeAlias

from dialog.audio.mix import Bed, mix
from dialog.audio.sound import Sound
from dialog.message import AudioFormat

__all__ = ["BedLane", "Layer"]

Layer: TypeAlias = Literal["background", "thinking"]
"""``background`` goes on under the voice; ``thinking`` ends where the voice begins."""

_SLICE_MS = 20
_DOWN_DB = 2.0
_UP_DB = 0.5
"""In each slice of 20 ms the background falls by 2 dB under a voice, and rises by half a decibel after it."""


class BedLane:
    """The audio that fills a line: alone, or under a voice. One for all streams of a call.

    Args:
        audio_format: What the line speaks.
        duck_db: How much quieter the background is under a voice than alone.
    """

    __slots__ = ("_background", "_duck", "_duck_most", "_format", "_slice", "_thinking", "on")

    def __init__(self, audio_format: AudioFormat, *, duck_db: float = 6.0) -> None:
        self.on: bool = False
        """Something sounds: the line must not run dry."""
        self._format = audio_format
        self._slice = audio_format.size(_SLICE_MS)
        self._duck_most = duck_db
        self._duck = 0.0
        self._background: Bed | None = None
        self._thinking: Bed | None = None

    def set(self, layer: Layer, sound: Sound | None, gain_db: float) -> None:
        """Let ``sound`` go round from its start; ``None``: silence.

        Raises:
            MissingExtra: The sound has another rate than the line, and numpy is not installed.
        """
        bed = None
        if sound is not None:
            bed = Bed(sound.data, source=sound.audio_format, line=self._format, gain_db=gain_db)
        if layer == "background":
            self._background = bed
        else:
            self._thinking = bed
        self._check()

    def voice(self) -> None:
        """There is a voice: nobody is thinking any more."""
        if self._thinking is not None:
            self._thinking = None
            self._check()

    def under(self, voice: bytes) -> bytes:
        """The voice with the background under it; whole samples."""
        background = self._background
        if background is None:
            return voice
        out: list[bytes] = []
        at = 0
        while self._duck < self._duck_most and at < len(voice):
            piece = voice[at : at + self._slice]
            self._duck = min(self._duck_most, self._duck + _DOWN_DB)
            out.append(background.under(piece, duck_db=self._duck))
            at += len(piece)
        if at == 0:
            return background.under(voice, duck_db=self._duck)
        if at < len(voice):
            out.append(background.under(voice[at:], duck_db=self._duck))
        return b"".join(out)

    def alone(self, size: int) -> bytes:
        """The next ``size`` bytes without a voice; only while it is :attr:`on`."""
        if self._thinking is None:
            return self._rising(size)
        thinking = self._thinking.next(size)
        return thinking if self._background is None else mix(self._rising(size), thinking, self._format.encoding)

    def back(self, size: int) -> None:
        """The last ``size`` bytes were cleared before they were heard: go on from there."""
        for bed in (self._background, self._thinking):
            if bed is not None:
                bed.back(size)

    def _rising(self, size: int) -> bytes:
        assert self._background is not None
        out: list[bytes] = []
        while self._duck > 0 and size > 0:
            self._duck = max(0.0, self._duck - _UP_DB)
            out.append(self._background.next(min(size, self._slice), duck_db=self._duck))
            size -= len(out[-1])
        if size > 0:
            out.append(self._background.next(size))
        return b"".join(out)

    def _check(self) -> None:
        self.on = self._background is not None or self._thinking is not None
        if self._background is None:
            self._duck = 0.0
