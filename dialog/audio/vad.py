"""Voice activity by level: somebody speaks when it is clearly louder than what is behind them.

It needs no model and no numpy, and hears a start within 60 ms on a quiet line, within 90 at 10 dB over
noise or a room full of voices (see benchmarks/vad.py). What it cannot do: tell speech from breath,
music or one other person who is as loud as the caller.
"""

from __future__ import annotations

from collections import deque
from operator import itemgetter

from dialog.audio.g711 import ALAW_SAMPLES, MULAW_SAMPLES
from dialog.audio.keys import is_key
from dialog.audio.level import SILENCE_DBFS, Encoding, level_dbfs
from dialog.audio.noise_floor import NoiseFloor
from dialog.audio.pcm import samples
from dialog.message import MULAW_8K, AudioFormat, SpeechEdge

__all__ = ["LevelVAD"]

_FRAME_MS = 20.0
_FRAME_S = _FRAME_MS / 1000.0
_FRAME_EVIDENCE_DB = 8.0
"""What one frame can add to the evidence: a single bang starts nothing."""
_PEAK_FALL_DB = 1.0 * _FRAME_S
_PLAYED_FALL_DB = 30.0 * _FRAME_S
_PLAYED_HOLD = 12
"""Frames for which what was played counts in full: an echo may be a quarter of a second on its way."""
_CODES = {"mulaw": MULAW_SAMPLES, "alaw": ALAW_SAMPLES}


class LevelVAD:
    """Hears when a caller starts and stops speaking, on audio of any chunk size.

    A frame of 20 ms holds speech if it is louder than all of: the tracked noise floor + the spread of the
    noise + ``on_db`` (+ ``off_db`` while somebody speaks), ``least_dbfs``, the loudest recent speech -
    ``below_peak_db``, and what the line plays - ``guard_db``. Speech starts with ``start_frames`` such
    frames among the last ``of_frames``, if together they are ``evidence_db`` over it, and stops after
    ``hang_ms`` without one. The tones of keys start nothing.

    The times of the edges are those of the voice, not of the decision: ``started`` is where the first
    of those frames begins, ``stopped`` where the last frame of speech ends, ``hang_ms`` before it is known.

    Args:
        audio_format: Format of the audio, G.711 or s16le.
        hang_ms: Silence that ends speech. 300 to 500 suits conversation.
        start_frames: Frames of speech that start it; more: fewer false starts, 20 ms later each.
        of_frames: Among how many of the newest frames.
        evidence_db: Decibels over the threshold that they must sum up to, each counted up to 8.
        on_db: Decibels over the noise that count as speech.
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
        evidence_db: float = 12.0,
        on_db: float = 2.5,
        off_db: float = 1.5,
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
        if not 0 <= evidence_db <= _FRAME_EVIDENCE_DB * start_frames:
            raise ValueError(f"need 0 <= evidence_db <= 8 * start_frames, got {evidence_db} and {start_frames}")
        self.audio_format = audio_format
        self._encoding: Encoding = audio_format.encoding
        self._frame_bytes = audio_format.size(_FRAME_MS)
        self._hang_ms = hang_ms
        self._start_frames = start_frames
        self._of_frames = of_frames
        self._evidence_db = evidence_db
        self._on_db = on_db
        self._off_db = off_db
        self._least = least_dbfs
        # A lower floor would change no decision, but make the noise seem to vary.
        self._lowest_floor = least_dbfs - 9.0
        self._below_peak = below_peak_db
        self._guard = guard_db
        self.reset()

    def reset(self) -> None:
        """Forget everything: for another call."""
        self.speaking = False
        """Somebody speaks, as far as edges have said."""
        self.level = SILENCE_DBFS
        """Level of the last frame in dBFS."""
        self._noise = NoiseFloor(self._lowest_floor, _FRAME_MS)
        self._held = b""
        self._next_ms = 0.0
        """Where the next frame begins on the call's audio clock."""
        self._window: deque[float] = deque([-1.0] * self._of_frames, maxlen=self._of_frames)
        """Of the newest frames: evidence, or -1 for one without speech."""
        self._last_speech_ms = 0.0
        """End of the last frame of speech."""
        self._previous = SILENCE_DBFS
        """Level of the frame before, if it was speech."""
        self._key = False
        """The frame before was a key's."""
        self._peak = SILENCE_DBFS
        self._played = SILENCE_DBFS
        self._played_hold = 0

    @property
    def floor(self) -> float:
        """Tracked level of the noise in dBFS."""
        return self._noise.floor

    def playing(self, level_dbfs: float) -> None:
        """Tell the level of what the caller hears now, so that its echo is not taken for the caller.

        Call it for each piece as it is played. It is remembered for a quarter of a second, then falls by
        30 dB a second.
        """
        if level_dbfs >= self._played:
            self._played = level_dbfs
            self._played_hold = _PLAYED_HOLD

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
        noise = self._noise
        noise.follow(level, speaking=self.speaking)
        margin = self._off_db if self.speaking else self._on_db
        threshold = max(
            noise.floor + noise.spread + margin, self._least, self._peak - self._below_peak, self._played - self._guard
        )
        self._peak -= _PEAK_FALL_DB
        if self._played_hold:
            self._played_hold -= 1
        else:
            self._played -= _PLAYED_FALL_DB
        if level <= threshold:
            self._window.append(-1.0)
            self._previous = SILENCE_DBFS
            self._key = False
            if self.speaking and end_ms - self._last_speech_ms >= self._hang_ms:
                self._stop(edges)
            return
        if not self.speaking and self._is_key(frame):
            return
        self._window.append(min(level - threshold, _FRAME_EVIDENCE_DB))
        if self._previous > SILENCE_DBFS or not self.speaking:
            self._last_speech_ms = end_ms  # one frame alone, a knock or a voice in the room, goes for nothing
        # A click is one loud frame: what counts as loud is the quieter of two in a row.
        self._peak = max(self._peak, min(level, self._previous))
        self._previous = level
        if not self.speaking:
            self._consider(start_ms, edges)

    def _consider(self, start_ms: float, edges: list[SpeechEdge]) -> None:
        evidence = [one for one in self._window if one >= 0.0]
        if len(evidence) < self._start_frames or sum(evidence) < self._evidence_db:
            return
        self.speaking = True
        age = next(age for age, one in enumerate(self._window) if one >= 0.0)
        first = start_ms - (self._of_frames - 1 - age) * _FRAME_MS
        edges.append(SpeechEdge(state="started", at_ms=max(0.0, first)))

    def _is_key(self, frame: bytes) -> bool:
        """Whether a frame is a key's tone, or the rest of one."""
        values = samples(frame) if self._encoding == "s16le" else itemgetter(*frame)(_CODES[self._encoding])
        before, self._key = self._key, is_key(values, self.audio_format.sample_rate)
        if not before and not self._key:
            return False
        self._forget_frames()  # its beginning may have been taken for speech
        return True

    def _forget_frames(self) -> None:
        self._window.extend([-1.0] * self._of_frames)
        self._previous = SILENCE_DBFS

    def _jump(self, at_ms: float, edges: list[SpeechEdge]) -> None:
        # Back in time only another clock goes; forward, what is missing was not speech.
        if self.speaking and not 0 <= at_ms - self._last_speech_ms < self._hang_ms:
            self._stop(edges)
        self._held = b""
        self._forget_frames()

    def _stop(self, edges: list[SpeechEdge]) -> None:
        self.speaking = False
        self._forget_frames()
        edges.append(SpeechEdge(state="stopped", at_ms=self._last_speech_ms))
