"""A filter that writes numbers, dates, money, phone numbers and addresses as English words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from dialog.agent.shaping.filters import Edit, Edits
from dialog.agent.shaping.numbers import cardinal, digits
from dialog.agent.shaping.rules import MONTH, NUMBER_WORDS, SHORT_MONTHS, say_number

__all__ = ["SpokenForms"]

_BEHIND = 24
"""How many characters before a number the rules look at."""
_NUMBER_LIMIT = 64
_ADDRESS_LIMIT = 128


def _beginnings(words: Iterable[str]) -> str:
    """A pattern of all beginnings of these words that takes the longest one."""
    tree: dict[str, Any] = {}
    for word in words:
        node = tree
        for char in word:
            node = node.setdefault(char, {})

    def pattern(node: dict[str, Any]) -> str:
        branches = [re.escape(char) + pattern(below) for char, below in node.items()]
        return f"(?:{'|'.join(branches)})?" if branches else ""

    return pattern(tree)[:-1]  # something of it has to be there


_SIGNS = "$\u20ac\u00a3\u00a5"
_OPENING = "(+#\\-\u2212"
_SCHEMES = ("https://", "http://", "mailto:", "www.", "Https://", "Http://", "Mailto:", "Www.")
_ALONE = r"(?<!\w)"

# Each takes every beginning of what it is for: where its match ends before the text does, it is complete.
_NUMBER = re.compile(
    rf"[{_OPENING}]?[{_SIGNS}]?\d(?:\d|[.,:/\-\u2013()] ?[{_SIGNS}]?| \d| \Z|{_beginnings(NUMBER_WORDS)})*"
)
_ADDRESS = re.compile(r"[.@_\-][A-Za-z0-9@._\-/~%+=?&#:]*")
_LINK = re.compile(r"[a-zA-Z:/.]+[A-Za-z0-9@._\-/~%+=?&#:]*")

_START = re.compile(
    rf"(?P<number>{_ALONE}[{_OPENING}]?\d|(?:{_ALONE}[{_OPENING}])?[{_SIGNS}]\d)"
    r"|(?P<address>(?<=[A-Za-z0-9])[.@_\-](?=[A-Za-z0-9]))"
    rf"|(?P<link>{_ALONE}(?:{'|'.join(map(re.escape, _SCHEMES))}))"
    rf"|(?P<month>{_ALONE}{MONTH.pattern})"
    # The end of the text may be the beginning of any of them.
    rf"|(?P<part>(?:{_ALONE}(?:[{_OPENING}][{_SIGNS}]?|{_beginnings(_SCHEMES)}|{_beginnings(SHORT_MONTHS)}\.? ?)"
    rf"|[{_SIGNS}]|(?<=[A-Za-z0-9])[.@_\-])\Z)"
)
_BEGINNINGS = frozenset(word[: end + 1] for word in (*_SCHEMES, *SHORT_MONTHS) for end in range(len(word)))
"""Words that may turn out to be more than that."""

_DOMAINS = (
    "com|net|org|edu|gov|mil|int|info|biz|io|ai|app|dev|co|me|tv|us|uk|ca|au|nz|ie|de|at|ch|fr|es|it|nl|be|se|no|dk|fi"
    "|pl|cz|pt|gr|eu|in|jp|cn|kr|br|mx|za|sg|hk|ae|online|shop|store|tech|cloud|xyz"
)
_MAIL = re.compile(r"[A-Za-z0-9._+\-]*@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+\Z")
_SITE = re.compile(rf"(?:[.\-][A-Za-z0-9]+)*\.(?:{_DOMAINS})(?::\d+)?(?:/.*)?\Z")
_TRAILING = ".,:;!?-_&#=%+~"
_MARKS = {
    ".": " dot ",
    "@": " at ",
    "-": " dash ",
    "_": " underscore ",
    "/": " slash ",
    "+": " plus ",
    ":": " colon ",
    "?": " question mark ",
    "=": " equals ",
    "&": " and ",
    "#": " hash ",
    "~": " tilde ",
    "%": " percent ",
}
_ATOM = re.compile(r"[A-Za-z]+|\d+|.")


class SpokenForms:
    """Writes numbers, dates, times, money, percentages, units, phone numbers and addresses as English words.

    For voices that do not do it themselves. "$5" is held back, since it may become "$5.50"; plain words
    pass at once. Phone numbers are read in groups, digit by digit; a number of seven digits and more
    without separators is taken for a reference and read the same way. Numeric dates are read as month/day
    where they can be. At most 128 characters are held back (an address), 64 of anything else.
    """

    def __init__(self) -> None:
        self._held = ""
        self._behind = ""
        """The end of the text before what is held."""

    def feed(self, text: str) -> Sequence[Edit]:
        """See :meth:`TextFilter.feed`."""
        if not self._held:
            word = text[1:] if text[0] == " " else text
            if word.isalpha() and word not in _BEGINNINGS:
                self._behind = (self._behind + text)[-_BEHIND:]
                return (text,)
        return self._scan(text, final=False)

    def flush(self) -> Sequence[Edit]:
        """See :meth:`TextFilter.flush`."""
        return self._scan("", final=True) if self._held else ()

    def _scan(self, new: str, *, final: bool) -> Sequence[Edit]:
        at = len(self._behind)
        text = self._behind + self._held + new
        edits = Edits()
        while (start := _START.search(text, at)) is not None:
            kind, begin = start.lastgroup, start.start()
            if kind == "part":
                if final:
                    break
                edits.keep(text[at:begin])
                return self._hold(text, begin, edits)
            limit = begin + (_NUMBER_LIMIT if kind in ("number", "month") else _ADDRESS_LIMIT)
            end = self._end(text, start, limit)
            if end == len(text) and end < limit and not final:
                edits.keep(text[at:begin])
                return self._hold(text, begin, edits)
            edits.keep(text[at:begin])
            if kind == "number":
                at = _say_numbers(text, begin, end, edits)
            elif kind == "month":
                at = end
                edits.say(end - begin, SHORT_MONTHS[text[begin:end].rstrip(".")])
            else:
                at = end
                _say_address(text, begin, end, edits, scheme=start[0] if kind == "link" else "")
        edits.keep(text[at:])
        return self._hold(text, len(text), edits, new)

    def _hold(self, text: str, at: int, edits: Edits, new: str = "") -> Sequence[Edit]:
        """Keep what is from ``at`` on for later."""
        self._behind = text[max(0, at - _BEHIND) : at]
        held, self._held = self._held, text[at:]
        # Text that passes as it came is handed on as the same object: that is how the chain knows.
        return (new,) if new and not held and len(edits) == 1 and edits[0] == new else edits

    @staticmethod
    def _end(text: str, start: re.Match[str], limit: int) -> int:
        """Where what begins here may end at the latest."""
        if start.lastgroup == "month":
            return start.end()
        pattern = {"number": _NUMBER, "address": _ADDRESS}.get(start.lastgroup or "", _LINK)
        match = pattern.match(text, start.start(), limit)
        assert match is not None
        return match.end()


def _say_numbers(text: str, at: int, end: int, edits: Edits) -> int:
    """Say the numbers in ``at:end``; return how far it got, to the beginning of a word that goes on behind it."""
    if text[end : end + 1].isalnum():
        while end - 1 > at and text[end - 1].isalpha():
            end -= 1
    text = text[: end + 1]
    while at < end:
        before = text[at - 1 : at]
        alone = text[at] in _SIGNS or not (before.isalnum() or before == "_")
        says = say_number(text, at, end) if alone else []
        if alone and (month := MONTH.match(text, at)) is not None:
            says = [(len(month[0]), SHORT_MONTHS[month[0].rstrip(".")])]
        if says and before.isalnum() and says[0][1]:
            says[0] = (says[0][0], f" {says[0][1]}")  # "US$5"
        for chars, said in says:
            if said is None:
                edits.keep(text[at : at + chars])
            else:
                edits.say(chars, said)
            at += chars
        if not says:
            stop = at + 1
            while text[at].isalnum() and stop < end and text[stop].isalnum():
                stop += 1
            edits.keep(text[at:stop])
            at = stop
    return end


def _say_address(text: str, at: int, end: int, edits: Edits, *, scheme: str) -> None:
    """Say the address in ``at:end`` if it is one."""
    stop = at + len(text[at:end].rstrip(_TRAILING))
    address = text[at:stop]
    if not scheme and not _MAIL.match(address) and not _SITE.match(address):
        edits.keep(text[at:end])
        return
    if scheme and len(address) > len(scheme):
        www = scheme.lower() == "www."
        edits.say(len(scheme), "w w w dot " if www else "")
        at += len(scheme)
    closing = stop - 1 if stop - at > 1 and text[stop - 1] == "/" else stop
    for match in _ATOM.finditer(text, at, closing):
        atom = match[0]
        if atom.isalpha():
            edits.keep(atom)
        elif atom.isdigit():
            edits.say(len(atom), cardinal(int(atom)) if len(atom) < 3 and atom[0] != "0" else digits(atom))
        else:
            said = _MARKS.get(atom, atom)
            edits.say(1, said[1:] if text[match.start() - 1] in _MARKS else said)
    edits.drop(stop - closing)
    edits.keep(text[stop:end])
