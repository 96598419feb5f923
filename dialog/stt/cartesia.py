"""Cartesia's Ink: with turns that it ends itself (``/stt/turns/websocket``), or manual (``/stt/websocket``).

Source: Cartesia's API reference of the speech-to-text WebSockets, version 2026-08-14, and observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import AuthenticationError, ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Word
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff, status_is_retryable
from dialog.net.urls import QueryValue, join
from dialog.stt.stt import STTCapabilities
from dialog.stt.turns import TurnSTT

__all__ = ["CartesiaSTT"]

API_VERSION = "2026-08-14"
DEFAULT_MODEL = "ink-2"
DEFAULT_LANGUAGE = "en"

_ENCODINGS = {"mulaw": "pcm_mulaw", "alaw": "pcm_alaw", "s16le": "pcm_s16le"}


class _Word(Struct):
    word: str = ""
    start: float = 0.0
    end: float = 0.0


class _Event(Struct):
    """Any message of the service, in both modes: the union of the fields that matter, decoded in one pass."""

    type: str = ""
    transcript: str = ""
    text: str = ""
    is_final: bool = False
    language: str | None = None
    words: list[_Word] | None = None
    title: str | None = None
    message: str | None = None
    error_code: str | None = None
    status_code: int = 500


_KNOWN = frozenset(
    {"turn.start", "turn.update", "turn.eager_end", "turn.resume", "turn.end", "transcript", "flush_done", "error"}
)
_decode = msgspec.json.Decoder(_Event).decode


class CartesiaSTT(TurnSTT):
    """Recognises speech with Cartesia Ink, over one socket for the whole call.

    It ends turns itself, with EAGER and EAGER_WITHDRAWN before. With :attr:`manual_turns` it speaks the
    service's manual protocol instead: :meth:`finalize` alone ends an utterance, words have times, and
    nothing tells that speech starts but its first word.

    Args:
        api_key: Cartesia API key.
        base_url: Where the service is; http(s) or ws(s).
        model: ``ink-2`` unless told otherwise (English only); ``ink-whisper`` works with manual turns only.
        language: ``en`` unless told otherwise; only the manual protocol takes it.
        keyterms: Words and phrases to expect, at most 100 of 1200 characters in all.
        options: Further options of the service, for instance ``turn_end_timeout_ms``; they win.
        query: Further query parameters, for a proxy in between; they win over ``options``.
        headers: Further headers of the handshake.
        timeout_s: How long :meth:`finalize` waits for the service before the last interim counts.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_16K, PCM_8K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True, interim_interval_ms=250, words=False, eager=True, manual_turns=True
    )
    provider = "cartesia"
    farewell = '{"type":"close"}'
    pads_silence = True
    idle_silence_s = 30.0

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://api.cartesia.ai",
        model: str = DEFAULT_MODEL,
        language: str | None = DEFAULT_LANGUAGE,
        keyterms: Iterable[str] = (),
        options: Mapping[str, QueryValue] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("CartesiaSTT: keyterms", keyterms)
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            timeout_s=timeout_s,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
            model=model,
        )
        self._headers = {"X-API-Key": api_key, "Cartesia-Version": API_VERSION, **(headers or {})}
        self._query: dict[str, QueryValue] = {"model": model, "keyterm": tuple(keyterms)}
        self._language = language
        self._options = dict(options or {})
        self._override = dict(query or {})
        self._in_turn = False
        self._finals = ""
        """Manual turns: the text that will not change …"""
        self._words: tuple[Word, ...] = ()
        """… and its words."""

    def url_for(self, audio_format: AudioFormat) -> str:
        """Everything is said in the query; the path says who ends a turn."""
        path, query = "/stt/turns/websocket", self._query
        if self.manual_turns:
            path, query = "/stt/websocket", {**query, "language": self._language}
            self.finalize_with = "finalize"  # here commands are plain words
            self._settings = replace(self._settings, farewell="close")
        audio: dict[str, QueryValue] = {
            "encoding": _ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
        }
        return join(self._base_url, path, {**query, **self._options, **audio, **self._override})

    def _forget(self) -> None:
        super()._forget()
        self._in_turn = False
        self._finals, self._words = "", ()

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, _KNOWN, "type")
            return
        kind = event.type
        if kind == "transcript":
            self._transcript(event)
        elif kind == "turn.start":
            self._in_turn = True
            self._turn_began()
        elif kind == "error":
            self._error(event)
        elif kind == "flush_done":
            self._turn_ended(self._finals, words=self._words)
            self._finals, self._words = "", ()
        elif self._in_turn:
            self._turn_event(kind, event.transcript)
        elif kind == "turn.end":
            self._repeated()

    def _turn_event(self, kind: str, text: str) -> None:
        if kind == "turn.update":
            self._turn(text)
        elif kind == "turn.eager_end":
            self._turn(text)
            self._eager()
        elif kind == "turn.resume":
            self._withdraw()
        elif kind == "turn.end":
            self._in_turn = False
            self._turn_ended(text)

    def _transcript(self, event: _Event) -> None:
        """Manual turns: what was said since the last final text, which is continued as it is."""
        new = tuple(
            Word(text=word.word.strip(), start_ms=self._to_call(word.start), end_ms=self._to_call(word.end, end=True))
            for word in event.words or ()
        )
        if new and self._words and new[0].start_ms <= self._words[-1].start_ms:
            self._repeated()
            return
        text, words = self._finals + event.text, self._words + new
        if event.is_final:
            self._finals, self._words = text, words
        self._turn(text, words=words, language=event.language)

    def _error(self, event: _Event) -> None:
        status = event.status_code
        reason = f"reports {status} {event.error_code or event.title or ''}: {(event.message or '')[:200]}"
        if status in (401, 403):
            self._refused(AuthenticationError(self.provider, reason))
        else:
            self._refused(ProviderError(self.provider, reason, retryable=status_is_retryable(status)))
