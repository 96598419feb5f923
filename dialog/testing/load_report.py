"""What came of a load: its figures, its calls, and whether they mean anything."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from dialog.testing.load_figures import QUANTILES, TIMED, Distribution, Figures
from dialog.testing.load_limits import Limit
from dialog.testing.load_metronome import LATE_MS
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan

__all__ = ["LoadReport", "void_reason"]


class LoadReport(Struct, frozen=True, kw_only=True):
    """A load that is over."""

    plan: LoadPlan
    started_at: str
    """UTC, ISO 8601."""
    stopped: bool
    """It was stopped before its end."""
    figures: Figures
    outcomes: tuple[CallOutcome, ...]
    """The calls; of more than the load keeps, the newest."""
    void: str = ""
    """Why the times mean nothing, if so: this generator was late itself."""

    def broken(self, limits: Sequence[Limit]) -> list[str]:
        """The limits that do not hold, each with its figure."""
        return [broken for limit in limits if (broken := limit.broken(self.figures))]

    def to_json(self, limits: Sequence[Limit] = ()) -> bytes:
        """All of it for machines; times in milliseconds where they are not named ``_s``."""
        figures = self.figures
        simple = {
            field: round(value, 3)
            for field in figures.__struct_fields__
            if isinstance(value := getattr(figures, field), int | float)
        }
        value = {
            "url": self.plan.url,
            "started_at": self.started_at,
            "stopped": self.stopped,
            "void": self.void,
            "broken": self.broken(limits),
            "plan": {name: getattr(self.plan, name) for name in self.plan.__struct_fields__ if name != "auth_token"},
            "figures": simple,
            "times": {name: _summary(getattr(figures, name)) for name in TIMED},
            "statuses": figures.statuses,
            "errors": figures.errors,
            "over_time": [
                {
                    "at_s": round(index * figures.interval_s, 3),
                    "dialled": moment.dialled,
                    "ended": moment.ended,
                    "failed": moment.failed,
                    "live": moment.live,
                    "reply": _summary(moment.reply),
                }
                for index, moment in enumerate(figures.moments)
            ],
            "calls": self.outcomes,
        }
        return msgspec.json.format(msgspec.json.encode(value), indent=1)


def void_reason(figures: Figures, *, lost: int = 0) -> str:
    """Why the figures of a load mean nothing; empty if they do."""
    if lost:
        return f"{lost} of the generator's processes died, and their calls with them"
    late = figures.lag.quantile(0.99)
    if late is not None and late > LATE_MS:
        return (
            f"the generator itself was late by {late:.0f} ms (p99; {LATE_MS:g} is the most): "
            "use fewer callers, more --processes, or another machine"
        )
    return ""


def _summary(distribution: Distribution) -> dict[str, float | int | None]:
    values: dict[str, float | int | None] = {"count": distribution.count, "mean": _round(distribution.mean)}
    return values | {name: _round(distribution.quantile(q)) for name, q in QUANTILES.items()}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
