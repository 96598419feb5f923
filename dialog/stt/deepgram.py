"""Deepgram's live transcription (``/v1/listen``) as an :class:`~dialog.stt.stt.STT`.

Source: Deepgram's API reference of the live audio WebSocket, version 1, and observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import ProviderError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Word
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.stt.segments import Segment, speaker_name
from dialog.stt.streaming import StreamingSTT
from dialog.stt.stt import STTCapabilities

__all__ = ["DeepgramSTT"]

DEFAULT_MODEL = "nova-3"
DEFAULT_LANGUAGE = "en-US"

ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "s16le": "linear16"}
_LONGEST_UTTERANCE_END_MS = 5000
"""The service takes 1000 to 5000."""


class _Word(Struct, gc=False):
    word: str = ""
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None
    punctuated_word: str | None = None
    speaker: int | None = None


class _Alternative(Struct, gc=False):
    transcript: str = ""
    confidence: float | None = None
    words: list[_Word] = []
    languages: list[str] = []


class _Channel(Struct, gc=False):
    alternatives: list[_Alternative] = []


class _Event(Struct, gc=False):
    """Any message of the service: the union of the fields that matter, decoded in one pass."""

    type: str = ""
    start: float = 0.0
    duration: float = 0.0
    is_final: bool = False
    speech_final: bool = False
    from_finalize: bool = False
    channel: _Channel | list[int] | None = None
    timestamp: float = 0.0
    last_word_end: float = -1.0
    description: str | None = None
    message: str | None = None
    variant: str | None = None


_KNOWN = frozenset({"Results", "SpeechStarted", "UtteranceEnd", "Error"})
_decode = msgspec.json.Decoder(_Event).decode


class DeepgramSTT(StreamingSTT):
    """Recognises speech with Deepgram, over one socket for the whole call.

    Args:
        api_key: Deepgram API key.
        base_url: Where the service is; http(s) or ws(s).
        model: ``nova-3`` unless told otherwise.
        language: ``en-US`` unless told otherwise; ``multi`` for mixed languages, ``None`` for the service's default.
        endpointing_ms: Silence that ends an utterance; ``None``: only ``utterance_end_ms`` and :meth:`finalize` do.
        utterance_end_ms: Gap between words that ends an utterance in noise, at least 1000; ``None``: off.
        interim_results: Tell the words while they are said; without them nothing can be cut by words.
        vad_events: Tell when speech starts.
        smart_format: Punctuation, and numbers as digits.
        keyterms: Words and phrases to expect (Nova-3).
        options: Further options of the service, also ones that this class does not know; they win.
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
        speech_events=True, interim_interval_ms=1000, words=True, eager=False, manual_turns=True
    )
    provider = "deepgram"
    keep_alive = '{"type":"KeepAlive"}'
    finalize_with = '{"type":"Finalize"}'
    farewell = '{"type":"CloseStream"}'

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://api.deepgram.com",
        model: str = DEFAULT_MODEL,
        language: str | None = DEFAULT_LANGUAGE,
        endpointing_ms: int | None = 300,
        utterance_end_ms: int | None = 1000,
        interim_results: bool = True,
        vad_events: bool = True,
        smart_format: bool = True,
        keyterms: Iterable[str] = (),
        options: Mapping[str, QueryValue] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("DeepgramSTT: keyterms", keyterms)
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
            "language": language,
            "channels": 1,
            "interim_results": interim_results,
            "endpointing": False if endpointing_ms is None else endpointing_ms,
            # The service refuses utterance_end_ms without interim results.
            "utterance_end_ms": utterance_end_ms if interim_results else None,
            "vad_events": vad_events,
            "smart_format": smart_format,
            "keyterm": tuple(keyterms),
        }
        self._options = dict(options or {})
        self._override = dict(query or {})

    def url_for(self, audio_format: AudioFormat) -> str:
        """Everything is said in the query."""
        query = {
            **self._query,
            **(self._manual() if self.manual_turns else {}),
            **self._options,
            "encoding": ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
            **self._override,
        }
        return join(self._base_url, "/v1/listen", query)

    def _manual(self) -> dict[str, QueryValue]:
        """Endpointing off, and the gap between words that ends an utterance as long as the service takes it."""
        longest = _LONGEST_UTTERANCE_END_MS if self._query["interim_results"] else None
        return {"endpointing": False, "utterance_end_ms": longest}

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, _KNOWN, "type")
            return
        if event.type == "Results":
            self._results(event)
        elif event.type == "SpeechStarted":
            self._speech_started(self._to_call(event.timestamp))
        elif event.type == "UtteranceEnd":
            self._utterance_end(event.last_word_end)
        elif event.type == "Error":
            reason = event.description or event.message or event.variant or "unknown error"
            self.fail(ProviderError("deepgram", f"reports: {reason[:200]}", retryable=True), retryable=True)

    def _results(self, event: _Event) -> None:
        channel = event.channel if isinstance(event.channel, _Channel) else _Channel()
        heard = channel.alternatives[0] if channel.alternatives else _Alternative()
        spans_s = [(word.start, word.end) for word in heard.words]
        spans_s.append((event.start, event.start + event.duration))
        *of_words, (start_ms, end_ms) = self._sent.time.spans(spans_s)
        words = [
            Word(
                text=word.punctuated_word or word.word,
                start_ms=begins_ms,
                end_ms=ends_ms,
                confidence=word.confidence,
                speaker=None if word.speaker is None else speaker_name(word.speaker),
            )
            for word, (begins_ms, ends_ms) in zip(heard.words, of_words, strict=True)
        ]
        segment = Segment(
            text=heard.transcript.strip(),
            start_ms=start_ms,
            end_ms=end_ms,
            words=tuple(words),
            language=heard.languages[0] if heard.languages else None,
            confidence=heard.confidence if heard.transcript else None,
        )
        final = event.is_final
        self._segment(segment, final=final, last=final and (event.speech_final or event.from_finalize))

    def _utterance_end(self, last_word_end: float) -> None:
        """Words stopped coming. It may trail a ``speech_final`` that said so before, or cut in late."""
        if self._collector.empty:
            return
        last_ms = self._to_call(last_word_end, end=True) if last_word_end >= 0 else None
        if last_ms is not None and last_ms < self._collector.start_ms:
            return  # about the utterance before
        interim = self._collector.interim
        if interim is None:
            self._finish(interim=False)
        elif last_ms is None or not interim.words or interim.words[-1].start_ms <= last_ms:
            self.finalize()  # its last words can still change
        else:
            self._finish(interim=False)  # the interim ones are of the next utterance
