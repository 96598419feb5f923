from __future__ import annotations

import io
from uuid import UUID

from rich.console import Console

from dialog.calls import events as ev
from dialog.calls.timeline import TurnTimeline
from dialog.cli.show import LiveView

TURN = UUID(int=1)
TIMES = TurnTimeline(
    turn=TURN,
    end_of_speech=2.0,
    speech_source="stt_words",
    final=2.4,
    inference=2.4005,
    first_token=2.45,
    first_text=2.4502,
    first_audio=2.47,
    first_frame=2.48,
)


def shown(*events: ev.CallEvent, width: int = 100) -> list[str]:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=width))
    for event in events:
        view.show(event)
    return [row.rstrip() for row in out.getvalue().splitlines()]


def said(text: str) -> ev.CallerSaid:
    return ev.CallerSaid(seq=1, at_s=2.4, turn=TURN, text=text, final=True)


def spoke(text: str, heard: str, state: str = "played") -> ev.AgentSaid:
    return ev.AgentSaid(seq=2, at_s=64.5, turn=TURN, part=0, text=text, heard=heard, state=state, heard_ms=2000)  # type: ignore[arg-type]


def test_a_turn_is_shown_with_what_its_latency_consists_of() -> None:
    rows = shown(
        said("when are you open"), spoke("From five.", "From five."), ev.TurnMeasured(seq=3, at_s=5, timeline=TIMES)
    )
    assert rows == [
        " 0:02.4 caller when are you open",
        " 1:02.5 agent  From five.",
        "        └ 480 ms: hearing 400 · dialog 0.7 · model 50 · voice 20 · line 10",
    ]


def test_words_that_are_not_final_and_greetings_are_not_measured_aloud() -> None:
    rows = shown(
        ev.CallerSaid(seq=1, at_s=1, turn=TURN, text="when", final=False),
        ev.TurnMeasured(seq=3, at_s=5, timeline=TIMES),
    )
    assert rows == []


def test_tools_interruptions_and_errors_get_a_line() -> None:
    rows = shown(
        ev.ToolStarted(seq=1, at_s=1, turn=TURN, call_id="c", name="hours", arguments='{"day":"sunday"}'),
        ev.ToolEnded(
            seq=2, at_s=1.1, turn=TURN, call_id="c", name="hours", result="5 [to] 10", state="done", took_s=0.1
        ),
        ev.Interrupted(seq=3, at_s=2, turn=TURN, reason="caller spoke"),
        ev.ErrorRaised(seq=4, at_s=3, source="CartesiaTTS", code="provider", text="closed", fatal=False),
        ev.CallEnded(seq=5, at_s=4, reason="agent_hangup"),
    )
    assert rows == [
        ' 0:01.1 tool   hours({"day":"sunday"}) → 5 [to] 10',
        " 0:02.0        the caller interrupts: the agent stops",
        " 0:03.0 error  CartesiaTTS: closed",
        " 0:04.0 end    agent hangup",
    ]


def test_a_reply_stands_above_its_interruption_which_was_when_the_agent_fell_silent() -> None:
    rows = shown(
        ev.PausedForCaller(seq=1, at_s=63.5, turn=TURN),
        ev.Interrupted(seq=2, at_s=64.4, turn=TURN, reason="caller spoke"),
        spoke("From five to ten.", "From five", "cut"),
        ev.CallEnded(seq=4, at_s=65, reason="agent_hangup"),
    )
    assert rows == [
        " 1:01.5 agent  From five [not heard: to ten.]",
        " 1:03.5        the caller interrupts: the agent stops",
        " 1:05.0 end    agent hangup",
    ]


def test_a_long_reply_hangs_beneath_its_beginning() -> None:
    text = "On Sunday we are open from five in the afternoon until ten at night, and the kitchen closes at nine."
    rows = shown(spoke(text, text), width=60)
    assert len(rows) > 1
    assert all(len(row) <= 60 for row in rows)
    assert all(row.startswith(" " * 15) for row in rows[1:])
    assert " ".join([rows[0][15:], *(row.strip() for row in rows[1:])]) == text


def test_what_was_not_heard_is_told_apart_and_the_pause_is_no_speech() -> None:
    rows = shown(
        ev.PausedForCaller(seq=1, at_s=63.5, turn=TURN),
        spoke("From five to ten.", "From five", "cut"),
        spoke("A second part.", "", "lost"),
    )
    assert rows == [" 1:01.5 agent  From five [not heard: to ten.]", " 1:01.5 agent   [not heard: A second part.]"]
