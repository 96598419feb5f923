"""The beat of a node: acknowledgements, signs of life, and what is noticed by their absence."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context

from dialog.clock import SYSTEM_CLOCK

__all__ = ["BEAT_S", "SILENCE_S", "Ticker"]

logger = logging.getLogger(__name__)

BEAT_S = 0.2
"""How often a node beats."""
SILENCE_S = 1.0
"""A node that is not heard for so long is dead, or cut off."""
_SAMPLES = 50


class Ticker:
    """Calls ``beat`` with the time every 200 ms, and measures how late the event loop is at that.

    Whatever the clock of the calls: between processes time is real, and that of :data:`~dialog.clock.SYSTEM_CLOCK`.
    """

    def __init__(self, beat: Callable[[float], object]) -> None:
        self.late_s = 0.0
        """How late this beat is."""
        self._beat = beat
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._lags: deque[float] = deque(maxlen=_SAMPLES)
        self._context = Context()  # it belongs to no call

    def start(self) -> None:
        """Begin; one that beats goes on."""
        if self._timer is None:
            self._due = SYSTEM_CLOCK.now() + BEAT_S
            self._arm()

    def stop(self) -> None:
        """End; calling it again is harmless."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lag_ms(self) -> float:
        """The longest delay of the last ten seconds, in milliseconds."""
        return max(self._lags, default=0.0) * 1000.0

    def _arm(self) -> None:
        self._timer = self._context.copy().run(SYSTEM_CLOCK.call_at, self._due, self._tick)

    def _tick(self) -> None:
        now = SYSTEM_CLOCK.now()
        self.late_s = max(0.0, now - self._due)
        self._lags.append(self.late_s)
        self._due = max(self._due + BEAT_S, now)
        self._arm()
        try:
            self._beat(now)
        except Exception:  # a node that does not beat is dead for all others
            logger.exception("a beat failed")
