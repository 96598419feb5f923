"""Words for a wait: what is said while a tool or the model's first token is slow.

A filler is a part of its own, in the transcript and never in history. The answer never waits behind
one that has not begun: as soon as its text comes, no filler is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from dialog.agent.settings import AgentSettings
from dialog.clock import Clock

__all__ = ["Bridge", "Rotation", "Waited"]

_LOOK_S = 0.1
"""How often a wait is looked at: what sounds may end, and begin, without anybody telling."""
_AGAIN_S = 4.0
"""Silence after a filler until the next one: the caller knows by then that somebody is at work."""


class Waited(Protocol):
    """Something that is waited for."""

    filler: str
    """Said meanwhile, once; taken away when it was."""

    @property
    def done(self) -> bool:
        """It is waited for no longer."""
        ...


class Rotation:
    """Texts that are said in turn, over all turns of a call."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._next = 0

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def next(self) -> str:
        """The text whose turn it is."""
        return self._texts[self._next]

    def take(self) -> None:
        """It was said: the next one, next time."""
        self._next = (self._next + 1) % len(self._texts)


class Bridge:
    """Bridges the waits of one turn.

    Args:
        clock: The call's.
        settings: When a filler is due.
        rotation: The call's general fillers.
        fill: Says a text unless something of the turn sounds or waits to; tells whether it does.
        silent: Whether the caller waits in silence for this turn.
    """

    def __init__(
        self,
        clock: Clock,
        settings: AgentSettings,
        rotation: Rotation,
        *,
        fill: Callable[[str], bool],
        silent: Callable[[], bool],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._rotation = rotation
        self._fill = fill
        self._silent = silent
        self._waited: Sequence[Waited] = ()
        self._left = len(rotation)
        """General fillers that this silence may still have: each once."""
        self._said = False
        self._since: float | None = clock.now()
        """Since when nothing sounds."""
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, waited: Sequence[Waited] = ()) -> None:
        """A wait begins, or goes on with something else: for ``waited``, or for the model."""
        self._cancel()
        self._waited = waited
        self._look()

    def stop(self) -> None:
        """The wait is over: the answer comes. The next one begins anew."""
        self._cancel()
        self._said = False
        self._since = None
        self._left = len(self._rotation)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        candidate = self._candidate()
        if candidate is None:
            return
        text, pause_s = candidate
        now = self._clock.now()
        if not self._silent():
            self._since = None
        elif self._since is None:
            self._since = now
        if self._since is not None and now >= self._since + pause_s and self._fill(text):
            self._took(text)
        due = now + _LOOK_S
        if self._since is not None and now < self._since + pause_s:
            due = min(due, self._since + pause_s)
        self._timer = self._clock.call_at(due, self._look)

    def _candidate(self) -> tuple[str, float] | None:
        """The filler that is next, and after how much silence; ``None``: there is nothing left to say."""
        for waited in self._waited:
            if waited.filler and not waited.done:
                return waited.filler, _AGAIN_S if self._said else self._settings.filler_after_s
        if self._left:
            return self._rotation.next, _AGAIN_S if self._said else self._settings.first_token_filler_s
        return None

    def _took(self, text: str) -> None:
        self._said = True
        self._since = None
        own = [waited for waited in self._waited if waited.filler == text]
        for waited in own:
            waited.filler = ""
        if not own:
            self._rotation.take()
            self._left -= 1
