"""Whether a recogniser has gone deaf: there was speech, and it said nothing. Pure; time is given."""

from __future__ import annotations

from dialog.audio.vad import LevelVAD
from dialog.message import AudioFormat, Message

__all__ = ["Watchdog"]


class Watchdog:
    """A second opinion on a recogniser's silence, by the level of the audio.

    Args:
        audio_format: Of the caller's audio.
        speech_ms: So much speech is not a cough.
        silent_s: So long after it began a recogniser has something to say, if it only is "nothing yet".
    """

    def __init__(self, audio_format: AudioFormat, *, speech_ms: float = 2000.0, silent_s: float = 3.0) -> None:
        self._vad = LevelVAD(audio_format)
        self._format = audio_format
        self._speech_ms = speech_ms
        self._silent_s = silent_s
        self._spoken_ms = 0.0
        self._since = 0.0
        self.heard_ms = 0.0
        """Where the newest audio that it has heard ends, on the call's audio clock."""

    def alive(self, heard_ms: float) -> None:
        """A sign of life came; what was said up to ``heard_ms`` proves nothing any more."""
        self._spoken_ms = 0.0
        self.heard_ms = heard_ms

    def hear(self, message: Message[bytes], now: float) -> None:
        """Audio, since the last sign of life."""
        self._vad.feed(message.data, message.at_ms)
        duration_ms = self._format.ms(len(message.data))
        self.heard_ms = message.at_ms + duration_ms
        if self._vad.speaking:
            if not self._spoken_ms:
                self._since = now
            self._spoken_ms += duration_ms

    def deaf(self, now: float) -> bool:
        """Whether somebody has spoken for long enough, and for long enough nothing came."""
        return self._spoken_ms >= self._speech_ms and now - self._since >= self._silent_s
