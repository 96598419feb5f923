"""An agent that uses its client's tool, twice, and says what came of it."""

from __future__ import annotations

from uuid import uuid4

from dialog.agent.agent import Agent
from dialog.agent.tools import tool
from dialog.llm.llm import ToolResult
from dialog.message import Message
from dialog.testing.doubles import HummingTTS
from dialog.testing.model import ToolUse
from dialog.testing.scripted import ScriptedLLM


class Guide(Agent):
    @tool
    async def opening_hours(self, day: str) -> str:
        """When it is open."""
        return day


def on_voip(voip):
    def answer(request):
        results = [each.content for each in request.items if isinstance(each, ToolResult)]
        return ToolUse("show_map", {"place": "x"}) if len(results) < 2 else ", then ".join(results)

    agent = Guide(voip=voip, tts=HummingTTS(ms_per_char=5), llm=ScriptedLLM(answer))
    agent.activate()
    agent.post(Message(uuid=uuid4(), data="where are you"))
