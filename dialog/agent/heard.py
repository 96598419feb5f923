"""From milliseconds that were heard to the words of the reply that were heard, and back. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from math import inf

from dialog.agent.alignment import Clock, Letters, Unit, find_units, runs_of, word_end
from dialog.agent.shaping.pieces import Piece
from dialog.agent.shaping.sentences import sentence_ends
from dialog.message import Word

__all__ = ["HeardMap", "SpeechRate"]

_LITTLE_MS = 250.0
"""Without timings, nothing was heard of less: it is too little for a word."""
_SILENT_MS = 400.0
"""Audio behind the last timing that may be a pause; more is words whose timings are not there."""
_SKIPPED = 4
"""Letters that may stand between two words although the voice left no time for them."""
_FASTEST = 25.0
"""Letters a second that few voices say: what a timing skips beyond that is another word of the same spelling."""

_MEMORY = 0.9
"""How much of what was learnt before counts after another part."""
_WEIGHT = 1.1
"""What a character of plain text weighs on average, marks included."""

_MARKS = " \t\n.!?\u2026\"')]\u00bb\u201d\u2019\u3002\uff01\uff1f\u300d\u300f"

# How long it takes to say these, in letters: what estimates go by.
_LONG = {
    **dict.fromkeys("0123456789", 4.0),
    **dict.fromkeys(",;:\u2013\u2014", 3.0),
    **dict.fromkeys(".!?\u2026\n", 6.0),
    **dict.fromkeys("$%&@+=#\u20ac\u00a3", 7.0),
}


class SpeechRate:
    """Characters a voice speaks per second, learnt from the parts it has finished."""

    def __init__(self, chars_per_s: float = 15.0) -> None:
        self.chars_per_s: float = chars_per_s
        # As if a short sentence had been heard already, so that the first part does not decide alone.
        self._chars = 60.0
        self._ms = self._chars * 1000.0 / chars_per_s

    def learn(self, chars: float, ms: float) -> None:
        """A part of ``chars`` characters took ``ms``."""
        if chars >= 10 and ms >= 500:
            self._chars = _MEMORY * self._chars + chars
            self._ms = _MEMORY * self._ms + ms
            self.chars_per_s = self._chars * 1000.0 / self._ms


class HeardMap:
    """What of one part's text its audio speaks, as far as pieces and word timings tell.

    A word counts as heard when half of it was; what is spoken otherwise than it is written ("$5" as
    "five dollars") counts as a whole. Words that the voice's timings leave out get their share of the time
    between their neighbours. Without timings the position is estimated from the voice's rate, or from
    the share of the audio once all of it is known.
    """

    __slots__ = (
        "_anchors",
        "_clock_of",
        "_cursor",
        "_letters",
        "_looked_at",
        "_made",
        "_pieces",
        "_rate",
        "_spoken",
        "_sure",
        "_taken",
        "_timed_ms",
        "_units",
        "_version",
        "_weights",
        "_word_ends",
        "_word_starts",
    )

    def __init__(self, rate: SpeechRate) -> None:
        self._rate = rate
        self._pieces: list[Piece] = []
        self._taken = 0
        self._spoken = ""
        self._letters = Letters()
        self._cursor = 0
        """In the letters: behind the last word whose timing was found."""
        self._sure = (0, 1)
        """The same of the last one that its neighbour confirmed, and how many anchors there were then."""
        self._anchors: list[tuple[int, float]] = [(0, 0.0)]
        """Places of the spoken text and the milliseconds at which they sound, both rising."""
        self._word_starts: list[float] = []
        self._word_ends: list[float] = []
        self._timed_ms = 0.0
        """Where the last timing ends, found in the text or not."""
        self._units: list[Unit] = []
        self._weights: list[float] = [0.0]
        self._looked_at = 0
        """How many pieces the units and weights are of."""
        self._version = 0
        """Changes with the text and with its timings."""
        self._clock_of: tuple[object, ...] = ()
        self._made: Clock | None = None
        """The last clock, and what it was made of."""

    @property
    def timed(self) -> bool:
        """Word timings have come, and fit the text."""
        return len(self._anchors) > 1

    @property
    def chars_per_s(self) -> float:
        """How fast the voice speaks, as far as is known."""
        return self._rate.chars_per_s

    @property
    def pieces(self) -> Sequence[Piece]:
        """What the voice was given."""
        return self._pieces

    def post(self, piece: Piece) -> None:
        """The voice was given ``piece``."""
        self._pieces.append(piece)

    def align(self, words: tuple[Word, ...]) -> None:
        """The voice told when it speaks these words, in milliseconds of the part's audio, in their order.

        They are looked for in what it was given, in order, without regard to case and punctuation.
        """
        self._take()
        self._version += 1
        self._letters.take(self._spoken)
        for word in words:
            needle = "".join(char for char in word.text.casefold() if char.isalnum())
            if not needle:
                continue
            start_ms = max(word.start_ms, self._word_starts[-1] if self._word_starts else 0.0)
            end_ms = max(word.end_ms, start_ms)
            self._word_starts.append(start_ms)
            self._word_ends.append(end_ms)
            self._timed_ms = max(self._timed_ms, end_ms)
            found = self._find(needle, start_ms)
            if found < 0:
                continue
            self._cursor = found + len(needle)
            places = self._letters.places
            self._anchor(places[found], start_ms)
            self._anchor(places[self._cursor - 1] + 1, end_ms)

    def _find(self, needle: str, start_ms: float) -> int:
        """Where in the letters the word stands that is spoken at ``start_ms``, or -1."""
        found = self._letters.find(needle, self._cursor, self._cursor + 1)
        if found >= 0:
            # Two neighbours in a row: both are in their place.
            self._sure = (self._cursor, len(self._anchors))
            return found
        sure, anchors = self._sure
        elapsed_ms = max(0.0, start_ms - self._anchors[anchors - 1][1])
        limit = sure + _SKIPPED + int(_FASTEST * elapsed_ms / 1000.0)
        nearest = self._letters.find(needle, sure, limit)
        if sure <= nearest < self._cursor:
            # The word before was taken for one further on: "five dollars and fifty cents, and".
            del self._anchors[anchors:]
            return nearest
        return self._letters.find(needle, self._cursor, limit)

    def learn(self, total_ms: float) -> None:
        """The voice has spoken all of the part, in ``total_ms``: its rate is known better now.

        Better than by counting characters: digits and full stops take longer than letters.
        """
        self._look()
        self._rate.learn(self._weights[-1] / _WEIGHT, total_ms)

    def heard(self, heard_ms: float, total_ms: float | None, source: str = "") -> int:
        """How many characters of the reply's text were heard; they end where a word does.

        Args:
            heard_ms: Milliseconds of the part's audio.
            total_ms: All audio of the part, once it is known.
            source: The reply's text. Without it words are known as they are spoken: of "555-1234" the first
                half may have been heard.
        """
        count = self._heard_units(heard_ms, total_ms)
        end = self._units[count - 1].source_end if count else 0
        return word_end(source, end) if source else end

    def spoken(self, points_ms: Iterable[float], total_ms: float | None) -> list[str]:
        """What had been heard of the part at each of these points of its audio, as it is spoken.

        As far as a word is heard at all, see :meth:`heard`. Points that rise are the cheapest.
        """
        texts: list[str] = []
        count = 0
        for heard_ms in points_ms:
            count = self._heard_units(heard_ms, total_ms, count)
            texts.append(self._spoken[: self._units[count - 1].end] if count else "")
        return texts

    def _heard_units(self, heard_ms: float, total_ms: float | None, near: int | None = None) -> int:
        """How many of the units were half heard; ``near`` is a guess."""
        if heard_ms <= 0 or (not self.timed and heard_ms < _LITTLE_MS):
            return 0
        if total_ms is not None or not self._reaches(heard_ms):
            self._look()
        units, at = self._units, self._clock(total_ms).at

        def half_ms(unit: Unit) -> float:
            return (at(unit.start) + at(unit.end)) / 2  # rises with the text

        if near is None:
            return bisect_right(units, heard_ms, key=half_ms)
        while near and half_ms(units[near - 1]) > heard_ms:
            near -= 1
        while near < len(units) and half_ms(units[near]) <= heard_ms:
            near += 1
        return near

    def _reaches(self, heard_ms: float) -> bool:
        """Whether the words that are known go on beyond ``heard_ms``; what comes after them changes nothing then.

        Of the last one more may come.
        """
        units = self._units
        if len(units) < 2 or self._anchors[-1][0] >= len(self._weights):
            return False
        return self._clock(None).at(units[-2].end) > heard_ms

    def sentence_end_ms(self, after_ms: float, limit_ms: float, total_ms: float | None = None) -> float | None:
        """Where in the part's audio the next sentence ends, from ``after_ms`` to ``limit_ms``; ``None`` if none does.

        All are milliseconds from the start of the part. ``total_ms``: all audio of the part, once it is known.
        """
        self._look()
        clock = self._clock(total_ms)
        for end in sentence_ends(self._spoken):
            # The last word ends before the marks; where that is only estimated, a part of the pause is added.
            at_ms = clock.at(len(self._spoken[:end].rstrip(_MARKS)))
            if not self.timed:
                at_ms = (at_ms + clock.at(end)) / 2
            if at_ms > limit_ms:
                return None
            if at_ms >= after_ms:
                return at_ms
        return None

    def word_start_ms(self, ms: float) -> float:
        """Where the word begins that is spoken at ``ms``, which is where speech that was cut there goes on.

        Between two words, and without timings, it is ``ms`` itself: nothing is lost, and nothing repeated.
        """
        index = bisect_right(self._word_starts, ms)
        if not index or ms >= self._word_ends[index - 1]:
            return ms
        return self._word_starts[index - 1]

    # -- what the pieces say ------------------------------------------------------------------------

    def _take(self) -> None:
        """Take in the pieces that came since the last time."""
        if self._taken < len(self._pieces):
            self._spoken += "".join(piece.spoken for piece in self._pieces[self._taken :])
            self._taken = len(self._pieces)

    def _look(self) -> None:
        """Find the words in what was posted; only done when somebody asks."""
        self._take()
        if self._looked_at == self._taken:
            return
        self._looked_at = self._taken
        self._version += 1
        new = self._spoken[len(self._weights) - 1 :]
        self._weights += accumulate(map(_LONG.get, new, repeat(1.0)), initial=self._weights.pop())
        self._units = find_units(self._spoken, runs_of(self._pieces))

    def _anchor(self, place: int, at_ms: float) -> None:
        """``place`` sounds at ``at_ms``."""
        last, last_ms = self._anchors[-1]
        if place > last:
            self._anchors.append((place, max(at_ms, last_ms)))
        elif place == last:
            self._anchors[-1] = (last, max(at_ms, last_ms))

    def _clock(self, total_ms: float | None) -> Clock:
        made_of = (total_ms, self._version, self._rate.chars_per_s)
        if self._made is None or made_of != self._clock_of:
            self._clock_of, self._made = made_of, self._make_clock(total_ms)
        return self._made

    def _make_clock(self, total_ms: float | None) -> Clock:
        anchors = self._anchors
        place, at_ms = anchors[-1]
        rest = self._weights[-1] - self._weights[place]
        if total_ms is not None and total_ms > 0:
            each = max(0.0, total_ms - at_ms) / rest if rest else 0.0
            return Clock(anchors, self._weights, (each, inf, 0.0))
        each = 1000.0 / (self._rate.chars_per_s * _WEIGHT)
        if not self.timed:
            return Clock(anchors, self._weights, (each, inf, 0.0))
        return Clock(anchors, self._weights, (each, self._timed_ms, _SILENT_MS))
