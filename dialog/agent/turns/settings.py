"""What can be tuned about turn taking."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["TurnSettings"]


class TurnSettings(Struct, frozen=True, kw_only=True):
    """When the caller's voice pauses, cuts or does not touch what the agent says.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    interruption: Literal["immediate", "disabled"] = "immediate"
    """``immediate``: the line falls silent when speech starts, words cut the reply. ``disabled``:
    replies are heard out, what the caller says meanwhile is answered afterwards."""
    min_words: int = 1
    """So many words of the caller cut a reply."""
    false_interruption_s: float = 0.6
    """Without words, the reply goes on so long after the caller's voice stopped …"""
    hold_limit_s: float = 2.0
    """… and at the latest so long after it started."""
    stale_edge_s: float = 1.0
    """Speech that started longer ago than this on the audio clock (a replay) pauses nothing."""
    transcript_timeout_s: float = 5.0
    """A voice that stopped, or words that were never finished, force a final after this."""
    settle_s: float = 0.1
    """How long the next reply waits to learn what was heard of the one that was cut."""

    def __post_init__(self) -> None:
        if self.min_words < 1:
            raise ConfigurationError(f"min_words must be at least 1, got {self.min_words}")
        for name in ("false_interruption_s", "hold_limit_s", "stale_edge_s", "transcript_timeout_s", "settle_s"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} must not be negative, got {getattr(self, name)}")
