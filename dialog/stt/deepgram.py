"""Deepgram's live transcription (``/v1/listen``) as an :class:`~dialog.stt.stt.STT`.

Source: Deepgram's API reference of the live audio WebSocket, version 1, and observation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import ClassVar

import msgspec
from msgspec import Struct

from dialog.errors import ConfigurationError, ProviderError, RemoteProtocolError, StateError, UnsupportedFormat
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Message, SpeechEdge, Word
from dialog.net.reconnect import Backoff
from dialog.net.ring import AudioRing, StreamTime
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.net.urls import QueryValue, join, websocket_url
from dialog.stt.segments import Segment, SegmentCollector
from dialog.stt.stt import STT, STTCapabilities

__all__ = ["DeepgramSTT"]

DEFAULT_MODEL = "nova-3"
DEFAULT_LANGUAGE = "en-US"

_ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "s16le": "linear16"}
_STALE_MS = 1000.0
"""In a replay, a start of speech that is older than this is history, not a reason to pause anybody."""
_LONGEST_UTTERANCE_END_MS = 5000
"""The service takes 1000 to 5000."""
_KEEP_ALIVE = '{"type":"KeepAlive"}'
_FINALIZE = '{"type":"Finalize"}'
_CLOSE = '{"type":"CloseStream"}'


class _Word(Struct):
    word: str = ""
    start: float = 0.0
    end: float = 0.0
    confidence: float | None = None
    punctuated_word: str | None = None
    speaker: int | None = None


class _Alternative(Struct):
    transcript: str = ""
    confidence: float | None = None
    words: list[_Word] = []
    languages: list[str] = []


class _Channel(Struct):
    alternatives: list[_Alternative] = []


class _Event(Struct):
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


class _Kind(Struct):
    type: str = ""


_KNOWN = frozenset({"Results", "SpeechStarted", "UtteranceEnd", "Error"})
_decode = msgspec.json.Decoder(_Event).decode


class DeepgramSTT(STT):
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
        speech_events=True, speech_stops=False, interim_interval_ms=1000, words=True, eager=False, manual_turns=True
    )

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
        if not api_key:
            raise ConfigurationError("DeepgramSTT needs an api_key")
        self._base_url = websocket_url(base_url)
        super().__init__()
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
        self._headers = {"Authorization": f"Token {api_key}", **(headers or {})}
        self._timeout_s = timeout_s
        self._settings = SocketSettings(
            queue_limit=queue_size_limit,
            keep_alive=_KEEP_ALIVE,
            keep_alive_s=4.0,
            farewell=_CLOSE,
            backoff=backoff or Backoff(),
        )
        self._socket: ProviderSocket | None = None
        self._ring: AudioRing
        self._ms_per_byte = 0.0
        self._time = StreamTime()
        self._collector = SegmentCollector()
        self._safe_ms = 0.0
        self._discarded_ms = float("-inf")
        self._replayed_ms = 0.0
        self._connections = 0
        self._speaking = False
        self._finalizing: asyncio.TimerHandle | None = None

    @property
    def safe_ms(self) -> float:
        """Up to here, on the call's audio clock, nothing will be revised."""
        return self._safe_ms

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"deepgram: {audio_format} is none of {self.formats}")
        if self._socket is not None:
            raise StateError("DeepgramSTT.open was called twice")
        self._ring = AudioRing(audio_format)
        self._ms_per_byte = audio_format.ms(1)
        query = {
            **self._query,
            **(self._manual() if self.manual_turns else {}),
            **self._options,
            "encoding": _ENCODINGS[audio_format.encoding],
            "sample_rate": audio_format.sample_rate,
            **self._override,
        }
        self._socket = ProviderSocket(
            self,
            provider="deepgram",
            url=join(self._base_url, "/v1/listen", query),
            headers=self._headers,
            on_message=self._receive,
            on_open=self._connected,
            on_dropped=self._dropped,
            on_failed=self._failed,
            settings=self._settings,
        )
        self._socket.open()

    def post(self, message: Message[bytes]) -> None:
        """Queue caller audio and return; nothing happens once the connection was given up.

        Raises:
            StateError: Called before :meth:`open`.
        """
        socket = self._socket
        if socket is None:
            raise StateError("DeepgramSTT.post was called before open")
        data = message.data
        # An empty binary frame would end the stream for Deepgram.
        if not data or socket.failed:
            return
        self._ring.append(message)
        if socket.send(data):
            self._time.add(message.at_ms, len(data) * self._ms_per_byte)

    def finalize(self) -> None:
        """Ask for what was said so far: it comes as MESSAGE within ``timeout_s``, from the last interim if need be."""
        if self._socket is None or self.disposed:
            return
        self._socket.send(_FINALIZE)
        if self._finalizing is None:
            # The answer is best effort: if almost nothing is buffered, none comes.
            loop = asyncio.get_running_loop()
            self._finalizing = loop.call_later(self._timeout_s, self._finish, True)

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock, also what is recognised later."""
        self._collector.discard(before_ms)
        self._discarded_ms = max(self._discarded_ms, before_ms)
        # Another connection has no need to hear it again.
        self._safe_ms = max(self._safe_ms, before_ms)
        if self._socket is not None:
            self._ring.release(self._safe_ms)

    def dispose(self) -> None:
        """End for good: asks Deepgram to close, for at most a second, in the background."""
        self._stop_finalizing()
        super().dispose()

    def _manual(self) -> dict[str, QueryValue]:
        """Endpointing off, and the gap between words that ends an utterance as long as the service takes it."""
        longest = _LONGEST_UTTERANCE_END_MS if self._query["interim_results"] else None
        return {"endpointing": False, "utterance_end_ms": longest}

    def _connected(self) -> None:
        """A connection counts its audio from zero and knows nothing: play it what is not safe yet."""
        assert self._socket is not None
        self._time = StreamTime()
        self._connections += 1
        if self._connections > 1:
            self._collector.restart(self._safe_ms)
        self._replayed_ms = self._ring.end_ms
        for message in self._ring.since(self._safe_ms):
            if self._socket.send(message.data):
                self._time.add(message.at_ms, len(message.data) * self._ms_per_byte)

    def _failed(self, error: ProviderError) -> None:
        self._finish(interim=True)  # what was understood before all ended is still worth an answer
        self.fail(error, fatal=True, retryable=error.retryable)

    def _dropped(self, data: bytes) -> None:
        assert self._socket is not None
        duration = len(data) * self._ms_per_byte
        waiting = self._socket.queued_bytes * self._ms_per_byte
        self._time.drop(self._time.sent_ms - waiting - duration, duration)

    def _receive(self, data: str | bytes) -> None:
        try:
            event = _decode(data)
        except msgspec.ValidationError as exc:
            self._misunderstood(data, exc)
            return
        except msgspec.DecodeError as exc:
            self._protocol_error(f"a frame that is not JSON ({exc})")
            return
        if event.type == "Results":
            self._results(event)
        elif event.type == "SpeechStarted":
            self._speech_started(self._time.to_call(event.timestamp * 1000.0))
        elif event.type == "UtteranceEnd":
            self._utterance_end(event.last_word_end)
        elif event.type == "Error":
            reason = event.description or event.message or event.variant or "unknown error"
            self.fail(ProviderError("deepgram", f"reports: {reason[:200]}", retryable=True), retryable=True)

    def _results(self, event: _Event) -> None:
        channel = event.channel if isinstance(event.channel, _Channel) else _Channel()
        heard = channel.alternatives[0] if channel.alternatives else _Alternative()
        end_ms = self._time.to_call((event.start + event.duration) * 1000.0, end=True)
        segment = Segment(
            text=heard.transcript.strip(),
            start_ms=self._time.to_call(event.start * 1000.0),
            end_ms=end_ms,
            words=tuple(self._word(word) for word in heard.words),
            language=heard.languages[0] if heard.languages else None,
            confidence=heard.confidence if heard.transcript else None,
        )
        last = event.is_final and (event.speech_final or event.from_finalize)
        utterance = self._collector.add(segment, final=event.is_final, last=last)
        if event.is_final:
            self._safe_ms = max(self._safe_ms, end_ms)
            if last:
                self._finish(interim=False, end_ms=end_ms)
            self._ring.release(self._safe_ms)  # the answer does not wait for it
            if last:
                return
        if utterance is not None:
            self._speech_started(utterance.at_ms)  # Deepgram does not always say so before the words
            self.emit(STT.INTERIM, utterance)
        elif event.is_final and self._collector.empty:
            self._speech_stopped(end_ms)  # it was a noise

    def _word(self, word: _Word) -> Word:
        return Word(
            text=word.punctuated_word or word.word,
            start_ms=self._time.to_call(word.start * 1000.0),
            end_ms=self._time.to_call(word.end * 1000.0, end=True),
            confidence=word.confidence,
            speaker=None if word.speaker is None else str(word.speaker),
        )

    def _utterance_end(self, last_word_end: float) -> None:
        """Words stopped coming. It may trail a ``speech_final`` that said so before, or cut in late."""
        if self._collector.empty:
            return
        last_ms = self._time.to_call(last_word_end * 1000.0, end=True) if last_word_end >= 0 else None
        if last_ms is not None and last_ms < self._collector.start_ms:
            return  # about the utterance before
        interim = self._collector.interim
        if interim is None:
            self._finish(interim=False)
        elif last_ms is None or not interim.words or interim.words[-1].start_ms <= last_ms:
            self.finalize()  # its last words can still change
        else:
            self._finish(interim=False)  # the interim ones are of the next utterance

    def _finish(self, interim: bool, end_ms: float = 0.0) -> None:
        self._stop_finalizing()
        utterance = self._collector.finish(interim=interim)
        self._speech_stopped(utterance.end_ms if utterance is not None else end_ms or self._safe_ms)
        if utterance is not None:
            self.emit(STT.MESSAGE, utterance)

    def _stop_finalizing(self) -> None:
        if self._finalizing is not None:
            self._finalizing.cancel()
            self._finalizing = None

    def _speech_started(self, at_ms: float) -> None:
        if at_ms < self._discarded_ms:
            return
        if self._speaking and (not self._collector.empty or at_ms < self._replayed_ms):
            return
        if at_ms < self._replayed_ms and self._ring.end_ms - at_ms > _STALE_MS:
            return
        # Deepgram never says that a noise was over: another start before any word is a new one.
        self._speaking = True
        self.emit(STT.VAD, SpeechEdge(state="started", at_ms=at_ms))

    def _speech_stopped(self, at_ms: float) -> None:
        if self._speaking:
            self._speaking = False
            self.emit(STT.VAD, SpeechEdge(state="stopped", at_ms=at_ms))

    def _misunderstood(self, data: str | bytes, exc: msgspec.ValidationError) -> None:
        """Types of messages that we do not know may look as they like."""
        try:
            kind = msgspec.json.decode(data, type=_Kind).type
        except msgspec.ValidationError:
            kind = ""
        if kind in _KNOWN:
            self._protocol_error(f"a malformed {kind} message ({exc})")

    def _protocol_error(self, what: str) -> None:
        self.fail(RemoteProtocolError(f"deepgram sent {what}"))
