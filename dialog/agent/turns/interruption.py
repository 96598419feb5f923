"""Speech over a reply climbs a ladder: pause, then words cut it; or no words, and it goes on."""

from __future__ import annotations

from dialog.agent.turns.settings import TurnSettings

__all__ = ["Interruption"]


class Interruption:
    """Whether the line is held for the caller's voice, and until when."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self.held: bool = False
        """The line is paused for the caller's voice."""
        self._since = 0.0
        self._stopped: float | None = None

    @property
    def deadline(self) -> float | None:
        """When the reply goes on if no words come."""
        if not self.held:
            return None
        limit = self._since + self._settings.hold_limit_s
        return limit if self._stopped is None else min(limit, self._stopped + self._settings.false_interruption_s)

    def hold(self, now: float) -> bool:
        """The voice started over the reply; whether the line has to be paused."""
        self._stopped = None
        if self.held:
            return False
        self.held = True
        self._since = now
        return True

    def stopped(self, now: float) -> None:
        """The voice stopped."""
        if self.held:
            self._stopped = now

    def release(self) -> bool:
        """Words came, or what was held is gone; whether the line was paused."""
        held, self.held = self.held, False
        return held

    def expired(self, now: float) -> bool:
        """No words came in time: whether the reply goes on now."""
        deadline = self.deadline
        return deadline is not None and now >= deadline and self.release()
