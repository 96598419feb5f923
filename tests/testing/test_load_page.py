"""The page of a load: well formed, self-contained, and true to the figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from dialog.testing.load import CallOutcome, Figures, Limit, LoadPlan, LoadReport
from dialog.testing.load_page import make_load_page

VOID = {"meta", "path", "rect", "link", "br"}


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def checked(page: str) -> str:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker.text


def outcome(number: int, status="done", **more) -> CallOutcome:
    return CallOutcome(number=number, call_sid=f"CA{number:032}", status=status, **more)


def report(*, calls: int = 40, void: str = "", **plan) -> LoadReport:
    figures = Figures(seconds=60.0, cpu_s=6.0)
    outcomes = []
    for number in range(1, calls + 1):
        failed = number % 10 == 0
        figures.took_up(number)
        figures.answer.add(5.0)
        figures.replied(number + 3, 300.0 + number)
        figures.lag.add(1.0)
        figures.over(number + 10, "cut" if failed else "done", "media <closed>" if failed else "")
        outcomes.append(
            outcome(number, "cut" if failed else "done", detail="media <closed>" if failed else "", turns=1, replies=1,
                    reply_ms=(300.0 + number,))
        )  # fmt: skip
    usual = {"url": 'http://127.0.0.1/twilio?a=<b>&c="d"', "auth_token": "secret"}
    return LoadReport(
        plan=LoadPlan(**{**usual, **plan}),
        started_at="2026-01-02T03:04:05+00:00",
        stopped=False,
        figures=figures,
        outcomes=tuple(outcomes),
        void=void,
    )


def test_the_page_is_well_formed_and_needs_nothing_else():
    page = make_load_page(report(), [Limit.parse("failed>0"), Limit.parse("p95_reply_ms>60000")])
    text = checked(page)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=|url\(|<script", page)
    assert "nan" not in page.lower().replace("nance", "")
    assert "A load of 40 calls" in text
    assert 'http://127.0.0.1/twilio?a=<b>&c="d"' in text
    assert "secret" not in page


def test_the_page_tells_the_figures_the_limits_and_the_worst_calls_first():
    page = make_load_page(report(), [Limit.parse("failed>0"), Limit.parse("p95_reply_ms>60000")])
    text = checked(page)
    assert "Failed: failed>0: it is 4." in text
    assert len(re.findall(r'class="good">holds', page)) == 1
    assert len(re.findall(r'class="bad">broken', page)) == 1
    assert re.findall(r"CA0+(\d+)", page)[:5] == ["40", "30", "20", "10", "39"]
    assert "media <closed>" in text


def test_every_plot_stays_inside_its_frame():
    page = make_load_page(report())
    paths = re.findall(r'<path class="(\w+[ \w]*)" d="([^"]+)"', page)
    assert {name for name, _ in paths} >= {"live", "line p50", "line p95", "line p99"}
    for name, path in paths:
        if name.startswith("mark"):
            continue
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path):
            assert 0 <= float(x) <= 1000
            assert 0 <= float(y) <= 100
    for x, y, width, height in re.findall(
        r'<rect [^>]*x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', page
    ):
        assert float(x) + float(width) <= 1000.1
        assert float(y) + float(height) <= 101


def test_a_void_load_says_so_before_anything_else():
    text = checked(make_load_page(report(void="the generator itself was late by 40 ms")))
    assert text.index("Void: the generator itself was late by 40 ms") < text.index("Over time")


@pytest.mark.parametrize("calls", [0, 1, 1000])
def test_nothing_one_call_and_a_thousand_have_a_page(calls):
    text = checked(make_load_page(report(calls=calls)))
    assert f"A load of {calls:,} calls" in text
    assert ("Nothing was dialled." in text) is (calls == 0)
    assert ("The 200 worst of 1,000." in text) is (calls == 1000)
