"""The base of every recogniser that listens over a WebSocket: what they share, once.

A provider is a subclass that says where to connect (:meth:`StreamingSTT.url_for`), understands what
comes (:meth:`StreamingSTT._receive`), and reports it with a few calls: :meth:`~StreamingSTT._segment`,
:meth:`~StreamingSTT._finish`, :meth:`~StreamingSTT._speech_started`, :meth:`~StreamingSTT._speech_stopped`,
:meth:`~StreamingSTT._eager`, :meth:`~StreamingSTT._withdraw`, :meth:`~StreamingSTT._refused`. They are calls and
not values, since they happen many times a second and call. Everything else is here: connecting ahead,
reconnecting and replaying what is not safe yet, the bound on :meth:`~StreamingSTT.finalize`, and the end of a
provider's session. What is told of what was reported is :class:`~dialog.stt.telling.TellingSTT`'s.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Iterable
from dataclasses import replace
from math import inf
from typing import ClassVar

from dialog.errors import ConfigurationError, ProviderError, RemoteProtocolError, StateError, UnsupportedFormat
from dialog.message import AudioFormat, Message
from dialog.net.malformed import malformed
from dialog.net.reconnect import Backoff
from dialog.net.ring import AudioRing
from dialog.net.sentaudio import SentAudio
from dialog.net.socket import ProviderSocket, SocketSettings
from dialog.net.urls import websocket_url
from dialog.stt.segments import Segment
from dialog.stt.stt import STT
from dialog.stt.telling import TellingSTT
from dialog.usage import ReplyUsage, Usage
from dialog.weak import weakly

__all__ = ["StreamingSTT"]

_QUIET_RENEWAL = 0.8
"""From this part of a session's length on, the connection is replaced when nobody speaks …"""
_FORCED_RENEWAL = 0.97
"""… and from this part on, whatever happens."""
_TICK_S = 0.25
_LONGEST_SILENCE_S = 30.0
"""Silence that is sent for a turn in which audio stopped, before its words count as they are."""


