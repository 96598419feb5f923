"""The base of every realtime model at the other end of a WebSocket: what they share, once.

A provider is a subclass that says where to connect (:meth:`SocketS2S.url_for`), understands what comes
(:meth:`SocketS2S._receive`), turns orders into messages (:meth:`~SocketS2S._send_respond`,
:meth:`~SocketS2S._send_say`, :meth:`~SocketS2S._send_cancel`, :meth:`~SocketS2S._send_commit`,
:meth:`~SocketS2S._seed`, :meth:`~SocketS2S._send_answer`), and reports with a few calls:
:meth:`~SocketS2S._start_audio` (the session is set up), :meth:`~SocketS2S._began` (a reply begins),
:meth:`~SocketS2S._audio`, :meth:`~SocketS2S._words`, :meth:`~SocketS2S._part_done`, :meth:`~SocketS2S._over`,
:meth:`~SocketS2S._tool_asked`, :meth:`~SocketS2S._turn`, :meth:`~SocketS2S._speech`,
:meth:`~SocketS2S._limit_session`, :meth:`~SocketS2S._refused`. Everything else is done for it: connecting ahead
and again, the caller's audio meanwhile, manual turns, and a session that is replaced before the provider ends it; one
reply after the other, and dropping what was cancelled, by :class:`~dialog.s2s.replying.ReplyingS2S`.
"""

from __future__ import annotations

import asyncio
import dataclasses
from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from math import inf
from typing import ClassVar, Literal
from uuid import UUID

from msgspec.structs import replace

from dialog.errors import ConfigurationError, ProviderError, StateError, UnsupportedFormat
from dialog.llm.llm import Item, ToolSpec
from dialog.message import Message, SpeechEdge
from dialog.net.malformed import malformed
from dialog.net.reconnect import Backoff
from dialog.net.ring import AudioRing
from dialog.net.sentaudio import SentAudio
from dialog.net.socket import Address, ProviderSocket, SocketSettings
from dialog.net.urls import websocket_url
from dialog.s2s.replying import ReplyingS2S
from dialog.s2s.s2s import S2S, SessionSpec

__all__ = ["SocketS2S"]

_BEFORE_END_S = 30.0
"""So long before the provider ends a session it is replaced, as soon as nobody speaks …"""
_FORCED_S = 5.0
"""… and so long before its end in any case."""
_PRE_ROLL_MS = 300.0
"""A VAD hears the beginning of speech so late: manual turns begin so much earlier."""
_READY_S = 5.0
"""How long the service may take to accept the settings."""


