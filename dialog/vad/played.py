"""How loud the agent sounds at this moment, told from what was posted to the line and what it reports.

The agent's side of a call does not see the line: it posts audio ahead of time and hears four times a
second how much of it was played. That is enough, since an echo comes late and spread out anyway.
"""

from __future__ import annotations

from dialog.audio.level import SILENCE_DBFS, Encoding, level_dbfs
from dialog.message import AudioFormat, Message, Playback

__all__ = ["PlayedAudio"]

_FRAME_MS = 20.0
_AHEAD_MS = 40.0
"""The line may be a little further than its last report says."""
_PARTS = 64
"""Parts that are remembered; older ones were never reported to their end."""


class _Part:
    __slots__ = ("done", "levels", "rest")

    def __init__(self) -> None:
        self.levels = bytearray()
        """Per 20 ms, in dB under full scale."""
        self.rest = b""
        self.done = False


class PlayedAudio:
    """Follows the audio of a call's parts: one byte for every 20 ms that may still be heard.

    Tell it everything that is posted to the line and everything that the line reports, and ask
    :meth:`level` for each frame of the caller::

        played.post(message); voip.post(message)
        voip.on(VoIP.PLAYBACK, lambda playback: played.report(playback, clock.now()))
        vad.playing(played.level(clock.now())); vad.post(message)

    Args:
        audio_format: Format of the line, G.711 or s16le.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._encoding: Encoding = audio_format.encoding
        self._frame_bytes = audio_format.size(_FRAME_MS)
        self._parts: dict[tuple[object, int], _Part] = {}
        """In the order in which they are played."""
        self._key: tuple[object, int] | None = None
        """What sounds now; None: nothing."""
        self._heard_ms = 0.0
        self._at = 0.0
        """When ``_heard_ms`` was true, in seconds of the clock."""
        self._told = 0
        """Frames of the part that :meth:`level` has told already."""

    def post(self, message: Message[bytes]) -> None:
        """A piece goes to the line."""
        key = (message.uuid, message.part)
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part()
            if len(self._parts) > _PARTS:
                del self._parts[next(iter(self._parts))]
        data = part.rest + message.data if part.rest else message.data
        size = self._frame_bytes
        end = len(data) - len(data) % size
        for start in range(0, end, size):
            part.levels.append(min(255, round(-level_dbfs(data[start : start + size], self._encoding))))
        part.rest = data[end:]
        part.done = message.done

    def report(self, playback: Playback, now: float) -> None:
        """The line says how far it is; ``now`` in seconds of the clock that :meth:`level` is asked with."""
        key = (playback.uuid, playback.part)
        if playback.state == "playing":
            if key in self._parts:
                if key != self._key:
                    self._told = int(playback.heard_ms // _FRAME_MS)
                self._key, self._heard_ms, self._at = key, playback.heard_ms, now
            return
        if playback.final:
            self._parts.pop(key, None)
        if key == self._key:
            self._key = None

    def level(self, now: float) -> float:
        """The loudest that sounded since the last call, in dBFS; :data:`SILENCE_DBFS` of nothing."""
        loudest = SILENCE_DBFS
        while self._key is not None:
            part = self._parts.get(self._key)
            if part is None:
                self._key = None
                break
            heard_ms = self._heard_ms + (now - self._at) * 1000.0
            count = len(part.levels)
            frame = int((heard_ms + _AHEAD_MS) // _FRAME_MS)
            told = part.levels[self._told : frame]
            if told:
                loudest = max(loudest, -float(min(told)))
                self._told = min(frame, count)
            if not part.done or heard_ms < count * _FRAME_MS:
                break
            # The next part follows without a gap; its first report may come a little later.
            self._next(heard_ms - count * _FRAME_MS, now)
        return loudest

    def _next(self, heard_ms: float, now: float) -> None:
        keys = iter(self._parts)
        for key in keys:
            if key == self._key:
                break
        self._key = next(keys, None)
        self._heard_ms, self._at, self._told = heard_ms, now, 0
