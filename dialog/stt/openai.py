"""OpenAI's realtime transcription (``/v1/realtime?intent=transcription``) as an :class:`~dialog.stt.stt.STT`.

Source: OpenAI's API reference of realtime transcription sessions (general availability), and its SDK 3.52.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias, get_args

from msgspec.structs import replace

from dialog.checks import check_several
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError
from dialog.message import AudioFormat, Word
from dialog.net.malformed import UNDECODABLE
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.stt.openai_items import Item, Items
from dialog.stt.openai_wire import (
    FORMATS,
    KNOWN,
    TRANSCRIPTION,
    UPDATE_ID,
    Error,
    Event,
    Session,
    decode,
    session_update,
)
from dialog.stt.segments import Segment, speaker_name
from dialog.stt.stt import STTCapabilities
from dialog.stt.turn_detection import ServerVAD, TurnDetection
from dialog.stt.turns import TurnSTT

__all__ = ["NoiseReduction", "OpenAIRealtimeSTT"]

NoiseReduction: TypeAlias = Literal["near_field", "far_field"]

DEFAULT_MODEL = "gpt-transcribe"
DEFAULT_LANGUAGE = "en"
DEFAULT_BASE_URL = "https://api.openai.com/v1"
STREAMING_MODELS = frozenset({"gpt-live-transcribe", "gpt-realtime-whisper"})
"""They tell words while they are said, and end no utterance by themselves."""

_SESSION_S = 900.0
"""The cap is said to be an hour, but sessions were cut after a quarter of one."""
_SHORTEST_SESSION_S = 60.0
"""A session that seems to end sooner is a clock that goes wrong."""
_READY_S = 5.0
"""How long the service may take to accept the settings."""
_LATE_S = 2.0
"""How long an utterance may hold up those behind it."""
_PADDING_MS = 300.0
"""What the detectors put before speech unless told otherwise."""
_KEY_CODES = frozenset({"invalid_api_key", "authentication_error", "invalid_authentication"})
_LASTING_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "beta_api_shape_disabled"})
_EMPTY_CODE = "input_audio_buffer_commit_empty"


class OpenAIRealtimeSTT(TurnSTT):
    """Recognises speech with OpenAI's realtime transcription, over one socket for the whole call.

    The service tells when speech starts and stops, and the words when the utterance is over. The streaming
    models (``gpt-live-transcribe``, ``gpt-realtime-whisper``) tell them while they are said, and leave it to
    others to end utterances: the agent then has a local VAD, and :meth:`finalize` is called.

    Args:
        api_key: OpenAI API key.
        base_url: Where the service is, with its version; http(s) or ws(s).
        model: ``gpt-transcribe`` unless told otherwise; ``gpt-4o-transcribe``, ``gpt-4o-mini-transcribe`` and
            ``whisper-1`` end on 27 February 2027, and it succeeds them.
        language: ``en`` unless told otherwise; several that may be spoken; ``None``: the service finds out.
        prompt: What the call is about, or how words are written; empty: none.
        keyterms: Words and phrases to expect.
        turn_detection: What ends an utterance: ``ServerVAD()``, which ``None`` stands for, or ``SemanticVAD()``
            of :mod:`dialog.stt.turn_detection`.
        noise_reduction: For a telephone at the ear (``near_field``), or one on the table (``far_field``).
        options: Further fields of the session, also ones that this class does not know; they win, level by level.
        query: Further query parameters.
        headers: Further headers of the handshake.
        timeout_s: How long :meth:`finalize` waits for the service before the last interim counts.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, the base URL is no URL, there is no such noise reduction, or the model
            has no turn detection.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = tuple(FORMATS)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True,
        interim_interval_ms=None,
        words=False,
        eager=False,
        manual_turns=True,
        limits="sessions of 15 to 60 minutes, renewed unheard",
    )
    provider = "openai"
    finalize_with = '{"type":"input_audio_buffer.commit"}'
    waits_until_ready = True

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = DEFAULT_BASE_URL,
        model: str = DEFAULT_MODEL,
        language: str | Iterable[str] | None = DEFAULT_LANGUAGE,
        prompt: str = "",
        keyterms: Iterable[str] = (),
        turn_detection: TurnDetection | None = None,
        noise_reduction: NoiseReduction | None = None,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("OpenAIRealtimeSTT: keyterms", keyterms)
        if noise_reduction is not None and noise_reduction not in get_args(NoiseReduction):
            raise ConfigurationError(
                f"OpenAIRealtimeSTT: noise_reduction must be near_field, far_field or None, got {noise_reduction!r}"
            )
        self._streams = model in STREAMING_MODELS
        if self._streams and turn_detection is not None:
            raise ConfigurationError(
                f"OpenAIRealtimeSTT: {model} has no turn detection, use {DEFAULT_MODEL} or a local VAD"
            )
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            timeout_s=timeout_s,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
            session_s=_SESSION_S,
            model=model,
        )
        self._headers = {"Authorization": f"Bearer {api_key}", **(headers or {})}
        self._query = {"intent": "transcription", **(query or {})}
        self._detection = None if self._streams else turn_detection or ServerVAD()
        if self._streams:
            self.capabilities = replace(  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]  # the model decides
                self.capabilities, speech_events=False, interim_interval_ms=250, endpointing=False
            )
        self._session_update = partial(
            session_update,
            model=model,
            languages=[language] if isinstance(language, str) else list(language or ()),
            prompt=prompt,
            keyterms=tuple(keyterms),
            noise_reduction=noise_reduction,
            options=dict(options or {}),
        )
        self._update = ""
        self._last_event = ""
        self._items = Items()
        self._voice_on = False
        """The service hears somebody speak."""
        self._wanted_ms: float | None = None
        """Up to where :meth:`finalize` wants the words, until the service has committed them …"""
        self._awaited = False
        """… and until they have come."""
        self._told_codes: set[str] = set()
        """Errors of this connection that were reported."""
        self._timer: asyncio.TimerHandle | None = None
        """Until the settings are accepted; then until an utterance that holds up others is given up."""

    def url_for(self, audio_format: AudioFormat) -> str:
        """The settings follow in the first message."""
        detection = None if self.manual_turns else self._detection
        self._update = self._session_update(audio_format, turn_detection=detection)
        self._sent.in_text('{"type":"input_audio_buffer.append","audio":"', '"}')
        return join(self._base_url, "/realtime", self._query)

    def _ask(self) -> bool:
        self._wanted_ms = self._sent.until_ms
        self._awaited = super()._ask()
        return self._awaited

    def _forget(self) -> None:
        super()._forget()
        self._items.clear()
        self._told_codes.clear()
        self._last_event = ""
        self._voice_on = False
        self._wanted_ms = None
        self._set_timer(_READY_S, self._not_ready)

    def _receive(self, data: str | bytes) -> None:
        try:
            event = decode(data)
        except UNDECODABLE as exc:
            self._undecodable(data, exc, KNOWN, "type")
            return
        if event.event_id and event.event_id == self._last_event:
            self._repeated()
            return
        self._last_event = event.event_id
        kind = event.type
        if kind.startswith(TRANSCRIPTION):
            self._transcription(kind[len(TRANSCRIPTION) :], event)
        elif kind == "input_audio_buffer.speech_started":
            self._started(event)
        elif kind in ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"):
            self._ended(event, spoken=kind.endswith("stopped"))
        elif kind == "session.created":
            self._created(event.session or Session())
        elif kind == "session.updated":
            if not self._ready:
                self._set_timer()
                self._start_audio()
        elif kind == "error":
            self._error(event.error or Error())

    # The session.

    def _created(self, session: Session) -> None:
        left_s = (session.expires_at or 0.0) - time.time()
        if _SHORTEST_SESSION_S <= left_s < _SESSION_S:
            self._limit_session(left_s)
        assert self._socket is not None
        self._socket.send(self._update)

    def _not_ready(self) -> None:
        reason = f"did not accept the session within {_READY_S:g} s"
        self._refused(ProviderError(self.provider, reason, retryable=True))

    def _error(self, error: Error) -> None:
        """Most errors are about one message, and the session goes on."""
        code = str(error.code or error.type)
        if code == _EMPTY_CODE:
            self._awaited = False
            return  # nothing was said; who asked for words is answered when their time is up
        reason = f"reports {error}"
        if code in _KEY_CODES or error.type in _KEY_CODES:
            self._refused(AuthenticationError(self.provider, reason))
        elif code == "session_expired":
            self._renew()
        elif code in _LASTING_CODES or error.event_id == UPDATE_ID or not self._ready:
            self._refused(ProviderError(self.provider, reason, retryable=error.type == "server_error"))
        elif code not in self._told_codes:
            self._told_codes.add(code)
            self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)

    # Utterances.

    def _started(self, event: Event) -> None:
        item = self._items.get(event.item_id)
        if item is None:
            return
        detection = self._detection
        padding_ms = detection.prefix_padding_ms if isinstance(detection, ServerVAD) else _PADDING_MS
        item.start_ms = self._to_call((event.audio_start_ms + padding_ms) / 1000.0)
        self._voice_on = True
        self._speech_started(item.start_ms)

    def _ended(self, event: Event, *, spoken: bool) -> None:
        """The voice stopped, or the audio was committed, which comes after it or because we asked."""
        self._voice_on = False
        item = self._items.get(event.item_id)
        if item is None or item.end_ms is not None:
            return
        if spoken:
            detection = self._detection
            silence_ms = detection.silence_duration_ms if isinstance(detection, ServerVAD) else 0
            item.end_ms = self._to_call((event.audio_end_ms - silence_ms) / 1000.0, end=True)
        else:
            item.end_ms = self._sent.until_ms if self._wanted_ms is None else self._wanted_ms
            self._wanted_ms = None

    def _transcription(self, kind: str, event: Event) -> None:
        item = self._items.get(event.item_id)
        if item is None:
            return
        if kind == "delta":
            item.text += event.delta or ""
        elif kind == "completed":
            item.text = event.transcript or ""
            item.done = True
            item.language = event.language
        elif kind == "failed":
            reason = f"could not transcribe an utterance: {event.error or Error()}"
            self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
            item.done = True
        elif kind == "segment":
            item.words.append(self._spoken_by(event, item))
            return
        self._tell()

    def _spoken_by(self, event: Event, item: Item) -> Word:
        """A stretch of one speaker's, with times from the start of the utterance."""
        from_ms = item.start_ms if item.start_ms is not None else self._safe_ms
        return Word(
            text=(event.text or "").strip(),
            start_ms=from_ms + event.start * 1000.0,
            end_ms=from_ms + event.end * 1000.0,
            speaker=speaker_name(event.speaker),
        )

    def _tell(self) -> None:
        """Tell what is known, utterance after utterance: the service may finish them in another order."""
        for item in self._items.take_done():
            self._awaited = False
            self._heard(item, last=True)
        first = self._items.first
        if first is not None and first.text:
            self._heard(first, last=False)
        if not self._items.held_up:
            self._set_timer()
        elif self._timer is None:
            self._set_timer(_LATE_S, self._give_up)

    def _heard(self, item: Item, *, last: bool) -> None:
        text = item.text.strip()
        if item.start_ms is None and not item.words:
            # Nobody told when it began: words are told as they are said, or all when they were said.
            self._turn_from_ms = self._safe_ms
            if not self._streams:
                self._placed.clear()
            self._turn(text, until_ms=item.end_ms, language=item.language, last=last)
        elif text or last:
            self._knows_times = True
            start_ms = item.start_ms if item.start_ms is not None else item.words[0].start_ms
            end_ms = max(start_ms, self._sent.until_ms if item.end_ms is None else item.end_ms)
            words = tuple(item.words) if last else ()
            self._tells_words = bool(words)
            segment = Segment(text=text, start_ms=start_ms, end_ms=end_ms, words=words, language=item.language)
            self._segment(segment, final=last, last=last)
        if last:
            self._next_turn()

    def _give_up(self) -> None:
        self._timer = None
        if (first := self._items.first) is not None:
            first.done = True
        reason = "did not transcribe an utterance, but one behind it"
        self.fail(ProviderError(self.provider, reason, retryable=True), retryable=True)
        self._tell()

    def _speech_stopped(self, at_ms: float) -> None:
        # The words of an utterance may come when the next has begun.
        if not self._voice_on:
            super()._speech_stopped(at_ms)

    def _set_timer(self, delay_s: float = 0.0, do: Callable[[], object] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, do) if do is not None else None

    def _lost(self) -> None:
        super()._lost()
        self._set_timer()
        self._unasked = self._unasked or self._awaited  # the next connection is asked again

    def _stop_timers(self) -> None:
        super()._stop_timers()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
