"""The chain of text filters between a reply and its voice. Pure, safe at any split of the text.

A filter is a small object that takes text as it comes and answers what becomes of it::

    class Whisper:
        def feed(self, text: str) -> Sequence[Edit]:
            return (Said(len(text), text.lower()),)

        def flush(self) -> Sequence[Edit]:
            return ()

A ``str`` in the answer passes that many characters unchanged, a :class:`Said` replaces some, and
what the answer does not account for is held back: it comes first in the next answer. Filters that
look at one word at a time are made of a plain function by :func:`each_word`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from dialog.agent.shaping.pieces import Stretch
from dialog.errors import UserCodeError

__all__ = ["Chain", "Edit", "Edits", "FilterFactory", "Said", "TextFilter", "each_word", "split_stretch"]


class Said(Struct, frozen=True, gc=False):
    """The next ``chars`` characters of a filter's input are said as ``text``; empty: not at all."""

    chars: int
    text: str


Edit = str | Said
"""What a filter did with the next characters of its input: passed them unchanged, or had them said otherwise."""


class TextFilter(Protocol):
    """Rewrites the text of one part on its way to the voice; one object per part.

    It should hold back only what later text may still change, no more than some dozen characters, and
    should answer the same however the text is split.
    """

    def feed(self, text: str) -> Sequence[Edit]:
        """Take the next characters (at least one); tell what became of those that are settled."""
        ...

    def flush(self) -> Sequence[Edit]:
        """No more text comes: settle what was held back."""
        ...


FilterFactory = Callable[[], TextFilter]
"""Makes a fresh filter for every part: a class without arguments is one."""


class Edits(list[Edit]):
    """Collects the answer of a filter."""

    def keep(self, text: str) -> None:
        """``text`` passes unchanged."""
        if text:
            self.append(text)

    def say(self, chars: int, text: str) -> None:
        """``chars`` characters become ``text``."""
        if chars:
            self.append(Said(chars, text))

    def drop(self, chars: int) -> None:
        """``chars`` characters are not said."""
        if chars:
            self.append(Said(chars, ""))


class _Stage:
    """A filter, and where in the reply the text stands that it was given and has not settled."""

    __slots__ = ("_filter", "feed_text", "waiting")

    def __init__(self, filter_: TextFilter) -> None:
        self._filter = filter_
        self.feed_text = filter_.feed
        self.waiting: deque[Stretch] = deque()
        """What the filter was given and has not settled."""

    def feed(self, stretches: Sequence[Stretch]) -> Sequence[Stretch]:
        text = "".join(stretch[0] for stretch in stretches)
        if text:
            return self.settle(stretches, self.feed_text(text))
        if not self.waiting:
            return stretches
        # Nothing for the filter to see, but its place in the reply must not get lost.
        self.waiting.extend(stretches)
        return ()

    def flush(self) -> list[Stretch]:
        settled = self.settle((), self._filter.flush())
        # Characters that a filter forgets are not said.
        settled += [("", start, end, True) for _, start, end, _ in self.waiting]
        self.waiting.clear()
        return settled

    def settle(self, stretches: Sequence[Stretch], edits: Sequence[Edit]) -> list[Stretch]:
        """Bring what the filter answered together with the text that it was given."""
        self.waiting.extend(stretches)
        out: list[Stretch] = []
        for edit in edits:
            self._pass_silent(out)
            if isinstance(edit, str):
                taken = self._take(len(edit))
                if "".join(stretch[0] for stretch in taken) != edit:
                    raise UserCodeError(
                        f"text filter {self._filter!r} passed text on as unchanged that it was not given: "
                        "answer Said(chars, text) for what it rewrites"
                    )
                out += taken
            else:
                taken = self._take(edit.chars)
                if taken:
                    out.append((edit.text, taken[0][1], taken[-1][2], True))
                elif edit.text:
                    raise UserCodeError(
                        f"text filter {self._filter!r} says something for no characters: a Said replaces at least one"
                    )
        self._pass_silent(out)
        return out

    def _pass_silent(self, out: list[Stretch]) -> None:
        """What is not said belongs to no edit."""
        while self.waiting and not self.waiting[0][0]:
            out.append(self.waiting.popleft())

    def _take(self, chars: int) -> list[Stretch]:
        """The next ``chars`` characters of the input, with their places."""
        taken: list[Stretch] = []
        waiting = self.waiting
        while chars > 0:
            if not waiting:
                raise UserCodeError(
                    f"text filter {self._filter!r} accounts for {chars} characters more than it was given"
                )
            stretch = waiting.popleft()
            if len(stretch[0]) > chars:
                stretch, rest = split_stretch(stretch, chars)
                waiting.appendleft(rest)
            taken.append(stretch)
            chars -= len(stretch[0])
        return taken


