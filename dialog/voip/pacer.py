"""The one timer that drives the playout of all lines of an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from typing import Protocol
from weakref import WeakKeyDictionary

from dialog.clock import SYSTEM_CLOCK, Clock

__all__ = ["Paced", "Pacer"]

logger = logging.getLogger(__name__)

TICK_S = 0.05
"""A timer per call at 20 ms would be 10,000 wake-ups a second at 200 calls."""
MAX_LEAD_MS = 500.0
_MARGIN_MS = 250.0
"""Beyond the lag: the lead may have fallen by three ticks when the loop stops, and what piled up meanwhile
comes first when it goes on."""
_SAMPLES = 400
_MEASURE_EVERY = 20


_pacers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Clock, float], Pacer]] = WeakKeyDictionary()


class Paced(Protocol):
    """Something that must be driven while it plays."""

    def tick(self, now: float, lead_ms: float) -> bool:
        """Do what is due. ``lead_ms``: the least lead that the loop's lag allows. False: nothing more to do."""
        ...


class Pacer:
    """Ticks every 50 ms (or ``tick_s``), on absolute deadlines, those who play; it rests while nobody does.

    It also measures how late its timer fires, which is how long the loop is blocked now and then, and
    asks for a lead that outlasts it: the 99th percentile of the lag and 250 ms, at most 500 ms.
    """

    def __init__(self, clock: Clock, tick_s: float = TICK_S) -> None:
        self.lead_ms: float = 0.0
        self._clock = clock
        self._tick_s = tick_s
        self._members: dict[Paced, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._lags: deque[float] = deque(maxlen=_SAMPLES)
        self._ticks = 0
        # The timer belongs to no call: whose context it inherited would be kept alive by it.
        self._context = Context()

    @classmethod
    def of(cls, clock: Clock, tick_s: float = TICK_S) -> Pacer:
        """The pacer of the running loop for ``clock`` that ticks every ``tick_s`` seconds of it."""
        pacers = _pacers.setdefault(asyncio.get_running_loop(), {})
        pacer = pacers.get((clock, tick_s))
        if pacer is None:
            pacer = pacers[clock, tick_s] = cls(clock, tick_s)
        return pacer

    @property
    def resting(self) -> bool:
        """Whether no timer is set."""
        return self._timer is None

    def add(self, member: Paced) -> None:
        """Tick ``member`` from now on, until it says that it has nothing to do."""
        self._members[member] = None
        if self._timer is None:
            self._due = self._clock.now() + self._tick_s
            self._arm()

    def remove(self, member: Paced) -> None:
        """Stop ticking ``member``; one that is not ticked is ignored."""
        self._members.pop(member, None)
        if not self._members:
            self._rest()

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._clock is not SYSTEM_CLOCK:
            # Clocks of tests come and go; the pacer of a forgotten one still serves whoever holds it.
            _pacers.get(asyncio.get_running_loop(), {}).pop((self._clock, self._tick_s), None)

    def _arm(self) -> None:
        self._timer = self._context.copy().run(self._clock.call_at, self._due, self._tick)

    def _tick(self) -> None:
        now = self._clock.now()
        self._measure(max(0.0, now - self._due))
        for member in tuple(self._members):
            try:
                goes_on = member.tick(now, self.lead_ms)
            except Exception:  # one line's failure must not silence the others
                logger.exception("the playout of %r failed; it is not driven any more", member)
                goes_on = False
            if not goes_on:
                self._members.pop(member, None)
        if not self._members:
            self._rest()
            return
        self._due += self._tick_s
        if self._due <= now:  # late by more than a tick: the missed ones are gone
            self._due = now + self._tick_s
        self._arm()

    def _measure(self, lag: float) -> None:
        self._lags.append(lag)
        self._ticks += 1
        if self._ticks % _MEASURE_EVERY == 0:
            ordered = sorted(self._lags)
            worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
            self.lead_ms = min(MAX_LEAD_MS, worst * 1000.0 + _MARGIN_MS)
