"""A filter that turns Markdown into what a person would read out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto

from dialog.agent.shaping.filters import Edit, Edits

__all__ = ["Markdown"]

_LINE_LIMIT = 64
_LINK_LIMIT = 96
_URL_LIMIT = 2048
_LINE = re.compile(r"[ \t#>*+\-=_\u2022\u2023\u25e6~`]*")
_RULE = re.compile(r"[ \t]*([-*_=])[ \t]*(?:\1[ \t]*){2,}\Z")
_FENCE = re.compile(r"[ \t]*(?:`{3,}|~{3,})")
_LANGUAGE = re.compile(r"[\w+#.\-]*[ \t]*")
_PREFIX = re.compile(r"[ \t]*(?:>[ \t]?|[-*+\u2022\u2023\u25e6][ \t]+)")
_HEADING = re.compile(r"[ \t]*#{1,6}(?:[ \t]+|\Z)")
_MARK = re.compile(r"[*_`~\[\\\n]")
_MARK_IN_ROW = re.compile(r"[*_`~\[\\\n| \t]")
_LINK = re.compile(r"\[[^\[\]\n]*\]?")
_ROW = re.compile(r"\|[ \t:|\-]*")
_CELL = re.compile(r"[ \t]*(?:\|[ \t|]*)?")
_EMPHASIS = re.compile(r"[*_`]")
_ESCAPABLE = frozenset("\\`*_{}[]()#+-.!|~<>")


class _At(Enum):
    LINE_START = auto()
    TEXT = auto()
    ROW = auto()
    """In a row of a table."""
    FENCE = auto()
    """In the line that opens or closes a block of code."""
    URL = auto()
    """In the address of a link."""


class Markdown:
    """Drops the marks of Markdown, so that what they mark is read out.

    Emphasis, headings, bullets, quotes, rules and code fences lose their marks; a link is its text; a table
    is its cells with commas between them. What is in a block of code stays.

    It holds back a mark until the next character shows what it is, and a bracket until it is known to
    be a link, at most 96 characters.
    """

    __slots__ = ("_at", "_before", "_behind_url", "_held", "_in_code", "_url_chars")

    def __init__(self) -> None:
        self._at = _At.LINE_START
        self._in_code = False
        self._held = ""
        self._before = "\n"
        """The character before what is held."""
        self._url_chars = 0
        self._behind_url = _At.TEXT

    def feed(self, text: str) -> Sequence[Edit]:
        """See :meth:`TextFilter.feed`."""
        if self._at is _At.LINE_START and not self._held and text[:1].isalpha():
            self._at = _At.TEXT  # as most replies begin, whose first word somebody waits for
        if self._at is _At.TEXT and not self._held and _MARK.search(text) is None:
            self._before = text[-1]
            return (text,)
        return self._scan(self._held + text, final=False)

    def flush(self) -> Sequence[Edit]:
        """See :meth:`TextFilter.flush`."""
        return self._scan(self._held, final=True) if self._held else ()

    def _scan(self, text: str, *, final: bool) -> Edits:
        edits = Edits()
        at = 0
        while at < len(text):
            step = self._step(text, at, edits, final=final)
            if step is None:
                break
            at = step
        self._held = text[at:]
        if at:
            self._before = text[at - 1]
        return edits

    def _step(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        """Settle something; return where the rest begins, or ``None`` if only more text can tell."""
        match self._at:
            case _At.LINE_START:
                if text[at] == "|" and not self._in_code:
                    return self._row_start(text, at, edits, final=final)
                return self._line_start(text, at, edits, final=final)
            case _At.FENCE:
                return self._fence(text, at, edits, final=final)
            case _At.URL:
                return self._url(text, at, edits)
            case _At.TEXT | _At.ROW:
                pass
        found = (_MARK_IN_ROW if self._at is _At.ROW else _MARK).search(text, at)
        end = len(text) if found is None else found.start()
        edits.keep(text[at:end])
        return end if found is None else self._mark(text, end, edits, final=final) if end == at else end

    def _line_start(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        limit = at + _LINE_LIMIT
        found = _LINE.match(text, at, limit)
        assert found is not None
        end = found.end()
        if end == len(text) and end < limit and not final:
            return None
        marks = found[0]
        ends_line = end == len(text) or text[end] == "\n"
        if (fence := _FENCE.match(marks)) is not None:
            self._in_code = not self._in_code
            self._at = _At.FENCE
            edits.drop(fence.end())
            return at + fence.end()
        if not self._in_code:
            if ends_line and _RULE.match(marks):
                self._at = _At.TEXT
                edits.drop(len(marks))
                return end
            start = 0
            while (prefix := _PREFIX.match(marks, start)) is not None:
                start = prefix.end()
            if (heading := _HEADING.match(marks, start)) is not None and (ends_line or heading[0][-1] in " \t"):
                start = heading.end()
            if start:
                self._at = _At.TEXT
                edits.drop(start)
                return at + start
            if end < len(text) and text[end] == "|" and not marks.strip():
                edits.drop(len(marks))
                return self._row_start(text, end, edits, final=final) if not marks else end
        self._at = _At.TEXT
        return at

    def _row_start(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        limit = at + _LINK_LIMIT
        found = _ROW.match(text, at, limit)
        assert found is not None
        end = found.end()
        if end == len(text) and end < limit and not final:
            return None
        if "-" in found[0] and (end == len(text) or text[end] == "\n"):
            # The line under a table's head.
            end = min(end + 1, len(text))
            edits.drop(end - at)
            return end
        self._at = _At.ROW
        cells = len(found[0]) - len(found[0].lstrip("| \t"))
        edits.drop(cells)
        return at + cells

    def _fence(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        limit = at + _LINE_LIMIT
        found = _LANGUAGE.match(text, at, limit)
        assert found is not None
        end = found.end()
        if end == len(text) and end < limit and not final:
            return None
        if end == len(text) or text[end] == "\n":
            self._at = _At.LINE_START
            end = min(end + 1, len(text))
            edits.drop(end - at)
        else:
            # Code in a line of text.
            self._in_code = False
            self._at = _At.TEXT
            edits.keep(found[0])
        return end

    def _url(self, text: str, at: int, edits: Edits) -> int:
        for end in range(at, len(text)):
            if text[end] == ")" or self._url_chars >= _URL_LIMIT:
                self._at = self._behind_url
                edits.drop(end + 1 - at)
                return end + 1
            if text[end] == "\n":
                self._at = self._behind_url
                edits.drop(end - at)
                return end
            self._url_chars += 1
        edits.drop(len(text) - at)
        return len(text)

    def _mark(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        """Settle the mark at ``at``."""
        mark = text[at]
        if mark == "\n":
            self._at = _At.LINE_START
            edits.keep(mark)
            return at + 1
        if self._in_code:
            edits.keep(mark)
            return at + 1
        if mark == "[":
            return self._bracket(text, at, edits, final=final)
        if mark == "\\":
            if at + 1 == len(text) and not final:
                return None
            end = at + 2 if text[at + 1 : at + 2] in _ESCAPABLE else at + 1
            edits.drop(end - at - 1)
            edits.keep(text[end - 1 : end])
            return end
        if mark in "| \t":
            return self._cell(text, at, edits, final=final)
        return self._emphasis(text, at, edits, final=final)

    def _bracket(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        limit = at + _LINK_LIMIT
        found = _LINK.match(text, at, limit)
        assert found is not None
        end = found.end()
        if end == len(text) and end < limit and not final:
            return None
        if end < limit and found[0].endswith("]") and text[end : end + 1] == "(":
            inner = found[0][1:-1]
            edits.drop(1)
            plain = _EMPHASIS.sub("", inner)
            if plain == inner:
                edits.keep(inner)
            else:
                edits.say(len(inner), plain)
            edits.drop(2)
            self._behind_url, self._at = self._at, _At.URL
            self._url_chars = 0
            return end + 1
        edits.keep("[")
        return at + 1

    def _cell(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        limit = at + _LINE_LIMIT
        found = _CELL.match(text, at, limit)
        assert found is not None
        end = found.end()
        if end == len(text) and end < limit and not final:
            return None
        if "|" not in found[0]:
            edits.keep(found[0])
        elif end == len(text) or text[end] == "\n":
            edits.drop(end - at)
        else:
            edits.say(end - at, ", ")
        return end

    def _emphasis(self, text: str, at: int, edits: Edits, *, final: bool) -> int | None:
        mark = text[at]
        limit = at + _LINE_LIMIT
        end = at
        while end < len(text) and text[end] == mark and end < limit:
            end += 1
        before = text[at - 1] if at else self._before
        # What stands before may settle it: a mark after a word closes something.
        if mark == "*":
            settled = not before.isspace() and not before.isdigit()
        elif mark == "_":
            settled = not before.isalnum()
        else:
            settled = mark == "`"
        if not settled and end == len(text) and end < limit and not final:
            return None
        after = text[end : end + 1] or " "
        if mark == "*":
            literal = (before.isspace() and after.isspace()) or (before.isdigit() and after.isdigit())
        elif mark == "_":
            literal = before.isalnum() and after.isalnum()
        else:
            literal = mark == "~" and end - at == 1
        if literal and not settled:
            edits.keep(text[at:end])
        else:
            edits.drop(end - at)
        return end
