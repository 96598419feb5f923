"""Menus of machines that an agent talks to: noticing that it goes round in circles. Pure."""

from __future__ import annotations

import re
from collections import deque
from difflib import SequenceMatcher

__all__ = ["MenuLoop"]

_ALIKE = 0.8
_REMEMBERED = 20
_LETTERS = 400
"""So much of a menu is compared."""


class MenuLoop:
    """Counts how often the same menu was heard: a recogniser writes it a little differently each time."""

    def __init__(self) -> None:
        self._menus: deque[tuple[str, list[str]]] = deque(maxlen=_REMEMBERED)

    def press(self, heard: str, keys: str) -> tuple[int, tuple[str, ...]]:
        """``keys`` are about to be pressed, after ``heard``.

        Returns:
            How often such a menu was heard by now, and what was pressed the times before.
        """
        words = _plain(heard)
        for menu, pressed in self._menus:
            if _alike(menu, words):
                before = tuple(pressed)
                pressed.append(keys)
                return len(pressed), before
        self._menus.append((words, [keys]))
        return 1, ()


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))[:_LETTERS]


def _alike(one: str, other: str) -> bool:
    if not one or not other:
        return False
    # The beginning may be cut off: who comes back to a menu hears it from the middle on.
    shorter, longer = sorted((one, other), key=len)
    if len(shorter) >= 20 and shorter in longer:
        return True
    return SequenceMatcher(None, one, other, autojunk=False).ratio() >= _ALIKE
