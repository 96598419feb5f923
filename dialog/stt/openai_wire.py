"""What OpenAI's realtime transcription says, as it is needed, and what it is told at the start of a session."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec
from msgspec import Struct

from dialog.message import ALAW_8K, MULAW_8K, PCM_24K, AudioFormat
from dialog.net.options import merged
from dialog.stt.turn_detection import TurnDetection

__all__ = ["FORMATS", "KNOWN", "TRANSCRIPTION", "UPDATE_ID", "Error", "Event", "Session", "decode", "session_update"]

FORMATS: dict[AudioFormat, dict[str, Any]] = {
    MULAW_8K: {"type": "audio/pcmu"},
    ALAW_8K: {"type": "audio/pcma"},
    PCM_24K: {"type": "audio/pcm", "rate": 24_000},
}
TRANSCRIPTION = "conversation.item.input_audio_transcription."
"""What the types of messages about words begin with."""
UPDATE_ID = "dialog_session"
"""Errors with this id are about the settings."""


class Error(Struct):
    """What is wrong."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    event_id: str | None = None
    """Of the client's message that is at fault."""

    def __str__(self) -> str:
        return f"{self.code or self.type or 'an error'}: {(self.message or '')[:200]}"


class Session(Struct):
    """The session, which ends at ``expires_at`` (seconds since 1970)."""

    expires_at: float | None = None


class Event(Struct):
    """Any message of the service: the union of the fields that matter, decoded in one pass."""

    type: str = ""
    event_id: str = ""
    item_id: str = ""
    audio_start_ms: float = 0.0
    audio_end_ms: float = 0.0
    delta: str | None = None
    transcript: str | None = None
    languages: Any = None
    text: str | None = None
    speaker: str | None = None
    start: float = 0.0
    end: float = 0.0
    error: Error | None = None
    session: Session | None = None

    @property
    def language(self) -> str | None:
        """The first language that was heard; words count also where it is told in a way that we do not know."""
        first = cast("object", self.languages[0]) if isinstance(self.languages, list) and self.languages else None
        return first if isinstance(first, str) else None


KNOWN = frozenset(
    {
        *(f"input_audio_buffer.{kind}" for kind in ("speech_started", "speech_stopped", "committed")),
        *(TRANSCRIPTION + kind for kind in ("delta", "completed", "failed", "segment")),
        "session.created", "session.updated", "error",
    }
)  # fmt: skip
"""The types that matter."""
decode = msgspec.json.Decoder(Event).decode


def session_update(
    audio_format: AudioFormat,
    *,
    model: str,
    languages: list[str],
    prompt: str,
    keyterms: Iterable[str],
    turn_detection: TurnDetection | None,
    noise_reduction: str | None,
    options: Mapping[str, Any],
) -> str:
    """The message that sets a session up; ``options`` win, level by level."""
    transcription: dict[str, Any] = {"model": model}
    if languages:
        transcription |= {"language": languages[0]} if len(languages) == 1 else {"languages": languages}
    if prompt:
        transcription["prompt"] = prompt
    if words := list(keyterms):
        transcription["keywords"] = words
    audio: dict[str, Any] = {
        "format": FORMATS[audio_format],
        "transcription": transcription,
        "turn_detection": turn_detection,
    }
    if noise_reduction:
        audio["noise_reduction"] = {"type": noise_reduction}
    session = merged({"type": "transcription", "audio": {"input": audio}}, options)
    update = {"type": "session.update", "event_id": UPDATE_ID, "session": session}
    return msgspec.json.encode(update).decode()
