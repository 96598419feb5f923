"""Conditions under which a load has failed: ``p95_reply_ms>1500``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from dialog.errors import ConfigurationError
from dialog.testing.load_figures import QUANTILES, TIMED, Figures

__all__ = ["FIGURE_NAMES", "Limit"]

FIGURE_NAMES: Final = (
    *("ended", "failed", "failed_percent", "unanswered", "turns", "replies"),
    *("gaps", "own_gaps", "dead_air", "cuts", "reconnects", "warnings"),
    *(f"{quantile}_{name}_ms" for name in TIMED for quantile in QUANTILES),
)
"""What a limit may name; see :class:`dialog.testing.load_figures.Figures`."""
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_FORM = re.compile(r"\s*([a-z0-9_]+)\s*(>=|<=|==|!=|>|<)\s*([0-9.]+)\s*")


class Limit(Struct, frozen=True):
    """The load has failed if the figure ``name`` compares to ``bound`` so."""

    name: str
    comparison: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """``NAME>NUMBER``, or with another of ``> >= < <= == !=``.

        Raises:
            ConfigurationError: It is not of this form, or there is no such figure.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise ConfigurationError(f"{text!r} is no condition: write one as in p95_reply_ms>1500 or failed>0")
        name, comparison, number = form.groups()
        if name not in FIGURE_NAMES:
            raise ConfigurationError(f"there is no figure {name!r}; there are {', '.join(FIGURE_NAMES)}")
        try:
            bound = float(number)
        except ValueError:
            raise ConfigurationError(f"{number!r} in {text!r} is no number") from None
        if not math.isfinite(bound):
            raise ConfigurationError(f"{number!r} in {text!r} is no number")
        return cls(name, comparison, bound)

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{self.bound:g}"

    def broken(self, figures: Figures) -> str:
        """Why the load has failed, or nothing. A figure that was not measured fails: nobody knows it."""
        value = figures.value(self.name)
        if value is None:
            return f"{self}: it was not measured"
        return f"{self}: it is {value:.6g}" if _COMPARE[self.comparison](value, self.bound) else ""