class StreamingSTT(TellingSTT):
    """A recogniser at the other end of a WebSocket, open for the whole call.

    Args:
        api_key: The key; an empty one is refused.
        base_url: Where the service is; http(s) or ws(s).
        timeout_s: How long :meth:`finalize` waits for the service before the last interim counts.
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.
        session_s: How long the service lets a connection live. It is replaced before that, in a quiet moment.
        echo_discard_s: An utterance that repeats what we say, and ends at most so long after it, is our echo.
        model: What usage is reported of; the provider's name where it has but one.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    provider: ClassVar[str]
    """Its name in errors, logs and factories."""
    keep_alive: ClassVar[str] = ""
    """Text that keeps an idle connection; empty: pings do."""
    keep_alive_s: ClassVar[float] = 4.0
    finalize_with: str = ""
    """Text that asks for what was heard so far; empty: it cannot be asked."""
    farewell: ClassVar[str] = ""
    """Text that ends the stream."""
    pads_silence: ClassVar[bool] = False
    """The service ends no turn in which audio stops to come: it is given silence until it does."""
    idle_silence_s: ClassVar[float | None] = None
    """After so long without audio an idle connection is kept with a little silence."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        timeout_s: float = 0.5,
        queue_size_limit: int = 500,
        backoff: Backoff | None = None,
        session_s: float | None = None,
        echo_discard_s: float = 0.4,
        model: str = "",
    ) -> None:
        if not api_key:
            raise ConfigurationError(f"{type(self).__name__} needs an api_key")
        self._base_url = websocket_url(base_url)
        super().__init__(echo_discard_s=echo_discard_s)
        self._headers: dict[str, str] = {}
        self._timeout_s = timeout_s
        self._settings = SocketSettings(
            queue_limit=queue_size_limit,
            keep_alive=self.keep_alive,
            keep_alive_s=self.keep_alive_s,
            farewell=self.farewell,
            backoff=backoff or Backoff(),
        )
        self._session_s = session_s
        self._socket: ProviderSocket | None = None
        self._format: AudioFormat
        self._sent = SentAudio(weakly(self._skewed))
        self._model = model or self.provider
        self._unreported_ms = 0.0
        """Audio that was sent on the connections before, less what USAGE has told of."""
        self._connections = 0
        self._ready = False
        self._renewal_due = False
        self._unasked = False
        self._asked_ms = 0.0
        """Up to where the last :meth:`finalize` asked for words."""
        self._finalizing: asyncio.TimerHandle | None = None
        self._renewals: list[asyncio.TimerHandle] = []
        self._ticker: asyncio.TimerHandle | None = None

    # What a provider supplies.

    @abstractmethod
    def url_for(self, audio_format: AudioFormat) -> str:
        """Where to connect for this audio; called once, in :meth:`open`."""

    @abstractmethod
    def _receive(self, data: str | bytes) -> None:
        """Understand a message of the service and report what happened."""

    def _greet(self) -> Iterable[str]:
        """What the service must hear first on every connection."""
        return ()

    def _forget(self) -> None:
        """A new connection begins: drop what was remembered of the last one."""

    waits_until_ready: ClassVar[bool] = False
    """Audio waits on every connection until the provider calls :meth:`_start_audio`."""

    # What the agent calls.

    @property
    def pulse(self) -> int | None:
        """See :attr:`STT.pulse`."""
        socket = self._socket
        return socket.received if socket is not None and socket.connected and self._ready else None

    def open(self, audio_format: AudioFormat) -> None:
        """Start connecting and return.

        Raises:
            UnsupportedFormat: ``audio_format`` is none of :attr:`formats`.
            StateError: It is open already, or disposed of.
        """
        if audio_format not in self.formats:
            raise UnsupportedFormat(f"{self.provider}: {audio_format} is none of {self.formats}")
        if self._socket is not None or self._disposed:
            raise StateError(f"{self.name}.open was called {'after dispose' if self._disposed else 'twice'}")
        self._ring = AudioRing(audio_format)
        self._format = audio_format
        self._sent.open(audio_format)
        url = self.url_for(audio_format)
        self._socket = ProviderSocket(
            self,
            provider=self.provider,
            url=url,
            headers=self._headers,
            on_message=self._receive,
            on_open=self._connected,
            on_lost=self._lost,
            on_dropped=self._dropped,
            on_failed=self._failed,
            settings=replace(self._settings, audio_between=self._sent.between),
        )
        self._socket.open()
        if self.pads_silence or self.idle_silence_s is not None:
            self._tick(0.0, 0.0)

    def post(self, message: Message[bytes]) -> None:
        """Queue caller audio and return; nothing happens once the connection was given up.

        Raises:
            StateError: Called before :meth:`open`.
        """
        socket = self._socket
        if socket is None:
            if self._disposed:
                return
            raise StateError(f"{self.name}.post was called before open")
        data = message.data
        # An empty binary frame would end the stream for some.
        if not data or socket.failed:
            return
        self._ring.append(message)
        if self._ready:
            self._sent.send(socket, data, message.at_ms)

    def finalize(self) -> None:
        """Ask for what was said so far: it comes as MESSAGE within ``timeout_s``, from the last interim if need be."""
        if self._socket is None or self._disposed:
            return
        # Without a connection it is asked for behind the audio that the next one hears again.
        self._unasked = not (self._ready and self._ask())
        if self._finalizing is None:
            # The answer is best effort: if almost nothing is buffered, none comes.
            loop = asyncio.get_running_loop()
            self._finalizing = loop.call_later(self._timeout_s, self._finish, True)

    def discard(self, before_ms: float) -> None:
        """Forget what was said before ``before_ms`` on the call's audio clock, also what is recognised later."""
        super().discard(before_ms)
        if self._socket is not None:
            self._ring.release(self._safe_ms)

    def dispose(self) -> None:
        """End for good: says goodbye to the service, for at most a second, in the background."""
        self._stop_timers()
        self._report_usage()
        super().dispose()
        if self._socket is not None:
            self._ring.release(inf)

    # What a provider reports.

    def _told_twice(self, segment: Segment) -> None:
        # What is heard again after a reconnection may be told again: that is our doing.
        if segment.end_ms > self._replayed_ms:
            self._repeated()

    def _finish(self, interim: bool, end_ms: float = 0.0) -> None:
        self._stop_finalizing()
        super()._finish(interim, end_ms)
        asyncio.get_running_loop().call_soon(self._report_usage)  # behind the answer that was begun
        if self._renewal_due:
            self._renew_if_quiet()

    def _report_usage(self) -> None:
        """Services bill the audio that they are sent, the silence in it and what they hear twice as well."""
        new_ms = self._unreported_ms + self._sent.time.sent_ms
        if new_ms > 0.0:
            self._unreported_ms -= new_ms
            usage = Usage(model=self._model, input_audio_s=round(new_ms / 1000.0, 3))
            self.emit(STT.USAGE, ReplyUsage(usage=usage))

    def _refused(self, error: ProviderError) -> None:
        """This connection is no good, says the service: another is tried if ``error`` is retryable."""
        if self._socket is not None:
            self._socket.replace(error)

    def _undecodable(self, data: str | bytes, exc: Exception, known: Collection[str], tag: str) -> None:
        """A message could not be decoded; types that nobody knows may look as they like. See :func:`malformed`."""
        error = malformed(self.provider, data, exc, known, tag)
        if error is not None:
            self.fail_once(error)

    def _skewed(self) -> None:
        told = f"{self.provider} tells times that are outside the audio it was sent; the nearest that can be are taken"
        self.fail_once(RemoteProtocolError(told))

    def _repeated(self) -> None:
        """What was told for good is told again; it is ignored."""
        self.fail_once(RemoteProtocolError(f"{self.provider} tells the end of an utterance twice; it is ignored"))

    def _to_call(self, position_s: float, *, end: bool = False) -> float:
        """A position in the connection's audio, in seconds, on the call's audio clock, in ms."""
        return self._sent.time.ends_at(position_s) if end else self._sent.time.begins_at(position_s)

    def _limit_session(self, session_s: float) -> None:
        """The connection lives for ``session_s`` more, says the service."""
        self._stop_renewals()
        loop = asyncio.get_running_loop()
        self._renewals = [
            loop.call_later(session_s * _QUIET_RENEWAL, self._renew_if_quiet),
            loop.call_later(session_s * _FORCED_RENEWAL, self._renew),
        ]

    def _start_audio(self) -> None:
        """Play the connection what is not safe yet; from here on audio flows."""
        assert self._socket is not None
        self._ready = True
        self._replayed_ms = self._ring.end_ms
        for message in self._ring.since(self._safe_ms):
            self._sent.send(self._socket, message.data, message.at_ms)
        if self._unasked and (self._finalizing is not None or self.manual_turns):
            self._unasked = not self._ask()

    def _ask(self) -> bool:
        """Ask for the words of the audio that was sent, if the service can be asked."""
        assert self._socket is not None
        self._asked_ms = self._ring.end_ms
        return bool(self.finalize_with) and self._socket.send(self.finalize_with)

    # What the socket says.

    def _connected(self) -> None:
        """A connection counts its audio from zero and knows nothing."""
        assert self._socket is not None
        self._unreported_ms += self._sent.time.sent_ms
        self._sent.restart()
        self._forget()
        self._connections += 1
        if self._connections > 1:
            self._collector.restart(self._safe_ms, self._ring.start_ms)
        for text in self._greet():
            self._socket.send(text)
        if self._session_s is not None:
            self._limit_session(self._session_s)
        if not self.waits_until_ready:
            self._start_audio()

    def _lost(self) -> None:
        self._ready = False
        # Who has asked and was not answered is answered by the next connection, which hears it again.
        self._unasked = self._unasked or self._finalizing is not None
        self._stop_renewals()
        self._withdraw()

    def _failed(self, error: ProviderError) -> None:
        self._stop_timers()
        self._finish(interim=True)  # what was understood before all ended is still worth an answer
        self.fail(error, fatal=True, retryable=error.retryable)

    def _dropped(self, frame: bytes | str) -> None:
        assert self._socket is not None
        self._sent.drop(self._socket, frame)

    # Timers.

    def _stop_timers(self) -> None:
        self._stop_finalizing()
        self._stop_renewals()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    def _stop_finalizing(self) -> None:
        if self._finalizing is not None:
            self._finalizing.cancel()
            self._finalizing = None

    def _stop_renewals(self) -> None:
        self._renewal_due = False
        for timer in self._renewals:
            timer.cancel()
        self._renewals = []

    def _renew_if_quiet(self) -> None:
        if self._speaking or not self._collector.empty or self._finalizing is not None:
            self._renewal_due = True  # when the utterance has ended
        else:
            self._renew()

    def _renew(self) -> None:
        self._stop_renewals()
        if self._socket is not None:
            self._ready = False
            self._socket.replace()

    def _tick(self, end_ms: float, idle_s: float) -> None:
        """Look whether audio has stopped, and put silence in its place where the service needs some."""
        idle_s = idle_s + _TICK_S if self._ring.end_ms == end_ms else 0.0
        end_ms = self._ring.end_ms
        in_turn = self.pads_silence and not self._collector.empty
        idle = self.idle_silence_s
        if in_turn and idle_s >= _LONGEST_SILENCE_S:
            self._finish(interim=True)
        elif (in_turn and idle_s >= 2 * _TICK_S) or (idle is not None and idle_s and idle_s % idle < _TICK_S):
            self._send_silence(_TICK_S)
        self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick, end_ms, idle_s)

    def _send_silence(self, seconds: float) -> None:
        silence = self._format.silence(seconds * 1000.0)
        socket = self._socket if self._ready else None
        if socket is not None:
            self._sent.send(socket, silence, self._ring.end_ms)
