"""One beat for all callers of a process: frames on absolute deadlines, without a timer for each caller."""

from __future__ import annotations

import asyncio
from typing import Protocol

from dialog.clock import Clock
from dialog.testing.carrier_stream import FRAME_MS
from dialog.testing.load_figures import Distribution

__all__ = ["LATE_MS", "Metronome", "Ticking"]

_SLOTS = 10
"""Callers do not speak in step: they are spread over so many moments of the 20 ms."""
LATE_MS = float(FRAME_MS)
"""A generator that is later than one frame blames nobody else for what it hears meanwhile."""


class Ticking(Protocol):
    """Who sends a frame at each beat."""

    def tick(self, due: float) -> None:
        """The frame of ``due``, a reading of the clock, is to be sent now."""


class Metronome:
    """Calls :meth:`Ticking.tick` of all who joined, every 20 ms, and measures how late it is.

    A late beat catches up: every frame is sent, as a carrier does.
    """

    def __init__(self, clock: Clock, lag: Distribution) -> None:
        self._clock = clock
        self._lag = lag
        self._slots: list[dict[Ticking, None]] = [{} for _ in range(_SLOTS)]
        self._homes: dict[Ticking, int] = {}
        self._step = FRAME_MS / 1000 / _SLOTS
        self._beat = 0
        self._origin = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._disturbed_until = 0.0

    @property
    def disturbed(self) -> bool:
        """The generator is late, or was until a moment ago: what arrives now may have waited for itself."""
        now = self._clock.now()
        return now < self._disturbed_until or (bool(self._homes) and self._late_ms(now) > LATE_MS)

    def join(self, who: Ticking) -> None:
        """Tick ``who`` from the next beat on of the slot that has the fewest."""
        slot = min(range(_SLOTS), key=lambda number: len(self._slots[number]))
        self._slots[slot][who] = None
        self._homes[who] = slot
        if self._timer is None:
            self._origin, self._beat = self._clock.now(), 0
            self._arm()

    def leave(self, who: Ticking) -> None:
        """Tick ``who`` no more, if it was ticked at all."""
        slot = self._homes.pop(who, None)
        if slot is not None:
            del self._slots[slot][who]
        if not self._homes and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late_ms(self, now: float) -> float:
        """Real milliseconds since the next beat was due."""
        return self._clock.real(now - self._origin - self._beat * self._step) * 1000.0

    def _arm(self) -> None:
        due = self._origin + self._beat * self._step
        # Loops round to milliseconds: a timer that fires early would only be armed once more.
        least = self._clock.now() + 0.001 * self._clock.scale
        self._timer = self._clock.call_at(max(due, least), self._beats)

    def _beats(self) -> None:
        now = self._clock.now()
        late = self._late_ms(now)
        if late > LATE_MS:
            # What waited in the sockets comes right after this.
            self._disturbed_until = now + max(late, LATE_MS) / 1000.0 * self._clock.scale
        while self._homes and (due := self._origin + self._beat * self._step) <= now:
            slot = self._slots[self._beat % _SLOTS]
            self._beat += 1
            if slot:
                for who in tuple(slot):
                    who.tick(due)
                # As late as the last one was.
                self._lag.add(self._clock.real(self._clock.now() - due) * 1000.0)
        self._timer = None
        if self._homes:
            self._arm()
