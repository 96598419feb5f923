"""ElevenLabs' streaming synthesis (``multi-stream-input``) as a :class:`~dialog.tts.tts.TTS`.

Source: ElevenLabs' API reference of the multi-context WebSocket, seen November 2026, and observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from dialog.errors import AuthenticationError, ProviderError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff, close_is_retryable
from dialog.net.socket import SocketSettings
from dialog.net.urls import QueryValue, join, websocket_url
from dialog.tts.parts import SpokenPart
from dialog.tts.sockets import SocketTTS
from dialog.tts.tts import TTSCapabilities

__all__ = ["ElevenLabsTTS"]

DEFAULT_MODEL = "eleven_flash_v2_5"
"""The quickest of those that this socket serves; ``eleven_v3`` is not among them."""
DEFAULT_VOICE = "JBFqnCBsd6RMkjVDRZzb"
"""George, the voice of ElevenLabs' own examples."""

_FORMATS = {MULAW_8K: "ulaw_8000", ALAW_8K: "alaw_8000", PCM_24K: "pcm_24000", PCM_16K: "pcm_16000", PCM_8K: "pcm_8000"}
_CONTEXTS = 5
"""How many one connection may have."""
_RELEASE_S = 8.0
"""A closed context takes its slot until its last audio; one too many costs the connection."""
_EXPIRES_S = 15.0
"""A context dies when nothing was sent for it for 20 s."""
_KEEP_ALIVE_S = 8.0
_MAX_MESSAGE = 16 * 1024 * 1024

_OURS = frozenset({"input_timeout_exceeded"})
"""Told of a connection that only waited: nothing is wrong."""
_PASSING = frozenset(
    {
        "max_active_conversations",
        "concurrent_limit_exceeded",
        "too_many_concurrent_requests",
        "rate_limited",
        "system_busy",
        "internal_error",
        "internal_server_error",
    }
)
_CREDENTIALS = frozenset(
    {"invalid_api_key", "missing_api_key", "needs_authorization", "invalid_authorization_header", "missing_permissions"}
)


class _Alignment(Struct):
    chars: list[str] = []
    starts: list[float] = field(name="charStartTimesMs", default=[])
    durations: list[float] = field(name="charDurationsMs", default=[])
    old_durations: list[float] = field(name="charsDurationsMs", default=[])


class _Event(Struct):
    """Any message of the service, base64 decoded on the way. Both spellings of names occur."""

    audio: bytes | None = None
    context_id: str | None = field(name="contextId", default=None)
    context_id_: str | None = field(name="context_id", default=None)
    final: bool | None = field(name="isFinal", default=None)
    final_: bool | None = field(name="is_final", default=None)
    alignment: _Alignment | None = None
    error: str | None = None
    message: str | None = None
    code: int | str | None = None


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


