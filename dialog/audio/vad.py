"""Voice activity by level: somebody speaks when it is clearly louder than the line's own noise.

It needs no model and no numpy, hears a start within 60 ms, and is right for telephone lines without
loud talk in the background. What it cannot do: tell speech from breath, music or other people.
"""

from __future__ import annotations

from dialog.audio.level import SILENCE_DBFS, Encoding, level_dbfs
from dialog.message import MULAW_8K, AudioFormat, SpeechEdge

__all__ = ["LevelVAD"]

_FRAME_MS = 20.0
_FRAME_S = _FRAME_MS / 1000.0
_FLOOR_FALL = 0.3
"""Part of the gap that the noise floor falls in one frame."""
_FLOOR_RISE_DB = 2.0 * _FRAME_S
"""What the noise floor rises at most in one frame: 2 dB a second."""
_PEAK_FALL_DB = 1.0 * _FRAME_S
_PLAYED_FALL_DB = 30.0 * _FRAME_S


class LevelVAD:
    """Hears when a caller starts and stops speaking, on audio of any chunk size.

    A frame of 20 ms holds speech if it is louder than all of: the tracked noise floor + ``on_db``
    (+ ``off_db`` while somebody speaks), ``least_dbfs``, the loudest recent speech - ``below_peak_db``,
    and what the line plays - ``guard_db``. Speech starts with ``start_frames`` such frames among the
    last ``of_frames``, and stops after ``hang_ms`` without one.

    The times of the edges are those of the voice, not of the decision: ``started`` is where the first
    of those frames begins, ``stopped`` where the last frame of speech ends, ``hang_ms`` before it is known.

    Args:
        audio_format: Format of the audio, G.711 or s16le.
        hang_ms: Silence that ends speech. 300 to 500 suits conversation.
        start_frames: Frames of speech that start it; more: fewer false starts, 20 ms later each.
        of_frames: Among how many of the newest frames.
        on_db: Decibels over the noise floor that count as speech.
        off_db: The same while somebody speaks; lower, so that quiet ends of words are kept.
        least_dbfs: Quieter is never speech.
        below_peak_db: Ends turns in spite of talk in the background that is so much quieter.
        guard_db: Echo of what is played comes back at least so much quieter (see :meth:`playing`).

    Raises:
        ValueError: The parameters contradict each other.
    """

    def __init__(
        self,
        audio_format: AudioFormat = MULAW_8K,
        *,
        hang_ms: float = 400.0,
        start_frames: int = 3,
        of_frames: int = 5,
        on_db: float = 9.0,
        off_db: float = 6.0,
        least_dbfs: float = -48.0,
        below_peak_db: float = 20.0,
        guard_db: float = 12.0,
    ) -> None:
        if not 1 <= start_frames <= of_frames:
            raise ValueError(f"need 1 <= start_frames <= of_frames, got {start_frames} of {of_frames}")
        if hang_ms < of_frames * _FRAME_MS:
            raise ValueError(f"hang_ms must be at least {of_frames * _FRAME_MS:.0f}, got {hang_ms}")
        if not 0 < off_db <= on_db:
            raise ValueError(f"need 0 < off_db <= on_db, got {off_db} and {on_db}")
        self.audio_format = audio_format
        self._encoding: Encoding = audio_format.encoding
        self._frame_bytes = audio_format.size(_FRAME_MS)
        self._hang_ms = hang_ms
        self._start_frames = start_frames
        self._of_frames = of_frames
        self._window_mask = (1 << of_frames) - 1
        self._on_db = on_db
        self._off_db = off_db
        self._least = least_dbfs
        # A lower floor would change no decision, but take long to climb from when noise begins.
        self._lowest_floor = least_dbfs - on_db
        self._below_peak = below_peak_db
        self._guard = guard_db
        self.reset()

    def reset(self) -> None:
        """Forget everything: for another call."""
        self.speaking = False
        """Somebody speaks, as far as edges have said."""
        self.level = SILENCE_DBFS
        """Level of the last frame in dBFS."""
        self.floor = self._lowest_floor
        """Tracked level of the noise in dBFS."""
        self._fresh = True
        self._held = b""
        self._next_ms = 0.0
        """Where the next frame begins on the call's audio clock."""
        self._window = 0
        """The newest frames as bits, newest lowest; set: speech."""
        self._last_speech_ms = 0.0
        """End of the last frame of speech."""
        self._previous = SILENCE_DBFS
        """Level of the frame before, if it was speech."""
        self._peak = SILENCE_DBFS
        self._played = SILENCE_DBFS

    def playing(self, level_dbfs: float) -> None:
        """Tell the level of what the caller hears now, so that its echo is not taken for the caller.

        Call it for each piece as it is played; the memory of it falls by 30 dB a second.
        """
        self._played = max(self._played, level_dbfs)

    def feed(self, data: bytes, at_ms: float) -> tuple[SpeechEdge, ...]:
        """Take audio that starts at ``at_ms`` on the call's audio clock; edges that became known.

        A jump of the clock counts as silence; a jump back starts over from there.
        """
        edges: list[SpeechEdge] = []
        held = self._held
        if held:
            at_ms -= self.audio_format.ms(len(held))
            data = held + data
        if abs(at_ms - self._next_ms) >= _FRAME_MS:
            if held:
                data = data[len(held) :]
                at_ms += self.audio_format.ms(len(held))
            self._jump(at_ms, edges)
        self._next_ms = at_ms
        size = self._frame_bytes
        if len(data) == size:
            self._held = b""
            self._frame(data, edges)
            return tuple(edges)
        end = len(data) - len(data) % size
        for start in range(0, end, size):
            self._frame(data[start : start + size], edges)
        self._held = data[end:]
        return tuple(edges)

    def _frame(self, frame: bytes, edges: list[SpeechEdge]) -> None:
        level = level_dbfs(frame, self._encoding)
        self.level = level
        start_ms = self._next_ms
        self._next_ms = end_ms = start_ms + _FRAME_MS
        floor = self.floor
        if self._fresh:
            self._fresh = False
            floor = level
        elif level < floor:
            floor += _FLOOR_FALL * (level - floor)
        else:
            floor = min(level, floor + _FLOOR_RISE_DB)
        self.floor = floor = max(floor, self._lowest_floor)
        margin = self._off_db if self.speaking else self._on_db
        threshold = max(floor + margin, self._least, self._peak - self._below_peak, self._played - self._guard)
        self._peak -= _PEAK_FALL_DB
        self._played -= _PLAYED_FALL_DB
        if level > threshold:
            self._window = (self._window << 1 | 1) & self._window_mask
            self._last_speech_ms = end_ms
            # A click is one loud frame: what counts as loud is the quieter of two in a row.
            self._peak = max(self._peak, min(level, self._previous))
            self._previous = level
            if not self.speaking and self._window.bit_count() >= self._start_frames:
                self.speaking = True
                first = start_ms - (self._window.bit_length() - 1) * _FRAME_MS
                edges.append(SpeechEdge(state="started", at_ms=max(0.0, first)))
        else:
            self._window = self._window << 1 & self._window_mask
            self._previous = SILENCE_DBFS
            if self.speaking and end_ms - self._last_speech_ms >= self._hang_ms:
                self._stop(edges)

    def _jump(self, at_ms: float, edges: list[SpeechEdge]) -> None:
        # Back in time only another clock goes; forward, what is missing was not speech.
        if self.speaking and not 0 <= at_ms - self._last_speech_ms < self._hang_ms:
            self._stop(edges)
        self._held = b""
        self._window = 0
        self._previous = SILENCE_DBFS

    def _stop(self, edges: list[SpeechEdge]) -> None:
        self.speaking = False
        self._window = 0
        edges.append(SpeechEdge(state="stopped", at_ms=self._last_speech_ms))
