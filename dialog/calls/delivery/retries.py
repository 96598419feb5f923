"""When a webhook that was not taken is sent again."""

from __future__ import annotations

import random

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["Retries"]


class Retries(Struct, frozen=True, kw_only=True):
    """When a message that was not taken is sent again.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    first_s: float = 2.0
    limit_s: float = 300.0
    factor: float = 2.0
    jitter: float = 0.2
    """Each wait varies by this fraction."""
    give_up_s: float = 3 * 86_400.0
    """A message that was not taken for so long is a dead letter."""

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.limit_s or self.factor < 1 or not 0 <= self.jitter < 1 or self.give_up_s < 0:
            raise ConfigurationError(
                f"need 0 < first_s <= limit_s, factor >= 1, 0 <= jitter < 1, give_up_s >= 0, got {self}"
            )

    def wait_s(self, attempts: int, asked_s: float = 0.0) -> float:
        """How long to wait after so many attempts; ``asked_s``: the receiver's ``Retry-After``."""
        wait = min(self.first_s * self.factor ** min(attempts, 60), self.limit_s)
        return max(wait, min(asked_s, self.limit_s)) * (1 + self.jitter * (2 * random.random() - 1))
