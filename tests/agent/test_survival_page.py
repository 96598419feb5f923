"""The page about survival: what its code does when a worker dies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from survival import Survivor

from dialog import AgentSettings, SessionMetrics
from dialog.agent.ledger import _KEPT_S
from dialog.calls import events as ev
from dialog.llm.llm import Entry, ToolResult
from dialog.testing.model import ToolUse
from dialog.testing.scripted import ScriptedLLM
from dialog.testing.virtual import run_virtual

PAGE = Path(__file__).parents[2] / "docs" / "survival.md"


def names() -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "page"}
    for source in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(source, "survival.md", "exec"), found)
    return found


def with_model(kind: type, script: list[Any], **options: Any) -> Any:
    """An agent of the page's class, whose model is scripted."""
    agent = kind(api_key="not-used", **options)
    agent.llm = ScriptedLLM(script)
    return agent


def test_the_waiter_remembers_the_orders():
    page = names()
    scripts = [
        [ToolUse("order", {"dish": "soup"}), "Soup it is."],
        [ToolUse("order", {"dish": "fish"}), "And fish."],
    ]

    async def run(clock: Any) -> None:
        call = Survivor(
            clock, lambda voip, stt, tts: with_model(page["Waiter"], scripts.pop(0), voip=voip, stt=stt, tts=tts)
        )
        call.says("soup please")
        await call.quiet()
        call.life.die()
        await call.quiet()
        call.says("and fish")
        await call.quiet()
        assert call.agent.orders == ["soup", "fish"]
        results = [item.content for item in call.agent.history.items() if isinstance(item, ToolResult)]
        assert results == ["ordered: soup", "ordered: soup, fish"]
        words = [item.text for item in call.agent.history.items() if isinstance(item, Entry)]
        assert words == ["soup please", "Soup it is.", "and fish", "And fish."]
        report = page["whole_report"](call.journal)
        assert [turn.caller for turn in report.turns] == ["soup please", "and fish"]
        assert any(isinstance(event, ev.CallResumed) for event in report.events)
        await call.over()

    run_virtual(run)


def test_the_page_names_the_settings_and_counts_that_there_are():
    text = " ".join(PAGE.read_text().split())
    assert f'`AgentSettings.outage` ("{AgentSettings().outage}")' in text
    assert hasattr(AgentSettings(), "failure")
    assert SessionMetrics().resumed == 0
    assert _KEPT_S == 2.0, "within two seconds, says the page"
