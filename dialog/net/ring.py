"""The caller's recent audio, for a recogniser that has to start again, and what its times mean."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from uuid import UUID

from dialog.message import AudioFormat, Message

__all__ = ["AudioRing", "StreamTime"]

_BLOCK_MS = 200.0
"""Frames of so much audio are kept as one piece."""
_FRAME_MS = 20.0
"""Services that have to hear it again get it in pieces as long as a carrier's."""
_SKEW_MS = 1000.0
"""Services count a little more or less than they were sent: silence of their own, what a message still holds."""
_SAME_MS = 1.0
"""Positions that differ by less are the same: clocks of carriers round to milliseconds."""


class AudioRing:
    """Caller audio since the last :meth:`release`: the newest ``keep_ms`` of it, and always the last message.

    Frames are put together, ten to a block: kept one by one, each would be three objects for as long.
    """

    __slots__ = (
        "_at_ms",
        "_block_bytes",
        "_blocks",
        "_frame_bytes",
        "_from_ms",
        "_ms_per_byte",
        "_pieces",
        "_room",
        "_sample_bytes",
        "_uuid",
        "end_ms",
        "keep_ms",
    )

    def __init__(self, audio_format: AudioFormat, *, keep_ms: float = 10_000.0) -> None:
        self.keep_ms = keep_ms
        self._ms_per_byte = audio_format.ms(1)
        self._sample_bytes = audio_format.sample_bytes
        self._block_bytes = audio_format.size(_BLOCK_MS)
        self._frame_bytes = audio_format.size(_FRAME_MS)
        self._blocks: deque[tuple[float, bytes]] = deque()
        """Where each begins on the call's audio clock, and its audio."""
        self._pieces: list[bytes] = []
        """Of the block that is not complete yet."""
        self._at_ms = 0.0
        """Where that block begins."""
        self._room = 0
        """Bytes that it may still take."""
        self._from_ms = -inf
        """What was before this is forgotten."""
        self._uuid = UUID(int=0)
        self.end_ms = 0.0
        """Where the newest audio ends, on the call's audio clock."""

    @property
    def start_ms(self) -> float:
        """Where the oldest audio that is kept begins; :attr:`end_ms` if there is none."""
        if not self._pieces:
            return self.end_ms
        return max(self._blocks[0][0] if self._blocks else self._at_ms, self._kept_from_ms())

    def append(self, message: Message[bytes]) -> None:
        """Keep a message's audio, and forget what is older than ``keep_ms``."""
        data, at_ms = message.data, message.at_ms
        if self._room <= 0 or not -_SAME_MS < at_ms - self.end_ms < _SAME_MS:
            self._begin(message)
        size = len(data)
        self._pieces.append(data)
        self._room -= size
        self.end_ms = at_ms + size * self._ms_per_byte

    def release(self, safe_ms: float) -> None:
        """Forget the audio before ``safe_ms``: what it said will not be revised."""
        self._from_ms = max(self._from_ms, min(safe_ms, self.end_ms))
        self._forget()

    def since(self, at_ms: float, until_ms: float = inf) -> list[Message[bytes]]:
        """The kept audio between two times, oldest first, in frames of 20 ms as a carrier sends them."""
        at_ms = max(at_ms, self._kept_from_ms())
        found: list[Message[bytes]] = []
        for start_ms, data in (*self._blocks, (self._at_ms, b"".join(self._pieces))):
            first, last = self._offset(at_ms - start_ms, len(data)), self._offset(until_ms - start_ms, len(data))
            while first < last:
                end = min(last, first - first % self._frame_bytes + self._frame_bytes)
                frame_ms = start_ms + first * self._ms_per_byte
                found.append(Message(uuid=self._uuid, data=data[first:end], at_ms=frame_ms))
                first = end
        return found

    def _begin(self, message: Message[bytes]) -> None:
        """A block is complete, and ``message`` is the first of the next one."""
        if self._pieces:
            self._blocks.append((self._at_ms, b"".join(self._pieces)))
            self._from_ms = self._kept_from_ms()
            self._pieces.clear()
            self._forget()
        self._room = self._block_bytes
        self._at_ms = message.at_ms
        self._uuid = message.uuid

    def _kept_from_ms(self) -> float:
        return max(self._from_ms, min(self.end_ms - self.keep_ms, self._at_ms))

    def _forget(self) -> None:
        blocks, ms_per_byte, from_ms = self._blocks, self._ms_per_byte, self._from_ms
        while blocks and blocks[0][0] + len(blocks[0][1]) * ms_per_byte <= from_ms:
            blocks.popleft()
        if self.end_ms <= from_ms:
            self._pieces.clear()
            self._room = 0

    def _offset(self, ms: float, size: int) -> int:
        """Bytes of a block of ``size`` that last ``ms``, in whole samples."""
        if ms <= 0.0:
            return 0
        samples = ms / self._ms_per_byte / self._sample_bytes
        return size if samples * self._sample_bytes >= size else int(samples + 1e-6) * self._sample_bytes


