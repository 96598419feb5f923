"""What the caller hears, when, and how much of it was heard: a machine without I/O.

A carrier plays one queue of audio and knows three things: audio, marks that it echoes when everything
before them was played, and ``clear``, which drops all. It cannot pause, and it drops the audio of every
turn alike. :class:`Playout` makes parts of it that can be paused, resumed and aborted one by one: it
sends only a short lead, keeps what it sent until that was heard, and says after a clear again what
should not have been lost.

Parts are played in the order of their first piece. A part that is not ``done`` holds back those after
it, because speech keeps its order; aborting it lets them go on.

Beside this lane of voice there is a lane of beds: a background, a sign that somebody is at work. It is
mixed in when a chunk is sent, and sent alone while there is no voice. Offsets of parts count voice only;
line positions count all that is sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import Literal
from uuid import UUID

from msgspec import Struct

from dialog.audio.sound import Sound
from dialog.message import AudioFormat, Message, Playback
from dialog.voip.bed import BedLane, Layer
from dialog.voip.lineclock import LineClock
from dialog.voip.lineops import Flushed, LineOp, Overflow, Report, SendAudio, SendClear, SendMark
from dialog.voip.part import Key, Part, Tombstones

__all__ = ["EARLY_S", "Playout"]

_CHUNK_MS = 200
"""Longest message: each costs nearly the same, whatever its size."""
_FIRST_MS = 100
"""Longest message on a line that is silent: what the caller waits for is small, and the rest comes behind it."""
_HYSTERESIS_MS = 110
"""Audio is sent when the lead has fallen by this much: at every third tick, also when ticks are a little late."""
_TICK_MS = 50
"""What comes between two ticks waits for the next one, unless that should have sent something already."""
_PIECE_MS = 20
"""Nothing shorter is sent, unless it is the end of what there is."""
_MARK_MS = 250
_PROGRESS_S = 0.25
_PATIENCE_S = 1.0
"""How long after its due time a mark is waited for."""
EARLY_S = 0.001
"""What is due within this is done now, not a tick later."""
_SOONER = 0.8
"""Round trips vary: an echo within this much of the last one was on its way before the clear arrived."""
_NEARLY_MS = 100
"""How far the line clock may have been behind, where such an echo is believed; a wrong one would skip speech."""
_BED_LEAD_MS = 150
"""How far a bed alone is sent ahead while the voice before it may still sound: a voice that goes on waits behind it."""
_BED_TAIL_MS = 40
"""A shorter tail of a bed is waited for; for a longer one a clear lets the voice begin at once."""
_SETTLED_MS = 100
"""So long after its last byte a voice was surely heard: a clear takes nothing of it."""
_FLUSHED = 256
"""How many marks that a clear flushed are remembered; each is echoed within a round trip."""


class _Mark(Struct):
    name: str
    position: int
    due: float
    part: Part
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
        bed: What sounds beside the voice; it outlives this stream.
    """

    __slots__ = (
        "_bed",
        "_bed_lead",
        "_bed_tail",
        "_beginning",
        "_changed",
        "_chunk",
        "_clearing",
        "_closed",
        "_due",
        "_first",
        "_flushed",
        "_format",
        "_hysteresis",
        "_keep",
        "_late",
        "_lead",
        "_lead_ms",
        "_limit",
        "_line",
        "_mark_count",
        "_mark_every",
        "_marked",
        "_marks",
        "_nearly",
        "_parts",
        "_paused",
        "_piece",
        "_progress_at",
        "_progress_position",
        "_rate",
        "_sample",
        "_settled",
        "_started",
        "_voiced",
        "tombstones",
    )

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        lead_ms: float = 300,
        keep_ms: float = 1500,
        limit_ms: float = 60_000,
        tombstones: Tombstones | None = None,
        bed: BedLane | None = None,
    ) -> None:
        self.tombstones: Tombstones = Tombstones() if tombstones is None else tombstones
        self._bed = BedLane(audio_format) if bed is None else bed
        self._format = audio_format
        self._sample = audio_format.sample_bytes
        self._rate = audio_format.sample_rate * audio_format.sample_bytes
        self._chunk = audio_format.size(_CHUNK_MS)
        self._first = audio_format.size(_FIRST_MS)
        self._hysteresis = audio_format.size(_HYSTERESIS_MS)
        self._late = audio_format.size(_HYSTERESIS_MS + _TICK_MS)
        self._nearly = audio_format.size(_NEARLY_MS)
        self._piece = audio_format.size(_PIECE_MS)
        self._mark_every = audio_format.size(_MARK_MS)
        self._keep = audio_format.size(keep_ms)
        self._limit = audio_format.size(limit_ms)
        self._lead_ms = lead_ms
        self._lead = audio_format.size(lead_ms)
        self._bed_lead = audio_format.size(_BED_LEAD_MS)
        self._bed_tail = audio_format.size(_BED_TAIL_MS)
        self._settled = audio_format.size(_SETTLED_MS)
        self._voiced = 0
        """Line position behind the last byte of voice."""
        self._parts: dict[Key, Part] = {}
        self._started = self._paused = self._clearing = self._closed = False
        self._line = LineClock(self._rate, audio_format.sample_bytes)
        self._marks: deque[_Mark] = deque()
        self._marked = 0
        self._mark_count = 0
        self._flushed: OrderedDict[str, tuple[_Mark, float, int]] = OrderedDict()
        """Marks that a clear flushed: when, and how much audio before them it took with it."""
        self._progress_at = 0.0
        self._progress_position = 0
        self._beginning = False
        """A part was sent that has not been reported as playing yet."""
        self._due: float | None = None
        self._changed = False
        """Something happened since ``_due`` was found: most ticks have nothing to do, and cost nothing."""

    @property
    def rtt_s(self) -> float:
        """Round trip to the carrier in seconds, 0.0 when unknown; kept up to date by the line."""
        return self._line.rtt_s

    @rtt_s.setter
    def rtt_s(self, value: float) -> None:
        self._line.rtt_s = value

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
        line, due = self._line, inf
        if self._progress_position < self._voiced:
            due = self._progress_at + _PROGRESS_S
        if not self._paused and self._voice_waits():
            due = min(due, line.time_of(line.sent - self._lead + self._hysteresis))
        elif self._bed.on:
            lead = self._lead if not self._marks and self._voiced <= line.floor else self._short_lead()
            due = min(due, line.time_of(line.sent - lead + self._hysteresis))
        if self._marks and self._marks[0].due + _PATIENCE_S < due:
            due = min(due, self._marks[0].due + line.buffer_s + _PATIENCE_S)
        return None if due == inf else due

    def start(self, now: float) -> list[LineOp]:
        """The stream is there: play what was posted before."""
        ops: list[LineOp] = []
        self._changed = True
        if not self._started and not self._closed:
            self._started = True
            self._line.start(now)
            self._progress_at = now
            self._fill(now, ops)
        return ops

    def post(self, message: Message[bytes], now: float) -> list[LineOp]:
        """Add a piece to its part. What comes for a part that has ended is dropped."""
        ops: list[LineOp] = []
        key = (message.uuid, message.part)
        part = self._parts.get(key)
        if part is None:
            if key in self.tombstones:
                return ops
            part = Part(key)
            self._parts[key] = part
        if self._closed:
            part.size = len(message.data)
            self._finish(part, "lost", ops)
            return ops
        if part.complete or part.aborted:
            return ops
        if part.next >= part.size or self._bed.on:  # else it waits behind what waits already
            self._changed = True
        if message.data:
            self._bed.voice()
            room = (self._limit - self._queued()) // self._sample * self._sample
            dropped = part.append(message.data, room)
            if dropped:
                ops.append(Overflow(*key, self._format.ms(dropped)))
        part.done = message.done
        if part.next >= part.size or self._behind(now):
            self._changed = True
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
            found.pop(0).shorten(self._format.size(max(0.0, after_ms)))
        if self._clearing or any(self._on_line(each, now) for each in found):
            for each in found:
                each.aborted = True
            if found and not self._clearing:
                self._clearing = True
                ops.append(SendClear())
            return ops
        for each in found:
            each.hear(self._heard(now))
            self._finish(each, each.outcome if each.heard_whole else "cut", ops)
        self._fill(now, ops)
        return ops

    def set_bed(self, layer: Layer, sound: Sound | None, gain_db: float, now: float) -> list[LineOp]:
        """Let ``sound`` go round beside the voice from now on; None: nothing more, once what was sent has sounded.

        ``thinking`` ends with the next audio that is posted.
        """
        ops: list[LineOp] = []
        self._changed = True
        self._bed.set(layer, sound, gain_db)
        self._fill(now, ops)
        return ops

    def pause(self, now: float) -> list[LineOp]:
        """Let the voice fall silent at once; what was not heard is kept."""
        ops: list[LineOp] = []
        self._changed = True
        if self._paused or self._closed:
            return ops
        self._paused = True
        if self._clearing:
            return ops
        if self._started and self._heard(now) < self._voiced:
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
            self._beginning = True
            if from_ms is not None and not self._clearing and not part.ended:
                part.next = part.begin = min(max(self._format.size(from_ms), part.base), part.next)
                part.runs.clear()
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
        if self._closed or name not in [mark.name for mark in self._marks]:
            return ops
        found = False
        while not found:
            mark = self._marks.popleft()  # the carrier plays in order: those before it were lost, not unheard
            found = mark.name == name
            if found:
                shift = self._line.learn(now - mark.due)
                if shift:
                    for pending in self._marks:
                        pending.due += shift
            self._confirm(mark, ops, confirmed=True)
        if self._behind(now):
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
        sent = self._line.sent
        self._line.unsend(purged)
        heard = self._heard(now)
        self._bed.back(sent - heard)
        self._voiced = min(self._voiced, heard)
        ops.append(Flushed(min(now, self._line.time_of(heard))))
        for mark in self._marks:
            self._flushed[mark.name] = (mark, now, mark.position - heard)
            if len(self._flushed) > _FLUSHED:
                self._flushed.popitem(last=False)
        self._marks.clear()
        for part in tuple(self._parts.values()):
            part.rewind(heard)
            if part.heard_whole:
                self._finish(part, part.outcome, ops)
            elif part.aborted:
                self._finish(part, "cut", ops)
        self._line.clear(heard, now)
        self._marked = self._progress_position = heard
        if self._paused:
            self._report_pause(ops)
        self._fill(now, ops)
        return ops

    def tick(self, now: float) -> list[LineOp]:
        """Send what is due, give up on marks that did not come back, report progress."""
        ops: list[LineOp] = []
        due = self.deadline
        if due is None or now < due - EARLY_S:
            return ops
        self._changed = True
        while self._marks and now >= self._marks[0].due + self._line.buffer_s + _PATIENCE_S:
            self._confirm(self._marks.popleft(), ops, confirmed=False)
        self._fill(now, ops)
        if self._beginning or now >= self._progress_at + _PROGRESS_S - EARLY_S:
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
            part.hear(heard)
            if part.heard_whole:
                self._finish(part, part.outcome, ops)
            else:
                self._finish(part, "cut" if part.aborted else "lost", ops)
        self._marks.clear()
        self._flushed.clear()
        return ops

    # What was heard.

    def _heard(self, now: float) -> int:
        return self._line.heard(now, self._pending())

    def _pending(self) -> tuple[float, int] | None:
        return (self._marks[0].due, self._marks[0].position) if self._marks else None

    def _on_line(self, part: Part, now: float) -> bool:
        return part.on_line and part.line_end > self._heard(now)

    def _confirm(self, mark: _Mark, ops: list[LineOp], *, confirmed: bool) -> None:
        self._line.confirm(mark.position)
        mark.part.hear(self._line.floor)
        if mark.end and not mark.part.final:
            self._finish(mark.part, mark.part.outcome, ops, confirmed=confirmed)

    def _late_echo(self, mark: _Mark, cleared_at: float, behind: int, now: float, ops: list[LineOp]) -> None:
        """The echo of a mark that was pending when a clear was sent, ``behind`` bytes ahead of what was heard."""
        part = mark.part
        if now - cleared_at >= _SOONER * self.rtt_s or behind > self._nearly:
            return  # flushed
        if not self._paused or part.final or part.on_line:
            return  # its audio is on the line again
        # Sooner than the clear can have been answered: it was played before the clear came there.
        part.heard = max(part.heard, mark.offset)
        part.next = part.begin = max(part.next, mark.offset)
        if mark.end and part.heard_whole:
            self._finish(part, part.outcome, ops, confirmed=True)

    # What is sent.

    def _queued(self) -> int:
        queued = 0
        for part in self._parts.values():
            queued += part.size - part.next
        return queued

    def _behind(self, now: float) -> bool:
        """Whether the lead must be brought up before the next tick does it, or something else than voice is ahead."""
        sent = self._line.sent
        return sent != self._voiced or sent - self._line.at(now) < self._lead - self._late

    def _fill(self, now: float, ops: list[LineOp]) -> None:
        """Bring the lead up and end the parts that are complete."""
        if not self._started or self._closed or self._clearing:
            return
        if not self._paused and not self._fill_voice(now, ops):
            self._clearing = True  # only a bed is ahead of the voice
            ops.append(SendClear())
        elif self._bed.on:
            self._fill_bed(now, ops)

    def _fill_voice(self, now: float, ops: list[LineOp]) -> bool:
        """Send voice; False: it would have to wait behind a bed, which can be cleared."""
        before = self._line.sent
        ahead = before - self._line.at(now)
        if before > self._voiced and ahead >= self._bed_tail and self._voice_waits() and self._bed_alone(now):
            return False
        room = 0
        if ahead < self._lead - self._hysteresis:
            room = int(self._lead - ahead) // self._sample * self._sample
        most = self._first if ahead <= 0 else self._chunk
        for part in tuple(self._parts.values()):
            if part.ended:
                continue
            while part.next < part.size and room >= min(self._piece, part.size - part.next) > 0:
                room -= self._send(part, min(room, most, part.size - part.next), now, ops)
                most = self._chunk
            if part.next < part.size or not part.complete:
                break
            self._end(part, now, ops)
        if ahead <= 0 < self._line.sent - before:
            self._progress(now, ops)  # it sounds at once: say so
        return True

    def _fill_bed(self, now: float, ops: list[LineOp]) -> None:
        """Keep the line from running dry where there is no voice."""
        ahead = self._line.sent - self._line.at(now)
        lead = self._lead if self._bed_alone(now) else self._short_lead()
        if ahead >= lead - self._hysteresis or (not self._paused and self._voice_waits()):
            return
        room = int(lead - ahead) // self._sample * self._sample
        while room > 0:
            size = min(room, self._chunk)
            ops.append(SendAudio(self._bed.alone(size), self._line.write(size, now, self._pending())))
            room -= size

    def _short_lead(self) -> int:
        return min(self._lead, self._bed_lead)

    def _bed_alone(self, now: float) -> bool:
        """Whether all voice that was sent was surely heard."""
        if self._marks:
            return False
        return self._voiced <= self._line.floor or self._heard(now) - self._voiced >= self._settled

    def _voice_waits(self) -> bool:
        """Whether there is voice that may be sent next."""
        for part in self._parts.values():
            if not part.ended:
                return part.next < part.size
        return False

    def _send(self, part: Part, size: int, now: float, ops: list[LineOp]) -> int:
        data = part.take(size, self._line.sent)
        if self._bed.on:
            data = self._bed.under(data)
        ops.append(SendAudio(data, self._line.write(size, now, self._pending())))
        self._voiced = self._line.sent
        if part.reported_at is None:
            self._beginning = True
        if self._voiced - self._marked >= self._mark_every and not (part.complete and part.next >= part.size):
            self._mark(part, now, ops, end=False)
        return size

    def _end(self, part: Part, now: float, ops: list[LineOp]) -> None:
        part.ended = True
        if part.size == 0 and next(iter(self._parts.values())) is part and self._heard(now) >= self._voiced:
            self._finish(part, part.outcome, ops, confirmed=True)  # nothing to hear, and nothing before it
        else:
            self._mark(part, now, ops, end=True)

    def _mark(self, part: Part, now: float, ops: list[LineOp], *, end: bool) -> None:
        self._mark_count += 1
        self._marked = self._line.sent
        name = f"{part.name}-{self._mark_count}"
        due = max(now, self._line.time_of(self._line.sent))
        self._marks.append(_Mark(name, self._line.sent, due, part, part.next, end))
        ops.append(SendMark(name))

    # What is told.

    def _current(self) -> Part | None:
        """The first part that has something left to be heard."""
        return next((part for part in self._parts.values() if not part.heard_whole), None)

    def _progress(self, now: float, ops: list[LineOp]) -> None:
        heard = self._heard(now)
        if now - self._progress_at >= _PROGRESS_S or heard >= self._voiced:
            self._progress_at = now
            self._progress_position = heard
        clock = self._line.at(now)
        self._beginning = False
        for part in self._parts.values():
            if not part.on_line:
                if part.ended:
                    continue
                break
            part.hear(heard)
            if clock < part.line_start:
                self._beginning = True
                break
            last = part.reported_at
            if last is None or (now - last >= _PROGRESS_S - EARLY_S and part.heard > part.reported):
                part.reported_at = self._progress_at = now
                part.reported = part.heard
                ops.append(Report(self._playback(part, "playing")))
            part.trim(self._keep, self._rate)

    def _report_pause(self, ops: list[LineOp]) -> None:
        part = self._current()
        if part is not None:
            ops.append(Report(self._playback(part, "paused")))

    def _finish(
        self, part: Part, state: Literal["played", "cut", "lost"], ops: list[LineOp], *, confirmed: bool = False
    ) -> None:
        part.final = True
        if state == "played":
            part.heard = part.size
        self._parts.pop(part.key, None)
        self.tombstones.add(part.key)
        ops.append(Report(self._playback(part, state, confirmed=confirmed)))
        part.audio = bytearray()  # marks may refer to it for a while

    def _playback(
        self, part: Part, state: Literal["playing", "paused", "played", "cut", "lost"], *, confirmed: bool = False
    ) -> Playback:
        return Playback(
            uuid=part.key[0],
            part=part.key[1],
            state=state,
            heard_ms=self._format.ms(part.heard),
            queued_ms=self._format.ms(part.size - part.heard),
            confirmed=confirmed,
        )
