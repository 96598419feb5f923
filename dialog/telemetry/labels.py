"""Keeps the values of labels few."""

from __future__ import annotations

from typing import Final

__all__ = ["OTHER", "Few"]

OTHER: Final = "other"
"""What stands for all values for which there is no room."""
_LONGEST: Final = 80


class Few:
    """Lets the first ``most`` different values through; any later one is ``other``.

    Every value of a label is a time series for ever. Names of tools, models, errors and reasons are few in a sane
    program, and a program that makes them up (with a number in them, say) must not fill the metrics' store.
    """

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._known: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        """``value``, or ``other``."""
        known = self._known.get(value)
        if known is not None:
            return known
        if len(self._known) >= self._most:
            return OTHER
        self._known[value] = shown = value[:_LONGEST]
        return shown
