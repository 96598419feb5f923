"""What the page of a call says of its numbers."""

from __future__ import annotations

import re
from uuid import UUID

import msgspec
import pytest

from dialog.calls import events as ev
from dialog.calls.metrics import DeadAir, SessionMetrics
from dialog.calls.page import make_page
from dialog.calls.page_numbers import numbers_html, silence_marks
from dialog.calls.report import SessionReport, make_report
from dialog.calls.timeline import TurnTimeline

A = UUID(int=1)


def report(**numbers: object) -> SessionReport:
    start = ev.CallStarted(
        seq=0,
        at_s=0.0,
        call_id=UUID(int=9),
        carrier="memory",
        carrier_call_id="",
        from_="",
        to="",
        direction="inbound",
        started_at="2026-01-02T03:04:05.678+00:00",
    )
    timeline = TurnTimeline(
        turn=A, end_of_speech=1.0, speech_source="vad", final=1.3, inference=1.3, first_token=3.9, first_frame=4.5
    )
    events: list[ev.CallEvent] = [
        start,
        ev.CallerSaid(seq=1, at_s=1.3, turn=A, text="Hello <you>", final=True),
        ev.Warned(seq=2, at_s=1.4, code="vad_fallback", text="the <b>provider</b> decides"),
        ev.CallerUnheard(seq=3, at_s=1.5, waited_s=5),
        ev.IdlePrompted(seq=4, at_s=1.6, count=1),
        ev.AgentSaid(
            seq=5, at_s=5.5, turn=A, part=0, text="Hm.", heard="Hm.", state="played", heard_ms=1000, filler=True
        ),
        ev.TurnMeasured(seq=6, at_s=5.5, timeline=timeline),
        ev.CallEnded(seq=7, at_s=10.0, reason="caller_hangup"),
    ]
    made = make_report(events)
    return msgspec.structs.replace(made, metrics=msgspec.structs.replace(made.metrics, **numbers))


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_every_measured_stage_has_its_row():
    shown = text(numbers_html(report().metrics))
    assert "Recognition until what the caller said is final 300 ms 300 ms 300 ms 1" in shown
    assert "First token until the model's first word 2600 ms" in shown
    assert "Decision until the answer is begun 0.0 ms" in shown
    assert "Answer from the end of speech to the first sound 3500 ms 3500 ms 3500 ms 1" in shown
    assert "Synthesis" not in shown
    assert "told by a VAD (1)." in shown


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ({"false_interruptions": 3}, "False interruptions 3"),
        (
            {"speculations_saved": 2, "speculations_wasted": 1, "speculation_saved_ms": 500.0},
            "Early starts used 2 of 3",
        ),
        ({"speculations_saved": 2, "speculation_saved_ms": 500.0}, "Saved by each 250 ms"),
        ({"speculations_wasted": 2}, "Early starts used 0 of 2"),
        ({"input_tokens": 4000, "cached_tokens": 3000}, "Tokens in 4,000 (3,000 cached)"),
        ({"longest_silence": None}, "Longest wait for a sound not measured"),
        ({"unheard": 1}, "Voices without words 1"),
        ({"tools_failed": 1}, "Tools that failed 1"),
        ({}, "Longest wait for a sound 3.50 s"),
        ({}, "Waits over 2 s 1"),
    ],
)
def test_what_was_counted_is_shown(numbers: dict[str, object], shown: str):
    assert shown in text(numbers_html(report(**numbers).metrics))


def test_what_never_happened_is_left_out():
    shown = text(numbers_html(SessionMetrics()))
    for name in ("Early starts", "Saved by", "Fillers", "Tokens", "failed"):
        assert name not in shown
    assert "No stage of an answer was measured" in shown
    assert "Nobody has waited for an answer." in shown


def test_dead_air_is_drawn_where_it_was():
    metrics = SessionMetrics(dead_air=(DeadAir(begin_s=5, seconds=2.5),))
    assert 'left:25.000%;width:12.500%" title="2.5 s of dead air"' in silence_marks(metrics, 20.0)
    page = make_page(report())
    assert 'class="dead" style="left:10.000%;width:35.000%"' in page
    assert "the caller waits for a sound" in page
    assert "the caller waits for a sound" not in make_page(report(dead_air=()))


def test_the_page_tells_of_fillers_warnings_and_voices_without_words():
    page = make_page(report())
    assert "<em>filler</em>" in page
    assert "the &lt;b&gt;provider&lt;/b&gt; decides" in page
    assert "no words came within 5.0 s" in page
    assert "nobody had spoken for a while" in page
    assert "<dt>95 % within</dt><dd>3500 ms</dd>" in page
