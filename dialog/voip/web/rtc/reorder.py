"""Audio packets in their order, each as early as it can be had. No I/O.

aiortc's own buffer waits for a lost packet until sixteen others are there, and then drops some of these with it: where
one in twenty is lost, every fifth of the others is lost, too, and all come 300 ms late. Here a packet that is still
missing when its turn comes is passed over, and what comes after its turn is dropped.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, Final

from dialog.voip.web.rtc.library import JitterFrame
from dialog.voip.web.rtc.opus import RATE
from dialog.voip.web.rtc.speech import FRAME_MS

__all__ = ["Reorder"]

_DEPTH: Final = 3
"""Packets that wait, 60 ms: so much later than its successor one may come."""
_TICKS: Final = RATE * FRAME_MS // 1000
_SERIES: Final = 60 * RATE
"""Ticks. A packet so far from the one before is not late, nor were so many lost: its sender counts anew.
Unless it is the next one: for so long nothing was said."""


class Reorder:
    """In the place of aiortc's ``JitterBuffer``.

    What it hands out has timestamps of one series without end, which is the sender's as long as that counts on.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Any]] = []
        """Number, timestamp of ours, and packet."""
        self._ssrc: int | None = None
        self._sequence = self._timestamp = 0
        """Of the newest packet, as on the wire …"""
        self._newest = self._newest_at = 0
        """… and as we count."""
        self._out = self._out_at = 0
        """The packet that was handed out last."""

    def add(self, packet: Any) -> tuple[bool, JitterFrame | None]:
        """Take a packet; the one whose turn it is, with ``False`` for "no key frame is needed"."""
        number, at = self._place(packet)
        if number <= self._out or any(number == each for each, _, _ in self._waiting):
            return False, None
        heappush(self._waiting, (number, at, packet))
        if len(self._waiting) <= _DEPTH:
            return False, None
        self._out, at, first = heappop(self._waiting)
        self._out_at = max(self._out_at, at)  # what aiortc takes for a counter that begins again
        return False, JitterFrame(data=first._data, timestamp=self._out_at)

    def _place(self, packet: Any) -> tuple[int, int]:
        """Which packet it is, and when it sounds."""
        step = _signed(packet.sequence_number - self._sequence, 16)
        ticks = _signed(packet.timestamp - self._timestamp, 32)
        if self._ssrc is None:
            step = ticks = 0
            self._out, self._out_at = -_DEPTH - 1, packet.timestamp - _SERIES  # what comes first need not be the first
            self._newest_at = packet.timestamp
        elif packet.ssrc != self._ssrc or (abs(ticks) > _SERIES and step != 1) or step * ticks < 0:
            step, ticks = 1, _TICKS
        number, at = self._newest + step, self._newest_at + ticks
        if step > 0 or self._ssrc is None:
            self._ssrc, self._sequence, self._timestamp = packet.ssrc, packet.sequence_number, packet.timestamp
            self._newest, self._newest_at = number, at
        return number, at


def _signed(difference: int, bits: int) -> int:
    """What two counters that begin again at ``2**bits`` are apart."""
    difference %= 1 << bits
    return difference - (1 << bits) if difference >> bits - 1 else difference
