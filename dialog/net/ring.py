"""The caller's recent audio, for a recogniser that has to start again, and what its times mean."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator

from dialog.message import AudioFormat, Message

__all__ = ["AudioRing", "StreamTime"]

_SKEW_MS = 1000.0
"""Services count a little more or less than they were sent: silence of their own, what a message still holds."""
_SAME_MS = 1.0
"""Positions that differ by less are the same: clocks of carriers round to milliseconds."""


class AudioRing:
    """Caller audio since ``safe_ms``, the newest ``keep_ms`` of it at most.

    It holds the very messages that were posted: nothing is copied.
    """

    __slots__ = ("_messages", "_ms_per_byte", "end_ms", "keep_ms")

    def __init__(self, audio_format: AudioFormat, *, keep_ms: float = 10_000.0) -> None:
        self.keep_ms = keep_ms
        self._ms_per_byte = audio_format.ms(1)
        self._messages: deque[Message[bytes]] = deque()
        self.end_ms = 0.0
        """Where the newest audio ends, on the call's audio clock."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def start_ms(self) -> float:
        """Where the oldest audio that is kept begins; :attr:`end_ms` if there is none."""
        return self._messages[0].at_ms if self._messages else self.end_ms

    def append(self, message: Message[bytes]) -> None:
        """Keep a message, and forget what is older than ``keep_ms``."""
        messages = self._messages
        messages.append(message)
        self.end_ms = message.at_ms + len(message.data) * self._ms_per_byte
        oldest = self.end_ms - self.keep_ms
        while messages[0].at_ms < oldest and len(messages) > 1:
            messages.popleft()

    def release(self, safe_ms: float) -> None:
        """Forget the messages that end at or before ``safe_ms``: what they said will not be revised."""
        messages, ms_per_byte = self._messages, self._ms_per_byte
        while messages and messages[0].at_ms + len(messages[0].data) * ms_per_byte <= safe_ms:
            messages.popleft()

    def since(self, at_ms: float) -> Iterator[Message[bytes]]:
        """The kept messages that end after ``at_ms``, oldest first."""
        return (message for message in self._messages if self._end(message) > at_ms)

    def _end(self, message: Message[bytes]) -> float:
        return message.at_ms + len(message.data) * self._ms_per_byte


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

    def span(self, start_s: float, end_s: float) -> tuple[float, float]:
        """:meth:`begins_at` of ``start_s`` and :meth:`ends_at` of ``end_s``."""
        if len(self._from) == 1 and 0.0 <= start_s <= end_s and end_s * 1000.0 <= self._sent_ms:
            offset = self._offset[0]
            return start_s * 1000.0 + offset, end_s * 1000.0 + offset
        return self.begins_at(start_s), self.ends_at(end_s)

    def _nearest(self, position_ms: float) -> float:
        if 0.0 <= position_ms <= self._sent_ms:
            return position_ms
        if not -_SKEW_MS <= position_ms <= self._sent_ms + _SKEW_MS:
            self._skewed()
        return self._sent_ms if position_ms > 0.0 else 0.0
