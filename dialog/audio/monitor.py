"""Both sides of a call as they sound now, for somebody who listens in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dialog.audio.convert import Converter
from dialog.audio.level import SILENCE_DBFS, level_dbfs
from dialog.audio.mix import mix
from dialog.message import AudioFormat

__all__ = ["Heard", "Monitor"]

_DELAY_MS = 100.0
"""So much later than the call it is heard: the caller's audio does not come evenly."""
_KEEP_MS = 2000.0
"""What nobody has taken for so long is left out."""
_AHEAD_MS = 10_000.0
"""A line tells so much of the agent's audio before it sounds, at most."""


class Heard(NamedTuple):
    """A stretch of a call."""

    mixed: bytes
    """Both sides in one channel, s16le in the call's rate; empty if only levels were wanted."""
    ms: float
    """How long it is."""
    caller_dbfs: float
    agent_dbfs: float


class Monitor:
    """A tap of a call's line, from which its sound is taken in step with the call.

    The line hands over the caller's audio as it comes, and the agent's a moment before it sounds; the one is put where
    it came, the other where it will sound. What is not taken is dropped: a listener who cannot keep up hears a gap,
    and costs nothing but that.

    Args:
        audio_format: Of the line.
        now: Tells the time on the call's audio clock, in milliseconds: :attr:`dialog.voip.call.Call.audio_ms`.
    """

    def __init__(self, audio_format: AudioFormat, now: Callable[[], float]) -> None:
        self.audio_format = audio_format
        self._now = now
        self._caller = _Lane(audio_format)
        self._agent = _Lane(audio_format)
        self._plain = Converter(audio_format, AudioFormat("s16le", audio_format.sample_rate))
        self._per_ms = audio_format.sample_rate / 1000.0
        self._at: int | None = None
        """Where the next stretch begins, in samples of the call's audio clock."""

    def caller(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        del at_ms  # their clock may be behind ours; who listens wants to hear what comes
        size = len(data) // self.audio_format.sample_bytes
        end = round(self._now() * self._per_ms)
        joined = self._caller.end + size
        self._caller.put(joined - size if abs(joined - end) < _DELAY_MS * self._per_ms else end - size, data)

    def agent(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        if at_ms < self._now() + _AHEAD_MS:
            self._agent.put(round(at_ms * self._per_ms), data)

    def agent_cleared(self, at_ms: float) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        self._agent.cut(round(at_ms * self._per_ms))

    def take(self, *, sound: bool = True) -> Heard | None:
        """What has sounded since the last time; ``None``: nothing yet.

        Args:
            sound: Mix both sides; otherwise only their levels are told.
        """
        until = round((self._now() - _DELAY_MS) * self._per_ms)
        if self._at is None or self._at >= until:
            self._at = until if self._at is None else self._at
            return None
        at = max(self._at, until - round(_KEEP_MS * self._per_ms))
        self._at, count = until, until - at
        caller, agent = self._caller.take(at, count), self._agent.take(at, count)
        encoding, ms = self.audio_format.encoding, count / self._per_ms
        return Heard(
            mixed=self._plain.process(mix(caller, agent, encoding) or self.audio_format.silence(ms)) if sound else b"",
            ms=ms,
            caller_dbfs=level_dbfs(caller, encoding) if caller else SILENCE_DBFS,
            agent_dbfs=level_dbfs(agent, encoding) if agent else SILENCE_DBFS,
        )


class _Lane:
    """Audio of one side, from a position on; what lies between pieces is silence. Positions are samples."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._width = audio_format.sample_bytes
        self._silence = audio_format.silence(1000.0)[: self._width]
        self._most = round((_AHEAD_MS + _KEEP_MS) * audio_format.sample_rate / 1000.0)
        self._data = bytearray()
        self._start = 0

    @property
    def end(self) -> int:
        """Behind its last sample."""
        return self._start + len(self._data) // self._width

    def put(self, at: int, data: bytes) -> None:
        """Add a piece; the part of it that is there already is left out."""
        end = self.end
        if at < end:
            data, at = data[(end - at) * self._width :], end
        if not data:
            return
        if not self._data or at - end > self._most:
            self._start, self._data = at, bytearray(data)
        else:
            self._data += self._silence * (at - end) + data
            self.drop(self.end - self._most)

    def cut(self, at: int) -> None:
        """Forget everything from ``at`` on."""
        del self._data[max(0, at - self._start) * self._width :]

    def drop(self, before: int) -> None:
        """Forget everything before a position."""
        gone = max(0, before - self._start)
        del self._data[: gone * self._width]
        self._start += gone

    def take(self, at: int, count: int) -> bytes:
        """``count`` samples from ``at`` on, and forget them; empty: nothing but silence."""
        self.drop(at)
        lead = self._start - at
        if lead >= count or not self._data:
            self.drop(at + count)
            return b""
        size = (count - lead) * self._width
        piece = self._silence * lead + bytes(self._data[:size])
        self.drop(at + count)
        return piece + self._silence * (count - len(piece) // self._width)
