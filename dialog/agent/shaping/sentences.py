"""Where sentences and clauses end. Pure, and the same however the text is split."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Find", "find_boundary", "sentence_ends"]

Find = tuple[Literal["sentence", "clause", "join", "no", "wait", "end"], int]
"""What was found, and where.

``sentence``, ``clause``, ``join``: the text may be cut there, behind the blank that follows a mark or
before a word that joins clauses. ``no``: a mark that ends nothing; go on from there. ``wait``: what
follows tells; look again from there. ``end``: no mark; look again from there.
"""

_CLOSERS = "\"')\\]\u00bb\u201d\u2019"
_WIDE = "\u3002\uff01\uff1f\uff0e"
_ENDS = (
    rf"(?P<end>[.!?\u2026]+)(?P<closers>[{_CLOSERS}]*)"
    # Chinese and Japanese leave no blank after a mark.
    rf"|(?P<wide>[{_WIDE}]+[\u300d\u300f\uff09\u3011\u201d\u2019]*)"
    r"|(?P<line>\n)"
)
_SENTENCE = re.compile(_ENDS)
_CLAUSE = re.compile(
    rf"{_ENDS}|(?P<clause>[,;:][{_CLOSERS}]*|\u2013)|(?P<tight>[\u2014\uff0c\u3001\uff1b\uff1a])"
    r"|(?P<join>\s(?=(?:and|but|or|because|which|so|while|although|if|when)\s))"
)
_LONGEST_JOIN = 12
"""A word that joins, with the blanks around it, is shorter."""
_WORD = re.compile(r"[\w.'\u2019]*\Z")
_WORD_LIMIT = 24
_ITEM = re.compile(r"(?:.*\n)?\s*\d{1,2}\Z", re.DOTALL)
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


# A full stop after these ends no sentence.
_NEVER = _words(
    "mr mrs ms mx dr prof st mt ft gen sen rep gov capt cpt lt col sgt maj rev hon messrs mme mlle vs cf viz al"
    " e.g i.e u.s u.k u.n e.u ph.d m.d d.c"
)
# After these it ends one unless a number or a small letter follows.
_BEFORE_NUMBER = _words(
    "no nos p pp fig figs ext approx dept est sec ch vol art tel jan feb mar apr jun jul aug sep sept oct nov dec"
)
# After these it ends one if a capital follows.
_BEFORE_CAPITAL = _words("a.m p.m etc inc ltd co corp jr sr bros ave blvd rd min max")


def find_boundary(text: str, at: int, *, start: int = 0, clauses: bool = False, final: bool = False) -> Find:
    """The next mark from ``at`` on; the sentence begins at ``start``.

    Args:
        text: Text so far.
        at: Where to look on.
        start: Where the sentence began: what has no word in it is no sentence.
        clauses: Clauses count.
        final: No more text comes.
    """
    found = (_CLAUSE if clauses else _SENTENCE).search(text, at)
    if found is None:
        return "end", max(at, len(text) - _LONGEST_JOIN) if clauses else len(text)
    kind, begin, end = found.lastgroup, found.start(), found.end()
    if kind == "line":
        return ("sentence" if _speaks(text, start, begin) else "no"), end
    if kind == "join":
        return "join", end
    if end == len(text):
        if not final:
            return "wait", begin
        return ("sentence" if kind in ("closers", "wide", "end") and _speaks(text, start, begin) else "no"), end
    if not _speaks(text, start, begin):
        return "no", end
    after = text[end]
    if kind == "wide":
        return ("no" if found[0][-1] == "\uff0e" and after.isalnum() else "sentence"), end
    if kind == "tight":
        return "clause", end
    if not after.isspace():
        return ("sentence" if kind != "clause" and _CJK.match(after) else "no"), end
    verdict = "clause" if kind == "clause" else _ends_sentence(text, start, found)
    if verdict == "sentence":
        return "sentence", end + 1
    if verdict == "no":
        return "no", end
    follows = _next(text, end)
    if follows is None:
        return ("sentence", end + 1) if final and kind != "clause" else ("wait", begin)
    if verdict == "clause":
        # "January 5, 2025"
        return ("no", end) if follows.isdigit() else ("clause", end + 1)
    if follows == "\n" or verdict == "unless_small":
        ends = not follows.islower()
    elif verdict == "unless_number":
        ends = not (follows.isdigit() or follows.islower())
    else:
        ends = follows.isupper() or follows in "\"'(\u201c\u2018"
    return ("sentence", end + 1) if ends else ("no", end)


_Verdict = Literal["sentence", "no", "clause", "unless_small", "unless_number", "if_capital"]


def _ends_sentence(text: str, start: int, found: re.Match[str]) -> _Verdict:
    """What a mark that a blank follows says about the sentence."""
    mark = found["end"]
    if found["closers"] or mark == "\u2026" or (len(mark) > 1 and set(mark) <= {".", "\u2026"}):
        return "unless_small"
    if mark != ".":
        return "sentence"
    begin = found.start()
    near = text[max(start, begin - _WORD_LIMIT) : begin]
    match = _WORD.search(near)
    word = match[0] if match is not None else ""
    if len(word) == 1 and word.isupper() and word != "I":
        return "no"
    if word.isdigit():
        return "no" if _ITEM.match(text[start:begin] if begin - start < _WORD_LIMIT else near) else "sentence"
    word = word.lower()
    if word in _NEVER:
        return "no"
    if word in _BEFORE_NUMBER:
        return "unless_number"
    if word in _BEFORE_CAPITAL or (len(word) == 1 and word.isalpha()):
        # A letter alone is most likely spelled: "five p m."
        return "if_capital"
    if "." in word and all(len(letter) == 1 and letter.isalpha() for letter in word.split(".")):
        return "no"
    return "sentence"


def _speaks(text: str, start: int, end: int) -> bool:
    """There is a word in it."""
    return any(char.isalnum() for char in text[start:end])


def _next(text: str, at: int) -> str | None:
    """The next character that is no blank, a line break if one comes before it, or ``None`` if none has come yet."""
    for index in range(at, len(text)):
        if text[index] == "\n" or not text[index].isspace():
            return text[index]
    return None


def sentence_ends(text: str) -> list[int]:
    """Where the sentences of ``text`` end, behind their marks; the end of the text only if a mark is there."""
    ends: list[int] = []
    start = at = 0
    while True:
        kind, at = find_boundary(text, at, start=start, final=True)
        if kind == "end":
            return ends
        if kind == "sentence":
            ends.append(start + len(text[start:at].rstrip()))
            start = at
        elif not _speaks(text, start, at):
            start = at  # nothing to look through again: a model in a loop sends thousands of marks
