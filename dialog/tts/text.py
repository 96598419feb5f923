"""The voice of a text call: shows what would be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar
from uuid import UUID

from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat, Message
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["TextTTS"]


class TextTTS(TTS):
    """Hands text to ``show(turn, part, text)`` instead of making audio; empty text ends a part."""

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_8K, PCM_16K, PCM_24K)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="tokens", voices=True, parallel_parts=1)

    def __init__(self, show: Callable[[UUID, int, str], object]) -> None:
        super().__init__()
        self._show = show

    def open(self, audio_format: AudioFormat) -> None:
        """Nothing has to be opened."""

    def post(self, message: Message[str]) -> None:
        """Show the text."""
        if message.data or message.done:
            self._show(message.uuid, message.part, message.data)
        if message.done:
            self.emit(TTS.MESSAGE, Message(uuid=message.uuid, part=message.part, data=b"", done=True))

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """What was shown stays shown."""
