"""A load on one page: what its callers met, over time and in figures.

The page is one HTML file that needs nothing else: no script, style, font or picture from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from dialog.calls.page import base_style
from dialog.testing.load_figures import Distribution, Figures
from dialog.testing.load_limits import Limit
from dialog.testing.load_outcome import CallOutcome
from dialog.testing.load_plan import LoadPlan
from dialog.testing.load_plots import columns, over_time
from dialog.testing.load_report import LoadReport, void_reason

__all__ = ["make_load_page"]

_MOST_CALLS = 200
_TIMES = (
    ("answer", "Webhook answered", "until its TwiML was here"),
    ("first_audio", "Webhook to first sound", "as the caller hears it"),
    ("reply", "End of speech to reply", "last sound of the caller to the first of the agent"),
    ("gaps", "Gaps", "holes in what was heard, up to 400 ms"),
    ("dead_air", "Dead air", "waits for a sound over 2 s"),
    ("lag", "The generator's own lag", "how late it sent its frames"),
)
_STATUSES = {
    "done": "went as planned",
    "stopped": "went well until the load was stopped",
    "unanswered": "something that was said was not answered in time",
    "ended_early": "the agent's side ended it before all was said",
    "not_ended": "was not over when its longest time was",
    "cut": "the media socket broke, and nothing came after",
    "said": "TwiML said something and ended the call",
    "rejected": "TwiML rejected it",
    "refused": "a webhook was not answered with TwiML",
    "no_stream": "there was no media stream",
    "generator": "the generator failed itself",
}


def make_load_page(report: LoadReport, limits: Sequence[Limit] = ()) -> str:
    """The HTML page of a load, with the verdict on ``limits``."""
    figures, plan = report.figures, report.plan
    cores = figures.cpu_s / figures.seconds if figures.seconds else 0.0
    generator = (
        ("Late by (99 %)", _ms(figures.lag.quantile(0.99))),
        ("Late by (longest)", _ms(figures.lag.quantile(1.0))),
        ("Processes", str(plan.processes)),
        ("Cores busy", f"{cores:.2f}"),
        ("Gaps that may be its own", str(figures.own_gaps)),
        ("Calls that it failed", str(figures.statuses.get("generator", 0))),
    )
    return _template().substitute(
        base=base_style(),
        title=f"A load of {figures.dialled:,} calls",
        subtitle=_subtitle(report),
        banner=_banner(report, limits),
        facts=_facts(figures),
        over_time=over_time(figures),
        histogram=columns(figures.reply),
        times="".join(_time_row(figures, *row) for row in _TIMES),
        limits=_limits(report, limits),
        statuses=_statuses(figures),
        calls=_calls(report.outcomes),
        generator="".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in generator),
        footer="Times in milliseconds of the callers' clock; a percentile is exact to one per cent.",
    )


@cache
def _template() -> Template:
    return Template(files("dialog.testing").joinpath("load_page.html").read_text("utf-8"))


def _subtitle(report: LoadReport) -> str:
    plan = report.plan
    parts = (
        plan.url,
        report.started_at[:19].replace("T", " "),
        f"{report.figures.seconds:.0f} s",
        *_plan_words(plan),
        "stopped before its end" if report.stopped else "",
    )
    return " · ".join(escape(part) for part in parts if part)


def _plan_words(plan: LoadPlan) -> Iterable[str]:
    yield f"{plan.calls_per_s:g} calls a second, at most {plan.concurrency} at a time"
    yield f"utterances of a call: {plan.turns}" if plan.turns is not None else f"talking for {plan.call_s:g} s"
    yield f"hang-up: {plan.hang_up}"


def _banner(report: LoadReport, limits: Sequence[Limit]) -> str:
    broken = report.broken(limits)
    texts = ([f"Void: {report.void}."] if report.void else []) + [f"Failed: {what}." for what in broken]
    return "".join(f'<p class="banner" role="status">{escape(text)}</p>' for text in texts)


def _facts(figures: Figures) -> str:
    facts = (
        ("Calls", f"{figures.ended:,}", False),
        ("Live at most", f"{figures.live_most:,}", False),
        ("Done", f"{figures.statuses.get('done', 0):,}", False),
        ("Failed", f"{figures.failed:,}", figures.failed > 0),
        ("Median reply", _ms(figures.reply.quantile(0.5)), False),
        ("95 % within", _ms(figures.reply.quantile(0.95)), False),
        ("Utterances answered", f"{figures.replies:,} of {figures.turns:,}", figures.unanswered > 0),
        ("Gaps heard", f"{figures.gaps.count:,}", figures.gaps.count > 0),
        ("Dead air over 2 s", f"{figures.dead_air.count:,}", figures.dead_air.count > 0),
        ("Sockets cut", f"{figures.cuts:,}", figures.cuts > 0),
        ("First sound, 95 % within", _ms(figures.first_audio.quantile(0.95)), False),
        ("Generator late by, 99 %", _ms(figures.lag.quantile(0.99)), bool(void_reason(figures))),
    )
    return "".join(
        f'<div class="{"bad" if bad else "fact"}"><dt>{name}</dt><dd>{escape(value)}</dd></div>'
        for name, value, bad in facts
    )


def _time_row(figures: Figures, name: str, what: str, more: str) -> str:
    found: Distribution = getattr(figures, name)
    values = (found.mean, *(found.quantile(q) for q in (0.5, 0.9, 0.95, 0.99, 1.0)))
    cells = "".join(f'<td class="num">{_ms(value)}</td>' for value in values)
    return (
        f'<tr><td><b>{what}</b> <span class="soft">{more}</span></td><td class="num">{found.count:,}</td>{cells}</tr>'
    )


def _limits(report: LoadReport, limits: Sequence[Limit]) -> str:
    if not limits:
        return '<p class="sub">None were given.</p>'
    rows: list[str] = []
    for limit in limits:
        value, broken = report.figures.value(limit.name), limit.broken(report.figures)
        verdict = '<td class="bad">broken</td>' if broken else '<td class="good">holds</td>'
        shown = "not measured" if value is None else f"{value:,.6g}"
        rows.append(f'<tr><td><code>{escape(str(limit))}</code></td><td class="num">{shown}</td>{verdict}</tr>')
    heads = '<tr><th>Failed if</th><th class="num">it is</th><th>verdict</th></tr>'
    return f"<table><thead>{heads}</thead><tbody>{''.join(rows)}</tbody></table>"


def _statuses(figures: Figures) -> str:
    rows = "".join(
        f"<tr><td><b>{escape(status.replace('_', ' '))}</b> "
        f'<span class="soft">{_STATUSES.get(status, "")}</span></td><td class="num">{count:,}</td></tr>'
        for status, count in sorted(figures.statuses.items(), key=lambda item: -item[1])
    )
    errors = "".join(
        f'<tr><td class="bad">{escape(what)}</td><td class="num">{count:,}</td></tr>'
        for what, count in sorted(figures.errors.items(), key=lambda item: -item[1])
    )
    table = f"<table><tbody>{rows or '<tr><td>No call is over.</td></tr>'}</tbody></table>"
    if errors:
        table += f"<h3>What went wrong</h3><table><tbody>{errors}</tbody></table>"
    return table


def _calls(outcomes: Sequence[CallOutcome]) -> str:
    """The calls, those that failed first, then those that waited longest."""
    worst = sorted(outcomes, key=_worst, reverse=True)
    rows = "".join(_call_row(outcome) for outcome in worst[:_MOST_CALLS])
    if not rows:
        return '<p class="sub">No call is over.</p>'
    note = f"The {_MOST_CALLS} worst of {len(outcomes):,}. " if len(outcomes) > _MOST_CALLS else ""
    heads = (
        '<th class="num">Call</th><th class="num">dialled at</th><th>outcome</th><th class="num">lasted</th>'
        '<th class="num">answered</th><th class="num">slowest</th><th class="num">gaps</th>'
        '<th class="num">dead air</th><th class="num">streams</th><th>SID</th>'
    )
    return (
        f'<p class="sub">{note}The gateway\'s own log has each call by its SID.</p>'
        f'<div class="log scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _worst(outcome: CallOutcome) -> tuple[bool, int, float]:
    return outcome.failed, len(outcome.dead_air) + outcome.gaps, max(outcome.reply_ms, default=0.0)


def _call_row(outcome: CallOutcome) -> str:
    status = escape(outcome.status.replace("_", " "))
    detail = f' <span class="soft">{escape(outcome.detail)}</span>' if outcome.detail else ""
    bad = ' class="bad"' if outcome.failed else ""
    return (
        f'<tr><td class="num">{outcome.number}</td><td class="num">{outcome.dialled_s:.1f} s</td>'
        f"<td{bad}>{status}{detail}</td>"
        f'<td class="num">{outcome.duration_s:.1f} s</td><td class="num">{outcome.replies}/{outcome.turns}</td>'
        f'<td class="num">{_ms(max(outcome.reply_ms, default=None))}</td><td class="num">{outcome.gaps}</td>'
        f'<td class="num">{len(outcome.dead_air)}</td><td class="num">{outcome.streams}</td>'
        f"<td><code>{escape(outcome.call_sid)}</code></td></tr>"
    )


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f} ms" if value >= 9.95 else f"{value:.1f} ms"
