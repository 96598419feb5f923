"""Turn taking on a clock: signals go in as they happen, decisions come out in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dialog.agent.turn import current_turn
from dialog.agent.turns import signals as sig
from dialog.agent.turns.settings import TurnSettings
from dialog.agent.turns.taking import TurnTaking
from dialog.clock import Clock

__all__ = ["Decider"]


class Decider:
    """Feeds a :class:`TurnTaking`, one signal after the other, and wakes it when its time has come.

    Args:
        settings: Of turn taking.
        clock: The call's.
        carry_out: Does what was decided; what that brings about is taken in after it.
    """

    __slots__ = ("_arming", "_carry_out", "_clock", "_feeding", "_signals", "_stopped", "_timer", "_timer_at", "taking")

    def __init__(self, settings: TurnSettings, clock: Clock, carry_out: Callable[[sig.Decision], None]) -> None:
        self.taking: TurnTaking = TurnTaking(settings)
        self._clock = clock
        self._carry_out = carry_out
        self._signals: list[sig.Signal] = []
        self._feeding = False
        self._arming = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._stopped = False

    def feed(self, signal: sig.Signal) -> None:
        """Take in what happened, and do what is decided about it."""
        if self._stopped:
            return
        self._signals.append(signal)
        if self._feeding:
            return  # doing a decision brought news: it is taken in its order
        self._feeding = True
        try:
            while self._signals:
                for decision in self.taking.feed(self._signals.pop(0), self._clock.now()):
                    self._carry_out(decision)
        finally:
            self._feeding = False
        if not self._arming:
            # When to look again is found out once for all that happens now, and what was decided goes first: a
            # caller waits for it.
            self._arming = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._arm)

    def stop(self) -> None:
        """Take in nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        self._arming = False
        deadline = None if self._stopped else self.taking.deadline
        if deadline == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = deadline
        if deadline is not None:
            self._timer = self._clock.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = None
        current_turn.set(None)  # the timer's own context may be that of a turn, for which this does not speak
        self.feed(sig.Tick())
