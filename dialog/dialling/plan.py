"""Which number is dialled next, and whether again. Pure: time is given, in seconds of any clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from dialog.checks import check_several
from dialog.errors import ConfigurationError

__all__ = ["DialPlan", "Retry"]


class Retry(Struct, frozen=True, kw_only=True):
    """When a number is dialled again.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    attempts: int = 1
    """So many calls in all."""
    after_s: float = 900.0
    """So long after the last one …"""
    on: tuple[str, ...] = ("busy", "no_answer")
    """… if this came of it."""

    def __post_init__(self) -> None:
        check_several("Retry: on", self.on)
        if self.attempts < 1 or self.after_s < 0:
            raise ConfigurationError(f"Retry: attempts must be 1 or more and after_s 0 or more, got {self}")


class DialPlan:
    """Numbers, each dialled in its turn until something final has come of it."""

    def __init__(self, numbers: Iterable[str], retry: Retry) -> None:
        self._retry = retry
        self._fresh = deque(numbers)
        self._later: list[tuple[float, int, str]] = []
        self._attempts: dict[str, int] = {}
        self._order = 0
        self.active: set[str] = set()
        """Being dialled, or talked to."""

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        return not (self._fresh or self._later or self.active)

    @property
    def left(self) -> int:
        """Numbers that are still to be dialled, some of them again."""
        return len(self._fresh) + len(self._later)

    @property
    def deadline(self) -> float | None:
        """When the next number is due: at once, if it is in the past; ``None``: none is left."""
        if self._fresh:
            return float("-inf")
        return self._later[0][0] if self._later else None

    def resume(self, number: str, attempts: int, outcome: str, at: float) -> bool:
        """An earlier run has dialled this number so often, at last at ``at``; whether it is done with."""
        self._fresh.remove(number)
        self._attempts[number] = attempts
        return self._settle(number, outcome, at)

    def wait_for(self, number: str, attempts: int) -> None:
        """An earlier run has dialled this number, and what came of it is to be found out: it counts as active."""
        self._fresh.remove(number)
        self._attempts[number] = attempts
        self.active.add(number)

    def take(self, now: float) -> str | None:
        """The next number to dial; ``None``: none is due."""
        if self._later and self._later[0][0] <= now:
            number = heapq.heappop(self._later)[2]  # those who were promised a time go first
        elif self._fresh:
            number = self._fresh.popleft()
        else:
            return None
        self._attempts[number] = self._attempts.get(number, 0) + 1
        self.active.add(number)
        return number

    def done(self, number: str, outcome: str, now: float) -> bool:
        """Something came of a call; whether that is final."""
        self.active.discard(number)
        return self._settle(number, outcome, now)

    def undone(self, number: str) -> None:
        """A call turned out never to have been placed: it is the number's turn again."""
        self.active.discard(number)
        self._attempts[number] -= 1
        self._fresh.appendleft(number)

    def _settle(self, number: str, outcome: str, at: float) -> bool:
        if outcome not in self._retry.on or self._attempts[number] >= self._retry.attempts:
            return True
        self._order += 1
        heapq.heappush(self._later, (at + self._retry.after_s, self._order, number))
        return False
