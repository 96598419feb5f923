"""What a caller of a load does next: a pure machine, without audio, clock or socket, asked ten times a second."""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct

from dialog.testing.heard import Stretch

__all__ = ["HangUp", "Talk", "TalkSettings", "Wait"]

HangUp = Literal["after-reply", "mid-reply", "reset", "agent"]
"""How a call ends: when the last reply was heard; in the middle of it; there, with the connection torn as
by a lost network; or never, because the agent has to."""

_IMPATIENT_MS = 500.0
"""So much of the last reply is heard by who hangs up in the middle of it."""


class TalkSettings(Struct, frozen=True, kw_only=True):
    """How a caller talks; milliseconds of the call."""

    turns: int | None
    """So many utterances, or as many as there is time for."""
    hang_up: HangUp
    greeting_ms: float
    """So long the agent's first words are waited for."""
    reply_ms: float
    """So long a reply is waited for."""
    silence_ms: float
    """So long the agent has to be silent to have finished."""
    pause_ms: float
    """From there to the caller's next words, on an average: it varies by half."""
    longest_ms: float
    """After so long the caller leaves."""


class Wait(Struct):
    """The caller waited for the agent; milliseconds of the call."""

    since_ms: float
    heard_ms: float | None = None
    """When the agent sounded; ``None``: not yet, or never."""
    asked: bool = True
    """He had said something; otherwise he waited for the greeting."""
    timed: bool = True
    """The agent sounded after the wait began; otherwise he was talking into the caller's words."""
    over: bool = False
    """The agent has finished, or will not begin."""
    noted: bool = False
    """For whoever counts waits: it was."""


Step = Literal["", "speak", "leave", "reset"]


class Talk:
    """One caller's side of a conversation: :meth:`step` says what to do, :attr:`waits` what was waited for.

    The caller waits for a greeting, and then for a reply to each utterance, until the agent has been silent.
    """

    def __init__(self, settings: TalkSettings, chance: random.Random) -> None:
        self.wait: Wait | None = Wait(0.0, asked=False)
        """What is waited for now; ``None`` while the caller speaks."""
        self.spoken: int = 0
        self.complete: bool = False
        """The caller has done all that he was to do. Ending the call is the agent's, with ``agent``."""
        self._settings = settings
        self._chance = chance
        self._speaks_ms: float | None = None
        self._left = False

    @property
    def may_end(self) -> bool:
        """Whether all was said and the last reply is being heard, or was: the agent may end the call."""
        return self._left or (self._all_said and self.wait is not None and self.wait.heard_ms is not None)

    def spoke(self, voice_end_ms: float) -> None:
        """The utterance was said, its last sound at that time."""
        self.wait = Wait(voice_end_ms)

    def step(self, now_ms: float, last: Stretch | None) -> Step:
        """What to do now, by the newest stretch of speech that was heard of the agent."""
        wait = self.wait
        if self._left:
            return ""
        if wait is not None and not wait.over:
            self._listen(wait, now_ms, last)
        if now_ms >= self._settings.longest_ms:
            self.complete = self._settings.turns is None
            return self._leave()
        if self._speaks_ms is not None:
            if now_ms < self._speaks_ms:
                return ""
            self._speaks_ms = None
            self.spoken += 1
            self.wait = None
            return "speak"
        if wait is None:  # he is speaking
            return ""
        if self._all_said:
            return self._last(wait, now_ms)
        if wait.over:
            self._speaks_ms = now_ms + self._settings.pause_ms * self._chance.uniform(0.5, 1.5)
        return ""

    def _listen(self, wait: Wait, now_ms: float, last: Stretch | None) -> None:
        settings = self._settings
        if wait.heard_ms is None and last is not None:
            if last.started_ms >= wait.since_ms:
                wait.heard_ms = last.started_ms
            elif last.ended_ms > wait.since_ms + _IMPATIENT_MS:
                wait.heard_ms, wait.timed = wait.since_ms, False
        longest = settings.reply_ms if wait.asked else settings.greeting_ms
        if wait.heard_ms is None:
            wait.over = now_ms - wait.since_ms >= longest
        else:
            wait.over = last is not None and now_ms - last.ended_ms >= settings.silence_ms

    @property
    def _all_said(self) -> bool:
        return self._settings.turns is not None and self.spoken >= self._settings.turns

    def _last(self, wait: Wait, now_ms: float) -> Step:
        """All was said: the last reply is heard, or comes."""
        hang_up = self._settings.hang_up
        middle = wait.heard_ms is not None and now_ms - wait.heard_ms >= _IMPATIENT_MS
        if wait.over or (middle and hang_up in ("mid-reply", "reset")):
            self.complete = hang_up != "agent"
            return "" if hang_up == "agent" else self._leave()
        return ""

    def _leave(self) -> Step:
        self._left = True
        return "reset" if self._settings.hang_up == "reset" else "leave"
