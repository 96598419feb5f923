"""The carrier's side of a stream of a call."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from dialog.audio.sound import Sound
from dialog.clock import Clock
from dialog.errors import LimitError
from dialog.message import Message
from dialog.scope import CallScope
from dialog.voip.bed import Layer
from dialog.voip.lineops import LineOp, Overflow, Report, SendAudio, SendClear, SendMark
from dialog.voip.pacer import Pacer
from dialog.voip.playout import EARLY_S, Playout
from dialog.voip.voip import VoIP

__all__ = ["Line", "Tap", "Wire", "tell"]

logger = logging.getLogger(__name__)

_MIN_GAP_MS = 15.0
"""Smaller steps of the carrier's timestamps are jitter of its clock."""
_MAX_FILL_MS = 2000.0


class Wire(Protocol):
    """A carrier's media socket as a :class:`Line` needs it. Nothing here blocks or raises.

    Its outgoing queue may hold at most what the line sends ahead (the lead); a wire that is closed
    ignores everything.
    """

    @property
    def rtt_s(self) -> float:
        """Last measured ping round trip in real seconds; 0.0 when unknown."""
        ...

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """Queue audio in the call's format, up to 200 ms; with ``mark`` as if :meth:`send_mark` came right after it."""

    def send_mark(self, name: str) -> None:
        """Ask for an echo of ``name`` once all audio before it was played."""

    def send_clear(self) -> int:
        """Drop what is queued and not sent, marks too, and send a clear next.

        Returns:
            Bytes of audio that were dropped and thus never left this process.
        """
        ...

    def close(self) -> None:
        """Close the socket; idempotent."""


class Tap(Protocol):
    """Listens to a line: a recorder, a live monitor. ``at_ms`` is on the call's audio clock."""

    def caller(self, at_ms: float, data: bytes) -> None:
        """The caller's audio, gaps filled."""

    def agent(self, at_ms: float, data: bytes) -> None:
        """The agent's audio, which will sound from ``at_ms`` on unless it is cleared."""

    def agent_cleared(self, at_ms: float) -> None:
        """The agent's audio from ``at_ms`` on was not heard."""


def tell(voip: VoIP, op: Report | Overflow) -> None:
    """Hand what a playout has to say to the agent's side."""
    if isinstance(op, Report):
        voip.receive(VoIP.PLAYBACK, op.playback)
    else:
        voip.fail(
            LimitError(
                f"call {voip.metadata.call_id}: {op.dropped_ms:.0f} ms of turn {op.uuid}, part {op.part}, were cut "
                "off: more audio was posted than may wait to be played; post it more slowly"
            )
        )