class StreamTime:
    """Maps positions of the audio sent on one connection to the call's audio clock.

    Providers count the audio that they received on a connection, from 0. The call's clock may jump
    (a transfer, an outage), and starts anywhere.

    Args:
        skewed: Called when the provider tells of a position far from all that was sent.
    """

    __slots__ = ("_from", "_offset", "_sent_ms", "_skewed")

    def __init__(self, skewed: Callable[[], object] = bool) -> None:
        self._skewed = skewed
        self._sent_ms = 0.0
        # Two parallel lists: from position _from[i] on, the call's clock is position + _offset[i].
        self._from: list[float] = [0.0]
        self._offset: list[float] = [0.0]

    @property
    def sent_ms(self) -> float:
        """How much audio was sent on this connection."""
        return self._sent_ms

    def add(self, at_ms: float, duration_ms: float) -> None:
        """Audio from ``at_ms`` on the call's clock is sent next."""
        offset = at_ms - self._sent_ms
        if abs(offset - self._offset[-1]) >= _SAME_MS:
            if self._from[-1] == self._sent_ms:
                self._offset[-1] = offset
            else:
                self._from.append(self._sent_ms)
                self._offset.append(offset)
        self._sent_ms += duration_ms

    def drop(self, position_ms: float, duration_ms: float) -> None:
        """Audio that was added at ``position_ms`` was thrown away instead of being sent."""
        end_ms = position_ms + duration_ms
        after = bisect_right(self._from, end_ms)
        before = bisect_left(self._from, position_ms)
        offset = self._offset[after - 1] + duration_ms
        self._from[before:] = [position_ms, *(start - duration_ms for start in self._from[after:])]
        self._offset[before:] = [offset, *(offset + duration_ms for offset in self._offset[after:])]
        self._sent_ms -= duration_ms

    def to_call(self, position_ms: float, *, end: bool = False) -> float:
        """Where ``position_ms`` of the connection's audio is on the call's audio clock.

        At a jump of the clock a position has two answers: where the audio before it ended (``end``),
        or where the audio after it begins.
        """
        if len(self._from) == 1:  # the clock has never jumped
            return position_ms + self._offset[0]
        index = bisect_left(self._from, position_ms) if end else bisect_right(self._from, position_ms)
        return position_ms + self._offset[max(0, index - 1)]

    def begins_at(self, position_s: float) -> float:
        """Where what begins at ``position_s`` of the connection's audio, in seconds, begins on the call's clock.

        Positions that were never sent are a clock that goes wrong; they count as the nearest that was.
        """
        return self.to_call(self._nearest(position_s * 1000.0))

    def ends_at(self, position_s: float) -> float:
        """As :meth:`begins_at`, for what ends at ``position_s``."""
        return self.to_call(self._nearest(position_s * 1000.0), end=True)

    def spans(self, spans_s: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        """:meth:`begins_at` of the start, and :meth:`ends_at` of the end, of each."""
        if len(self._from) == 1:
            offset, sent_s = self._offset[0], self._sent_ms / 1000.0
            spans_ms = [
                (start_s * 1000.0 + offset, end_s * 1000.0 + offset)
                for start_s, end_s in spans_s
                if 0.0 <= start_s <= end_s <= sent_s
            ]
            if len(spans_ms) == len(spans_s):
                return spans_ms
        return [(self.begins_at(start_s), self.ends_at(end_s)) for start_s, end_s in spans_s]

    def _nearest(self, position_ms: float) -> float:
        if 0.0 <= position_ms <= self._sent_ms:
            return position_ms
        if not -_SKEW_MS <= position_ms <= self._sent_ms + _SKEW_MS:
            self._skewed()
        return self._sent_ms if position_ms > 0.0 else 0.0
