"""When the stages of a turn happened."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from msgspec import Struct

__all__ = ["TurnTimeline"]


class TurnTimeline(Struct, frozen=True, kw_only=True, gc=False):
    """Times of one turn in seconds since the call's start; a stage that was not seen is ``None``.

    ``end_of_speech`` is taken from the source named in ``speech_source`` and never guessed.
    """

    turn: UUID
    end_of_speech: float | None = None
    speech_source: Literal["", "stt_words", "vad", "provider_event"] = ""
    final: float | None = None
    """The final utterance arrived."""
    inference: float | None = None
    """``inference`` was started."""
    first_token: float | None = None
    first_text: float | None = None
    """The first text was handed to the voice."""
    first_audio: float | None = None
    """The voice's first audio arrived."""
    first_frame: float | None = None
    """The first audio went onto the line."""
    played: float | None = None
    """The last audio that was heard ended."""
    interrupted: bool = False

    def between_s(self, begin: str, end: str) -> float | None:
        """From one stage to another, in seconds; ``None`` if one was not seen, or came before the other.

        A filler is spoken before the model's first word: then the stage between was not on the way.
        """
        since: float | None = getattr(self, begin)
        until: float | None = getattr(self, end)
        return until - since if since is not None and until is not None and until >= since else None

    def latency_ms(self) -> float | None:
        """End of speech to the first audio on the line, what a caller feels; ``None`` if not seen."""
        if self.end_of_speech is None or self.first_frame is None:
            return None
        return (self.first_frame - self.end_of_speech) * 1000.0
