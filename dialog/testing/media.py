"""The carrier's playback buffer, as a pure object: what is played when, marks, clear.

Times are milliseconds of the call. Facts: Twilio Media Streams, "media", "mark" and "clear" messages
to Twilio: media is played in order at 8,000 samples a second; a mark is echoed when everything sent
before it was played, at once if nothing is; ``clear`` drops what was not played and has every
pending mark echoed immediately.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Cleared", "Fragment", "Gap", "PlaybackBuffer"]

BYTES_PER_MS = 8
"""Mu-law at 8 kHz."""
LIMIT_MS = 600_000.0
"""Audio that a buffer takes before it drops what comes: the carrier publishes no figure."""
_SHORTEST_GAP_MS = 1.0


class Fragment(NamedTuple):
    """Audio that was played from ``at_ms`` on, without a break inside."""

    at_ms: float
    data: bytes


class Gap(NamedTuple):
    """The buffer ran dry, and audio came again after ``duration_ms``."""

    at_ms: float
    duration_ms: float
    marked: bool
    """A mark stood exactly where the audio ran out: probably the end of something."""


class Cleared(NamedTuple):
    """What a ``clear`` did."""

    marks: tuple[str, ...]
    """Flushed, in their order: to be echoed now."""
    dropped_ms: float
    """Audio that was not played and never will be."""


class PlaybackBuffer:
    """Plays what it is fed, by the times it is told."""

    def __init__(self) -> None:
        self._queue: deque[Fragment] = deque()
        self._end_ms: float | None = None
        """When the buffer runs dry, or did; ``None`` after a clear and before the first audio."""
        self._marks: deque[tuple[str, float]] = deque()
        self._marked_ms = -1.0
        self.gaps: list[Gap] = []
        self.overflow_ms: float = 0.0
        """Audio that was refused because the buffer was full."""

    @property
    def next_mark_ms(self) -> float | None:
        """When the next mark is to be echoed."""
        return self._marks[0][1] if self._marks else None

    def unplayed_ms(self, now_ms: float) -> float:
        """How much audio is still to be played."""
        return max(0.0, self._end_ms - now_ms) if self._end_ms is not None else 0.0

    def feed(self, data: bytes, now_ms: float) -> None:
        """Queue audio that arrived now."""
        if not data:
            return
        end = self._end_ms
        if end is None or end <= now_ms:
            if end is not None and now_ms - end >= _SHORTEST_GAP_MS:
                self.gaps.append(Gap(end, now_ms - end, self._marked_ms >= end))
            start = now_ms
        elif end - now_ms > LIMIT_MS:
            self.overflow_ms += len(data) / BYTES_PER_MS
            return
        else:
            start = end
        self._queue.append(Fragment(start, data))
        self._end_ms = start + len(data) / BYTES_PER_MS

    def mark(self, name: str, now_ms: float) -> None:
        """Take a mark; :meth:`due_marks` gives it back when it is to be echoed."""
        due = now_ms if self._end_ms is None else max(now_ms, self._end_ms)
        if self._end_ms is not None:
            self._marked_ms = self._end_ms
        self._marks.append((name, due))

    def due_marks(self, now_ms: float) -> list[str]:
        """Take out the marks whose audio was played by now."""
        names: list[str] = []
        while self._marks and self._marks[0][1] <= now_ms:
            names.append(self._marks.popleft()[0])
        return names

    def clear(self, now_ms: float) -> Cleared:
        """Drop what is not played; call :meth:`played` first to learn what was."""
        names = tuple(name for name, _ in self._marks)
        self._marks.clear()
        dropped = self.unplayed_ms(now_ms)
        self._queue.clear()
        self._end_ms = None
        return Cleared(names, dropped)

    def played(self, now_ms: float) -> list[Fragment]:
        """Take out what was played since the last time, cut at ``now_ms``."""
        out: list[Fragment] = []
        while self._queue:
            at, data = self._queue[0]
            if at >= now_ms:
                break
            size = int((now_ms - at) * BYTES_PER_MS)
            if size >= len(data):
                out.append(self._queue.popleft())
                continue
            if size:
                out.append(Fragment(at, data[:size]))
                self._queue[0] = Fragment(at + size / BYTES_PER_MS, data[size:])
            break
        return out