class Line:
    """One stream of a call: made by :meth:`dialog.voip.call.Call.join`, fed by a carrier's socket.

    It turns what :class:`~dialog.voip.playout.Playout` decides into messages to the wire, and keeps
    the call's audio clock, on which caller audio has no gaps.
    """

    __slots__ = (
        "_applying",
        "_asked_ms",
        "_bytes",
        "_call_id",
        "_clock",
        "_closed",
        "_first_timestamp",
        "_lead_ms",
        "_ms_per_byte",
        "_offset_ms",
        "_on_close",
        "_opened_at",
        "_ops",
        "_pacer",
        "_playout",
        "_scope",
        "_skipped_ms",
        "_taps",
        "_wire",
        "voip",
    )

    def __init__(
        self,
        wire: Wire,
        playout: Playout,
        voip: VoIP,
        scope: CallScope,
        *,
        clock: Clock,
        offset_ms: float = 0.0,
        taps: list[Tap] | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        """``offset_ms`` is the call's audio clock at this moment; ``taps`` may change while it lives.

        A tap that raises is taken out of ``taps``.
        """
        self.voip = voip
        self._wire = wire
        self._playout = playout
        self._scope = scope
        self._clock = clock
        self._taps = [] if taps is None else taps
        self._on_close = on_close
        self._opened_at = clock.now()
        self._offset_ms = offset_ms
        self._call_id: UUID = voip.metadata.call_id
        self._ms_per_byte = 1000.0 / (voip.audio_format.sample_rate * voip.audio_format.sample_bytes)
        self._bytes = 0
        """Caller audio since ``_offset_ms``, filled gaps included."""
        self._first_timestamp: float | None = None
        self._skipped_ms = 0.0
        self._ops: deque[LineOp] = deque()
        self._applying = False
        self._pacer: Pacer | None = None
        self._closed = False
        self._lead_ms = playout.lead_ms
        self._asked_ms = 0.0

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        return self._closed

    @property
    def at_ms(self) -> float:
        """Where the caller's next audio starts, on the call's audio clock."""
        return self._offset_ms + self._skipped_ms + self._bytes * self._ms_per_byte

    def start(self) -> None:
        """Play what was posted before the stream was there."""
        if not self._closed:
            self._scoped(self._playout.start(self._clock.now()))

    # The carrier's side.

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio in the call's format.

        ``timestamp_ms`` counts from the start of the stream; gaps up to 2 s are filled with silence,
        longer ones move the audio clock on. ``None``: the audio is continuous.
        """
        if self._closed or not data:
            return
        if CallScope.current() is not self._scope:
            with self._scope.entered():
                self.receive_audio(data, timestamp_ms)
            return
        at_ms = self._offset_ms + self._skipped_ms + self._bytes * self._ms_per_byte
        if timestamp_ms is not None:
            if self._first_timestamp is None:
                self._first_timestamp = timestamp_ms
            gap = timestamp_ms - self._first_timestamp - at_ms + self._offset_ms
            if gap >= _MIN_GAP_MS:
                self._fill_gap(gap)
                at_ms = self.at_ms
        self._bytes += len(data)
        if self._taps:
            self._tell_taps(lambda tap: tap.caller(at_ms, data))
        self.voip.emit(VoIP.MESSAGE, Message(uuid=self._call_id, data=data, at_ms=at_ms))

    def receive_mark(self, name: str) -> None:
        """Take the echo of a mark."""
        if not self._closed:
            self._playout.rtt_s = self._wire.rtt_s * self._clock.scale
            self._scoped(self._playout.mark(name, self._clock.now()))

    def receive_digit(self, digit: str) -> None:
        """Take a key that the caller pressed."""
        if not self._closed:
            with self._scope.entered():
                self.voip.receive(VoIP.DTMF, digit)

    def close(self) -> None:
        """End this stream's playout: what was not heard is lost. Closes the wire; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._unpace()
        ops = self._playout.close(self._clock.now())
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()  # before the reports: who hears of a lost part may post it again at once
        self._scoped(ops)
        self._wire.close()

    # The agent's side.

    def post(self, message: Message[bytes]) -> None:
        """Queue audio of a part."""
        self._scoped(self._playout.post(message, self._clock.now()))

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """Stop a turn or a part."""
        self._playout.rtt_s = self._wire.rtt_s * self._clock.scale
        self._scoped(self._playout.abort(uuid, part, after_ms, self._clock.now()))

    def pause(self) -> None:
        """Fall silent and keep what was not heard."""
        self._playout.rtt_s = self._wire.rtt_s * self._clock.scale
        self._scoped(self._playout.pause(self._clock.now()))

    def resume(self, *, from_ms: float | None) -> None:
        """Go on after a pause."""
        self._scoped(self._playout.resume(from_ms, self._clock.now()))

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """Let a sound go round beside the voice."""
        self._scoped(self._playout.set_bed(layer, sound, gain_db, self._clock.now()))

    # The pacer's side.

    def tick(self, now: float, lead_ms: float) -> bool:
        """Do what is due; False when there is nothing to wait for."""
        playout = self._playout
        if lead_ms != self._asked_ms:
            self._asked_ms = lead_ms
            playout.lead_ms = max(self._lead_ms, lead_ms)
        due = playout.deadline
        if due is not None and now < due - EARLY_S:
            return True
        ops = playout.tick(now)
        if ops:
            self._scoped(ops)
        if playout.deadline is None:  # closed ones have none
            self._pacer = None
        return self._pacer is not None

    def _scoped(self, ops: list[LineOp]) -> None:
        """Act on ``ops`` inside the call's scope, so that what listeners create belongs to the call."""
        if ops:
            if CallScope.current() is self._scope:
                self._act(ops)
            else:
                self._scope.run(self._act, ops)
        if self._pacer is None and self._playout.deadline is not None:
            self._pacer = Pacer.of(self._clock)
            self._pacer.add(self)

    def _act(self, ops: list[LineOp]) -> None:
        # A listener that hears a report may post or abort again: its operations wait for their turn.
        self._ops.extend(ops)
        if self._applying:
            return
        self._applying = True
        try:
            while self._ops:
                self._apply(self._ops.popleft())
        finally:
            self._applying = False

    def _apply(self, op: LineOp) -> None:
        if isinstance(op, SendAudio):
            following = self._ops[0] if self._ops else None
            if isinstance(following, SendMark):
                self._ops.popleft()
                self._wire.send_audio(op.data, following.name)  # one write, which costs more than what is in it
            else:
                self._wire.send_audio(op.data)
            if self._taps:
                at_ms = self._audio_ms(op.due)
                self._tell_taps(lambda tap: tap.agent(at_ms, op.data))
        elif isinstance(op, Report | Overflow):
            tell(self.voip, op)
        elif isinstance(op, SendMark):
            self._wire.send_mark(op.name)
        elif isinstance(op, SendClear):
            purged = self._wire.send_clear()
            self._ops.extendleft(reversed(self._playout.cleared(purged, self._clock.now())))
        elif self._taps:  # Flushed, which only they want to know
            at_ms = self._audio_ms(op.at)
            self._tell_taps(lambda tap: tap.agent_cleared(at_ms))

    def _tell_taps(self, say: Callable[[Tap], object]) -> None:
        for tap in tuple(self._taps):
            try:
                say(tap)
            except Exception:  # foreign code: the call must not suffer from who listens in
                logger.exception("call %s: a tap raised; it hears no more", self._call_id)
                if tap in self._taps:
                    self._taps.remove(tap)

    def _audio_ms(self, when: float) -> float:
        return max(0.0, self._offset_ms + (when - self._opened_at) * 1000.0)

    def _fill_gap(self, gap_ms: float) -> None:
        if gap_ms <= _MAX_FILL_MS:
            self.receive_audio(self.voip.audio_format.silence(gap_ms), None)
            return
        self._skipped_ms += gap_ms
        logger.warning(
            "call %s: %.0f ms of the caller's audio are missing; the audio clock goes on", self._call_id, gap_ms
        )

    def _unpace(self) -> None:
        if self._pacer is not None:
            self._pacer.remove(self)
            self._pacer = None
