"""How loud it is behind a voice, and how much that varies, told from the levels of the last seconds."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

__all__ = ["NoiseFloor"]

_WINDOW_MS = 3000.0
"""In which the noise is looked for: in three seconds even a fast talker is quiet for a while."""
_FEW_MS = 500.0
"""With less than this, the noise is taken to be the quietest there was."""
_FLOOR_PART = 0.15
_LOW_PART = 0.05
"""The floor is the level that 15 % of the window stay under; how far it lies over that of 5 % tells how
much the noise varies: a quarter of a dB for a hiss, three for a room of voices."""
_SPREAD = 1.9
"""Single frames of noise reach so many times that over the floor …"""
_MOST_SPREAD_DB = 6.0
"""… but what varies by more than this is not noise: speech has just ended."""
_HIGH_PART = 0.75
_STEADY_DB = 3.0
"""Where three quarters of the window differ by less, it is no voice, and at once the floor."""
_RISE_DB_S = 2.0
"""What the floor rises at most in a second while somebody speaks."""


class NoiseFloor:
    """Follows the noise of a line through levels of frames; a frame costs about a microsecond.

    Args:
        lowest_dbfs: Quieter frames count as this loud: a lower floor would decide nothing, and make the
            noise seem to vary.
        frame_ms: What a frame lasts.
    """

    def __init__(self, lowest_dbfs: float, frame_ms: float) -> None:
        self.floor = lowest_dbfs
        """Level of the noise in dBFS."""
        self.spread = 0.0
        """How far single frames of the noise reach over the floor, in dB."""
        self._lowest = lowest_dbfs
        self._window = round(_WINDOW_MS / frame_ms)
        self._few = round(_FEW_MS / frame_ms)
        self._rise = _RISE_DB_S * frame_ms / 1000.0
        self._levels: deque[float] = deque()
        """Of the newest frames …"""
        self._sorted: list[float] = []
        """… and in order."""

    def follow(self, level: float, *, speaking: bool) -> None:
        """Take the level of the next frame; while somebody speaks, the floor rises only slowly."""
        level = max(level, self._lowest)
        ordered = self._sorted
        self._levels.append(level)
        insort(ordered, level)
        count = len(ordered)
        if count > self._window:
            del ordered[bisect_left(ordered, self._levels.popleft())]
            count = self._window
        if count < self._few:
            self.floor = ordered[0]
            return
        floor, low = ordered[int(count * _FLOOR_PART)], ordered[int(count * _LOW_PART)]
        if speaking and floor > self.floor:
            steady = ordered[int(count * _HIGH_PART)] - low < _STEADY_DB
            self.floor = floor if steady else min(floor, self.floor + self._rise)
            return
        self.floor = floor
        self.spread = min(_MOST_SPREAD_DB, _SPREAD * (floor - low))