class ElevenLabsTTS(SocketTTS):
    """Speaks with ElevenLabs, all parts of a call over one socket.

    It is given whole sentences and begins each at once (``auto_mode``); ``query={"auto_mode": False}``
    lets the service gather text by its schedule, and then every sentence is flushed.

    Args:
        api_key: ElevenLabs API key.
        voice: Id of the voice.
        model: ``eleven_flash_v2_5`` unless told otherwise.
        language: ``language_code`` for models that take one; unless given, the text tells.
        base_url: Where the service is; http(s) or ws(s), regional hosts included.
        options: Fields of the message that opens a context (``voice_settings``, ``generation_config``,
            ``pronunciation_dictionary_locators`` …), also ones that this class does not know.
        query: Further query parameters of the connection; they win.
        headers: Further headers of the handshake.
        timeout_s: How long a part whose text is complete may go without a sign of life.
        queue_size_limit: Messages that may wait for a service that reads slowly.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    provider = "elevenlabs"
    voice_argument = "voice"
    formats: ClassVar[tuple[AudioFormat, ...]] = tuple(_FORMATS)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="sentences", timings=True, voices=True, parallel_parts=_CONTEXTS, limits="5 contexts a connection"
    )

    def __init__(
        self,
        *,
        api_key: str,
        voice: str = DEFAULT_VOICE,
        model: str = DEFAULT_MODEL,
        language: str | None = None,
        base_url: str = "wss://api.elevenlabs.io",
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        queue_size_limit: int = 1000,
        backoff: Backoff | None = None,
    ) -> None:
        self._base_url = websocket_url(base_url)
        self._path = f"/v1/text-to-speech/{quote(voice, safe='')}/multi-stream-input"
        self._query: dict[str, QueryValue] = {
            "model_id": model,
            "auto_mode": True,
            "sync_alignment": True,
            "language_code": language,
        }
        self._override = dict(query or {})
        self._flush = "" if {**self._query, **self._override}["auto_mode"] else ',"flush":true'
        self._opening = _encode({"text": " ", **(options or {})}).decode().removesuffix("}")
        super().__init__(
            api_key=api_key,
            slots=_CONTEXTS,
            timeout_s=timeout_s,
            release_s=_RELEASE_S,
            headers={"xi-api-key": api_key, **(headers or {})},
            settings=SocketSettings(
                queue_limit=queue_size_limit,
                max_message=_MAX_MESSAGE,
                keep_alive='{"text":""}',
                keep_alive_s=_KEEP_ALIVE_S,
                farewell='{"close_socket":true}',
                backoff=backoff or Backoff(),
            ),
            model=model,
        )
        self.voice_key = repr((self.provider, self._base_url, self._path, self._query, self._override, self._opening))

    def _address(self, audio_format: AudioFormat) -> str:
        query = {**self._query, "output_format": _FORMATS[audio_format], **self._override}
        return join(self._base_url, self._path, query)

    def _write(self, context: str, part: SpokenPart, text: str, *, first: bool) -> None:
        if first:
            # Voice settings belong into the first message of a context, whose text must be a blank.
            self._socket.send(f'{self._opening},"context_id":"{context}"}}')
        if text:
            if part.closed and not text[-1].isspace():
                text += " "  # else the last word may be taken for the beginning of one
            self._socket.send(f'{{"text":{_encode(text).decode()},"context_id":"{context}"{self._flush}}}')
        if part.closed:
            self._close(context)

    def _cancel(self, context: str) -> None:
        # What is being generated still comes, and is dropped by its id; the slot is free after the last of it.
        self._close(context)

    def _close(self, context: str) -> None:
        self._socket.send(f'{{"context_id":"{context}","close_context":true}}')

    def _expired(self, part: SpokenPart, now: float) -> bool:
        return now - part.last_text > _EXPIRES_S

    def _leave(self, part: SpokenPart, context: str, now: float) -> None:
        # Should it live, it must not live on beside its successor.
        self._contexts.cancel(part.key, now)
        self._close(context)
        self._arm()

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except msgspec.ValidationError as exc:
            self.fail_once(RemoteProtocolError(f"elevenlabs sent a malformed message ({exc})"))
            return
        except UNDECODABLE:
            self.fail_once(RemoteProtocolError("elevenlabs sent a frame that is not JSON"))
            return
        context = event.context_id or event.context_id_
        now = self._loop.time()
        key = self._contexts.part(context, now) if context else None
        if event.error:
            self._error(event, context, key and self._parts[key])
            return
        final = event.final or event.final_
        if key is None:
            if final and context:
                self._context_released(context)
            elif event.audio and context:
                self._no_part(context)
            return
        part = self._parts[key]
        timings = event.alignment
        if timings is not None:
            # They count from the beginning of this message's audio.
            part.letters(timings.chars, timings.starts, timings.durations or timings.old_durations, part.audio_ms)
        if event.audio:
            self._audio(part, event.audio, now)
        if final and self._parts.get(key) is part:  # a listener may just have aborted it
            self._context_done(part, context or "")

    def _error(self, event: _Event, context: str | None, part: SpokenPart | None) -> None:
        """An error, after which the service closes the connection unless it is about one context."""
        name = event.error or ""
        told = f"reports {name}: {(event.message or 'no reason given')[:200]}"
        if name in _OURS:
            self._replace(None)
        elif name in _CREDENTIALS:
            self._replace(AuthenticationError("elevenlabs", told))
        else:
            code = event.code if isinstance(event.code, int) else None
            retryable = name in _PASSING or close_is_retryable(code)
            error = ProviderError("elevenlabs", told, retryable=retryable)
            if part is not None and code is None:
                self._context_failed(part, context or "", error)
            elif code is None:
                self.fail(error, retryable=retryable)
            else:
                self._replace(error)
