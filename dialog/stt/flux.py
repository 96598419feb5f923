"""Deepgram's Flux (``/v2/listen``), which decides itself when the caller has finished, and says so early.

Source: Deepgram's API reference of the conversational audio WebSocket, version 2, and observation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import ConfigurationError, ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Word
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.stt.deepgram import ENCODINGS
from dialog.stt.stt import STTCapabilities
from dialog.stt.turns import TurnSTT

__all__ = ["DeepgramFluxSTT"]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "flux-general-en"


class _Word(Struct):
    word: str = ""
    confidence: float | None = None
    start: float | None = None
    end: float | None = None


class _Event(Struct):
    """Any message of the service: the union of the fields that matter, decoded in one pass."""

    type: str = ""
    event: str = ""
    turn_index: int = 0
    audio_window_end: float = 0.0
    transcript: str = ""
    words: list[_Word] = []
    languages: list[str] | None = None
    code: str | None = None
    description: str | None = None


_KNOWN = frozenset({"TurnInfo", "Error", "Warning"})
_decode = msgspec.json.Decoder(_Event).decode


class DeepgramFluxSTT(TurnSTT):
    """Recognises speech and ends of turns with Deepgram Flux, over one socket for the whole call.

    It emits EAGER when the caller has probably finished, and EAGER_WITHDRAWN when more comes.
    :meth:`finalize` takes what is known after ``timeout_s``: the service cannot be asked.

    Args:
        api_key: Deepgram API key.
        base_url: Where the service is; http(s) or ws(s).
        model: ``flux-general-en`` unless told otherwise; ``flux-general-multi`` for other languages.
        language: The language, or several, that ``flux-general-multi`` has to expect; ``None``: it finds out.
        eot_threshold: How certain the end of a turn must be, 0.5 to 1.0; 1.0: only silence ends it.
        eager_eot_threshold: How probable an early end must be, 0.3 to 0.9; ``None``: no early ends.
        eot_timeout_ms: Silence that ends a turn in any case, 500 to 60000.
        keyterms: Words and phrases to expect.
        options: Further options of the service, also ones that this class does not know; they win.
        query: Further query parameters, for a proxy in between; they win over ``options``.
        headers: Further headers of the handshake.
        timeout_s: How long :meth:`finalize` waits before the last interim counts.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, the base URL is no URL, a threshold is out of its range, or the model
            does not know the language.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, ALAW_8K, PCM_16K, PCM_8K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True, interim_interval_ms=250, words=False, eager=True
    )
    provider = "deepgram-flux"
    farewell = '{"type":"CloseStream"}'
    pads_silence = True

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://api.deepgram.com",
        model: str = DEFAULT_MODEL,
        language: str | Iterable[str] | None = None,
        eot_threshold: float = 0.7,
        eager_eot_threshold: float | None = 0.5,
        eot_timeout_ms: int = 5000,
        keyterms: Iterable[str] = (),
        options: Mapping[str, QueryValue] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("DeepgramFluxSTT: keyterms", keyterms)
        languages = (language,) if isinstance(language, str) else tuple(language or ())
        if model == DEFAULT_MODEL:
            if any(not language.lower().startswith("en") for language in languages):
                raise ConfigurationError(f"DeepgramFluxSTT: {model} knows English only; use flux-general-multi")
            languages = ()  # only the multilingual model takes hints
        if not 0.5 <= eot_threshold <= 1.0 or not 500 <= eot_timeout_ms <= 60_000:
            raise ConfigurationError("DeepgramFluxSTT: need eot_threshold 0.5 to 1.0, eot_timeout_ms 500 to 60000")
        if eager_eot_threshold is not None and not 0.3 <= eager_eot_threshold <= min(0.9, eot_threshold):
            raise ConfigurationError("DeepgramFluxSTT: eager_eot_threshold must be 0.3 to 0.9, at most eot_threshold")
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            timeout_s=timeout_s,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
            model=model,
        )
        self._headers = {"Authorization": f"Token {api_key}", **(headers or {})}
        self._query: dict[str, QueryValue] = {
            "model": model,
            "eot_threshold": eot_threshold,
            "eager_eot_threshold": eager_eot_threshold,
            "eot_timeout_ms": eot_timeout_ms,
            "keyterm": tuple(keyterms),
            "language_hint": languages,
            **(options or {}),
        }
        self._override = dict(query or {})
        self._next_index = 0
        """Turns below it are over."""

    def url_for(self, audio_format: AudioFormat) -> str:
        """Everything is said in the query."""
        audio: dict[str, QueryValue] = {
            "encoding": ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
        }
        return join(self._base_url, "/v2/listen", {**self._query, **audio, **self._override})

    def _forget(self) -> None:
        super()._forget()
        self._next_index = 0

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, _KNOWN, "type")
            return
        if event.type == "TurnInfo":
            if event.turn_index >= self._next_index:
                self._turn_info(event)
            elif event.event == "EndOfTurn":
                self._repeated()
        elif event.type == "Error":
            # The service closes behind it; whatever it was, another connection can work.
            reason = f"reports {event.code or 'an error'}: {(event.description or '')[:200]}"
            self._refused(ProviderError(self.provider, reason, retryable=True))
        elif event.type == "Warning":
            logger.warning("%s warns of %s: %s", self.provider, event.code, (event.description or "")[:200])

    def _turn_info(self, event: _Event) -> None:
        until_ms = self._to_call(event.audio_window_end, end=True)
        words = self._words(event.words)
        language = event.languages[0] if event.languages else None
        if event.event == "EndOfTurn":
            self._next_index = event.turn_index + 1
            self._turn_ended(event.transcript, until_ms=until_ms, words=words, language=language)
            return
        if event.event == "TurnResumed":
            self._withdraw()
        self._turn(event.transcript, until_ms=until_ms, words=words, language=language)
        if event.event == "EagerEndOfTurn":
            self._eager()

    def _words(self, words: list[_Word]) -> tuple[Word, ...]:
        """The words, if the service tells when they were said."""
        placed = tuple(
            Word(
                text=word.word,
                start_ms=self._to_call(word.start),
                end_ms=self._to_call(word.end, end=True),
                confidence=word.confidence,
            )
            for word in words
            if word.start is not None and word.end is not None
        )
        return placed if len(placed) == len(words) else ()
