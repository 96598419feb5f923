from __future__ import annotations

import io
import re
import struct
import wave
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest

from dialog.calls import events as ev
from dialog.calls.page import make_page
from dialog.calls.report import SessionReport, make_report
from dialog.calls.stages import median_latency_ms, stages_of
from dialog.calls.timeline import TurnTimeline
from dialog.errors import ConfigurationError

A, B = UUID(int=1), UUID(int=2)
VOID = {"meta", "link", "br", "img"}


def report(*, asked: str = "When are you open?") -> SessionReport:
    events: list[Any] = []

    def add(cls: Any, at_s: float, **fields: Any) -> None:
        events.append(cls(seq=len(events), at_s=at_s, **fields))

    add(
        ev.CallStarted,
        0.0,
        call_id=UUID(int=9),
        carrier="twilio",
        carrier_call_id="CA1",
        from_="+15551230001",
        to="+15551230002",
        direction="inbound",
        started_at="2026-01-02T03:04:05.678+00:00",
    )
    add(ev.StreamChanged, 0.5, state="live", generation=1)
    add(ev.CallerSaid, 2.5, turn=A, text=asked, final=True, start_ms=1000, end_ms=2000)
    add(ev.ToolStarted, 2.6, turn=A, call_id="c", name="opening_hours", arguments='{"day":"sunday"}')
    add(ev.ToolEnded, 2.7, turn=A, call_id="c", name="opening_hours", result="5 to 10", state="done", took_s=0.1)
    add(ev.PausedForCaller, 3.6, turn=A)
    add(ev.Interrupted, 4.0, turn=A, reason="caller spoke")
    add(ev.AgentSaid, 4.0, turn=A, part=0, text="From five to ten.", heard="From five", state="cut", heard_ms=900)
    timeline = TurnTimeline(
        turn=A,
        end_of_speech=2.0,
        speech_source="stt_words",
        final=2.4,
        inference=2.41,
        first_token=2.5,
        first_text=2.51,
        first_audio=2.6,
        first_frame=2.62,
        played=3.5,
    )
    add(ev.TurnMeasured, 4.1, timeline=timeline)
    add(ev.CallEnded, 5.0, reason="caller_hangup")
    return make_report(events)


def recording(seconds: float = 4.0, *, channels: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(struct.pack("<hh", 8000, -4000) * int(seconds * 8000 * channels / 2))
    return file.getvalue()


class Checker(HTMLParser):
    """Every element is closed, and nothing is loaded from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # <path/> closes itself and loads nothing

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    page = make_page(report(), recording())
    checker = checked(page)
    assert [re.sub(";.*", "", url) for url in checker.loaded] == ["data:audio/wav"]
    assert "http:" not in page.replace('"Content-Security-Policy"', "")
    assert "https:" not in page
    assert "default-src 'none'" in page


def test_the_page_tells_what_was_said_used_and_not_heard() -> None:
    page = make_page(report(), recording())
    text = checked(page).text
    assert "When are you open?" in text
    assert 'opening_hours({"day":"sunday"})' in text
    assert '<span class="unheard" title="not heard"> to ten.</span>' in page
    assert "interrupted at 0:03.6" in text
    assert "after 620 ms" in text
    assert 'data-at="2.620" aria-label="Play from 0:02.6"' in page
    assert "Ended bycaller" in text


def test_both_waveforms_are_drawn_where_they_sounded() -> None:
    page = make_page(report(), recording())
    paths = re.findall(r'<path d="M([^"]+)Z"', page)
    assert len(paths) == 2
    for path in paths:
        xs = [float(point.split()[0]) for point in path.split("L")]
        assert min(xs) == pytest.approx(100, abs=0.5)  # the recording begins with the stream, at 0.5 s of 5
        assert max(xs) == pytest.approx(900, abs=1)


def test_what_the_caller_said_is_text_never_markup() -> None:
    page = make_page(report(asked='</script><script>alert("x")</script>$title & "more"'), title="<b>$call</b>")
    assert "alert(&quot;x&quot;)" in page
    assert page.count("<script>") == 1
    assert "<h1>&lt;b&gt;$call&lt;/b&gt;</h1>" in page


def test_the_waterfall_says_every_stage_of_a_turn() -> None:
    (turn,) = report().turns
    assert turn.timeline is not None
    stages = [(stage.kind, round(stage.ms)) for stage in stages_of(turn.timeline)]
    assert stages == [("hearing", 400), ("dialog", 10), ("model", 90), ("dialog", 10), ("voice", 90), ("line", 20)]
    assert sum(ms for _, ms in stages) == round(turn.latency_ms or 0)
    row = re.search(r'<tr><td class="num">1</td>.*?</tr>', make_page(report()))
    assert row is not None
    numbers = re.findall(r'<td class="num">(?:<strong>)?([\d.]+)', row[0])
    assert numbers == ["1", "400.0", "20.0", "90.0", "90.0", "20.0", "620"]


def test_stages_that_were_not_seen_are_left_out() -> None:
    assert stages_of(TurnTimeline(turn=A)) == ()
    partial = TurnTimeline(turn=A, inference=1.0, first_token=1.5, first_frame=2.0)
    assert [stage.kind for stage in stages_of(partial)] == ["model"]


def test_a_call_without_a_recording_or_answers_still_makes_a_page() -> None:
    short = report()
    bare = make_report([event for event in short.events if isinstance(event, (ev.CallStarted, ev.CallEnded))])
    text = checked(make_page(bare)).text
    assert "There is no recording" in text
    assert "No answer was measured" in text
    assert median_latency_ms(bare) is None


@pytest.mark.parametrize("wrong", [b"RIFF", b"no wave", recording(channels=1)])
def test_a_recording_of_another_kind_is_refused(wrong: bytes) -> None:
    with pytest.raises(ConfigurationError, match="recording"):
        make_page(report(), wrong)


def test_a_long_call_is_drawn_within_bounds() -> None:
    page = make_page(report(), recording(600))
    assert len(page) < 2_000_000
    assert "too long to be part of this page" in page
    assert "min-width: 7206px" in page
