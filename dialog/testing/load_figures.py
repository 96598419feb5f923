"""Figures of a load: bounded however many calls there are, and mergeable across processes."""

from __future__ import annotations

import math

from msgspec import Struct, field

from dialog.errors import ConfigurationError

__all__ = ["DEAD_AIR_MS", "Distribution", "Figures", "Moment"]

DEAD_AIR_MS = 2000.0
"""A wait of the caller for a sound that is longer than this is dead air."""
_RATIO = 1.02
_LOG = math.log(_RATIO)
_SMALLEST = 0.01
_MOST_KINDS = 40
"""Kinds of errors that are told apart."""
_MOST_MOMENTS = 240


class Distribution(Struct):
    """How values in milliseconds are distributed, to one per cent: each is counted in a bucket 2 % wide."""

    count: int = 0
    total: float = 0.0
    least: float = math.inf
    most: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, value: float) -> None:
        """Count a value; what is below a hundredth counts as that."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        bucket = round(math.log(value) / _LOG) if value > _SMALLEST else _FIRST
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: Distribution) -> None:
        """Count all values of another."""
        self.count += other.count
        self.total += other.total
        self.least = min(self.least, other.least)
        self.most = max(self.most, other.most)
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    @property
    def mean(self) -> float | None:
        """The mean; ``None`` of nothing."""
        return self.total / self.count if self.count else None

    def quantile(self, q: float) -> float | None:
        """The value that a share ``q`` of all values does not exceed; ``None`` of nothing."""
        if not self.count:
            return None
        if q >= 1.0:
            return self.most
        rank, seen = max(1, math.ceil(q * self.count)), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return min(max(_RATIO**bucket, self.least), self.most)
        return self.most

    def between(self, low: float, high: float) -> int:
        """How many values lie in ``low <= value < high``."""
        return sum(count for bucket, count in self.buckets.items() if low <= _RATIO**bucket < high)


_FIRST = round(math.log(_SMALLEST) / _LOG)


class Moment(Struct):
    """What happened in a stretch of the load's time."""

    dialled: int = 0
    ended: int = 0
    failed: int = 0
    live: int = 0
    """Calls that were live at the same time, at most."""
    reply: Distribution = field(default_factory=Distribution)

    def merge(self, other: Moment) -> None:
        """What happened at the same time elsewhere."""
        self.dialled += other.dialled
        self.ended += other.ended
        self.failed += other.failed
        self.live += other.live
        self.reply.merge(other.reply)


