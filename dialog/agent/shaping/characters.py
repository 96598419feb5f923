"""A filter that drops what no voice should see: emoji, control characters, invisible marks, blanks upon blanks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dialog.agent.shaping.filters import Edit, Edits

__all__ = ["Characters"]

_BLANK = " \t\v\f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_EMOJI = "\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
# Control and format characters, lone surrogates (no encoder takes them), private use, variation selectors, keycaps.
_INVISIBLE = (
    "\x00-\x08\x0d-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20e3"
    "\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f\ufeff\ufff0-\uffff\U000e0000-\U0010ffff"
)
_BREAKS = "\n\x85\u2028\u2029"
_ODD = re.compile(f"[{_BLANK}{_EMOJI}{_INVISIBLE}{_BREAKS}]")
_SPACES = re.compile(f"[{_BLANK}{_EMOJI}]")
_JOINERS = "\u200c\u200d"
"""Part of the spelling of words in Persian and in the scripts of India; between emoji they are glue."""


class Characters:
    """Drops emoji, control characters and invisible marks; every run of blanks becomes one space.

    Line breaks stay: they end sentences. It never holds anything back.
    """

    __slots__ = ("_blank", "_letter")

    def __init__(self) -> None:
        self._blank = False
        """What was passed on last is a blank, so that another one is not needed."""
        self._letter = False
        """What came last was text."""

    def feed(self, text: str) -> Sequence[Edit]:
        """See :meth:`TextFilter.feed`."""
        if text.isascii() and text.isprintable() and "  " not in text and not (self._blank and text[0] == " "):
            self._blank = text[-1] == " "
            self._letter = not self._blank
            return (text,)
        edits = Edits()
        kept = seen = 0
        for match in _ODD.finditer(text):
            at = match.start()
            if at > seen:
                self._blank, self._letter = False, True
            seen = at + 1
            char = match[0]
            said = self._said(char)
            if said != char:
                edits.keep(text[kept:at])
                edits.say(1, said)
                kept = seen
        edits.keep(text[kept:])
        if seen < len(text):
            self._blank, self._letter = False, True
        return edits

    def flush(self) -> Sequence[Edit]:
        """See :meth:`TextFilter.flush`."""
        return ()

    def _said(self, char: str) -> str:
        if char in _JOINERS and self._letter:
            return char
        self._letter = False
        if char in _BREAKS:
            self._blank = True
            return "\n"
        # Words must not run together where an emoji stood between them.
        if _SPACES.match(char):
            said = "" if self._blank else " "
            self._blank = True
            return said
        return ""
