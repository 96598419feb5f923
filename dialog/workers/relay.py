"""The two ends of a media socket whose call is at another gateway.

::

    carrier ── wire ── Relay ═══ fabric ═══ RelayedStream ── RelayWire ── Line
               (the gateway where the socket is)  (the gateway that owns the call)

Each end says its last word once (:class:`RelayClosed`, :class:`WireClose`) and answers the other's with its own;
when both are said and have come, nothing is left of it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Final, Protocol
from uuid import UUID

from dialog.errors import LimitError, RemoteProtocolError
from dialog.message import MULAW_8K, AudioFormat
from dialog.scope import CallScope
from dialog.voip.peers import MediaEnd, MediaWire
from dialog.workers.fabric import Fabric
from dialog.workers.frames import Frame
from dialog.workers.peerframes import (
    RelayAudio,
    RelayBody,
    RelayClosed,
    RelayControl,
    RelayDigit,
    RelayMark,
    RelayOpened,
    RelayStop,
    WireAudio,
    WireClear,
    WireClose,
    WireControl,
    WireMark,
)
from dialog.workers.stream import CallStream

__all__ = ["Relay", "RelayEnd", "RelayWire", "RelayedStream"]

logger = logging.getLogger(__name__)

_WINDOW_MS: Final = 2_000.0
_KEEP_MS: Final = 10_000.0
_STALLED_S: Final = 5.0
"""A gateway that takes nothing for so long has lost the stream."""
_LOST: Final = 1011
_REFUSED: Final = 1008


class Joiner(Protocol):
    """See :class:`~dialog.voip.peers.Owner`."""

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """Connect a stream."""
        ...


class RelayEnd(ABC):
    """What both ends have: a numbered stream of frames, and its end."""

    def __init__(self, fabric: Fabric, peer: str, call_id: UUID, number: int, *, keep_ms: float) -> None:
        self.stream = CallStream(fabric, peer, call_id, number, window_ms=_WINDOW_MS, keep_ms=keep_ms)
        self._said_last = False
        self._heard_last = False
        self._gone = False

    @property
    def over(self) -> bool:
        """Nothing is left to be said or heard."""
        return self._gone or (self._said_last and self._heard_last and self.stream.outbound.idle)

    def receive(self, frame: Frame) -> None:
        """Take a frame of the other end."""
        if self.stream.take(frame):
            try:
                self.act(frame.body)
            except Exception:  # it costs this stream, not the connection to the other gateway
                logger.exception("call %s: its relayed stream failed", self.stream.call_id)
                self.lost("it failed")
        if self.over:
            self.stream.acknowledge()

    def tick(self, now: float) -> None:
        """Acknowledge what came, repeat what was lost, and notice when nothing is taken any more."""
        if not self._gone and self.stream.stalled_s(now) >= _STALLED_S:
            self.lost(f"it has taken nothing for {_STALLED_S:g} s")
        if not self._gone:
            self.stream.tick(now)

    def lost(self, reason: str) -> None:
        """The other gateway is gone."""
        if self._gone:
            return
        finished = self._said_last and self._heard_last
        self._gone = True
        if not finished:
            logger.warning(
                "call %s: a stream is lost between gateways: %s: %s", self.stream.call_id, self.stream.peer, reason
            )
            self.cut()

    @abstractmethod
    def act(self, body: object) -> None:
        """Do what the other end says."""

    @abstractmethod
    def cut(self) -> None:
        """Nothing comes from the other end any more."""

    def _post(self, body: RelayBody, audio_ms: float = 0.0) -> None:
        if self._gone or self._said_last:
            return
        try:
            self.stream.post(body, audio_ms)
        except LimitError as exc:
            self.lost(str(exc))

    def _say_last(self, body: RelayBody) -> None:
        self._post(body)
        self._said_last = True


class Relay(RelayEnd):
    """Where the socket is: hands on what the carrier sends, and writes what the owner of the call says."""

    def __init__(
        self,
        fabric: Fabric,
        peer: str,
        call_id: UUID,
        number: int,
        *,
        opening: bytes,
        wire: MediaWire,
        audio_format: AudioFormat = MULAW_8K,
    ) -> None:
        super().__init__(fabric, peer, call_id, number, keep_ms=_KEEP_MS)
        self._wire = wire
        self._ms_per_byte = audio_format.ms(audio_format.sample_bytes) / audio_format.sample_bytes
        self._post(RelayOpened(opening, self._ms_per_byte))

    @property
    def scope(self) -> CallScope | None:
        """The call is elsewhere."""
        return None

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._post(RelayAudio(timestamp_ms, data), len(data) * self._ms_per_byte)

    def receive_mark(self, name: str) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._post(RelayMark(name, self._wire.rtt_s))

    def receive_digit(self, digit: str) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._post(RelayDigit(digit))

    def receive_control(self, message: bytes) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._post(RelayControl(message))

    def stopped(self) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._post(RelayStop())

    def closed(self) -> None:
        """See :class:`~dialog.voip.peers.MediaEnd`."""
        self._say_last(RelayClosed())

    def act(self, body: object) -> None:
        """See :class:`RelayEnd`."""
        match body:
            case WireAudio(data, mark):
                self._wire.send_audio(data, mark)
            case WireMark(name):
                self._wire.send_mark(name)
            case WireClear():
                self._wire.send_clear()
            case WireControl(message):
                self._wire.send_control(message)
            case WireClose(code):
                self._heard_last = True
                self._wire.fail(code)
            case _:
                raise RemoteProtocolError(f"the owner of a call sent {type(body).__name__} to its socket")

    def cut(self) -> None:
        """See :class:`RelayEnd`; the carrier asks ``<Connect action>`` then."""
        self._wire.fail(_LOST)


class RelayWire:
    """What the line of a call writes to while its socket is at another gateway."""

    def __init__(self, stream: RelayedStream) -> None:
        self.rtt_s = 0.0
        self.closed = False
        self._stream = stream

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """See :class:`~dialog.voip.line.Wire`."""
        if not self.closed:
            self._stream.write(WireAudio(data, mark), len(data) * self._stream.ms_per_byte)

    def send_mark(self, name: str) -> None:
        """See :class:`~dialog.voip.line.Wire`."""
        if not self.closed:
            self._stream.write(WireMark(name))

    def send_control(self, message: bytes) -> None:
        """See :class:`~dialog.voip.peers.MediaWire`."""
        if not self.closed:
            self._stream.write(WireControl(message))

    def send_clear(self) -> int:
        """See :class:`~dialog.voip.line.Wire`; what waits at the other gateway is purged there."""
        if self.closed:
            return 0
        dropped = self._stream.withdraw()
        self._stream.write(WireClear())
        return dropped

    def close(self) -> None:
        """See :class:`~dialog.voip.line.Wire`."""
        self.fail(1000)

    def fail(self, code: int) -> None:
        """Let the socket be closed with a code, unless it is closed already."""
        if not self.closed:
            self.closed = True
            self._stream.shut(code)


class RelayedStream(RelayEnd):
    """Where the call is: feeds its line with what the socket at the other gateway receives."""

    def __init__(self, fabric: Fabric, peer: str, call_id: UUID, number: int, owner: Joiner) -> None:
        super().__init__(fabric, peer, call_id, number, keep_ms=float("inf"))
        self._owner = owner
        self.ms_per_byte = 0.0
        self._wire = RelayWire(self)
        self._end: MediaEnd | None = None

    def act(self, body: object) -> None:
        """See :class:`RelayEnd`."""
        if isinstance(body, RelayClosed):
            self._heard_last = True
            self._leave()
        elif self._wire.closed:
            return  # on its way before the socket was closed
        elif isinstance(body, RelayOpened):
            self._open(body)
        elif self._end is None:
            raise RemoteProtocolError(f"a relayed stream begins with {type(body).__name__}")
        elif isinstance(body, RelayAudio):
            self._end.receive_audio(body.data, body.timestamp_ms)
        elif isinstance(body, RelayMark):
            self._wire.rtt_s = body.rtt_s
            self._end.receive_mark(body.name)
        elif isinstance(body, RelayDigit):
            self._end.receive_digit(body.digit)
        elif isinstance(body, RelayControl):
            self._end.receive_control(body.message)
        elif isinstance(body, RelayStop):
            self._end.stopped()
        else:
            raise RemoteProtocolError(f"a relayed socket sent {type(body).__name__} to its call")

    def cut(self) -> None:
        """See :class:`RelayEnd`; the stream is lost for the call."""
        self._leave()

    def write(self, body: RelayBody, audio_ms: float = 0.0) -> None:
        """Send something to the socket."""
        self._post(body, audio_ms)
        if self.stream.outbound.waiting_ms > _KEEP_MS:
            logger.error(
                "call %s: gateway %s takes no audio, giving the stream up", self.stream.call_id, self.stream.peer
            )
            self._wire.fail(_LOST)
            self._leave()

    def withdraw(self) -> int:
        """Take back what was not sent yet, but for what a client is told; returns the bytes of audio in it."""
        audio = 0
        for body in self.stream.outbound.withdraw():
            if isinstance(body, WireControl):
                self._post(body)
            elif isinstance(body, WireAudio):
                audio += len(body.data)
        return audio

    def shut(self, code: int) -> None:
        """Close the socket."""
        self.withdraw()
        self._say_last(WireClose(code))

    def _open(self, opened: RelayOpened) -> None:
        self.ms_per_byte = opened.ms_per_byte
        try:
            self._end = self._owner.join_relayed(opened.opening, self._wire)
        except RemoteProtocolError as exc:
            logger.warning("closing a relayed media socket with %d: %s", _REFUSED, exc)
            self._wire.fail(_REFUSED)

    def _leave(self) -> None:
        if self._end is not None:
            self._end.closed()
        self._wire.close()
