"""The demo: one whole call, recognised, answered and spoken for real; and that its failures are noticed."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from rich.console import Console

from dialog.calls import events as ev
from dialog.calls.report import SessionReport, make_report
from dialog.cli.demo import judge, run_demo
from dialog.cli.demo_call import DemoCall
from dialog.demo.script import DEMO_SCRIPT, Step
from dialog.errors import ConfigurationError

pytestmark = pytest.mark.alone


async def demo(tmp_path: Path, script: str = "", *, quiet: bool = False, speed: float = 2.0) -> tuple[int, str]:
    path = None
    if script:
        path = tmp_path / "script.txt"
        path.write_text(script)
    out = io.StringIO()
    code = await run_demo(Console(file=out, width=100), out=tmp_path / "out", script=path, quiet=quiet, speed=speed)
    return code, out.getvalue()


@pytest.mark.timeout(120)
async def test_the_demo_holds_its_call_and_leaves_recording_report_and_page(tmp_path: Path) -> None:
    code, text = await demo(tmp_path)
    assert code == 0, text
    assert "simulated" in text  # the honest notes come first
    for step in DEMO_SCRIPT:
        assert f"caller {step.say}" in " ".join(text.split())
    assert "opening_hours(" in text
    assert "book_table(" in text
    assert "the caller interrupts" in text
    assert text.count(" ms: hearing ") == len(DEMO_SCRIPT)
    with wave.open(str(tmp_path / "out" / "call.wav")) as recording:
        assert (recording.getnchannels(), recording.getsampwidth(), recording.getframerate()) == (2, 2, 8000)
        seconds = recording.getnframes() / 8000
        sides = memoryview(recording.readframes(recording.getnframes())).cast("h").tolist()
    report: dict[str, Any] = json.loads((tmp_path / "out" / "call.json").read_text())
    assert seconds == pytest.approx(report["duration_s"], abs=2)
    assert max(sides[0::2]) > 3000  # the caller
    assert max(sides[1::2]) > 3000  # the agent
    first = [next(at for at, sample in enumerate(sides[side::2]) if abs(sample) > 1000) / 8000 for side in (0, 1)]
    caller_spoke = next(event["at_s"] for event in report["events"] if event["type"] == "caller.speech")
    assert first[1] + 1 < first[0], "the agent greets, on the right, before the caller speaks, on the left"
    assert first[0] == pytest.approx(caller_spoke, abs=1)
    spoken = [turn for turn in report["turns"] if turn["caller"]]
    assert [turn["caller"] for turn in spoken] == [step.say for step in DEMO_SCRIPT]
    assert all(turn["latency_ms"] > 0 for turn in spoken)
    assert all(turn["timeline"]["final"] < turn["timeline"]["first_frame"] for turn in spoken)
    assert {"call.started", "caller.transcript", "agent.transcript", "call.ended"} <= {
        event["type"] for event in report["events"]
    }
    (cut,) = [turn for turn in spoken if turn["interrupted"]]
    assert 0 < len(cut["heard"]) < len(cut["agent"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('<path d="M') == 2
    assert "data:audio/wav;base64," in page


@pytest.mark.timeout(120)
async def test_other_sentences_can_be_said_and_what_is_not_known_is_not_answered(tmp_path: Path) -> None:
    script = "when are you open on monday\nthe weather in the mountains was lovely\nthank you very much and goodbye\n"
    code, text = await demo(tmp_path, script, quiet=True)
    assert code == 0, text
    assert "all 3 turns went as they should" in text
    assert "simulated" not in text
    report = json.loads((tmp_path / "out" / "call.json").read_text())
    monday, weather, _ = [turn["heard"] for turn in report["turns"] if turn["caller"]]
    assert "closed" in monday
    assert "did not understand" in weather


async def test_a_directory_that_cannot_be_written_is_said_before_the_call(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await demo(tmp_path)


# What makes the demo fail, told from reports.

STEPS = (Step(say="what are your opening hours on friday"), Step(say="goodbye and thank you for your help"))


def report(*said: tuple[str, str], end: str = "caller_hangup", cut: int | None = None) -> SessionReport:
    events: list[Any] = []

    def add(cls: Any, **fields: Any) -> None:
        events.append(cls(seq=len(events), at_s=float(len(events)), **fields))

    start = {"carrier": "twilio", "carrier_call_id": "CA1", "from_": "", "to": "", "direction": "inbound"}
    add(ev.CallStarted, call_id=uuid4(), started_at="2026-01-02T03:04:05", **start)
    for number, (caller, agent) in enumerate(said):
        turn = UUID(int=number)
        add(ev.CallerSaid, turn=turn, text=caller, final=True)
        if agent:
            add(ev.AgentSaid, turn=turn, part=0, text=agent, heard=agent, state="played", heard_ms=1000)
        if number == cut:
            add(ev.Interrupted, turn=turn, reason="caller spoke")
    add(ev.CallEnded, reason=end)
    return make_report(events)


def problems(*said: tuple[str, str], steps: tuple[Step, ...] = STEPS, **more: Any) -> list[str]:
    return judge(steps, DemoCall(report=report(*said, **more)))


GOOD = (("what are your opening hours on friday", "From noon."), ("goodbye and thank you for your help", "Goodbye!"))


def test_a_good_call_has_no_problems() -> None:
    assert problems(*GOOD) == []


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (GOOD[:1], "turn 2: 'goodbye and thank you for your help' was not heard"),
        ((("when are you open on friday", "x"), GOOD[1]), "was understood as 'when are you open on friday'"),
        (((GOOD[0][0], ""), GOOD[1]), "turn 1: 'what are your opening hours on friday' was not answered"),
        ((*GOOD, ("hello", "x")), "heard 1 things that nobody said"),
    ],
)
def test_every_failed_turn_is_named(said: tuple[tuple[str, str], ...], complaint: str) -> None:
    (problem,) = problems(*said)
    assert complaint in problem


def test_an_interruption_has_to_cut_the_reply() -> None:
    steps = (STEPS[0], Step(say=STEPS[1].say, barge_in_ms=1000.0))
    assert problems(*GOOD, steps=steps, cut=0) == []
    assert "did not cut off" in problems(*GOOD, steps=steps)[0]


def test_an_odd_end_errors_and_complaints_are_failures() -> None:
    assert "ended oddly: lost" in problems(*GOOD, end="lost")[0]
    assert judge(STEPS, DemoCall()) == ["the agent left no report of the call"]
    error = ev.ErrorRaised(seq=0, at_s=0, source="EspeakTTS", code="provider", text="no voice", fatal=True)
    call = DemoCall(report=report(*GOOD), errors=[error], problems=["the caller gave up"])
    assert judge(STEPS, call) == ["the caller gave up", "an error: EspeakTTS: no voice"]


def test_the_demos_own_script_has_to_use_its_tools() -> None:
    said = tuple((step.say, "Yes.") for step in DEMO_SCRIPT)
    assert problems(*said, steps=DEMO_SCRIPT, cut=2) == ["opening_hours() was not used", "book_table() was not used"]
