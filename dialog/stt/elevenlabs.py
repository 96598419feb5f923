"""ElevenLabs' Scribe, realtime (``/v1/speech-to-text/realtime``), as an :class:`~dialog.stt.stt.STT`.

Source: ElevenLabs' API reference of the realtime speech-to-text WebSocket, seen November 2026, and its SDK 2.78.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.message import MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat, Word
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.stt.segments import speaker_name
from dialog.stt.stt import STTCapabilities
from dialog.stt.turns import TurnSTT

__all__ = ["ElevenLabsSTT"]

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "scribe_v2_realtime"
DEFAULT_LANGUAGE = "en"

_REPEATED_MS = 300.0
"""The shortest silence that ends an utterance: sooner than this the same words cannot be said again."""
_OVERDUE = 8
"""Texts whose times may still come when they have been told without."""


class _Word(Struct):
    text: str = ""
    start: float = 0.0
    end: float = 0.0
    type: str = "word"
    speaker_id: str | None = None


class _Event(Struct):
    """Any message of the service: the union of the fields that matter, decoded in one pass."""

    message_type: str = ""
    text: str = ""
    language_code: str | None = None
    words: list[_Word] | None = None
    error: str = ""
    warning: str = ""


_FATAL = frozenset({"auth_error", "quota_exceeded", "unaccepted_terms", "invalid_request"})
"""Another connection would be told the same."""
_PASSING = frozenset(
    {
        "error", "transcriber_error", "rate_limited", "input_error", "queue_overflow", "resource_exhausted",
        "chunk_size_exceeded", "insufficient_audio_activity",
    }
)  # fmt: skip
"""The service ends the connection behind them; another one can work."""
_KNOWN = frozenset(
    {
        *_FATAL, *_PASSING, "partial_transcript", "committed_transcript", "committed_transcript_with_timestamps",
        "commit_throttled", "session_time_limit_exceeded", "warning",
    }
)  # fmt: skip
_decode = msgspec.json.Decoder(_Event).decode


class ElevenLabsSTT(TurnSTT):
    """Recognises speech with ElevenLabs Scribe, over one socket for the whole call.

    The service does not say when speech starts: the first words that it tells count as that. It tells no
    times of words either, unless ``options`` has ``include_timestamps``; utterances then wait for them.

    Args:
        api_key: ElevenLabs API key.
        base_url: Where the service is; http(s) or ws(s). Regions have hosts of their own.
        model: ``scribe_v2_realtime`` unless told otherwise.
        language: ``en`` unless told otherwise; ``None``: the service finds out.
        endpointing_ms: Silence that ends an utterance, 300 to 3000; the service's own default is 1500.
        keyterms: Words and phrases to expect, at most 50 of 20 characters each.
        options: Further options of the service, also ones that this class does not know; they win.
        query: Further query parameters, for a proxy in between; they win over ``options``.
        headers: Further headers of the handshake.
        timeout_s: How long :meth:`finalize` waits for the service before the last interim counts.
        echo_discard_s: An utterance that repeats what we say, and ends at most so long after it, is our echo.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, the base URL is no URL, or ``endpointing_ms`` or ``keyterms`` are out of bounds.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_16K, PCM_8K, PCM_24K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True,
        interim_interval_ms=250,
        words=False,
        eager=False,
        manual_turns=True,
        regions=("us", "eu", "in", "sg"),
    )
    provider = "elevenlabs"

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://api.elevenlabs.io",
        model: str = DEFAULT_MODEL,
        language: str | None = DEFAULT_LANGUAGE,
        endpointing_ms: int = 500,
        keyterms: Iterable[str] = (),
        options: Mapping[str, QueryValue] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        echo_discard_s: float = 0.4,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("ElevenLabsSTT: keyterms", keyterms)
        terms = tuple(keyterms)
        if not 300 <= endpointing_ms <= 3000:
            raise ConfigurationError(f"ElevenLabsSTT: endpointing_ms must be 300 to 3000, got {endpointing_ms}")
        if len(terms) > 50 or any(len(term) > 20 for term in terms):
            raise ConfigurationError("ElevenLabsSTT: at most 50 keyterms of at most 20 characters each")
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            timeout_s=timeout_s,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
            echo_discard_s=echo_discard_s,
            model=model,
        )
        self._headers = {"xi-api-key": api_key, **(headers or {})}
        self._query: dict[str, QueryValue] = {
            "model_id": model,
            "language_code": language,
            "commit_strategy": "vad",
            "vad_silence_threshold_secs": endpointing_ms / 1000,
            "keyterms": terms,
        }
        self._options = dict(options or {})
        self._override = dict(query or {})
        self._waits_for_times = self._options.get("include_timestamps") is True
        self._committed: tuple[str, float] = ("", 0.0)
        """The last final text, and how much audio the service had been given by then."""
        self._told_words = False
        """Words came since then."""
        self._untimed: _Event | None = None
        """A final text that waits for its times."""
        self._overdue: deque[str] = deque(maxlen=_OVERDUE)
        """Texts that did not wait any longer: their times come too late."""

    def url_for(self, audio_format: AudioFormat) -> str:
        """Everything is said in the query; audio and commands are one kind of message."""
        rate = audio_format.sample_rate
        chunk = '{"message_type":"input_audio_chunk","audio_base_64":"'
        audio_end, commit_end = (f'","commit":{commit},"sample_rate":{rate}}}' for commit in ("false", "true"))
        self._sent.in_text(chunk, audio_end)
        self.finalize_with = chunk + commit_end
        self._settings = replace(self._settings, keep_alive=chunk + audio_end)
        query = {
            **self._query,
            **({"commit_strategy": "manual", "vad_silence_threshold_secs": None} if self.manual_turns else {}),
            **self._options,
            "audio_format": f"{'ulaw' if audio_format.encoding == 'mulaw' else 'pcm'}_{rate}",
            **self._override,
        }
        return join(self._base_url, "/v1/speech-to-text/realtime", query)

    def _forget(self) -> None:
        super()._forget()
        self._committed = ("", 0.0)
        self._told_words = False
        self._overdue.clear()

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, _KNOWN, "message_type")
            return
        kind = event.message_type
        if kind == "partial_transcript":
            self._told_words = self._told_words or bool(event.text)
            self._turn(event.text)
        elif kind == "committed_transcript":
            self._commit(event, last=not self._waits_for_times)
        elif kind == "committed_transcript_with_timestamps":
            if event.text in self._overdue:
                self._overdue.remove(event.text)
            elif self._waits_for_times:
                self._commit(event, last=True)
        elif kind == "session_time_limit_exceeded":
            self._renew()
        elif kind == "warning":
            logger.warning("%s warns: %s", self.provider, event.warning[:200])
        elif kind == "commit_throttled":
            error = ProviderError(self.provider, f"reports {kind}: {event.error[:200]}", retryable=True)
            self.fail(error, retryable=True)
        elif kind in _FATAL or kind in _PASSING:
            self._refuse(kind, event.error)

    def _commit(self, event: _Event, *, last: bool) -> None:
        """The utterance is over; it is told again with times if those were asked for."""
        if not last:
            self._turn(event.text)
            self._untimed = event  # the times are bound to come, but not for ever
            self._stop_finalizing()
            self._finalizing = asyncio.get_running_loop().call_later(self._timeout_s, self._too_late)
            return
        self._untimed = None
        last_text, sent_ms = self._committed
        now_ms = self._sent.time.sent_ms
        if not self._told_words and event.text == last_text and now_ms - sent_ms < _REPEATED_MS:
            self._repeated()
            return
        self._committed, self._told_words = (event.text, now_ms), False
        words = tuple(self._word(word) for word in event.words or () if word.type == "word")
        self._turn_ended(event.text, words=words, language=event.language_code)

    def _too_late(self) -> None:
        if self._untimed is not None:
            self._overdue.append(self._untimed.text)
            self._commit_untimed()

    def _commit_untimed(self) -> None:
        if self._untimed is not None:
            self._commit(self._untimed, last=True)

    def _lost(self) -> None:
        self._commit_untimed()
        super()._lost()

    def _word(self, word: _Word) -> Word:
        return Word(
            text=word.text,
            start_ms=self._to_call(word.start),
            end_ms=self._to_call(word.end, end=True),
            speaker=speaker_name(word.speaker_id),
        )

    def _refuse(self, kind: str, reason: str) -> None:
        reason = f"reports {kind}: {reason[:200]}"
        if kind == "auth_error":
            self._refused(AuthenticationError(self.provider, reason))
        else:
            self._refused(ProviderError(self.provider, reason, retryable=kind not in _FATAL))
