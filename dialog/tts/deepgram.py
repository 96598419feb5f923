"""Deepgram's streaming synthesis, Aura (``/v1/speak``), as a :class:`~dialog.tts.tts.TTS`.

Source: Deepgram's API reference of the text-to-speech WebSocket, seen November 2026.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.errors import ProviderError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff
from dialog.net.socket import SocketSettings
from dialog.net.urls import QueryValue, join, websocket_url
from dialog.tts.parts import SpokenPart
from dialog.tts.sockets import SocketTTS
from dialog.tts.tts import TTSCapabilities

__all__ = ["DeepgramTTS"]

DEFAULT_MODEL = "aura-2-thalia-en"
"""Model, voice and language in one. Thalia is the voice of Deepgram's own examples."""

_ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "s16le": "linear16"}
_CLEARED_S = 1.0
"""How long the service may take to forget; then a new connection does."""
_MAX_CHARS = 2000
_FLUSHES = 20
_FLUSH_WINDOW_S = 60.0
"""So many flushes are allowed in so long."""
_EARLY_FLUSHES = 12
"""How many of them may be used before the end of a part, where one is needed."""
_FLUSH_AGAIN_S = 3.0
_RENEW_S = 55 * 60.0
"""A connection may last an hour."""


class _Event(Struct):
    """Any text message of the service: the union of the fields that matter."""

    type: str = ""
    code: str | None = None
    description: str | None = None
    warn_msg: str | None = None
    message: str | None = None


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


