"""xAI's Grok voice (``/v1/realtime``) as an :class:`~dialog.s2s.s2s.S2S`.

It speaks OpenAI's protocol with differences of its own: settings at the top level of the session, words of the
caller told anew each time, the whole usage beside the response, sentences that are spoken word for word.

Source: xAI's documentation of the voice agent API, and its wire as seen in 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from dialog.errors import ConfigurationError
from dialog.message import PCM_8K, PCM_16K, AudioFormat
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue
from dialog.s2s.realtime_protocol import RealtimeS2S
from dialog.s2s.realtime_wire import tools_of
from dialog.s2s.reply import Reply
from dialog.s2s.s2s import S2SCapabilities, SessionSpec
from dialog.stt.openai_wire import FORMATS as OPENAI_FORMATS
from dialog.stt.turn_detection import ServerVAD

__all__ = ["GrokS2S"]

FORMATS: dict[AudioFormat, dict[str, Any]] = {
    **OPENAI_FORMATS,
    PCM_16K: {"type": "audio/pcm", "rate": 16_000},
    PCM_8K: {"type": "audio/pcm", "rate": 8_000},
}
DEFAULT_MODEL = "grok-voice-latest"
DEFAULT_VOICE = "ara"
DEFAULT_BASE_URL = "https://api.x.ai/v1"


class GrokS2S(RealtimeS2S):
    """Hears and speaks with xAI's Grok, over one socket for the whole call.

    Telephone audio goes straight through, in both directions. It says given sentences word for word.

    Args:
        api_key: xAI API key.
        base_url: Where the service is, with its version; http(s) or ws(s).
        model: The model's name; ``grok-voice-latest`` changes with time.
        voice: Its voice.
        speed: How fast it speaks, 0.7 to 1.5.
        language: A hint at what the caller speaks; ``None``: found out.
        turn_detection: How silence ends the caller's turns.
        options: Further fields of the session, also ones that this class does not know; they win, level by level.
        query: Further query parameters.
        headers: Further headers of the handshake.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, the base URL is no URL, or a value is out of its range.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = tuple(FORMATS)
    output_formats: ClassVar[tuple[AudioFormat, ...]] = tuple(FORMATS)
    capabilities: ClassVar[S2SCapabilities] = S2SCapabilities(
        truncate=True,
        verbatim=True,
        manual_turns=True,
        speech_events=True,
        session_s=1800.0,
        limits="sessions of 30 to 120 minutes, renewed unheard",
    )
    provider = "xai"

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        model: str = DEFAULT_MODEL,
        voice: str = DEFAULT_VOICE,
        speed: float = 1.0,
        language: str | None = None,
        turn_detection: ServerVAD | None = None,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        if not 0.7 <= speed <= 1.5:
            raise ConfigurationError(f"GrokS2S: speed must be 0.7 to 1.5, got {speed}")
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            model=model,
            turn_detection=turn_detection,
            options=options,
            query=query,
            headers=headers,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
        )
        self._voice = voice
        self._speed = speed
        self._language = language

    def _session(self, spec: SessionSpec) -> dict[str, Any]:
        transcription: dict[str, Any] = {"model": "grok-transcribe"}
        if self._language:
            transcription["language_hint"] = self._language
        return {
            "instructions": spec.system,
            "voice": spec.voice or self._voice,
            "turn_detection": self._detector(spec) or {"type": None},
            "tools": tools_of(spec.tools),
            "audio": {
                "input": {"format": FORMATS[spec.input_format], "transcription": transcription},
                "output": {"format": FORMATS[spec.output_format], "speed": self._speed},
            },
        }

    def _send_say(self, reply: Reply) -> None:
        # It is spoken without a response.create.
        content = [{"type": "output_text", "text": reply.text}]
        item = {"type": "force_message", "role": "assistant", "content": content}
        self._send(self._event("conversation.item.create", "dialog_respond", item=item))
