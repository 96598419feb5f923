"""The plots of a load's page, as inline SVG with labels of HTML, so that they stretch with the window."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dialog.testing.load_figures import Distribution, Figures

__all__ = ["columns", "over_time"]

_WIDTH = 1000.0
_HEIGHT = 100.0
_BARS = 60
_QUANTILES = (("p50", 0.5, "median"), ("p95", 0.95, "95 %"), ("p99", 0.99, "99 %"))

_KEY = (
    '<ul class="key"><li><i style="background:var(--caller)"></i>live calls</li>'
    '<li><i style="background:var(--agent)"></i>median reply</li>'
    '<li><i style="background:var(--dialog)"></i>95 %</li>'
    '<li><i style="background:var(--cut)"></i>99 %, failed calls</li></ul>'
)


def over_time(figures: Figures) -> str:
    """Live calls, waits for a reply and failures, one above the other on one axis."""
    moments = figures.moments
    if not moments:
        return '<p class="sub">Nothing was dialled.</p>'
    span = len(moments) * figures.interval_s
    most = _nice(max(1, *(moment.live for moment in moments)))
    live = _steps([moment.live / most for moment in moments])
    parts = [_KEY, "<h3>Live calls</h3>", _plot(f'<path class="live" d="{live}"/>', most, "", "Live calls over time")]
    if figures.reply.count:
        slowest = max(moment.reply.quantile(0.99) or 0.0 for moment in moments)
        top = _nice(slowest)
        lines = "".join(
            f'<path class="line {name}" d="{_line([moment.reply.quantile(q) for moment in moments], top)}"/>'
            for name, q, _ in reversed(_QUANTILES)
        )
        parts.append(f"<h3>End of speech to reply</h3>{_plot(lines, top, ' ms', 'Waits for a reply over time')}")
    if figures.failed:
        most_failed = max(1, *(moment.failed for moment in moments))
        bars = _columns([moment.failed / most_failed for moment in moments], "fails")
        parts.append(f"<h3>Failed calls</h3>{_plot(bars, most_failed, '', 'Failed calls over time', short=True)}")
    parts.append(_scale(span))
    return "".join(parts)


def columns(distribution: Distribution) -> str:
    """A histogram up to the 99th percentile and some more, with the percentiles marked."""
    top = distribution.quantile(0.99)
    if not distribution.count or top is None:
        return '<p class="sub">No reply was measured.</p>'
    end = _nice(1.15 * top)
    width = end / _BARS
    counts = [distribution.between(bar * width, (bar + 1) * width) for bar in range(_BARS)]
    beyond = distribution.count - sum(counts)
    most = max(1, *counts)
    marks = "".join(
        f'<path class="mark {name}" d="M{_WIDTH * value / end:.1f} 0V{_HEIGHT:g}"/>'
        for name, q, _ in _QUANTILES
        if (value := distribution.quantile(q)) is not None
    )
    key = "".join(
        f'<li><i style="background:var(--{colour})"></i>{what}: {distribution.quantile(q) or 0.0:,.0f} ms</li>'
        for (_, q, what), colour in zip(_QUANTILES, ("agent", "dialog", "cut"), strict=True)
    )
    rest = f"<h3><span>{beyond:,} took longer than {end:,.0f} ms</span></h3>" if beyond else ""
    plot = _plot(_columns([count / most for count in counts], "column") + marks, most, "", "How long replies took")
    ticks = "".join(f'<span style="left:{100 * tick / 5:.1f}%">{end * tick / 5:,.0f} ms</span>' for tick in range(5))
    return f'<ul class="key">{key}</ul>{plot}<div class="scale" aria-hidden="true">{ticks}</div>{rest}'


def _plot(shapes: str, top: float, unit: str, label: str, *, short: bool = False) -> str:
    """Shapes on a grid whose highest line is ``top``."""
    grid = "".join(
        f'<i style="top:{100 * (1 - share):.0f}%"><b>{top * share:,.4g}{unit}</b></i>'
        for share in ((1.0,) if short else (1.0, 0.5))
    )
    return (
        f'<div class="plot{" short" if short else ""}" role="img" aria-label="{label}">{grid}'
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg></div>'
    )


def _steps(shares: Sequence[float]) -> str:
    """A filled path over columns of equal width."""
    width = _WIDTH / len(shares)
    path = f"M0 {_HEIGHT:g}"
    for number, share in enumerate(shares):
        y = _HEIGHT * (1.0 - share)
        path += f"L{number * width:.1f} {y:.1f}L{(number + 1) * width:.1f} {y:.1f}"
    return f"{path}L{_WIDTH:g} {_HEIGHT:g}Z"


def _columns(shares: Sequence[float], style: str) -> str:
    width = _WIDTH / len(shares)
    return "".join(
        f'<rect class="{style}" x="{number * width + 0.05 * width:.1f}" y="{_HEIGHT * (1 - share):.1f}" '
        f'width="{0.9 * width:.1f}" height="{max(_HEIGHT * share, 1.0):.1f}"/>'
        for number, share in enumerate(shares)
        if share
    )


def _line(values: Sequence[float | None], top: float) -> str:
    """A path through the values that there are; a lonely one gets a short dash."""
    width, path, before = _WIDTH / len(values), "", False
    for number, value in enumerate(values):
        if value is not None:
            x, y = (number + 0.5) * width, _HEIGHT * (1.0 - min(value / top, 1.0))
            path += f"{'L' if before else 'M'}{x:.1f} {y:.1f}" + ("" if before else f"h{min(width / 4, 4):.1f}")
        before = value is not None
    return path


def _scale(span_s: float) -> str:
    step = _nice(span_s / 8)
    marks = (number * step for number in range(int(span_s / step) + 1))
    return (
        '<div class="scale" aria-hidden="true">'
        + "".join(
            f'<span style="left:{100 * at / span_s:.1f}%">{_time(at)}</span>' for at in marks if at < 0.97 * span_s
        )
        + "</div>"
    )


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _nice(value: float) -> float:
    """The next 1, 2 or 5 of a power of ten that is not less."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= value * 0.9999)
