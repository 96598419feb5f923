"""Both sides of a call as they sound now, for somebody who listens in."""

from __future__ import annotations

from typing import NamedTuple

from dialog.audio.convert import Converter
from dialog.audio.level import SILENCE_DBFS, level_dbfs
from dialog.audio.mix import mix
from dialog.message import MULAW_8K, AudioFormat

__all__ = ["Heard", "Monitor"]

_KEEP_MS = 2000.0
"""What nobody has taken for so long is left out."""
_AHEAD_MS = 10_000.0
"""A line tells so much of the agent's audio before it sounds, at most."""
_SILENT_MS = 400.0
"""When the caller's side has sent nothing for so long, time goes on without it."""


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

    The line hands over the caller's audio as it comes, and the agent's a moment before it sounds; both lie at
    positions of the call's audio clock, where they are mixed. What is not taken is dropped: a listener who cannot
    keep up hears a gap, and costs nothing but that.

    Args:
        audio_format: Of the line.
    """

    def __init__(self, audio_format: AudioFormat = MULAW_8K) -> None:
        self.audio_format = audio_format
        self._caller = _Lane(audio_format)
        self._agent = _Lane(audio_format)
        self._plain = Converter(audio_format, AudioFormat("s16le", audio_format.sample_rate))
        self._per_ms = audio_format.sample_rate / 1000.0
        self._at: int | None = None
        """Where the next stretch begins, in samples of the call's audio clock."""
        self._waited_ms = 0.0

    def caller(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        at = round(at_ms * self._per_ms)
        if self._at is None:
            self._at = at
        self._caller.put(at, data)
        late = self._caller.end - self._at - round(_KEEP_MS * self._per_ms)
        if late > 0:
            self._skip(self._at + late)

    def agent(self, at_ms: float, data: bytes) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        at = round(at_ms * self._per_ms)
        if self._at is None:
            self._at = at
        if at - self._at < _AHEAD_MS * self._per_ms:
            self._agent.put(at, data)

    def agent_cleared(self, at_ms: float) -> None:
        """See :class:`~dialog.voip.line.Tap`."""
        self._agent.cut(round(at_ms * self._per_ms))

    def take(self, elapsed_ms: float, *, sound: bool = True) -> Heard | None:
        """What has sounded since the last time, ``elapsed_ms`` ago; ``None``: nothing yet.

        Args:
            elapsed_ms: By a clock; it is the caller's audio that counts, as long as some comes.
            sound: Mix both sides; otherwise only their levels are told.
        """
        if self._at is None:
            return None
        count = self._caller.end - self._at
        if count > 0:
            self._waited_ms = 0.0
        else:
            self._waited_ms += elapsed_ms
            if self._waited_ms < _SILENT_MS:
                return None
            count = round(elapsed_ms * self._per_ms)
        caller, agent = self._caller.take(self._at, count), self._agent.take(self._at, count)
        self._at += count
        encoding, ms = self.audio_format.encoding, count / self._per_ms
        return Heard(
            mixed=self._plain.process(mix(caller, agent, encoding) or self.audio_format.silence(ms)) if sound else b"",
            ms=ms,
            caller_dbfs=level_dbfs(caller, encoding) if caller else SILENCE_DBFS,
            agent_dbfs=level_dbfs(agent, encoding) if agent else SILENCE_DBFS,
        )

    def _skip(self, at: int) -> None:
        self._caller.drop(at)
        self._agent.drop(at)
        self._at = at


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
