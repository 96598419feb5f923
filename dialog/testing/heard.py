"""What the simulated caller hears, measured: stretches of speech, gaps, cuts, a stereo recording."""

from __future__ import annotations

import io
import wave
from functools import cache
from typing import NamedTuple

from msgspec import Struct

from dialog.testing.media import BYTES_PER_MS, Fragment, Gap

__all__ = ["Ear", "Heard", "Spoken", "Stretch", "Track", "is_silent", "stereo_wav", "voiced_span"]

WINDOW_MS = 10
_WINDOW = WINDOW_MS * BYTES_PER_MS
SILENCE = b"\xff"


def _linear(code: int) -> int:
    """The sample of a mu-law byte (ITU-T G.711)."""
    code = ~code & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code & 0x70) >> 4)) - 0x84
    return -magnitude if code & 0x80 else magnitude


_SAMPLES = [_linear(code) & 0xFFFF for code in range(256)]
_LOW = bytes(sample & 0xFF for sample in _SAMPLES)
_HIGH = bytes(sample >> 8 for sample in _SAMPLES)


@cache
def _quiet(level: int) -> bytes:
    """The mu-law bytes whose magnitude is below ``level`` (of 32,124), for :meth:`bytes.translate`."""
    return bytes(code for code in range(256) if abs(_linear(code)) < level)


class Stretch(Struct):
    """Speech without a silence of more than the ear's ``split_ms``; milliseconds of the call."""

    started_ms: float
    ended_ms: float
    cut: bool = False


class Heard(Struct, frozen=True, kw_only=True):
    """One stretch of the agent's speech, as the caller heard it; milliseconds of the call."""

    started_ms: float
    ended_ms: float
    latency_ms: float | None = None
    """From the end of the caller's own speech to the first sound; ``None`` if he had not spoken yet."""
    cut: bool = False
    """It ended because the agent's side cleared what was still to come."""
    gaps: tuple[Gap, ...] = ()
    """Where the audio ran dry inside the stretch."""
    audio: bytes = b""
    """Mu-law, 8 kHz; empty in the light mode."""

    @property
    def duration_ms(self) -> float:
        """From the first sound to the last."""
        return self.ended_ms - self.started_ms

    def __repr__(self) -> str:
        cut = ", cut" if self.cut else ""
        return f"<Heard {self.started_ms:.0f}-{self.ended_ms:.0f} ms, {len(self.gaps)} gaps{cut}>"


class Spoken(NamedTuple):
    """When the caller himself spoke: from the first to the last sound, milliseconds of the call."""

    started_ms: float
    ended_ms: float


class Ear:
    """Finds speech in what is played: a window of 10 ms whose peak reaches ``level`` (of 32,124)."""

    def __init__(self, *, level: int = 300, split_ms: float = 300.0) -> None:
        self.split_ms = split_ms
        self.stretches: list[Stretch] = []
        self._quiet = _quiet(level)
        self._pending = b""
        self._pending_ms = 0.0

    def hear(self, fragment: Fragment) -> None:
        """Take the next piece of what was played."""
        at, data = fragment
        if self._pending and abs(at - self._pending_ms - len(self._pending) / BYTES_PER_MS) < 1.0:
            at, data = self._pending_ms, self._pending + data
        elif self._pending:
            self._window(self._pending_ms, self._pending)
        full = len(data) - len(data) % _WINDOW
        for start in range(0, full, _WINDOW):
            self._window(at + start / BYTES_PER_MS, data[start : start + _WINDOW])
        self._pending = data[full:]
        self._pending_ms = at + full / BYTES_PER_MS

    def cut(self, now_ms: float) -> None:
        """Unplayed audio was dropped now: what was sounding ends as cut."""
        if self._pending:
            self._window(self._pending_ms, self._pending)
            self._pending = b""
        if self.sounding(now_ms, self.split_ms):
            self.stretches[-1].cut = True

    def sounding(self, now_ms: float, within_ms: float) -> bool:
        """Whether speech was heard in the last ``within_ms``."""
        return bool(self.stretches) and now_ms - self.stretches[-1].ended_ms < within_ms

    def _window(self, at_ms: float, data: bytes) -> None:
        if not data.translate(None, self._quiet):
            return
        end = at_ms + len(data) / BYTES_PER_MS
        last = self.stretches[-1] if self.stretches else None
        if last is not None and at_ms - last.ended_ms < self.split_ms:
            last.ended_ms = end
            last.cut = False  # it went on after all: a pause, not a cut
        else:
            self.stretches.append(Stretch(at_ms, end))


class Track:
    """One direction of the call as mu-law from its first millisecond on, silence where nothing was."""

    def __init__(self) -> None:
        self._data = bytearray()

    @property
    def data(self) -> bytes:
        """All of it so far."""
        return bytes(self._data)

    def put(self, at_ms: float, data: bytes) -> None:
        """Write ``data`` at its place. What is already written stays: audio never overlaps."""
        missing = round(at_ms * BYTES_PER_MS) - len(self._data)
        if missing > 0:
            self._data += SILENCE * missing
        elif missing < -1:  # more than a rounding error
            data = data[-missing:]
        self._data += data

    def cut(self, from_ms: float, to_ms: float) -> bytes:
        """The audio between two times of the call."""
        return bytes(self._data[max(0, round(from_ms * BYTES_PER_MS)) : round(to_ms * BYTES_PER_MS)])


def is_silent(data: bytes, level: int = 300) -> bool:
    """Whether no sound in ``data`` reaches ``level``."""
    return not data.translate(None, _quiet(level))


def voiced_span(data: bytes, level: int = 300) -> tuple[float, float]:
    """Where in ``data`` the first and the last sound are, in milliseconds; ``(0, its length)`` if it is silent."""
    quiet = _quiet(level)
    loud = [start for start in range(0, len(data), _WINDOW) if data[start : start + _WINDOW].translate(None, quiet)]
    if not loud:
        return 0.0, len(data) / BYTES_PER_MS
    return loud[0] / BYTES_PER_MS, min(len(data), loud[-1] + _WINDOW) / BYTES_PER_MS


def stereo_wav(left: bytes, right: bytes) -> bytes:
    """A WAV file, 16 bit, 8 kHz, of two mu-law tracks: the caller on the left, the agent on the right."""
    size = max(len(left), len(right))
    frames = bytearray(4 * size)
    for channel, data in enumerate((left, right)):
        padded = data.ljust(size, SILENCE)
        frames[2 * channel :: 4] = padded.translate(_LOW)
        frames[2 * channel + 1 :: 4] = padded.translate(_HIGH)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(frames)
    return file.getvalue()
