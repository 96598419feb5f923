"""Recording of a call in two channels, as it was heard."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal

from dialog.audio.convert import Converter
from dialog.audio.g711 import mulaw_encode
from dialog.audio.level import peak
from dialog.audio.mix import mix
from dialog.audio.wav import StrPath, write_wav
from dialog.message import MULAW_8K, AudioFormat

__all__ = ["StereoRecorder"]

_RUN_S = 60
"""Seconds in one stretch of memory, so that appending never moves more than half a megabyte."""
_SNAP_S = 0.005
"""Agent audio that starts this close to the end of what came before continues it."""


class StereoRecorder:
    """Keeps both sides of a call and writes them as one file: caller left, agent right.

    A line calls :meth:`caller`, :meth:`agent` and :meth:`agent_cleared` as things happen; these only
    store bytes at positions on the call's audio clock, in the line's own format (mu-law: 480 kB a
    minute and side). Silence costs nothing. :meth:`write` and :meth:`levels` take longer and may run
    in a thread while the call goes on; they see what was stored until then.

    Args:
        audio_format: Format of the line; the file has its sample rate.
        max_s: What lies beyond this many seconds is not recorded (4 hours: at most 230 MB of mu-law).
    """

    def __init__(self, audio_format: AudioFormat = MULAW_8K, *, max_s: float = 4 * 3600.0) -> None:
        self.audio_format = audio_format
        self.max_s = max_s
        self._caller = _Track(audio_format, max_s)
        self._agent = _Track(audio_format, max_s)
        self._rate_ms = audio_format.sample_rate / 1000.0
        self._snap = int(audio_format.sample_rate * _SNAP_S)

    def caller(self, at_ms: float, data: bytes) -> None:
        """Audio of the caller, whole samples, that starts at ``at_ms``; what is there already stays."""
        self._caller.put(round(at_ms * self._rate_ms), data)

    def agent(self, at_ms: float, data: bytes) -> None:
        """Audio of the agent, whole samples, that begins to play at ``at_ms``.

        A line plays one piece after the other: audio that would begin before the end of the last
        begins at that end. Gaps of less than 5 ms are estimates of a clock, not silence.
        """
        at = round(at_ms * self._rate_ms)
        end = self._agent.end
        self._agent.put(end if at < end + self._snap and end else at, data)

    def agent_cleared(self, at_ms: float) -> None:
        """The line was cleared: agent audio from ``at_ms`` on was sent and never heard."""
        self._agent.cut(round(at_ms * self._rate_ms))

    @property
    def duration_ms(self) -> float:
        """Length of the recording: the end of the last audio of either side."""
        return max(self._caller.end, self._agent.end) / self._rate_ms

    @property
    def full(self) -> bool:
        """``max_s`` was reached; audio beyond it was left out."""
        return self._caller.full or self._agent.full

    def write(
        self,
        path: StrPath,
        mode: Literal["stereo", "mono"] = "stereo",
        *,
        encoding: Literal["s16le", "mulaw"] = "s16le",
    ) -> None:
        """Write a WAV file: two channels, caller left and agent right, or both mixed into one.

        Args:
            path: Where to.
            mode: See above.
            encoding: 16-bit PCM, or mu-law in half the space.

        Raises:
            OSError: The file cannot be written.
        """
        stereo = mode == "stereo"
        chunks = (_interleave(*pair) if stereo else mix(*pair) for pair in self._pairs())
        if encoding == "mulaw":
            chunks = (mulaw_encode(chunk) for chunk in chunks)
        write_wav(path, chunks, self.audio_format.sample_rate, channels=2 if stereo else 1, encoding=encoding)

    def levels(self, bucket_ms: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Peaks of caller and agent for drawing, 0.0 to 1.0, one for every ``bucket_ms``; both equally long.

        Raises:
            ValueError: ``bucket_ms`` is shorter than a sample.
        """
        bucket = round(bucket_ms * self._rate_ms)
        if bucket < 1:
            raise ValueError(f"bucket_ms must be at least one sample, got {bucket_ms}")
        end = max(self._caller.end, self._agent.end)
        encoding = self.audio_format.encoding

        def peaks(track: _Track) -> tuple[float, ...]:
            return tuple(peak(track.read(at, min(bucket, end - at)), encoding) / 32768 for at in range(0, end, bucket))

        return peaks(self._caller), peaks(self._agent)

    def _pairs(self) -> Iterator[tuple[bytes, bytes]]:
        """Both sides as s16le, a second at a time."""
        rate = self.audio_format.sample_rate
        plain = Converter(self.audio_format, AudioFormat("s16le", rate))
        end = max(self._caller.end, self._agent.end)
        for at in range(0, end, rate):
            count = min(rate, end - at)
            yield plain.process(self._caller.read(at, count)), plain.process(self._agent.read(at, count))


def _interleave(left: bytes, right: bytes) -> bytes:
    # Samples are moved and not looked at, so the order of their bytes does not matter.
    both = array("h", bytes(2 * len(left)))
    both[0::2] = array("h", left)
    both[1::2] = array("h", right)
    return both.tobytes()


class _Track:
    """Audio at positions, in stretches that are ordered and do not overlap. Positions are samples."""

    def __init__(self, audio_format: AudioFormat, max_s: float) -> None:
        self._width = audio_format.sample_bytes
        self._silence = audio_format.silence(1000.0)[: self._width]
        self._run_bytes = _RUN_S * audio_format.sample_rate * self._width
        self._most = int(max_s * audio_format.sample_rate)
        self._runs: list[tuple[int, bytearray]] = []
        self.end = 0
        self.full = False

    def put(self, at: int, data: bytes) -> None:
        """Store audio at ``at``; the part of it that lies before the end of the track is left out."""
        width = self._width
        size = len(data)
        end = self.end
        if at < end:
            data = data[(end - at) * width :]
            size = len(data)
            at = end
        if at + size // width > self._most:
            self.full = True
            data = data[: max(0, self._most - at) * width]
            size = len(data)
        if not size:
            return
        runs = self._runs
        if at == end and runs and len(runs[-1][1]) + size <= self._run_bytes:
            runs[-1][1].extend(data)
        else:
            runs.append((at, bytearray(data)))
        self.end = at + size // width

    def cut(self, at: int) -> None:
        """Forget everything from ``at`` on."""
        at = max(0, at)
        if at >= self.end:
            return
        runs = self._runs
        while runs and runs[-1][0] >= at:
            runs.pop()
        if runs:
            start, held = runs[-1]
            del held[(at - start) * self._width :]
            self.end = start + len(held) // self._width
        else:
            self.end = 0

    def read(self, at: int, count: int) -> bytes:
        """``count`` samples from ``at`` on, silence where there are none."""
        width = self._width
        # One step of the interpreter: a thread that reads never sees the list change under it.
        runs = tuple(self._runs)
        parts: list[bytes] = []
        stop = at + count
        index = max(0, bisect_right(runs, at, key=_start) - 1)
        for start, held in runs[index:]:
            if start >= stop:
                break
            piece = bytes(held[max(0, at - start) * width : (stop - start) * width])
            if piece:
                gap = max(0, start - at)
                parts += (self._silence * gap, piece)
                at += gap + len(piece) // width
        parts.append(self._silence * (stop - at))
        return b"".join(parts)


def _start(run: tuple[int, bytearray]) -> int:
    return run[0]