class SocketS2S(ReplyingS2S):
    """A realtime model behind a WebSocket, open for the whole call.

    Args:
        api_key: The key; an empty one is refused.
        base_url: Where the service is; http(s) or ws(s).
        queue_size_limit: Frames that may wait for a service that reads slowly; then the oldest are dropped.
        backoff: When to reconnect, and when to give up.

    Raises:
        ConfigurationError: No key, or the base URL is no URL.
    """

    keep_alive: ClassVar[str] = ""
    """Text that keeps an idle connection; empty: pings do."""
    keep_alive_s: ClassVar[float] = 4.0
    farewell: ClassVar[str] = ""
    """Text that ends the session."""

    def __init__(
        self, *, api_key: str, base_url: str, queue_size_limit: int = 500, backoff: Backoff | None = None
    ) -> None:
        if not api_key:
            raise ConfigurationError(f"{type(self).__name__} needs an api_key")
        self._base_url = websocket_url(base_url)
        super().__init__()
        self._headers: dict[str, str] = {}
        self._settings = SocketSettings(
            queue_limit=queue_size_limit,
            keep_alive=self.keep_alive,
            keep_alive_s=self.keep_alive_s,
            farewell=self.farewell,
            max_message=16 * 1024 * 1024,  # a reply's audio may come in large pieces
            backoff=backoff or Backoff(),
        )
        self._socket: ProviderSocket | None = None
        self._sent = SentAudio()
        self._ring: AudioRing
        self._safe_ms = 0.0
        """Up to here, on the call's audio clock, the session has what the caller said in its memory."""
        self._sessions = 0
        self._in_turn = False
        """Manual turns: the caller speaks."""
        self._speaking = False
        self._renewal_due = False
        self._committed: deque[tuple[float, float, UUID]] = deque(maxlen=8)
        """Manual turns that the service has not confirmed: where they are on the call's audio clock, their uuids."""

    # What a provider supplies.

    @abstractmethod
    def url_for(self, spec: SessionSpec) -> Address:
        """Where to connect."""

    @abstractmethod
    def _receive(self, data: str | bytes) -> None:
        """Understand a message of the service and report what happened."""

    def _send_commit(self) -> None:
        """Manual turns: the caller has finished."""

    def _send_begin(self) -> None:
        """Manual turns: the caller begins; the audio follows."""

    def _send_update(self) -> bool:
        """Tell the session of another prompt and tools; ``False``: that needs a new one."""
        return False

    def _greet(self) -> Iterable[str]:
        """What the service must hear first on every connection."""
        return ()

    def _forget(self) -> None:
        """A new session begins: drop what was remembered of the last one."""

    @abstractmethod
    def _seed(self, items: Sequence[Item]) -> None:
        """Tell a new session what was said before."""

    def _caller_speaks(self) -> bool:
        """Whether an utterance has begun that is not over: a session is not replaced then."""
        return self._speaking or self._in_turn or bool(self._committed)

    # What the engine calls.

    @property
    def session(self) -> int:
        """See :attr:`S2S.session`."""
        return self._sessions

    def open(self, spec: SessionSpec) -> None:
        """Start connecting and return.

        Raises:
            UnsupportedFormat: A format is none of those that it takes or makes.
            ConfigurationError: Manual turns, which it cannot have.
            StateError: It is open already, or disposed of.
        """
        if spec.input_format not in self.formats or spec.output_format not in self.output_formats:
            raise UnsupportedFormat(f"{self.provider}: {spec.input_format} in, {spec.output_format} out")
        if spec.vad == "local" and not self.capabilities.manual_turns:
            raise ConfigurationError(f"{self.provider} ends the caller's turns by itself: vad='local' cannot be had")
        if self._socket is not None or self._disposed:
            raise StateError(f"{self.name}.open was called {'after dispose' if self._disposed else 'twice'}")
        self._spec = spec
        self._ring = AudioRing(spec.input_format)
        self._sent.open(spec.input_format)
        self._loop = asyncio.get_running_loop()
        self._open_socket()

    def _open_socket(self) -> None:
        """Connect, with new patience."""
        url = self.url_for(self._spec)
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
            settings=dataclasses.replace(self._settings, audio_between=self._sent.between),
        )
        self._socket.open()

    def update(self, *, system: str, tools: tuple[ToolSpec, ...]) -> None:
        """See :meth:`S2S.update`."""
        self._spec = replace(self._spec, system=system, tools=tools)
        if self._ready and not self._send_update():
            self._renewal_due = True
            self._renew_if_quiet()

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
        if not data or socket.failed:
            return
        self._ring.append(message)
        if self._ready and (self._in_turn or self._spec.vad == "provider"):
            self._sent.send(socket, data, message.at_ms)

    def begin(self, at_ms: float) -> None:
        """See :meth:`S2S.begin`."""
        if self._in_turn or self._socket is None:
            return
        self._in_turn = True
        committed_ms = self._committed[-1][1] if self._committed else 0.0
        self._safe_ms = max(self._safe_ms, committed_ms, at_ms - _PRE_ROLL_MS)
        if self._ready:
            self._send_begin()
            self._replay()

    def commit(self, uuid: UUID) -> None:
        """See :meth:`S2S.commit`."""
        if not self._in_turn or self._socket is None:
            return
        self._in_turn = False
        self._committed.append((self._safe_ms, self._ring.end_ms, uuid))
        if self._ready:
            self._send_commit()

    def dispose(self) -> None:
        """End for good: says goodbye to the service, for at most a second, in the background."""
        self._timers.stop_all()
        super().dispose()

    # What a provider reports.

    def _start_audio(self) -> None:
        """The session is set up: tell it what was said before, then what it missed; from here on audio flows."""
        assert self._socket is not None
        self._timers.stop("ready")
        self._ready = True
        self._sessions += 1
        self._seed(self._spec.history())
        if self._spec.vad == "provider":
            self._replay()
        for from_ms, until_ms, _ in self._committed:
            self._send_begin()
            self._replay(from_ms, until_ms)
            self._send_commit()
        if self._in_turn:
            self._send_begin()
            self._replay()
        self._next()
        self._renew_if_quiet()

    def _turn(self, uuid: UUID) -> None:
        """The caller has finished an utterance; of a manual turn its own uuid is told."""
        if self._committed:
            _, until_ms, uuid = self._committed.popleft()
            self._ring.release(until_ms)
        elif self._spec.vad == "provider":
            self._safe_ms = max(self._safe_ms, self._sent.until_ms)
            self._ring.release(self._safe_ms)
        self.emit(S2S.TURN, uuid)

    def _not_said(self) -> None:
        """There was nothing in the manual turn that was committed."""
        if self._committed:
            self._committed.popleft()

    def _speech(self, state: Literal["started", "stopped"], at_ms: float) -> None:
        """The caller's voice started or stopped, as the provider hears it; repetitions are told to nobody."""
        if self._speaking == (state == "started"):
            return
        self._speaking = state == "started"
        self.emit(S2S.VAD, SpeechEdge(state=state, at_ms=at_ms))
        self._renew_if_quiet()

    def _refused(self, error: ProviderError) -> None:
        """This connection is no good, says the service: another is tried if ``error`` is retryable."""
        if self._socket is not None:
            self._ready = False
            self._socket.replace(error)

    def _limit_session(self, left_s: float) -> None:
        """The session ends in ``left_s``, says the service."""
        self._timers.set("renewal", max(0.0, left_s - _BEFORE_END_S), self._renewal)
        self._timers.set("forced renewal", max(0.0, left_s - _FORCED_S), self._renew)

    def _undecodable(self, data: str | bytes, exc: Exception, known: Collection[str], tag: str) -> None:
        """A message could not be decoded; types that nobody knows may look as they like. See :func:`malformed`."""
        error = malformed(self.provider, data, exc, known, tag)
        if error is not None:
            self.fail_once(error)

    def _to_call(self, position_ms: float, *, end: bool = False) -> float:
        """A position in the session's audio on the call's audio clock, both in ms."""
        position_s = position_ms / 1000.0
        return self._sent.time.ends_at(position_s) if end else self._sent.time.begins_at(position_s)

    # The socket.

    @property
    def _given_up(self) -> bool:
        return self._socket is None or self._socket.failed

    def _send(self, text: str) -> None:
        if self._socket is not None:
            self._socket.send(text)

    def _replay(self, from_ms: float | None = None, until_ms: float = inf) -> None:
        assert self._socket is not None
        for message in self._ring.since(self._safe_ms if from_ms is None else from_ms, until_ms):
            self._sent.send(self._socket, message.data, message.at_ms)

    def _dropped(self, frame: bytes | str) -> None:
        """Audio was thrown away that the session was to get: its positions are earlier than was thought."""
        assert self._socket is not None
        self._sent.drop(self._socket, frame)

    def _connected(self) -> None:
        """A new session counts its audio from zero and knows nothing."""
        self._sent.restart()
        self._forget_tools()
        self._renewal_due = False
        self._forget()
        self._timers.set("ready", _READY_S, self._not_ready)
        for text in self._greet():
            self._send(text)

    def _not_ready(self) -> None:
        reason = f"did not accept the session within {_READY_S:g} s"
        self._refused(ProviderError(self.provider, reason, retryable=True))

    def _lost(self) -> None:
        """The session is gone."""
        self._ready = False
        self._timers.stop_all()
        if self._speaking:
            self._speech("stopped", self._ring.end_ms)
        self._lose_reply()

    def _failed(self, error: ProviderError) -> None:
        self._ready = False
        self._timers.stop_all()
        replies = self._take_replies()
        self.fail(error, fatal=True, retryable=error.retryable)
        for reply in replies:
            self._end(reply, "failed")

    # A session that comes to its end.

    def _renewal(self) -> None:
        self._renewal_due = True
        self._renew_if_quiet()

    def _renew_if_quiet(self) -> None:
        if self._renewal_due and self._ready and not self._caller_speaks() and not self._replying:
            self._renew()

    def _at_rest(self) -> None:
        self._renew_if_quiet()

    def _renew(self) -> None:
        """Replace the session; meanwhile the caller's audio is kept."""
        if self._socket is not None and self._socket.connected:
            self._renewal_due = False
            self._ready = False
            self._timers.stop_all()
            if self._spec.vad == "provider" and self.capabilities.speech_events:
                self._safe_ms = max(self._safe_ms, self._sent.until_ms)  # nobody speaks; else that is not known
            self._socket.replace()
