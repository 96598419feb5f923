"""When to connect again, and when to give up: a pure policy, fed with what happened and the time."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from dialog.errors import ConfigurationError

__all__ = ["FATAL_CLOSE_CODES", "Backoff", "Reconnect", "close_is_retryable", "status_is_retryable"]

FATAL_CLOSE_CODES = frozenset({1003, 1007, 1008, 1010})
"""Close codes that say that we are at fault: the same would happen again."""


def status_is_retryable(status: int) -> bool:
    """Whether a handshake refused with this HTTP status is worth another try."""
    return status in (408, 425, 429) or status >= 500


def close_is_retryable(code: int | None) -> bool:
    """Whether a connection closed with this code is worth another one; ``None`` and 1006 are cut lines."""
    return code not in FATAL_CLOSE_CODES


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before each reconnection, and how long in all, in seconds."""

    first_s: float = 0.25
    limit_s: float = 8.0
    factor: float = 2.0
    jitter: float = 0.2
    """Each wait varies by this fraction, so that a thousand calls do not come back at once."""
    give_up_s: float = 10.0
    """How long to try without a stable connection; as long as caller audio is kept for replay."""
    stable_s: float = 5.0
    """A connection that lasted so long was good: what follows is a new outage."""

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.limit_s or self.factor < 1 or not 0 <= self.jitter < 1:
            raise ConfigurationError(f"need 0 < first_s <= limit_s, factor >= 1, 0 <= jitter < 1, got {self}")


class Reconnect:
    """The state of one socket's reconnections."""

    def __init__(self, backoff: Backoff, now: float, *, randomness: Callable[[], float] = random.random) -> None:
        self.backoff = backoff
        self._random = randomness
        self._outage_since: float | None = now
        self._connected_at: float | None = None
        self._tries = 0

    def connected(self, now: float) -> None:
        """A handshake succeeded."""
        self._connected_at = now

    def lost(self, now: float, *, retryable: bool = True, at_least_s: float = 0.0) -> float | None:
        """A connection, or an attempt at one, failed: seconds to wait, or ``None`` to give up.

        Args:
            now: The time, in seconds.
            retryable: Whether trying again can help at all.
            at_least_s: What the provider asked for with ``Retry-After``.
        """
        if not retryable:
            return None
        if self._connected_at is not None and now - self._connected_at >= self.backoff.stable_s:
            self._tries = 0
            self._outage_since = None
        self._connected_at = None
        if self._outage_since is None:
            self._outage_since = now
        wait = min(self.backoff.first_s * self.backoff.factor**self._tries, self.backoff.limit_s)
        wait = max(wait, min(at_least_s, self.backoff.limit_s))
        wait *= 1 + self.backoff.jitter * (2 * self._random() - 1)
        self._tries += 1
        if now + wait - self._outage_since > self.backoff.give_up_s:
            return None
        return wait
