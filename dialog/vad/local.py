"""Voice activity by level, as a participant: the default, without any model or package."""

from __future__ import annotations

from typing import ClassVar

from dialog.audio.vad import LevelVAD
from dialog.errors import ConfigurationError, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message
from dialog.vad.vad import VAD

__all__ = ["LocalVAD"]

_SHORTEST_MS = 100.0
_LONGEST_MS = 5000.0


class LocalVAD(VAD):
    """Hears the caller by level (see :class:`~dialog.audio.vad.LevelVAD`), on the event loop: it costs microseconds.

    Args:
        hang_ms: Silence after which speech has stopped, 100 to 5000. It is not the wait for the end of a
            turn, which counts from the edge's ``at_ms``; shorter than 200 splits words.

    Raises:
        ConfigurationError: ``hang_ms`` is out of its range.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K)

    def __init__(self, *, hang_ms: float = 240.0) -> None:
        if not _SHORTEST_MS <= hang_ms <= _LONGEST_MS:
            raise ConfigurationError(
                f"LocalVAD: hang_ms must be from {_SHORTEST_MS:.0f} to {_LONGEST_MS:.0f}, got {hang_ms}"
            )
        super().__init__()
        self._hang_ms = hang_ms
        self._vad: LevelVAD | None = None

    def open(self, audio_format: AudioFormat) -> None:
        """See :meth:`VAD.open`.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already, or was disposed of.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.name} takes {self.formats}, not {audio_format}")
        if self._vad is not None or self._disposed:
            raise StateError(f"{self.name}: open() called twice, or after dispose()")
        self._vad = LevelVAD(audio_format, hang_ms=self._hang_ms)

    def post(self, message: Message[bytes]) -> None:
        """See :meth:`VAD.post`."""
        vad = self._vad
        if vad is None:
            raise StateError(f"{self.name}: post() before open()")
        for edge in vad.feed(message.data, message.at_ms):
            self.emit(VAD.SPEECH, edge)

    def playing(self, level_dbfs: float) -> None:
        """See :meth:`VAD.playing`."""
        if self._vad is not None:
            self._vad.playing(level_dbfs)