def split_stretch(stretch: Stretch, at: int) -> tuple[Stretch, Stretch]:
    """Two stretches; of a rewritten one the second has the whole span, since only both together are the words."""
    text, start, end, rewritten = stretch
    if rewritten:
        return (text[:at], start, start, True), (text[at:], start, end, True)
    return (text[:at], start, start + at, False), (text[at:], start + at, end, False)


class Chain:
    """Filters one after another, and the place of everything in the reply's text."""

    __slots__ = ("_position", "_stages")

    def __init__(self, filters: Sequence[FilterFactory]) -> None:
        self._stages = [_Stage(factory()) for factory in filters]
        self._position = 0

    def feed(self, text: str) -> Sequence[Stretch]:
        """Take text; return what of it is settled."""
        start = self._position
        self._position = end = start + len(text)
        stages = self._stages
        for index, stage in enumerate(stages):
            # Most text passes all filters as it is: nothing is built for it.
            edits = stage.feed_text(text)
            if stage.waiting or len(edits) != 1 or edits[0] is not text:
                stretches: Sequence[Stretch] = stage.settle(((text, start, end, False),), edits)
                for later in stages[index + 1 :]:
                    stretches = later.feed(stretches)
                return stretches
        return ((text, start, end, False),)

    def flush(self) -> Sequence[Stretch]:
        """Return the rest."""
        stretches: list[Stretch] = []
        for stage in self._stages:
            fed = list(stage.feed(stretches)) if stretches else []
            stretches = fed + stage.flush()
        return stretches


_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_WORD_TAIL = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*['\u2019]?\Z")
_WORD_LIMIT = 64


class _EachWord:
    def __init__(self, rewrite: Callable[[str], str]) -> None:
        self._rewrite = rewrite
        self._held = ""

    def __repr__(self) -> str:
        return f"each_word({getattr(self._rewrite, '__qualname__', self._rewrite)})"

    def feed(self, text: str) -> Sequence[Edit]:
        text = self._held + text
        tail = _WORD_TAIL.search(text, max(0, len(text) - 2 * _WORD_LIMIT))
        at = len(text)
        if tail is not None and at - tail.start() < _WORD_LIMIT:
            at = tail.start()
        self._held = text[at:]
        return self._words(text[:at])

    def flush(self) -> Sequence[Edit]:
        text, self._held = self._held, ""
        return self._words(text)

    def _words(self, text: str) -> Sequence[Edit]:
        edits = Edits()
        at = 0
        for match in _WORD.finditer(text):
            said = self._rewrite(match[0])
            if said != match[0]:
                edits.keep(text[at : match.start()])
                edits.say(len(match[0]), said)
                at = match.end()
        edits.keep(text[at:])
        return edits


def each_word(rewrite: Callable[[str], str]) -> FilterFactory:
    """A filter of a plain function that is given every word, without punctuation, and returns what is said for it.

    ``each_word(lambda word: {"SQL": "sequel"}.get(word, word))`` teaches a voice a pronunciation. A word is
    held back until the character after it has come.
    """
    return lambda: _EachWord(rewrite)
