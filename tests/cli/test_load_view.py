"""What the load shows in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dialog.cli.load_view import line, live, show
from dialog.testing.load import Figures, LoadPlan, LoadReport
from dialog.testing.load_report import void_reason

PLAN = LoadPlan(url="http://127.0.0.1:8080/twilio", auth_token="secret", calls=400, calls_per_s=5)


def figures(*, lag_ms: float = 1.0, seconds: int = 300) -> Figures:
    out = Figures(seconds=float(seconds), cpu_s=30.0)
    for second in range(seconds):
        out.took_up(second)
        out.replied(second, 400.0 + second)
        out.turns += 1
        out.replies += 1
        out.lag.add(lag_ms)
        if second >= 20:
            failed = second % 50 == 0
            out.over(second, "cut" if failed else "done", "media socket closed with 1006" if failed else "")
    return out


def shown(*parts, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    for part in parts:
        console.print(part)
    return console.export_text()


def test_the_live_figures_fit_into_a_terminal_of_80_columns():
    text = shown(live(PLAN, figures()))
    lines = text.splitlines()
    assert "dialled 300   live 20   done 275   failed 5" in text
    row = next(row for row in lines if row.startswith("end of speech to reply"))
    assert row.split()[5] == "300"
    assert [int(ms) for ms in row.split()[6::2]] == pytest.approx([549, 669, 684, 696, 699], rel=0.011)
    bars = next(row for row in lines if row.startswith("live calls"))
    assert len(bars.split()[2]) <= 60
    assert bars.endswith("at most 21")
    assert "media socket closed with 1006" in text


def test_a_load_that_has_not_begun_shows_noughts():
    text = shown(live(PLAN, Figures()))
    assert "dialled 0   live 0   done 0   failed 0" in text


def test_a_line_for_a_log_has_the_main_figures():
    text = shown(line(figures()), width=200)
    assert " 5:00  dialled 300  live 20  done 275  failed 5  reply p50 554 ms p95 689 ms" in text


def test_the_end_tells_what_is_broken_and_what_is_void():
    late = figures(lag_ms=45.0)
    report = LoadReport(plan=PLAN, started_at="", stopped=True, figures=late, outcomes=(), void=void_reason(late))
    console = Console(file=io.StringIO(), width=100, record=True)
    show(console, report, ["failed>0: it is 5"])
    text = console.export_text()
    assert "stopped before its end" in text
    assert "✗ failed>0: it is 5" in text
    assert "✗ void: the generator itself was late by 45 ms" in text
    assert "0.10 cores busy" in text
    rows = [row for row in text.splitlines() if "█" in row and " ms" in row[:12]]
    assert sum(int(row.split()[-1]) for row in rows) == 300