class DeepgramTTS(SocketTTS):
    """Speaks with Deepgram's Aura voices over one socket, one part after the other.

    The audio carries no name: what comes belongs to the part that is spoken, and after an abort
    everything is dropped until the service says that it has forgotten the rest.

    Args:
        api_key: Deepgram API key.
        model: Model and voice in one; ``aura-2-thalia-en`` unless told otherwise.
        base_url: Where the service is; http(s) or ws(s).
        options: Further options of the service, also ones that this class does not know; they win.
        query: Further query parameters, for a proxy in between; they win over ``options``.
        headers: Further headers of the handshake.
        timeout_s: How long a part whose text is complete may go without a sign of life.
        queue_size_limit: Messages that may wait for a service that reads slowly.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    provider = "deepgram"
    renew_s = _RENEW_S
    voice_argument = "model"
    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_24K, PCM_16K, PCM_8K)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(
        text="sentences",
        timings=False,
        voices=True,
        parallel_parts=1,
        limits="2400 characters a minute, 60 minutes a connection",
    )

    def __init__(
        self,
        *,
        api_key: str,
        model: str = DEFAULT_MODEL,
        base_url: str = "wss://api.deepgram.com",
        options: Mapping[str, QueryValue] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 5.0,
        queue_size_limit: int = 1000,
        backoff: Backoff | None = None,
    ) -> None:
        self._base_url = websocket_url(base_url)
        self._query: dict[str, QueryValue] = {"model": model}
        self._override = {**(options or {}), **(query or {})}
        super().__init__(
            api_key=api_key,
            slots=1,
            timeout_s=timeout_s,
            release_s=_CLEARED_S,
            headers={"Authorization": f"Token {api_key}", **(headers or {})},
            settings=SocketSettings(
                queue_limit=queue_size_limit, farewell='{"type":"Close"}', backoff=backoff or Backoff()
            ),
            model="aura-2" if model.startswith("aura-2-") else model,  # what is behind it is the voice
        )
        self.voice_key = repr((self.provider, self._base_url, self._query, self._override))
        self._current = ""
        """The one that is spoken, or being forgotten."""
        self._unflushed = 0
        """Characters of it that no flush followed."""
        self._flushes: deque[int] = deque()
        """Characters before each flush that was not answered yet."""
        self._flushed_at: deque[float] = deque(maxlen=_FLUSHES)
        self._again: asyncio.TimerHandle | None = None
        self._warned: set[str] = set()

    def dispose(self) -> None:
        """End for good: what is being spoken is dropped, the connection is closed in the background."""
        self._stop_again()
        super().dispose()

    def _address(self, audio_format: AudioFormat) -> str:
        encoding = _ENCODINGS[audio_format.encoding]
        query = {**self._query, "encoding": encoding, "sample_rate": audio_format.sample_rate, **self._override}
        return join(self._base_url, "/v1/speak", query)

    def _up(self) -> None:
        self._flushed_at.clear()
        super()._up()

    def _write(self, context: str, part: SpokenPart, text: str, *, first: bool) -> None:  # noqa: ARG002
        if context != self._current:
            self._current = context
            self._unflushed = 0
            self._flushes.clear()
            self._stop_again()
        for piece in _pieces(text):
            self._socket.send(f'{{"type":"Speak","text":{_encode(piece).decode()}}}')
        self._unflushed += len(text)
        if part.closed:
            self._end(part)
        elif text.strip() and self._spent() < _EARLY_FLUSHES:
            self._flush()  # the next sentence may be long in coming

    def _end(self, part: SpokenPart) -> None:
        """All text was sent: see that it is spoken, and notice if it was."""
        if part.text[len(part.text) - self._unflushed :].strip():
            self._flush()
        elif not self._flushes:
            self._context_done(part, self._current)

    def _flush(self) -> None:
        self._flushes.append(self._unflushed)
        self._unflushed = 0
        self._flushed_at.append(self._loop.time())
        self._socket.send('{"type":"Flush"}')

    def _spent(self) -> int:
        """How many flushes count by now."""
        since = self._loop.time() - _FLUSH_WINDOW_S
        while self._flushed_at and self._flushed_at[0] <= since:
            self._flushed_at.popleft()
        return len(self._flushed_at)

    def _cancel(self, context: str) -> None:  # noqa: ARG002
        self._stop_again()
        self._socket.send('{"type":"Clear"}')

    def _unreleased(self, context: str) -> None:  # noqa: ARG002
        late = f"did not confirm a Clear within {_CLEARED_S:g} s"
        self._replace(ProviderError("deepgram", late, retryable=True))

    def _receive(self, data: str | bytes) -> None:
        now = self._loop.time()
        key = self._contexts.part(self._current, now)
        if isinstance(data, bytes):
            if key is not None:
                self._audio(self._parts[key], data, now)
            return
        try:
            event = _decode(data)
        except msgspec.ValidationError as exc:
            self.fail_once(RemoteProtocolError(f"deepgram sent a malformed message ({exc})"))
            return
        except UNDECODABLE:
            self.fail_once(RemoteProtocolError("deepgram sent a frame that is not JSON"))
            return
        if event.type == "Flushed":
            if key is not None:
                self._flushed(self._parts[key])
        elif event.type == "Cleared":
            if key is None:
                self._context_released(self._current)
        elif event.type == "Warning":
            self._warning(event, key and self._parts[key])
        elif event.type == "Error":
            # Whose it is cannot be told, nor what is still to come: begin anew.
            self._replace(_error(event, "reports an error"))

    def _flushed(self, part: SpokenPart) -> None:
        if not self._flushes:
            return
        part.advance(self._flushes.popleft())
        if part.closed:
            self._end(part)

    def _warning(self, event: _Event, part: SpokenPart | None) -> None:
        code = event.code or event.warn_msg or ""
        if code not in self._warned:
            self._warned.add(code)
            self.fail(_error(event, "warns"), retryable=True)
        if code == "EXCESSIVE_FLUSH" and part is not None and self._flushes:
            # No Flushed will come for it.
            self._unflushed += self._flushes.pop()
            if part.closed and self._again is None:
                self._again = self._loop.call_later(_FLUSH_AGAIN_S, self._flush_again, part)

    def _flush_again(self, part: SpokenPart) -> None:
        self._again = None
        if self._parts.get(part.key) is part and self._socket.connected:
            self._end(part)

    def _stop_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None


def _pieces(text: str) -> Iterator[str]:
    """The text in messages that the service takes."""
    for at in range(0, len(text), _MAX_CHARS):
        yield text[at : at + _MAX_CHARS]


def _error(event: _Event, what: str) -> ProviderError:
    told = event.description or event.message or event.warn_msg or "no reason given"
    return ProviderError("deepgram", f"{what} ({event.code or 'no code'}): {told[:200]}", retryable=True)
