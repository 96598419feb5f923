"""Cartesia's streaming synthesis (``/tts/websocket``) as a :class:`~dialog.tts.tts.TTS`.

Source: Cartesia's API reference of the text-to-speech WebSocket, version 2026-08-14, and observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from dialog.errors import ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE, malformed
from dialog.net.reconnect import Backoff, status_is_retryable
from dialog.net.socket import SocketSettings
from dialog.net.urls import QueryValue, join, websocket_url
from dialog.tts.parts import SpokenPart
from dialog.tts.sockets import SocketTTS
from dialog.tts.tts import TTSCapabilities

__all__ = ["CartesiaTTS"]

DEFAULT_MODEL = "sonic-3.5"
DEFAULT_VOICE = "f786b574-daa5-4673-aa0c-cbe3e8534c02"
"""Katie, one of the voices that Cartesia recommends for agents."""
DEFAULT_LANGUAGE = "en"
API_VERSION = "2026-08-14"

_ENCODINGS = {"mulaw": "pcm_mulaw", "alaw": "pcm_alaw", "s16le": "pcm_s16le"}
_EXPIRES_S = 0.8
"""A context is dead 1 s after its last audio; text may travel for a while."""


class _Words(Struct, gc=False):
    words: list[str] = []
    start: list[float] = []
    end: list[float] = []


class _Event(Struct, gc=False):
    """Any message of the service: the union of the fields that matter, base64 decoded on the way."""

    type: str = ""
    context_id: str | None = None
    data: bytes = b""
    word_timestamps: _Words | None = None
    status_code: int = 0
    title: str | None = None
    message: str | None = None
    error: str | None = None
    error_code: str | None = None


_HEADS = 16
"""Voices whose messages are remembered."""


_KNOWN = frozenset({"chunk", "timestamps", "done", "error"})
_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


class CartesiaTTS(SocketTTS):
    """Speaks with Cartesia, all parts of a call over one socket.

    Args:
        api_key: Cartesia API key.
        voice: Id of the voice, or the service's own description of one.
        model: ``sonic-3.5`` unless told otherwise.
        language: ``en`` unless told otherwise.
        base_url: Where the service is; http(s) or ws(s).
        version: The dated version of the API that is spoken; another one may need other ``options``.
        parallel_parts: How many parts are spoken at the same time; plans bound it, the free one to 2.
        options: Further fields of each generation request, also ones that this class does not know; they win.
        query: Further query parameters of the connection.
        headers: Further headers of the handshake.
        timeout_s: How long a part whose text is complete may go without a sign of life.
        queue_size_limit: Messages that may wait for a service that reads slowly.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    provider = "cartesia"
    # Our clock says alive, the service's says dead: it refuses, and the text goes round again.
    refusals = 1
    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_24K, PCM_16K, PCM_8K)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="tokens",
        timings=True,
        voices=True,
        parallel_parts=2,
        limits="2 (free plan) to 15 parts at once in an account",
    )

    def __init__(
        self,
        *,
        api_key: str,
        voice: str | Mapping[str, Any] = DEFAULT_VOICE,
        model: str = DEFAULT_MODEL,
        language: str | None = DEFAULT_LANGUAGE,
        base_url: str = "wss://api.cartesia.ai",
        version: str = API_VERSION,
        parallel_parts: int = 2,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        queue_size_limit: int = 1000,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = join(websocket_url(base_url), "/tts/websocket", query)
        super().__init__(
            api_key=api_key,
            slots=parallel_parts,
            timeout_s=timeout_s,
            headers={"X-API-Key": api_key, "Cartesia-Version": version, **(headers or {})},
            settings=SocketSettings(queue_limit=queue_size_limit, backoff=backoff or Backoff()),
            model=model,
        )
        # This instance's limit is part of what it can do.
        self.capabilities = TTSCapabilities(text="tokens", timings=True, voices=True, parallel_parts=parallel_parts)  # type: ignore[misc]
        self._request: dict[str, Any] = {
            "model_id": model,
            "voice": {"mode": "id", "id": voice} if isinstance(voice, str) else dict(voice),
            "add_timestamps": True,
            **({"language": language} if language else {}),
        }
        self._options = dict(options or {})
        self.voice_key = repr((self.provider, self._url, version, self._request, self._options))
        self._heads: dict[str, str] = {}

    def _address(self, audio_format: AudioFormat) -> str:
        self._request["output_format"] = {
            "container": "raw",
            "encoding": _ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
        }
        return self._url

    def _head(self, voice: str) -> str:
        """What is the same in every message of a context is encoded once: they come for every token."""
        head = self._heads.get(voice)
        if head is None:
            named = {"voice": {"mode": "id", "id": voice}} if voice else {}
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            head = self._heads[voice] = _encode(self._request | self._options | named).decode().removesuffix("}")
        return head

    def _write(self, context: str, part: SpokenPart, text: str, *, first: bool) -> None:  # noqa: ARG002
        said = _encode(text).decode()
        more = "false" if part.closed else "true"
        self._socket.send(f'{self._head(part.voice)},"context_id":"{context}","transcript":{said},"continue":{more}}}')

    def _cancel(self, context: str) -> None:
        # This stops only what has not begun; the rest is dropped by its id.
        self._socket.send(_encode({"context_id": context, "cancel": True}).decode())

    def _expired(self, part: SpokenPart, now: float) -> bool:
        return part.last_audio is not None and now - part.last_audio > _EXPIRES_S

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except UNDECODABLE as exc:
            error = malformed(self.provider, data, exc, _KNOWN)
            if error is not None:
                self.fail_once(error)
            return
        kind = event.type
        if kind not in _KNOWN:
            return
        now = self._loop.time()
        key = self._contexts.part(event.context_id or "", now)
        if key is None:
            self._stray(event)
            return
        part = self._parts[key]
        if kind == "chunk":
            self._audio(part, event.data, now)
        elif kind == "timestamps" and event.word_timestamps is not None:
            timings = event.word_timestamps
            part.timings(zip(timings.words, timings.start, timings.end, strict=False))
            self._announce(part)
        elif kind == "done":
            self._context_done(part, event.context_id or "")
        elif kind == "error":
            failed = _error(event, f"part {part.key[1]} of turn {part.key[0]} failed")
            self._context_failed(part, event.context_id or "", failed)

    def _stray(self, event: _Event) -> None:
        """A message for no part: the connection's, or of a context that was dropped."""
        if event.context_id is None:
            if event.type == "error":
                self.fail(_error(event, "reports an error"), retryable=status_is_retryable(event.status_code))
        elif event.type in ("done", "error"):
            self._context_released(event.context_id)
        elif event.type == "chunk":
            self._no_part(event.context_id)


def _error(event: _Event, what: str) -> ProviderError:
    told = event.message or event.error or event.title or event.error_code or "no reason given"
    retryable = status_is_retryable(event.status_code)
    return ProviderError("cartesia", f"{what} with {event.status_code}: {told[:200]}", retryable=retryable)
