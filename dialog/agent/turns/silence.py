"""Silence, the longest a call may last, and the goodbye that is heard before it ends."""

from __future__ import annotations

from uuid import UUID

from dialog.agent.turns.decisions import Decision, End, EndWithdrawn, Idle, NearEnd
from dialog.agent.turns.settings import Silence
from dialog.recent import Recent

__all__ = ["Goodbye", "SilenceWatch"]

_REMEMBERED = 16


class SilenceWatch:
    """Counts the silences that nobody ends, and the time since the first stream."""

    def __init__(self, settings: Silence) -> None:
        self._settings = settings
        self._started: float | None = None
        self._quiet_since: float | None = None
        self._count = 0
        self._warned = False
        self._ended = False
        self._over = False
        self._tools: set[str] = set()

    @property
    def deadline(self) -> float | None:
        """When somebody has to say something, or the call has to end."""
        times = [time for time in (self._idle_at, self._warn_at, self._end_at) if time is not None]
        return min(times) if times else None

    def line_up(self, now: float) -> None:
        """The first stream starts the clock."""
        if self._started is None:
            self._started = now

    def resumed(self, now: float, live_s: float | None, *, warned: bool) -> None:
        """The first stream started ``live_s`` ago, in another process."""
        if live_s is not None:
            self._started = now - live_s
        self._warned = warned

    def tool_started(self, call_id: str) -> None:
        """A tool works: the caller waits and is not idle."""
        self._tools.add(call_id)

    def tool_ended(self, call_id: str) -> None:
        """The tool has ended."""
        self._tools.discard(call_id)

    def caller_acted(self) -> None:
        """Words or keys of the caller: they are there."""
        self._count = 0
        self._quiet_since = None

    def ended(self, *, ended: bool) -> None:
        """The call is being ended: no more prompts. Or, after all, it is not."""
        self._ended = ended

    def observe(self, now: float, *, quiet: bool) -> None:
        """Whether neither side speaks or prepares to."""
        if not quiet or self._tools or self._started is None:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now

    def expired(self, now: float) -> list[Decision]:
        """What silence or the clock demands now."""
        if self._end_at is not None and now >= self._end_at:
            self._over = self._ended = True
            return [End("max_duration")]
        decisions: list[Decision] = []
        if self._warn_at is not None and now >= self._warn_at:
            self._warned = True
            decisions.append(NearEnd((self._end_at or now) - now))
        if self._idle_at is not None and now >= self._idle_at:
            self._quiet_since = now
            self._count += 1
            if self._count > self._settings.idle_count:
                self._ended = True
                decisions.append(End("idle"))
            else:
                decisions.append(Idle(self._count))
        return decisions

    @property
    def _idle_at(self) -> float | None:
        idle_s = self._settings.idle_s
        return None if idle_s is None or self._ended or self._quiet_since is None else self._quiet_since + idle_s

    @property
    def _end_at(self) -> float | None:
        limit = self._settings.max_duration_s
        if limit is None or self._over or self._ended or self._started is None:
            return None
        return self._started + limit

    @property
    def _warn_at(self) -> float | None:
        warn_before_s = self._settings.warn_before_s
        if self._warned or self._ended or warn_before_s is None or self._end_at is None:
            return None
        return max(self._started or 0.0, self._end_at - warn_before_s)


class Goodbye:
    """The wish to end the call once a turn was heard.

    A caller who speaks over the goodbye wants the call to go on: what they say cuts it, and withdraws the
    wish. A "thanks, bye" does not, and neither does anything said over what may not be interrupted.
    """

    def __init__(self) -> None:
        self._wish: tuple[str, UUID | None] | None = None
        self._refused: Recent[UUID, bool] = Recent(_REMEMBERED)

    def request(self, reason: str, turn: UUID | None, *, over: bool = False) -> list[Decision]:
        """End the call when ``turn`` was heard; when all was, if it is ``over``. A later wish replaces an earlier one.

        A tool may wish it when its turn was interrupted already: then the caller wants to go on.
        """
        if turn in self._refused:
            return [EndWithdrawn(reason)]
        self._wish = (reason, None if over else turn)
        return []

    def begun(self, turn: UUID) -> None:
        """The turn speaks, perhaps once more."""
        self._refused.pop(turn, None)

    def goes_on(self, turn: UUID) -> None:
        """Another turn says what was not heard of this one."""
        if self._wish is not None and self._wish[1] == turn:
            self._wish = (self._wish[0], None)

    def refused(self, turn: UUID) -> list[Decision]:
        """The caller's words ended the turn: the call does not end with it."""
        self._refused[turn] = True
        if not self.follows(turn):
            return []
        wish, self._wish = self._wish, None
        return [] if wish is None else [EndWithdrawn(wish[0])]

    @property
    def turn(self) -> UUID | None:
        """What is heard before; ``None``: everything."""
        return self._wish[1] if self._wish else None

    @property
    def wished(self) -> bool:
        """The call is to end."""
        return self._wish is not None

    def follows(self, turn: UUID | None) -> bool:
        """Whether the call is to end after ``turn``."""
        return self._wish is not None and self._wish[1] in (None, turn)

    def due(self) -> list[Decision]:
        """It was heard."""
        wish, self._wish = self._wish, None
        return [] if wish is None else [End(wish[0])]
