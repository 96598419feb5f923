"""Azure's continuous recognition (``/stt/speech/universal/v2``) as an :class:`~dialog.stt.stt.STT`.

The socket is driven as Azure's Speech SDK drives it, but without its native threads, its 100 ms of gathering
audio, and its stops that block for seconds.

Source: what the Speech SDK 1.53 sends and takes, and Microsoft's description of the Speech WebSocket protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from uuid import uuid4

import msgspec

from dialog.checks import check_several
from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, AudioFormat, Word
from dialog.net.azure import DEFAULT_REGION, TICKS_PER_MS, host, parse_usp, usp_text, usp_time
from dialog.net.malformed import UNDECODABLE
from dialog.net.options import merged
from dialog.net.reconnect import Backoff
from dialog.net.urls import QueryValue, join
from dialog.stt.azure_wire import KNOWN, Best, Event, SpokenWord, Turn, decode, speech_config, speech_context, wave_head
from dialog.stt.stt import STTCapabilities
from dialog.stt.turns import TurnSTT

__all__ = ["AzureSTT"]

DEFAULT_LANGUAGE = "en-US"

_NO_WORDS = frozenset({"NoMatch", "InitialSilenceTimeout", "BabbleTimeout"})
_PASSING = frozenset({"Error", "TooManyRequests", "ServiceUnavailable"})
"""Another connection can work."""
_SESSION_S = 600.0
"""How long a connection is said to last."""
_TURN_S = 2.0
"""How long the service may take to end a turn."""
_LONGEST_SILENCE_MS = 5000


class AzureSTT(TurnSTT):
    """Recognises speech with Azure, over one socket for the whole call.

    Args:
        api_key: Key of the speech resource.
        region: Region of the resource; ``westeurope`` unless told otherwise.
        language: ``en-US`` unless told otherwise, always with its country.
        silence_timeout_ms: Silence that ends an utterance, 100 to 5000.
        keyterms: Words and phrases to expect.
        base_url: The resource's own endpoint, or another server that speaks the protocol, instead of the region;
            http(s) or ws(s).
        options: Further fields of ``speech.context``, also ones that this class does not know; they win, level by
            level.
        query: Further query parameters (``cid`` of a custom model …).
        headers: Further headers of the handshake.
        timeout_s: How long :meth:`finalize` waits for the service before the last interim counts.
        echo_discard_s: An utterance that repeats what we say, and ends at most so long after it, is our echo.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key or language, no such region can be, the base URL is no URL, or
            ``silence_timeout_ms`` is out of bounds.
    """

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K, PCM_16K, PCM_8K, ALAW_8K)
    capabilities: ClassVar[STTCapabilities] = STTCapabilities(
        speech_events=True,
        interim_interval_ms=300,
        words=True,
        eager=False,
        manual_turns=True,
        regions=("any of Azure's",),
        limits="connections of 10 minutes, renewed unheard; 1 call at once in the free tier, 100 in the others",
    )
    provider = "azure"
    pads_silence = True
    idle_silence_s = 60.0  # three minutes without audio end a connection

    def __init__(
        self,
        *,
        api_key: str,
        region: str = DEFAULT_REGION,
        language: str = DEFAULT_LANGUAGE,
        silence_timeout_ms: int = 500,
        keyterms: Iterable[str] = (),
        base_url: str | None = None,
        options: Mapping[str, Any] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 0.5,
        echo_discard_s: float = 0.4,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
    ) -> None:
        check_several("AzureSTT: keyterms", keyterms)
        if not 100 <= silence_timeout_ms <= _LONGEST_SILENCE_MS:
            raise ConfigurationError(f"AzureSTT: silence_timeout_ms must be 100 to 5000, got {silence_timeout_ms}")
        if not language:
            raise ConfigurationError("AzureSTT needs a language, for instance en-US")
        super().__init__(
            api_key=api_key,
            base_url=base_url if base_url is not None else host(region, "stt"),
            timeout_s=timeout_s,
            queue_size_limit=queue_size_limit,
            backoff=backoff,
            session_s=_SESSION_S,
            echo_discard_s=echo_discard_s,
        )
        self._headers = {
            "Ocp-Apim-Subscription-Key": api_key,
            "X-ConnectionId": uuid4().hex,  # the SDK, too, keeps it when it connects again
            "Sec-WebSocket-Protocol": "USP",
            **(headers or {}),
        }
        self._query = dict(query or {})
        self._language = language
        self._silence_ms = silence_timeout_ms
        self._keyterms = tuple(keyterms)
        self._options = dict(options or {})
        self._greeting = self._turn_settings = ""
        self._wave_head = b""
        self._turn_now = Turn(0.0)
        self._connecting_at = self._connected_at = ""
        """When the connection was begun and made, until the service was told of it."""
        self._turn_timer: asyncio.TimerHandle | None = None

    def url_for(self, audio_format: AudioFormat) -> str:
        """The settings follow in the first messages."""
        self._wave_head = wave_head(audio_format)
        self._sent.around = len(self._turn_now.head)
        silence_ms = _LONGEST_SILENCE_MS if self.manual_turns else self._silence_ms
        context = speech_context(self._language, silence_ms, self._keyterms)
        self._turn_settings = msgspec.json.encode(merged(context, self._options)).decode()
        self._greeting = msgspec.json.encode(speech_config(audio_format)).decode()
        self._connecting_at = usp_time()
        return join(self._base_url, "/stt/speech/universal/v2", self._query)

    @property
    def pulse(self) -> int | None:
        """See :attr:`STT.pulse`; between two turns audio waits, but the connection is there."""
        return self._socket.received if self._socket is not None and self._turn_timer is not None else super().pulse

    # Turns of the service's: audio up to an end that either side decides on; then another one begins.

    def _forget(self) -> None:
        super()._forget()
        self._connected_at = usp_time()

    def _greet(self) -> Iterable[str]:
        return (usp_text("speech.config", self._greeting),)

    def _start_audio(self) -> None:
        """A turn begins: its settings and the head of its audio go before what is heard again."""
        assert self._socket is not None
        turn = self._turn_now = Turn(self._sent.time.sent_ms)
        self._sent.encode = turn.head.__add__
        self._socket.send(usp_text("speech.context", self._turn_settings, request_id=turn.request_id))
        self._socket.send(turn.first + self._wave_head)
        super()._start_audio()

    def _ask(self) -> bool:
        """The service tells all that it has heard when the turn ends: there is no surer way to ask."""
        self._asked_ms = self._ring.end_ms
        if self._sent.time.sent_ms > self._turn_now.base_ms:
            self._end_audio()
        return True

    def _end_audio(self) -> None:
        """No more audio comes in this turn, says a payload without any; what is said now waits for the next one."""
        assert self._socket is not None
        self._ready = False
        self._socket.send(self._turn_now.head)
        self._stop_turn_timer()
        self._turn_timer = asyncio.get_running_loop().call_later(_TURN_S, self._turn_hangs)

    def _turn_is_over(self) -> None:
        """What the service has not told of is heard again in the next one."""
        self._stop_turn_timer()
        self._acknowledge()
        if self._finalizing is not None and not self._unasked:
            self._finish(interim=True)  # this was the answer
        if self._disposed:
            return  # by who heard the answer
        self._collector.restart(self._safe_ms, self._ring.start_ms)
        self._next_turn()
        self._start_audio()

    def _acknowledge(self) -> None:
        """Tell when the messages of the turn came: the service may leave a client that does not."""
        assert self._socket is not None
        turn, first = self._turn_now, bool(self._connected_at)
        body = turn.receipts.telemetry(
            connection_id=self._headers["X-ConnectionId"] if first else "",
            connecting_at=self._connecting_at,
            connected_at=self._connected_at,
        )
        self._connected_at = ""
        self._socket.send(usp_text("telemetry", body, request_id=turn.request_id))

    def _turn_hangs(self) -> None:
        reason = f"did not end a turn within {_TURN_S:g} s"
        self._refused(ProviderError(self.provider, reason, retryable=True))

    # What comes.

    def _receive(self, data: str | bytes) -> None:
        try:
            message = parse_usp(data)
        except ValueError as exc:
            self.fail_once(RemoteProtocolError(f"{self.provider} sent {exc}"))
            return
        path, turn = message.path, self._turn_now
        if message.request_id != turn.request_id:
            return
        turn.receipts.add(message.headers["path"])
        if path not in KNOWN:
            return
        if path == "turn.end":
            self._turn_is_over()
            return
        try:
            event = decode(message.body)
        except UNDECODABLE as exc:
            self.fail_once(RemoteProtocolError(f"{self.provider} sent a malformed {path} message ({exc})"))
            return
        if path == "speech.startdetected":
            if self._collector.empty:
                self._turn_began(self._at(event.offset))
        elif path == "speech.hypothesis":
            self._hypothesis(event)
        elif path == "speech.phrase":
            self._phrase(event)
        elif self._ready:  # the service has ended the turn for its part
            self._end_audio()

    def _hypothesis(self, event: Event) -> None:
        if not event.text:
            return
        if self._collector.empty and self._turn_from_ms == float("-inf"):
            self._turn_began(self._at(event.offset))  # only the first speech of a turn is told of before
        self._turn(event.text, until_ms=self._at(event.offset + event.duration, end=True))

    def _phrase(self, event: Event) -> None:
        status = event.recognition_status
        until_ms = self._at(event.offset + event.duration, end=True)
        if status == "Success":
            best = event.n_best[0] if event.n_best else Best()
            self._turn_ended(
                event.display_text or best.display,
                until_ms=until_ms,
                words=tuple(map(self._word, best.words or ())),
                language=event.primary_language.language if event.primary_language is not None else None,
            )
        elif status in _NO_WORDS:
            self._turn_ended("", until_ms=until_ms)
        elif status in _PASSING:
            self._refused(ProviderError(self.provider, f"reports {status}", retryable=True))
        elif status == "BadRequest":
            self._refused(ProviderError(self.provider, f"reports {status}", retryable=False))
        elif status == "Forbidden":
            self._refused(AuthenticationError(self.provider, f"reports {status}"))
        elif status == "EndOfDictation":
            self._safe_ms = max(self._safe_ms, until_ms)  # all was heard, and there were no more words in it
            self._ring.release(self._safe_ms)

    def _word(self, word: SpokenWord) -> Word:
        return Word(
            text=word.word,
            start_ms=self._at(word.offset),
            end_ms=self._at(word.offset + word.duration, end=True),
            confidence=word.confidence,
        )

    def _at(self, ticks: float, *, end: bool = False) -> float:
        """A position in the turn's audio on the call's audio clock, in ms."""
        return self._to_call((self._turn_now.base_ms + ticks / TICKS_PER_MS) / 1000.0, end=end)

    # Ends.

    def _lost(self) -> None:
        super()._lost()
        self._stop_turn_timer()
        self._connecting_at = usp_time()

    def _dropped(self, frame: bytes | str) -> None:
        super()._dropped(frame)
        turn = self._turn_now
        if frame == turn.head or frame == turn.first + self._wave_head:
            # Without the beginning or the end of its audio the turn cannot be understood.
            asyncio.get_running_loop().call_soon(self._renew)

    def _stop_timers(self) -> None:
        super()._stop_timers()
        self._stop_turn_timer()

    def _stop_turn_timer(self) -> None:
        if self._turn_timer is not None:
            self._turn_timer.cancel()
            self._turn_timer = None
