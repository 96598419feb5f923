"""The figures of a load in the terminal, while it runs and at its end."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dialog.testing.load_figures import Distribution, Figures, Moment
from dialog.testing.load_metronome import LATE_MS
from dialog.testing.load_plan import LoadPlan
from dialog.testing.load_report import LoadReport

__all__ = ["line", "live", "show"]

_BARS = "▁▂▃▄▅▆▇█"
_COLUMNS = 60
_ROWS = 12
_TIMES = (
    ("answer", "webhook answered"),
    ("first_audio", "webhook to first sound"),
    ("reply", "end of speech to reply"),
    ("gaps", "gaps in what was heard"),
    ("dead_air", "dead air over 2 s"),
    ("lag", "the generator's own lag"),
)


def live(plan: LoadPlan, figures: Figures) -> RenderableType:
    """The figures so far."""
    return Group(_head(plan, figures), _counts(figures), *_over_time(figures), _times(figures), *_errors(figures))


def line(figures: Figures) -> Text:
    """The figures so far in one line, for a log."""
    lag = figures.lag.quantile(0.99)
    return Text(
        f"{_clock(figures.seconds)}  dialled {figures.dialled}  live {figures.live}  "
        f"done {figures.statuses.get('done', 0)}  failed {figures.failed}  "
        f"reply p50 {_ms(figures.reply.quantile(0.5))} p95 {_ms(figures.reply.quantile(0.95))}  "
        f"gaps {figures.gaps.count}  dead air {figures.dead_air.count}  cut {figures.cuts}  own lag {_ms(lag)}"
    )


def show(console: Console, report: LoadReport, broken: Sequence[str]) -> None:
    """Print what came of a load."""
    figures = report.figures
    for part in (_head(report.plan, figures), _counts(figures), *_over_time(figures), _times(figures)):
        console.print(part)
    for part in (*_histogram(figures.reply), *_errors(figures)):
        console.print(part)
    cores = figures.cpu_s / figures.seconds if figures.seconds else 0.0
    console.print(Text(f"generator: {report.plan.processes} processes, {cores:.2f} cores busy", "dim"))
    if report.stopped:
        console.print(Text("stopped before its end", "yellow"))
    for what in broken:
        console.print(Text(f"✗ {what}", "bold red"), soft_wrap=True)
    if report.void:
        console.print(Text(f"✗ void: {report.void}", "bold red"), soft_wrap=True)


def _head(plan: LoadPlan, figures: Figures) -> Text:
    goal = [f"{plan.total} calls" if plan.total is not None else "", f"{plan.calls_per_s:g} a second"]
    if plan.duration_s is not None:
        goal.insert(1, f"for {plan.duration_s:g} s")
    goal.append(f"at most {plan.concurrency} at a time")
    return Text.assemble(
        (f"{_clock(figures.seconds)}  ", "bold"), (plan.url, "bold"), f"  {', '.join(filter(None, goal))}"
    )


def _counts(figures: Figures) -> Text:
    done, stopped = figures.statuses.get("done", 0), figures.statuses.get("stopped", 0)
    parts: list[tuple[str, int, str]] = [
        ("dialled", figures.dialled, ""),
        ("live", figures.live, "cyan"),
        ("done", done, "green"),
        ("failed", figures.failed, "bold red" if figures.failed else ""),
        ("stopped", stopped, ""),
        ("utterances", figures.turns, ""),
        ("answered", figures.replies, ""),
        ("unanswered", figures.unanswered, "red" if figures.unanswered else ""),
        ("sockets cut", figures.cuts, "red" if figures.cuts else ""),
    ]
    text = Text()
    for name, value, style in parts:
        if value or name in ("dialled", "live", "done", "failed"):
            text.append(f"{name} ", "dim").append(f"{value:,}   ", style or "bold")
    return text


def _over_time(figures: Figures) -> list[RenderableType]:
    moments = figures.moments
    if not moments:
        return []
    columns = _squeezed(moments)
    each = figures.interval_s * len(moments) / len(columns)
    most = max(moment.live for moment in columns)
    rows = [_spark("live calls", [moment.live for moment in columns], f"at most {most}", "cyan")]
    if figures.reply.count:
        slow = [moment.reply.quantile(0.95) for moment in columns]
        rows.append(_spark("reply p95", slow, f"at most {_ms(max(value or 0.0 for value in slow))}", "green"))
    if figures.failed:
        rows.append(_spark("failed", [moment.failed for moment in columns], f"{figures.failed} in all", "red"))
    rows[-1].append(f"   a column is {each:.3g} s", "dim")
    return list(rows)


def _squeezed(moments: Sequence[Moment]) -> list[Moment]:
    """The same in at most sixty columns."""
    step = -(-len(moments) // _COLUMNS)
    out: list[Moment] = []
    for start in range(0, len(moments), step):
        column = Moment()
        for moment in moments[start : start + step]:
            most = max(column.live, moment.live)
            column.merge(moment)
            column.live = most
        out.append(column)
    return out


def _spark(name: str, values: Sequence[float | None], note: str, style: str) -> Text:
    most = max((value for value in values if value is not None), default=0.0) or 1.0
    bars = "".join(" " if not value else _BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)
    return Text.assemble((f"{name:<11}", "dim"), (bars, style), (f" {note}", "dim"))


def _times(figures: Figures) -> Table:
    table = Table("", box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.columns[0].no_wrap = True
    for name in ("count", "p50", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right", min_width=7)
    for name, what in _TIMES:
        found: Distribution = getattr(figures, name)
        style = ""
        if name == "lag":
            late = found.quantile(0.99)
            style = "bold red" if late is not None and late > LATE_MS else "dim"
        cells = (_ms(found.quantile(q)) for q in (0.5, 0.9, 0.95, 0.99, 1.0))
        table.add_row(what, f"{found.count:,}" if name != "lag" else "", *cells, style=style)
    return table


def _histogram(distribution: Distribution) -> list[RenderableType]:
    """How replies are distributed, in a dozen rows of equal width; the last has all that is slower."""
    top = distribution.quantile(0.99)
    if distribution.count < 5 or top is None:
        return []
    low = distribution.least
    width = max((top - low) / (_ROWS - 1), 0.03 * top)  # no finer than what is known
    edges = [0.985 * low + row * width for row in range(_ROWS)]
    counts = [
        distribution.between(edge, edges[row + 1] if row + 1 < _ROWS else float("inf"))
        for row, edge in enumerate(edges)
    ]
    most = max(counts) or 1
    rows: list[RenderableType] = [Text("end of speech to reply", "bold")]
    for row, (edge, count) in enumerate(zip(edges, counts, strict=True)):
        label = f"{edge:6.0f} ms" if row < _ROWS - 1 else f"{edge:6.0f} ms and more"
        bar = "█" * round(40 * count / most) or ("▏" if count else "")
        rows.append(Text.assemble((f"{label:<20}", "dim"), (bar, "green"), f" {count:,}" if count else ""))
    return rows


def _errors(figures: Figures) -> list[RenderableType]:
    return [
        Text.assemble((f"{count:>7,}  ", "bold red"), what)
        for what, count in sorted(figures.errors.items(), key=lambda error: -error[1])[:10]
    ]


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60):>2}:{int(seconds % 60):02}"
