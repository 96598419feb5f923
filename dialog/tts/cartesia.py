"""Cartesia's streaming synthesis (``/tts/websocket``) as a :class:`~dialog.tts.tts.TTS`.

Source: Cartesia's API reference of the text-to-speech WebSocket, version 2026-08-14, and observation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError, ProviderError, RemoteProtocolError, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, Alignment, AudioFormat, Message
from dialog.net.contexts import Contexts, PartKey
from dialog.net.reconnect import Backoff, status_is_retryable
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.net.urls import QueryValue, join, websocket_url
from dialog.tts.parts import SpokenPart
from dialog.tts.tts import TTS, TTSCapabilities

__all__ = ["CartesiaTTS"]

DEFAULT_MODEL = "sonic-3.5"
DEFAULT_VOICE = "f786b574-daa5-4673-aa0c-cbe3e8534c02"
"""Katie, one of the voices that Cartesia recommends for agents."""
DEFAULT_LANGUAGE = "en"
API_VERSION = "2026-08-14"

_ENCODINGS = {"mulaw": "pcm_mulaw", "alaw": "pcm_alaw", "s16le": "pcm_s16le"}
_EXPIRES_S = 0.8
"""A context is dead 1 s after its last audio; text may travel for a while."""
_TRIES = 3
_RETRY_S = 0.25
_MUTE_PARTS = 2
"""After so many parts in a row without a sound the voice has failed for good."""
_KEEP_ENDED = 256


class _Words(Struct):
    words: list[str] = []
    start: list[float] = []
    end: list[float] = []


class _Event(Struct):
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


class _Kind(Struct):
    type: str = ""


_KNOWN = frozenset({"chunk", "timestamps", "done", "error"})
_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


class CartesiaTTS(TTS):
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

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_24K, PCM_16K, PCM_8K)
    capabilities: ClassVar[TTSCapabilities] = TTSCapabilities(text="tokens", timings=True, parallel_parts=2)

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
        if not api_key:
            raise ConfigurationError("CartesiaTTS needs an api_key")
        if parallel_parts < 1:
            raise ConfigurationError(f"CartesiaTTS needs at least one parallel part, got {parallel_parts}")
        self._url = join(websocket_url(base_url), "/tts/websocket", query)
        super().__init__()
        # This instance's limit is part of what it can do.
        self.capabilities = TTSCapabilities(text="tokens", timings=True, parallel_parts=parallel_parts)  # type: ignore[misc]
        self._request: dict[str, Any] = {
            "model_id": model,
            "voice": {"mode": "id", "id": voice} if isinstance(voice, str) else dict(voice),
            "add_timestamps": True,
            **({"language": language} if language else {}),
        }
        self._options = dict(options or {})
        self._head = ""
        self._headers = {"X-API-Key": api_key, "Cartesia-Version": version, **(headers or {})}
        self._settings = SocketSettings(queue_limit=queue_size_limit, backoff=backoff or Backoff())
        self._contexts = Contexts(parallel_parts, timeout_s=timeout_s)
        self._parts: dict[PartKey, SpokenPart] = {}
        self._ended: dict[PartKey, None] = {}
        self._socket: ProviderSocket | None = None
        self._format = MULAW_8K
        self._timer: asyncio.TimerHandle | None = None
        self._mute = 0
        """Parts in a row that never made a sound."""

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"cartesia: {audio_format} is none of {self.formats}")
        if self._socket is not None:
            raise StateError("CartesiaTTS.open was called twice")
        self._format = audio_format
        self._request["output_format"] = {
            "container": "raw",
            "encoding": _ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
        }
        self._request |= self._options
        self._head = _encode(self._request).decode().removesuffix("}")
        self._loop = asyncio.get_running_loop()
        self._socket = ProviderSocket(
            self,
            provider="cartesia",
            url=self._url,
            headers=self._headers,
            on_message=self._receive,
            on_open=self._admit,
            on_lost=self._lost,
            on_failed=self._failed,
            settings=self._settings,
        )
        self._socket.open()

    def post(self, message: Message[str]) -> None:
        """Queue text of a part and return; ``done`` says that no more follows for the part.

        Raises:
            StateError: Called before :meth:`open`.
        """
        if self._socket is None:
            raise StateError("CartesiaTTS.post was called before open")
        key = (message.uuid, message.part)
        if key in self._ended or self.disposed or not (message.data or message.done):
            return
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = SpokenPart(key)
        part.take(message.data, done=message.done)
        if self._socket.failed or not part.speakable:
            # Nothing to say, or nobody to say it: the part ends as soon as its text does.
            if part.done and self._contexts.context(key) is None:
                self._finish(part)
                return
            if self._socket.failed:
                return
        self._speak(part)

    def abort(self, uuid: UUID, *, part: int | None = None) -> None:
        """Stop a turn, or one part of it: nothing more is emitted for it. Unknown ones are ignored."""
        for key in [key for key in self._parts if key[0] == uuid and part in (None, key[1])]:
            self._remove(self._parts[key])
        self._admit()

    def dispose(self) -> None:
        """End for good: what is being spoken is dropped, the socket is closed in the background."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for part in self._parts.values():
            if part.retry is not None:
                part.retry.cancel()
        self._parts.clear()
        super().dispose()

    def _speak(self, part: SpokenPart) -> None:
        """Send what the part's context does not have yet; get it one if it has none."""
        context = self._contexts.context(part.key)
        if context is None:
            if part.speakable and part.retry is None:
                self._contexts.wait(part.key)
                self._admit()
            return
        if part.closed or (part.sent == len(part.text) and not part.done):
            return
        now = self._loop.time()
        if part.last_audio is not None and now - part.last_audio > _EXPIRES_S:
            # Nothing more comes from there; what it has spoken is known by the timings, if there are any.
            self._contexts.finish(context)
            self._announce(part, all_=True)
            part.restart()
            self._go_on(part)
            return
        self._send(context, part, now)

    def _send(self, context: str, part: SpokenPart, now: float) -> None:
        assert self._socket is not None
        text = _encode(part.unsent()).decode()
        more = "false" if part.closed else "true"
        # What is the same in every message of a context is encoded once: this happens for every token.
        self._socket.send(f'{self._head},"context_id":"{context}","transcript":{text},"continue":{more}}}')
        if part.closed:
            self._contexts.expect(part.key, now)
            self._arm()

    def _admit(self) -> None:
        """Let the parts that waited longest speak, as far as there are slots."""
        if self._socket is None or not self._socket.connected or self.disposed:
            return
        now = self._loop.time()
        for key, context in self._contexts.admit(now):
            self._send(context, self._parts[key], now)

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except msgspec.ValidationError as exc:
            self._misunderstood(data, exc)
            return
        except msgspec.DecodeError as exc:
            self.fail(RemoteProtocolError(f"cartesia sent a frame that is not JSON ({exc})"))
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
            self._timings(part, event.word_timestamps)
        elif kind == "done":
            self._context_done(part, event.context_id or "")
        elif kind == "error":
            self._context_failed(part, event)

    def _audio(self, part: SpokenPart, data: bytes, now: float) -> None:
        at_ms = part.audio_ms
        audio = part.audio(data, self._format, now)
        if audio:
            self._mute = 0
            uuid, number = part.key
            self.emit(TTS.MESSAGE, Message(uuid=uuid, part=number, data=audio, at_ms=at_ms))
            self._announce(part)

    def _timings(self, part: SpokenPart, timings: _Words) -> None:
        part.timings(zip(timings.words, timings.start, timings.end, strict=False))
        self._announce(part)

    def _announce(self, part: SpokenPart, *, all_: bool = False) -> None:
        """Emit the timings of words whose audio is here; the others may yet be spoken by another context."""
        words = part.spoken(all_=all_)
        if words and self._parts.get(part.key) is part:  # a listener may just have aborted it
            uuid, number = part.key
            self.emit(TTS.ALIGNMENT, Alignment(uuid=uuid, part=number, words=words))

    def _context_done(self, part: SpokenPart, context: str) -> None:
        self._contexts.finish(context)
        self._announce(part, all_=True)
        if part.closed:
            self._finish(part)
            return
        part.finish_context()
        self._go_on(part)
        self._admit()

    def _context_failed(self, part: SpokenPart, event: _Event) -> None:
        """Try again what was not spoken, as far as that is known; else the part ends here."""
        self._contexts.finish(event.context_id or "")
        retryable = status_is_retryable(event.status_code)
        self.fail(_error(event, f"part {part.key[1]} of turn {part.key[0]} failed"), retryable=retryable)
        # A refusal of the request itself is tried once more: the context may just have expired.
        if part.tries >= (_TRIES if retryable else 1) or part.uncertain:
            self._finish(part)
            return
        part.tries += 1
        part.restart()
        part.retry = self._loop.call_later(_RETRY_S * 2 ** (part.tries - 1), self._retry, part)
        self._admit()

    def _retry(self, part: SpokenPart) -> None:
        part.retry = None
        self._go_on(part)

    def _go_on(self, part: SpokenPart) -> None:
        """The part has no context: get it one for the rest of its text, or end it."""
        if self._parts.get(part.key) is not part:
            return
        if part.speakable:
            self._contexts.wait(part.key)
            self._admit()
        elif part.done:
            self._finish(part)

    def _lost(self) -> None:
        """The connection is gone, with all its contexts."""
        cut = [part for part in self._parts.values() if self._contexts.context(part.key) is not None]
        self._contexts.reset()
        for part in cut:
            if part.uncertain and part.closed:
                missing = f"lost the end of part {part.key[1]} of turn {part.key[0]}, and no timings tell how much"
                self.fail(ProviderError("cartesia", missing, retryable=True), retryable=True)
                self._finish(part)
                continue
            part.restart()
            if not part.speakable:
                self._contexts.cancel(part.key, self._loop.time())  # nothing to wait for
                self._go_on(part)

    def _failed(self, error: ProviderError) -> None:
        self.fail(error, fatal=True, retryable=error.retryable)
        for part in tuple(self._parts.values()):
            self._finish(part)

    def _stray(self, event: _Event) -> None:
        """A message for no part: the connection's, or of a context that was dropped."""
        if event.context_id is None:
            if event.type == "error":
                self.fail(_error(event, "reports an error"), retryable=status_is_retryable(event.status_code))
        elif event.type in ("done", "error"):
            self._contexts.finish(event.context_id)
            self._admit()

    def _finish(self, part: SpokenPart) -> None:
        """End a part as every part ends: with one ``done``."""
        if self._remove(part):
            uuid, number = part.key
            self.emit(TTS.MESSAGE, Message(uuid=uuid, part=number, data=b"", at_ms=part.audio_ms, done=True))
            self._admit()

    def _remove(self, part: SpokenPart) -> bool:
        if self._parts.pop(part.key, None) is None:
            return False
        if part.retry is not None:
            part.retry.cancel()
        context = self._contexts.cancel(part.key, self._loop.time())
        if context is not None and self._socket is not None:
            # This stops only what has not begun; the rest is dropped by its id.
            self._socket.send(_encode({"context_id": context, "cancel": True}).decode())
            self._arm()
        self._contexts.forget(part.key)
        self._ended[part.key] = None
        if len(self._ended) > _KEEP_ENDED:
            del self._ended[next(iter(self._ended))]
        return True

    def _arm(self) -> None:
        deadline = self._contexts.deadline
        if deadline is None or (self._timer is not None and self._timer.when() <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        for key in self._contexts.expire(self._loop.time()):
            part = self._parts[key]
            silent = f"no sign of life of part {key[1]} of turn {key[0]} for {self._contexts.timeout_s:g} s"
            self._mute = self._mute + 1 if not part.audio_ms else 0
            # A connection that is up and says nothing would leave the caller in silence turn after turn.
            gone = self._mute >= _MUTE_PARTS
            self.fail(ProviderError("cartesia", silent, retryable=not gone), fatal=gone, retryable=not gone)
            self._finish(part)
        self._admit()
        self._arm()

    def _misunderstood(self, data: str | bytes, exc: msgspec.ValidationError) -> None:
        """Types of messages that we do not know may look as they like."""
        try:
            kind = msgspec.json.decode(data, type=_Kind).type
        except msgspec.ValidationError:
            kind = ""
        if kind in _KNOWN:
            self.fail(RemoteProtocolError(f"cartesia sent a malformed {kind} message ({exc})"))


def _error(event: _Event, what: str) -> ProviderError:
    told = event.message or event.error or event.title or event.error_code or "no reason given"
    retryable = status_is_retryable(event.status_code)
    return ProviderError("cartesia", f"{what} with {event.status_code}: {told[:200]}", retryable=retryable)
