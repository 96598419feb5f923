"""OpenAI's speech endpoint (``/audio/speech``) as a :class:`~dialog.tts.tts.TTS`.

Source: OpenAI API reference, "Create speech", seen November 2026. OpenAI has announced the end of all
models of this endpoint for 2027-01-06; compatible servers go on to speak it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from dialog.message import PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import status_is_retryable
from dialog.net.urls import QueryValue, http_url, join
from dialog.tts.http import HttpTTS
from dialog.tts.tts import TTSCapabilities

__all__ = ["OpenAITTS"]

DEFAULT_MODEL = "gpt-4o-mini-tts"
DEFAULT_VOICE = "coral"
DEFAULT_BASE_URL = "https://api.openai.com/v1"

_PARALLEL = 2
_LASTING = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
"""Codes of a 429 that waiting does not cure."""


class _Reason(Struct):
    message: str | None = None
    code: str | int | None = None


class _Error(Struct):
    error: _Reason


_decode_error = msgspec.json.Decoder(_Error).decode
_encode = msgspec.json.Encoder().encode


class OpenAITTS(HttpTTS):
    """Speaks with OpenAI, or a server that speaks the same protocol; it has no word timings.

    Args:
        api_key: OpenAI API key.
        voice: Name of the voice, or ``{"id": …}``; ``coral`` unless told otherwise.
        model: ``gpt-4o-mini-tts`` unless told otherwise.
        base_url: Where the service is, with its version; http(s) or ws(s).
        options: Further fields of each request (``instructions``, ``speed`` …), also ones that this class
            does not know; they win.
        query: Further query parameters of each request.
        headers: Further headers of each request.
        timeout_s: How long a part whose text is complete may go without a sign of life.

    Raises:
        ConfigurationError: No key, the base URL is no URL, or a header holds what it may not hold.
    """

    provider = "openai"
    max_chars = 4096
    formats: ClassVar[tuple[AudioFormat, ...]] = (PCM_24K,)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="sentences", timings=False, voices=True, parallel_parts=_PARALLEL, limits="4096 characters a request"
    )

    def __init__(
        self,
        *,
        api_key: str,
        voice: str | Mapping[str, Any] = DEFAULT_VOICE,
        model: str = DEFAULT_MODEL,
        base_url: str = DEFAULT_BASE_URL,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._fields: dict[str, Any] = {
            "model": model,
            "voice": voice if isinstance(voice, str) else dict(voice),
            "response_format": "pcm",  # 24 kHz, without a header
            **(options or {}),
        }
        super().__init__(
            api_key=api_key,
            slots=_PARALLEL,
            timeout_s=timeout_s,
            url=join(http_url(base_url), "/audio/speech", query),
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", **(headers or {})},
            model=model,
        )
        self.voice_key = repr((self.provider, base_url, self._fields, query))

    def _body(self, text: str, voice: str = "") -> bytes:
        return _encode({"input": text, **self._fields, **({"voice": voice} if voice else {})})

    def _reason(self, status: int, body: bytes) -> tuple[str, bool]:
        try:
            error = _decode_error(body).error
        except UNDECODABLE:
            return super()._reason(status, body)
        retryable = status_is_retryable(status) and error.code not in _LASTING
        return f"{error.message or ''} ({error.code or 'no code'})", retryable
