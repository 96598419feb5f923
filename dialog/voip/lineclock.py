"""Where a carrier is in playing what it was sent."""

from __future__ import annotations

__all__ = ["LineClock"]


class LineClock:
    """Maps time to positions on a line: bytes since its start. Times are seconds of one clock.

    A byte sounds when it arrives at a carrier that has nothing else to play, or after the byte before
    it. Marks that come back correct the picture: they prove what was heard, and their lag beyond the
    round trip is audio that the carrier holds back.
    """

    __slots__ = ("_anchor", "_anchor_at", "_lag", "_rate", "_sample", "floor", "rtt_s", "sent")

    def __init__(self, rate: int, sample: int) -> None:
        """``rate`` in bytes per second, ``sample`` in bytes."""
        self.sent: int = 0
        """Position behind the last byte that was sent."""
        self.floor: int = 0
        """Position that was surely heard: a mark came back, or a dry spell passed."""
        self.rtt_s: float = 0.0
        """Round trip to the carrier, 0.0 when unknown."""
        self._rate = rate
        self._sample = sample
        self._lag: float | None = None
        """Low-pass of how late marks come back; None before the first."""
        # Position _anchor sounds at _anchor_at, and the bytes up to `sent` follow at the line's rate.
        self._anchor_at = 0.0
        self._anchor = 0

    @property
    def buffer_s(self) -> float:
        """Seconds that the carrier holds back before it plays."""
        if self._lag is None or self._lag < self.rtt_s:
            return 0.0
        return self._lag - self.rtt_s

    def start(self, now: float) -> None:
        """The line is there, and silent."""
        self._anchor_at = now

    def time_of(self, position: float) -> float:
        """When ``position`` sounds."""
        return self._anchor_at + (position - self._anchor) / self._rate

    def at(self, now: float) -> float:
        """The position that sounds at ``now`` at a carrier that holds nothing back."""
        if now <= self._anchor_at:
            return float(self._anchor)
        position = self._anchor + (now - self._anchor_at) * self._rate
        return position if position < self.sent else float(self.sent)

    def heard(self, now: float, pending: tuple[float, int] | None = None) -> int:
        """The position that the caller has heard, at a whole sample.

        ``pending`` is when the oldest mark was due that has not come back, and its position: if it is long
        overdue the carrier has stalled.
        """
        position = min(self.sent, self._anchor + (now - self.buffer_s - self._anchor_at) * self._rate)
        if pending is not None and self._lag is not None and now - pending[0] > 2 * self._lag + 0.05:
            position = min(position, pending[1])
        whole = int(position + 1e-3) // self._sample * self._sample
        return max(self.floor, whole)

    def write(self, size: int, now: float, pending: tuple[float, int] | None = None) -> float:
        """Bytes were sent; returns when the first of them sounds. For ``pending`` see :meth:`heard`."""
        if self.at(now) >= self.sent:  # dry: it sounds now
            self.floor = self.heard(now, pending)
            self._anchor_at = now
            self._anchor = self.sent
        due = self.time_of(self.sent)
        self.sent += size
        return due

    def confirm(self, position: int) -> None:
        """Everything up to ``position`` was heard."""
        self.floor = max(self.floor, position)

    def learn(self, lag: float) -> float:
        """A mark came back ``lag`` seconds after it was due; returns by how much all due times move."""
        shift = min(0.0, lag)
        if shift:  # played sooner than the clock thought: it is the clock that is late
            self._anchor_at += shift
            lag = 0.0
        if self._lag is None:
            self._lag = lag
        else:
            # One late echo is often our own loop or the way back; only a lasting lag is the carrier's buffer.
            self._lag += (lag - self._lag) * (0.5 if lag < self._lag else 0.125)
        return shift

    def unsend(self, size: int) -> None:
        """The last ``size`` bytes never left this process."""
        self.sent = max(self.floor, self.sent - size)

    def clear(self, heard: int, now: float) -> None:
        """The line is silent from ``heard`` on: positions go on from there."""
        self.sent = self.floor = self._anchor = heard
        self._anchor_at = now