class Figures(Struct, kw_only=True):
    """All figures of a load so far; times in milliseconds unless they are named ``_s``."""

    seconds: float = 0.0
    """Since the first call was due."""
    dialled: int = 0
    live: int = 0
    live_most: int = 0
    ended: int = 0
    failed: int = 0
    """Calls that did not go as planned: all but ``done`` and ``stopped``."""
    statuses: dict[str, int] = field(default_factory=dict[str, int])
    """Ended calls by status."""
    errors: dict[str, int] = field(default_factory=dict[str, int])
    """Failed calls by what went wrong."""
    answer: Distribution = field(default_factory=Distribution)
    """Webhook sent to TwiML received."""
    first_audio: Distribution = field(default_factory=Distribution)
    """Webhook sent to the first sound of the agent."""
    reply: Distribution = field(default_factory=Distribution)
    """End of the caller's voice to the first sound of the reply, as the caller hears it."""
    turns: int = 0
    """Utterances that were said."""
    replies: int = 0
    """Utterances that were answered with a sound, also into the caller's words, which is no ``reply``."""
    unanswered: int = 0
    """Utterances that nobody answered in time."""
    gaps: Distribution = field(default_factory=Distribution)
    """Holes in what was heard: the agent's audio ran dry and went on within 400 ms."""
    own_gaps: int = 0
    """Holes that came while this generator was late itself: its own, perhaps."""
    dead_air: Distribution = field(default_factory=Distribution)
    """Waits for a sound of more than two seconds."""
    cuts: int = 0
    """Media sockets that broke, or were closed with another code than 1000."""
    reconnects: int = 0
    """Streams beyond the first of a call."""
    warnings: int = 0
    """What the carrier's debugger would show."""
    heard_s: float = 0.0
    """Speech of agents that was heard."""
    lag: Distribution = field(default_factory=Distribution)
    """How late this generator itself sent its frames, real milliseconds."""
    cpu_s: float = 0.0
    """Processor time of the generator."""
    interval_s: float = 1.0
    moments: list[Moment] = field(default_factory=list[Moment])
    """The load over time, each ``interval_s`` long; it doubles when there are more than 240."""

    def moment(self, at_s: float) -> Moment:
        """The stretch of time that ``at_s`` lies in."""
        while (index := int(max(at_s, 0.0) / self.interval_s)) >= _MOST_MOMENTS:
            self._halve()
        while len(self.moments) <= index:
            self.moments.append(Moment(live=self.live))
        return self.moments[index]

    def took_up(self, at_s: float) -> None:
        """A call is being dialled."""
        self.dialled += 1
        self.live += 1
        self.live_most = max(self.live_most, self.live)
        moment = self.moment(at_s)
        moment.dialled += 1
        moment.live = max(moment.live, self.live)

    def replied(self, at_s: float, ms: float) -> None:
        """A reply was heard."""
        self.reply.add(ms)
        self.moment(at_s).reply.add(ms)

    def over(self, at_s: float, status: str, error: str) -> None:
        """A call is over; ``error`` says what went wrong, if it failed."""
        moment = self.moment(at_s)
        moment.ended += 1
        self.live -= 1
        self.ended += 1
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if error:
            moment.failed += 1
            self.failed += 1
            kind = error if error in self.errors or len(self.errors) < _MOST_KINDS else "others"
            self.errors[kind] = self.errors.get(kind, 0) + 1

    def merge(self, other: Figures) -> None:
        """Add the figures of another process, which began at the same time."""
        self.seconds = max(self.seconds, other.seconds)
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _DISTRIBUTIONS:
            getattr(self, name).merge(getattr(other, name))
        for mine, theirs in ((self.statuses, other.statuses), (self.errors, other.errors)):
            for kind, count in theirs.items():
                mine[kind] = mine.get(kind, 0) + count
        interval, theirs_over_time = other.interval_s, other.moments
        while self.interval_s < interval:
            self._halve()
        while interval < self.interval_s:
            theirs_over_time, interval = _halved(theirs_over_time), interval * 2
        for index, moment in enumerate(theirs_over_time):
            if index == len(self.moments):
                self.moments.append(Moment())
            self.moments[index].merge(moment)

    def value(self, name: str) -> float | None:
        """A figure by its name (:data:`FIGURE_NAMES` of :mod:`dialog.testing.load_limits`); ``None``: not measured.

        Raises:
            ConfigurationError: There is no such figure.
        """
        if name in _SIMPLE:
            return float(getattr(self, name))
        if name == "failed_percent":
            return 100.0 * self.failed / self.ended if self.ended else None
        if name in ("gaps", "dead_air"):
            return float(getattr(self, name).count)
        which, _, rest = name.partition("_")
        distribution = rest.removesuffix("_ms")
        if rest.endswith("_ms") and which in QUANTILES and distribution in TIMED:
            found: Distribution = getattr(self, distribution)
            return found.quantile(QUANTILES[which])
        raise ConfigurationError(f"there is no figure {name!r}")

    def _halve(self) -> None:
        self.moments = _halved(self.moments)
        self.interval_s *= 2


QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
TIMED = ("answer", "first_audio", "reply", "gaps", "dead_air", "lag")
_SIMPLE = ("dialled", "ended", "failed", "turns", "replies", "unanswered", "own_gaps", "cuts", "reconnects", "warnings")
_COUNTS = (*_SIMPLE, "live", "live_most", "heard_s", "cpu_s")
_DISTRIBUTIONS = TIMED


def _halved(moments: list[Moment]) -> list[Moment]:
    """The same with stretches twice as long; what was given stays as it is."""
    out: list[Moment] = []
    for index in range(0, len(moments), 2):
        both = Moment()
        for moment in moments[index : index + 2]:
            live = max(both.live, moment.live)
            both.merge(moment)
            both.live = live
        out.append(both)
    return out
