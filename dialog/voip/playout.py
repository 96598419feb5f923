"""What the caller hears, when, and how much of it was heard: a machine without I/O.

A carrier plays one queue of audio and knows three things: audio, marks that it echoes when everything
before them was played, and ``clear``, which drops all. It cannot pause, and it drops the audio of every
turn alike. :class:`Playout` makes parts of it that can be paused, resumed and aborted one by one: it
sends only a short lead, keeps what it sent until that was heard, and says after a clear again what
should not have been lost.

Parts are played in the order of their first piece. A part that is not ``done`` holds back those after
it, because speech keeps its order; aborting it lets them go on.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.message import AudioFormat, Message, Playback

__all__ = ["Flushed", "LineOp", "Overflow", "Playout", "Report", "SendAudio", "SendClear", "SendMark", "Tombstones"]

_CHUNK_MS = 100
"""Longest message: ten a second keep the lead, and one is little to lose in a writer's queue."""
_HYSTERESIS_MS = 60
"""Audio is sent when the lead has fallen by this much: at every second tick, also when ticks are a little late."""
_PIECE_MS = 20
"""Nothing shorter is sent, unless it is the end of what there is."""
_MARK_MS = 250
_PROGRESS_S = 0.25
_PATIENCE_S = 1.0
"""How long after its due time a mark is waited for."""
_EARLY_S = 0.001
"""What is due within this is done now, not a tick later."""
_SOONER = 0.8
"""Round trips vary: an echo within this much of the last one was on its way before the clear arrived."""
_NEARLY_MS = 100
"""How far the line clock may have been behind, where such an echo is believed; a wrong one would skip speech."""
_TOMBSTONES = 256
_FLUSHED = 256
"""How many marks that a clear flushed are remembered; each is echoed within a round trip."""

Key: TypeAlias = tuple[UUID, int]


class SendAudio(Struct, frozen=True):
    """Send ``data`` to the carrier, where it will start to sound at ``due`` (seconds)."""

    data: bytes
    due: float


class SendMark(Struct, frozen=True):
    """Ask the carrier to echo ``name`` when all before it was played."""

    name: str


class SendClear(Struct, frozen=True):
    """Silence the carrier now, then answer with :meth:`Playout.cleared`."""


class Flushed(Struct, frozen=True):
    """What was sent to sound after ``at`` (seconds) was not heard."""

    at: float


class Report(Struct, frozen=True):
    """Tell the agent."""

    playback: Playback


class Overflow(Struct, frozen=True):
    """More audio was posted than may wait: the tail of this part was cut off."""

    uuid: UUID
    part: int
    dropped_ms: float


LineOp: TypeAlias = SendAudio | SendMark | SendClear | Flushed | Report | Overflow


