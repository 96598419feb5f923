"""Audio packets in their order, each as early as it can be had. No I/O.

aiortc's own buffer waits for a lost packet until sixteen others are there, and then drops some of these with it: where
one in twenty is lost, every fifth of the others is lost, too, and all come 300 ms late. Here a packet that is still
missing when its turn comes is passed over, and what comes after its turn is dropped.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Final

from dialog.voip.web.rtc.library import JitterFrame

__all__ = ["Reorder"]

_DEPTH: Final = 3
"""Packets that wait, 60 ms: so much later than its successor one may come."""
_RESTART: Final = 100
"""A packet that is so far behind is not late: its sender has begun to count anew."""


class Reorder:
    """In the place of aiortc's ``JitterBuffer``."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Any]] = []
        self._newest = 0
        self._out: int | None = None
        """The packet that was handed out last; numbers go on where those on the wire begin again."""

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        """Take a packet; the one whose turn it is, with ``False`` for "no key frame is needed"."""
        out, newest = self._out, self._newest
        if out is None:
            number, fresh = int(packet.sequence_number), True
        else:
            step = (packet.sequence_number - newest) % 2**16
            number = newest + (step if step < 2**15 else step - 2**16)
            fresh = not -_RESTART < number - out < 2**14
        if out is None or fresh:
            self._waiting.clear()
            out, newest = number - _DEPTH - 1, number  # the first that comes need not be the first
        self._out, self._newest = out, max(newest, number)
        if number <= out or any(number == each for each, _ in self._waiting):
            return False, None
        heappush(self._waiting, (number, packet))
        if len(self._waiting) <= _DEPTH:
            return False, None
        self._out, first = heappop(self._waiting)
        return False, JitterFrame(data=first._data, timestamp=first.timestamp)
