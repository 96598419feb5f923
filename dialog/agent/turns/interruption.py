"""Speech over a reply climbs a ladder: pause, then words cut it; or no words, and it goes on."""

from __future__ import annotations

from uuid import UUID

from dialog.agent.turns.decisions import Backchannel, Decision, Pause, Resume
from dialog.agent.turns.settings import BargeIn, TurnSettings
from dialog.message import Utterance

__all__ = ["Interruption", "Murmur"]

_MUTE_STT_S = 15.0
"""So long a voice holds a reply whose words are known only when it has stopped."""
_ANSWER_S = 1.0
"""A word of the listener's, said so shortly before the reply ends, answers it: "is Monday fine?", "right"."""


class Interruption:
    """Whether the line is held for the caller's voice, and until when."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self.tells_words: bool = True
        """The STT tells words while they are said; else a voice that lasts has to be waited for."""
        self.held: UUID | None = None
        """The turn that is paused for the caller's voice."""
        self._since = 0.0
        self._stopped: float | None = None
        self._due: float | None = None

    @property
    def deadline(self) -> float | None:
        """When the reply goes on if no words come, or when a voice has lasted long enough to pause it."""
        if self.held is None:
            return self._due
        limit = self._since + (self._settings.hold_limit_s if self.tells_words else _MUTE_STT_S)
        return limit if self._stopped is None else min(limit, self._stopped + self._settings.false_interruption_s)

    def voice(self, turn: UUID, barge_in: BargeIn, since: float, now: float, reason: str) -> list[Decision]:
        """The caller's voice, on ``since`` then, is over ``turn``: pause it, at once or when it has lasted."""
        self._stopped = None
        self._due = None
        if self.held is not None or barge_in.mode != "immediate":
            return []
        due = since + barge_in.min_speech_ms / 1000.0
        if now < due:
            self._due = due
            return []
        self.held = turn
        self._since = now
        return [Pause(turn, reason)]

    def stopped(self, now: float) -> None:
        """The voice stopped."""
        self._due = None
        if self.held is not None:
            self._stopped = now

    def release(self, reason: str, *, false_alarm: bool = False) -> list[Decision]:
        """Words came, or what was held is gone: the line must not stay paused."""
        self._due = None
        held, self.held = self.held, None
        return [] if held is None else [Resume(held, false_alarm=false_alarm, reason=reason)]

    def expired(self, now: float) -> list[Decision]:
        """No words came in time: the reply goes on."""
        if self.held is None or self.deadline is None or now < self.deadline:
            return []
        return self.release("no words came", false_alarm=True)

    def lasted(self, now: float) -> bool:
        """Whether the voice has just lasted long enough to pause the reply."""
        if self.held is not None or self._due is None or now < self._due:
            return False
        self._due = None
        return True


class Murmur:
    """The last word by which the caller showed that they listen: kept, in case that it was an answer."""

    def __init__(self) -> None:
        self._kept: tuple[UUID, Utterance, float] | None = None

    @property
    def deadline(self) -> float | None:
        """When it was no answer."""
        return self._kept[2] if self._kept else None

    def keep(self, turn: UUID, utterance: Utterance, now: float) -> list[Decision]:
        """It was said over ``turn``."""
        decisions = self.declare("backchannel")
        self._kept = (turn, utterance, now + _ANSWER_S)
        return decisions

    def answer(self, turn: UUID | None) -> Utterance | None:
        """``turn`` has come to its end: what was said at the last moment answers it."""
        if self._kept is None or self._kept[0] != turn:
            return None
        utterance = self._kept[1]
        self._kept = None
        return utterance

    def declare(self, reason: str) -> list[Decision]:
        """It was no answer."""
        kept, self._kept = self._kept, None
        return [] if kept is None else [Backchannel(kept[1], reason)]

    def expired(self, now: float) -> list[Decision]:
        """The reply has gone on for long enough."""
        return self.declare("backchannel") if self._kept and now >= self._kept[2] else []