class Tombstones:
    """Parts that have had their final report; what still comes for them is dropped."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def add(self, key: Key) -> None:
        """Remember ``key``, and forget the oldest beyond the bound."""
        self._keys[key] = None
        if len(self._keys) > _TOMBSTONES:
            self._keys.popitem(last=False)

    def __contains__(self, key: Key) -> bool:
        return key in self._keys


class _Part:
    """A stretch of speech. Offsets are bytes from its start."""

    __slots__ = (
        "aborted",
        "audio",
        "base",
        "begin",
        "done",
        "ended",
        "final",
        "heard",
        "key",
        "limit",
        "next",
        "origin",
        "over",
        "reported",
        "reported_at",
        "size",
    )

    def __init__(self, key: Key) -> None:
        self.key = key
        self.audio = bytearray()
        self.base = 0
        """Offset of the first byte in ``audio``: older ones were heard and dropped."""
        self.size = 0
        self.next = 0
        """Offset of the next byte to send."""
        self.heard = 0
        self.begin = 0
        """Offset at which it started, or went on after the last clear."""
        self.origin: int | None = None
        """Line position of offset 0; None before it is sent, and again after a clear."""
        self.limit: int | None = None
        self.over = False
        """Its end was cut off, by a limit or by overflow."""
        self.done = False
        self.ended = False
        """Its last byte and its mark are on the line."""
        self.aborted = False
        self.final = False
        self.reported = -1
        self.reported_at: float | None = None

    @property
    def complete(self) -> bool:
        """Nothing more will be added."""
        return self.done or self.over or (self.limit is not None and self.size >= self.limit)

    @property
    def outcome(self) -> Literal["played", "cut"]:
        """How it ends when all of it was heard."""
        return "played" if self.done and not self.over else "cut"


class _Mark(Struct):
    name: str
    position: int
    due: float
    part: _Part
    offset: int
    end: bool


class Playout:
    """Plays the parts of one stream. Times are seconds of one clock, positions bytes on the line.

    Every method returns what the line must do, in order. After :class:`SendClear` nothing is sent
    until :meth:`cleared` says what had not left the process.

    Args:
        audio_format: What the line speaks.
        lead_ms: How much audio is kept ahead at the carrier.
        keep_ms: How much of what was heard is kept, for resuming a little earlier.
        limit_ms: How much may wait; what exceeds it is cut off and reported.
        tombstones: Parts that ended on earlier streams of the call.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        lead_ms: float = 250,
        keep_ms: float = 1500,
        limit_ms: float = 60_000,
        tombstones: Tombstones | None = None,
    ) -> None:
        self.rtt_s = 0.0
        """Round trip to the carrier, 0.0 when unknown; kept up to date by the line."""
        self.tombstones = Tombstones() if tombstones is None else tombstones
        self._format = audio_format
        self._sample = audio_format.sample_bytes
        self._rate = audio_format.sample_rate * audio_format.sample_bytes
        self._chunk = audio_format.size(_CHUNK_MS)
        self._hysteresis = audio_format.size(_HYSTERESIS_MS)
        self._nearly = audio_format.size(_NEARLY_MS)
        self._piece = audio_format.size(_PIECE_MS)
        self._mark_every = audio_format.size(_MARK_MS)
        self._keep = audio_format.size(keep_ms)
        self._limit = audio_format.size(limit_ms)
        self._lead_ms = lead_ms
        self._lead = audio_format.size(lead_ms)
        self._parts: dict[Key, _Part] = {}
        self._started = self._paused = self._clearing = self._closed = False
        # The line clock: position _anchor[1] sounds at _anchor[0], then bytes follow at the line's rate up to _sent.
        self._anchor_at = 0.0
        self._anchor_position = 0
        self._sent = 0
        self._floor = 0
        """Position that was surely heard: a mark came back, or a dry spell passed."""
        self._lag: float | None = None
        """Low-pass of how late marks come back, seconds; None before the first."""
        self._marks: deque[_Mark] = deque()
        self._marked = 0
        self._mark_count = 0
        self._flushed: OrderedDict[str, tuple[_Mark, float]] = OrderedDict()
        self._progress_at = 0.0
        self._progress_position = 0
        self._due: float | None = None
        self._changed = False
        """Something happened since ``_due`` was found: most ticks have nothing to do, and cost nothing."""

    @property
    def lead_ms(self) -> float:
        """How much audio is kept ahead at the carrier."""
        return self._lead_ms

    @lead_ms.setter
    def lead_ms(self, value: float) -> None:
        self._lead_ms = value
        self._lead = self._format.size(value)
        self._changed = True

    @property
    def paused(self) -> bool:
        """Whether :meth:`pause` holds the line."""
        return self._paused

    @property
    def queued_ms(self) -> float:
        """Audio that waits here, in milliseconds."""
        return self._format.ms(self._queued())

    @property
    def deadline(self) -> float | None:
        """When :meth:`tick` is due; None: not before something else happens."""
        if self._changed:
            self._changed = False
            self._due = self._next_due()
        return self._due

    def _next_due(self) -> float | None:
        if not self._started or self._closed or self._clearing:
            return None
        due: list[float] = []
        if self._marks:
            due.append(self._marks[0].due + self._buffer + _PATIENCE_S)
        if self._progress_position < self._sent:
            due.append(self._progress_at + _PROGRESS_S)
        if not self._paused:
            part = next((part for part in self._parts.values() if not part.ended), None)
            if part is not None and part.next < part.size:
                due.append(self._time_of(self._sent - self._lead + self._hysteresis))
        return min(due, default=None)

    def start(self, now: float) -> list[LineOp]:
        """The stream is there: play what was posted before."""
        ops: list[LineOp] = []
        self._changed = True
        if not self._started and not self._closed:
            self._started = True
            self._anchor_at = self._progress_at = now
            self._fill(now, ops)
        return ops

    def post(self, message: Message[bytes], now: float) -> list[LineOp]:
        """Add a piece to its part. What comes for a part that has ended is dropped."""
        ops: list[LineOp] = []
        self._changed = True
        key = (message.uuid, message.part)
        if key in self.tombstones:
            return ops
        part = self._parts.get(key)
        if part is None:
            part = _Part(key)
            self._parts[key] = part
        if self._closed:
            part.size = len(message.data)
            self._finish(part, "lost", ops)
            return ops
        if part.complete or part.aborted:
            return ops
        if message.data:
            self._append(part, message.data, ops)
        part.done = message.done
        self._fill(now, ops)
        return ops

    def abort(self, uuid: UUID, part: int | None, after_ms: float | None, now: float) -> list[LineOp]:
        """End a turn or one part of it; with ``after_ms`` once that much of the part was heard.

        A position that is on the line already moves to the end of what was sent. For a whole turn it
        counts in the part that is being played, and the turn's later parts end at once.
        """
        ops: list[LineOp] = []
        self._changed = True
        found = [
            each
            for each in self._parts.values()
            if each.key[0] == uuid and (part is None or each.key[1] == part) and not each.aborted
        ]
        if found and after_ms is not None:
            self._shorten(found.pop(0), self._format.size(max(0.0, after_ms)))
        if self._clearing or any(self._on_line(each, now) for each in found):
            for each in found:
                each.aborted = True
            if found and not self._clearing:
                self._clearing = True
                ops.append(SendClear())
            return ops
        for each in found:
            self._hear(each, self._heard(now))
            self._finish(each, each.outcome if self._is_heard(each) else "cut", ops)
        self._fill(now, ops)
        return ops

    def pause(self, now: float) -> list[LineOp]:
        """Fall silent at once; what was not heard is kept."""
        ops: list[LineOp] = []
        self._changed = True
        if self._paused or self._closed:
            return ops
        self._paused = True
        if self._clearing:
            return ops
        if self._started and self._heard(now) < self._sent:
            self._clearing = True
            ops.append(SendClear())
        else:
            self._report_pause(ops)
        return ops

    def resume(self, from_ms: float | None, now: float) -> list[LineOp]:
        """Go on where :meth:`pause` cut, or from ``from_ms`` of the part that was cut.

        Never skips: a later position is the cut. An earlier one than was kept is the earliest kept.
        """
        ops: list[LineOp] = []
        self._changed = True
        if not self._paused or self._closed:
            return ops
        self._paused = False
        part = self._current()
        if part is not None:
            part.reported_at = None
            if from_ms is not None and not self._clearing and not part.ended:
                part.next = part.begin = min(max(self._format.size(from_ms), part.base), part.next)
                part.origin = None
        self._fill(now, ops)
        return ops

    def mark(self, name: str, now: float) -> list[LineOp]:
        """A mark came back: what was sent before it was played, unless a clear flushed it."""
        ops: list[LineOp] = []
        self._changed = True
        flushed = self._flushed.pop(name, None)
        if flushed is not None:
            self._late_echo(*flushed, now, ops)
            return ops
        if self._closed or not any(mark.name == name for mark in self._marks):
            return ops
        while self._marks:
            mark = self._marks.popleft()  # the carrier plays in order: those before it were lost, not unheard
            self._floor = max(self._floor, mark.position)
            found = mark.name == name
            if found:
                self._learn(mark, now)
            self._hear(mark.part, self._floor)
            if mark.end and not mark.part.final:
                self._finish(mark.part, mark.part.outcome, ops, confirmed=True)
            if found:
                break
        self._fill(now, ops)
        return ops

    def cleared(self, purged: int, now: float) -> list[LineOp]:
        """The clear is on its way, and ``purged`` bytes before it never left.

        Media and clear travel the same way in order, so what sounds until the clear arrives is what the
        line clock says at this moment.
        """
        ops: list[LineOp] = []
        self._changed = True
        if not self._clearing or self._closed:
            return ops
        self._clearing = False
        self._sent = max(self._floor, self._sent - purged)
        heard = self._heard(now)
        ops.append(Flushed(min(now, self._time_of(heard))))
        for mark in self._marks:
            self._flushed[mark.name] = (mark, now)
            if len(self._flushed) > _FLUSHED:
                self._flushed.popitem(last=False)
        self._marks.clear()
        for part in tuple(self._parts.values()):
            self._rewind(part, heard)
            if self._is_heard(part):
                self._finish(part, part.outcome, ops)
            elif part.aborted:
                self._finish(part, "cut", ops)
        self._sent = self._floor = self._anchor_position = self._marked = self._progress_position = heard
        self._anchor_at = now
        if self._paused:
            self._report_pause(ops)
        self._fill(now, ops)
        return ops

    def tick(self, now: float) -> list[LineOp]:
        """Send what is due, give up on marks that did not come back, report progress."""
        ops: list[LineOp] = []
        due = self.deadline
        if due is None or now < due - _EARLY_S:
            return ops
        self._changed = True
        while self._marks and now >= self._marks[0].due + self._buffer + _PATIENCE_S:
            mark = self._marks.popleft()
            self._floor = max(self._floor, mark.position)
            self._hear(mark.part, self._floor)
            if mark.end and not mark.part.final:
                self._finish(mark.part, mark.part.outcome, ops)
        self._fill(now, ops)
        self._progress(now, ops)
        return ops

    def close(self, now: float) -> list[LineOp]:
        """The stream is over: what was not heard is lost."""
        ops: list[LineOp] = []
        self._changed = True
        if self._closed:
            return ops
        heard = self._heard(now)
        self._closed = True
        for part in tuple(self._parts.values()):
            self._hear(part, heard)
            if self._is_heard(part):
                self._finish(part, part.outcome, ops)
            else:
                self._finish(part, "cut" if part.aborted else "lost", ops)
        self._marks.clear()
        self._flushed.clear()
        return ops

    # What was heard.

    @property
    def _buffer(self) -> float:
        """Seconds that the carrier holds back before it plays."""
        return 0.0 if self._lag is None else max(0.0, self._lag - self.rtt_s)

    def _time_of(self, position: float) -> float:
        return self._anchor_at + (position - self._anchor_position) / self._rate

    def _clock(self, now: float) -> float:
        """Line position at ``now`` for a carrier without delay."""
        return min(float(self._sent), self._anchor_position + max(0.0, now - self._anchor_at) * self._rate)

    def _heard(self, now: float) -> int:
        """Line position that the caller has heard, a whole sample."""
        position = min(float(self._sent), self._anchor_position + (now - self._buffer - self._anchor_at) * self._rate)
        if self._marks and self._lag is not None and now - self._marks[0].due > 2 * self._lag + 0.05:
            position = min(position, self._marks[0].position)  # long overdue: the carrier has stalled
        return max(self._floor, int(position + 1e-3) // self._sample * self._sample)

    def _learn(self, mark: _Mark, now: float) -> None:
        lag = now - mark.due
        if lag < 0:  # played sooner than our clock thought: it is the clock that is late
            self._anchor_at += lag
            for pending in self._marks:
                pending.due += lag
            lag = 0.0
        if self._lag is None:
            self._lag = lag
        else:
            # One late echo is often our own loop or the way back; only a lasting lag is the carrier's buffer.
            self._lag += (lag - self._lag) * (0.5 if lag < self._lag else 0.125)

    def _hear(self, part: _Part, heard: int) -> None:
        if part.origin is not None:
            part.heard = max(part.heard, min(heard - part.origin, part.next))

    def _is_heard(self, part: _Part) -> bool:
        return part.complete and part.size > 0 and part.heard >= part.size and part.next >= part.size

    def _on_line(self, part: _Part, now: float) -> bool:
        return part.origin is not None and part.origin + part.next > self._heard(now)

    def _rewind(self, part: _Part, heard: int) -> None:
        part.ended = False
        if part.origin is None:
            return
        self._hear(part, heard)
        part.next = part.begin = min(max(heard - part.origin, part.begin), part.next)
        part.origin = None

    def _late_echo(self, mark: _Mark, cleared_at: float, now: float, ops: list[LineOp]) -> None:
        """The echo of a mark that was pending when a clear was sent."""
        part = mark.part
        if now - cleared_at >= _SOONER * self.rtt_s or mark.position - self._sent > self._nearly:
            return  # flushed
        if not self._paused or part.final or part.origin is not None:
            return  # its audio is on the line again
        # Sooner than the clear can have been answered: it was played before the clear came there.
        part.heard = max(part.heard, mark.offset)
        part.next = part.begin = max(part.next, mark.offset)
        if mark.end and self._is_heard(part):
            self._finish(part, part.outcome, ops, confirmed=True)

    # What is sent.

    def _queued(self) -> int:
        return sum(part.size - part.next for part in self._parts.values())

    def _append(self, part: _Part, data: bytes, ops: list[LineOp]) -> None:
        room = self._limit - self._queued()
        if part.limit is not None and part.size + len(data) > part.limit:
            part.over = True
            data = data[: part.limit - part.size]
        if len(data) > room:
            part.over = True
            ops.append(Overflow(*part.key, self._format.ms(len(data) - room)))
            data = data[: room // self._sample * self._sample]
        part.audio += data
        part.size += len(data)

    def _shorten(self, part: _Part, limit: int) -> None:
        limit = max(limit, part.next, part.heard)
        if part.limit is not None:
            limit = min(limit, part.limit)
        part.limit = limit
        if part.size > limit:
            del part.audio[limit - part.base :]
            part.size = limit
            part.over = True

    def _fill(self, now: float, ops: list[LineOp]) -> None:
        """Bring the lead up and end the parts that are complete."""
        if not self._started or self._closed or self._clearing or self._paused:
            return
        before = self._sent
        ahead = before - self._clock(now)
        room = 0
        if ahead < self._lead - self._hysteresis:
            room = int(self._lead - ahead) // self._sample * self._sample
        for part in tuple(self._parts.values()):
            if part.ended:
                continue
            while part.next < part.size and room >= min(self._piece, part.size - part.next) > 0:
                room -= self._send(part, min(room, self._chunk, part.size - part.next), now, ops)
            if part.next < part.size or not part.complete:
                break
            self._end(part, now, ops)
        if ahead <= 0 < self._sent - before:
            self._progress(now, ops)  # it sounds at once: say so

    def _send(self, part: _Part, size: int, now: float, ops: list[LineOp]) -> int:
        if self._clock(now) >= self._sent:  # dry: the next byte sounds now
            self._floor = max(self._floor, self._heard(now))
            self._anchor_at = now
            self._anchor_position = self._sent
        if part.origin is None:
            part.origin = self._sent - part.next
        start = part.next - part.base
        ops.append(SendAudio(bytes(memoryview(part.audio)[start : start + size]), self._time_of(self._sent)))
        part.next += size
        self._sent += size
        if self._sent - self._marked >= self._mark_every and not (part.complete and part.next >= part.size):
            self._mark(part, now, ops, end=False)
        return size

    def _end(self, part: _Part, now: float, ops: list[LineOp]) -> None:
        part.ended = True
        if part.size == 0 and next(iter(self._parts.values())) is part and self._heard(now) >= self._sent:
            self._finish(part, part.outcome, ops, confirmed=True)  # nothing to hear, and nothing before it
        else:
            self._mark(part, now, ops, end=True)

    def _mark(self, part: _Part, now: float, ops: list[LineOp], *, end: bool) -> None:
        self._mark_count += 1
        self._marked = self._sent
        name = f"{part.key[0]}-{part.key[1]}-{self._mark_count}"
        due = max(now, self._time_of(self._sent))
        self._marks.append(_Mark(name, self._sent, due, part, part.next, end))
        ops.append(SendMark(name))

    # What is told.

    def _current(self) -> _Part | None:
        """The first part that has something left to be heard."""
        return next((part for part in self._parts.values() if not self._is_heard(part)), None)

    def _progress(self, now: float, ops: list[LineOp]) -> None:
        heard = self._heard(now)
        if now - self._progress_at >= _PROGRESS_S or heard >= self._sent:
            self._progress_at = now
            self._progress_position = heard
        clock = self._clock(now)
        for part in self._parts.values():
            if part.origin is None:
                if part.ended:
                    continue
                break
            self._hear(part, heard)
            if clock < part.origin + part.begin:
                break
            last = part.reported_at
            if last is None or (now - last >= _PROGRESS_S - 1e-3 and part.heard > part.reported):
                part.reported_at = now
                part.reported = part.heard
                ops.append(Report(self._playback(part, "playing")))
            self._trim(part)

    def _trim(self, part: _Part) -> None:
        surplus = part.heard - self._keep - part.base
        if surplus >= self._rate:
            del part.audio[:surplus]
            part.base += surplus

    def _report_pause(self, ops: list[LineOp]) -> None:
        part = self._current()
        if part is not None:
            ops.append(Report(self._playback(part, "paused")))

    def _finish(
        self, part: _Part, state: Literal["played", "cut", "lost"], ops: list[LineOp], *, confirmed: bool = False
    ) -> None:
        part.final = True
        if state == "played":
            part.heard = part.size
        self._parts.pop(part.key, None)
        self.tombstones.add(part.key)
        ops.append(Report(self._playback(part, state, confirmed=confirmed)))
        part.audio = bytearray()  # marks may refer to it for a while

    def _playback(
        self, part: _Part, state: Literal["playing", "paused", "played", "cut", "lost"], *, confirmed: bool = False
    ) -> Playback:
        return Playback(
            uuid=part.key[0],
            part=part.key[1],
            state=state,
            heard_ms=self._format.ms(part.heard),
            queued_ms=self._format.ms(part.size - part.heard),
            confirmed=confirmed,
        )
