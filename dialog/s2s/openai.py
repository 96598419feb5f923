"""OpenAI's realtime models (``/v1/realtime``) as an :class:`~dialog.s2s.s2s.S2S`.

Source: OpenAI's API reference of the realtime API (general availability), and its SDK 3.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from dialog.errors import ConfigurationError
from dialog.message import AudioFormat
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue
from dialog.s2s.realtime_protocol import RealtimeS2S
from dialog.s2s.realtime_wire import tools_of
from dialog.s2s.s2s import S2SCapabilities, SessionSpec
from dialog.stt.openai_wire import FORMATS
from dialog.stt.turn_detection import TurnDetection

__all__ = ["NoiseReduction", "OpenAIRealtimeS2S"]

NoiseReduction: TypeAlias = Literal["near_field", "far_field"]

DEFAULT_MODEL = "gpt-realtime-2.1"
DEFAULT_VOICE = "marin"
DEFAULT_TRANSCRIPTION = "gpt-transcribe"
DEFAULT_BASE_URL = "https://api.openai.com/v1"


class OpenAIRealtimeS2S(RealtimeS2S):
    """Hears and speaks with OpenAI's realtime models, over one socket for the whole call.

    Telephone audio goes straight through, in both directions. Whether the caller interrupts a reply is decided
    here; the model is told how much of it was heard.

    Args:
        api_key: OpenAI API key.
        base_url: Where the service is, with its version; http(s) or ws(s).
        model: The model's name.
        voice: alloy, ash, ballad, coral, echo, sage, shimmer, verse, marin or cedar.
        speed: How fast it speaks, 0.25 to 1.5.
        transcription_model: What writes down the caller's words, for history, events and interruptions; the
            model itself hears the audio.
        language: Of the caller, for the transcription; ``None``: found out.
        turn_detection: What ends the caller's turns: ``ServerVAD()``, which ``None`` stands for, or
            ``SemanticVAD()`` of :mod:`dialog.stt.turn_detection`. With ``vad="local"`` it is not used.
        noise_reduction: For a telephone at the ear (``near_field``), or one on the table (``far_field``).
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
        manual_turns=True,
        speech_events=True,
        session_s=3600.0,
        limits="sessions of 60 minutes, renewed unheard",
    )
    provider = "openai"
    echoes_metadata = True

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        model: str = DEFAULT_MODEL,
        voice: str = DEFAULT_VOICE,
        speed: float = 1.0,
        transcription_model: str = DEFAULT_TRANSCRIPTION,
        language: str | None = None,
        turn_detection: TurnDetection | None = None,
        noise_reduction: NoiseReduction | None = None,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        if noise_reduction is not None and noise_reduction not in get_args(NoiseReduction):
            raise ConfigurationError(
                f"OpenAIRealtimeS2S: noise_reduction must be near_field, far_field or None, got {noise_reduction!r}"
            )
        if not 0.25 <= speed <= 1.5:
            raise ConfigurationError(f"OpenAIRealtimeS2S: speed must be 0.25 to 1.5, got {speed}")
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
        self.transcription_model = transcription_model
        self._language = language
        self._noise_reduction = noise_reduction

    def _session(self, spec: SessionSpec) -> dict[str, Any]:
        transcription = {"model": self.transcription_model}
        if self._language:
            transcription["language"] = self._language
        hearing: dict[str, Any] = {
            "format": FORMATS[spec.input_format],
            "transcription": transcription,
            "turn_detection": self._detector(spec),
        }
        if self._noise_reduction:
            hearing["noise_reduction"] = {"type": self._noise_reduction}
        return {
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": spec.system,
            "audio": {
                "input": hearing,
                "output": {
                    "format": FORMATS[spec.output_format],
                    "voice": spec.voice or self._voice,
                    "speed": self._speed,
                },
            },
            "tools": tools_of(spec.tools),
        }
