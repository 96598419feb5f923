"""The sound of somebody at work, while an answer is prepared and nothing is said."""

from __future__ import annotations

import asyncio

from dialog.audio.sound import Sound
from dialog.clock import Clock
from dialog.voip.voip import VoIP

__all__ = ["ThinkingSound"]


class ThinkingSound:
    """Begins when the caller has waited a while in silence; the line ends it with the first audio.

    Args:
        voip: The call.
        sound: What goes round.
        after_s: So much silence before it begins.
    """

    def __init__(self, voip: VoIP, sound: Sound, *, after_s: float) -> None:
        self._voip = voip
        self._clock: Clock = voip.clock
        self._sound = sound
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None
        self._on = False

    def wait(self) -> None:
        """The caller waits from now on."""
        if self._timer is None and not self._on:
            self._timer = self._clock.call_at(self._clock.now() + self._after_s, self._begin)

    def spoken(self) -> None:
        """There is audio: the line has ended the sound, if it was on."""
        self._on = False
        self._disarm()

    def stop(self) -> None:
        """Nobody is at work any more."""
        self._disarm()
        if self._on:
            self._on = False
            self._voip.set_thinking(None)

    def _begin(self) -> None:
        self._timer = None
        self._on = True
        self._voip.set_thinking(self._sound)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
