"""Calls that end, by whoever and at whatever point."""

from __future__ import annotations

from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import Silence as SilenceSettings
from dialog.agent.turns.settings import TurnSettings
from dialog.testing.openai import ToolUse
from dialog.testing.scenario import At, Expect, HangUp, Say, WaitEnd
from dialog.testing.scenario_case import GREETING, LISTEN, STORY, STORY_REPLY, TELL, Case, case
from dialog.testing.scenario_house import GOODBYE, Reply

__all__ = ["LEAVING"]

LEAVING: tuple[Case, ...] = (
    case(
        "hang-up in the greeting",
        "history holds what was heard of the greeting",
        HangUp(at=At(reply_ms=(900, 1500))),
        expect=Expect(history=("agent: Good evening.{0,40}",)),
        greeting=GREETING,
    ),
    case(
        "hang-up while listening",
        "a call that ends while nobody speaks ends once",
        LISTEN,
        HangUp(at=At(after_s=0.5)),
        expect=Expect(history=("agent: Good evening.*",), events=("stream", "call.measured", "call.ended")),
        greeting="Good evening.",
    ),
    case(
        "hang-up while thinking",
        "a reply that nobody will hear is not made any further",
        TELL,
        HangUp(at=At(after_s=(0.8, 1.2))),
        expect=Expect(history=("user: tell me .*",), finishes=False),
        replies=(Reply(match="", text=STORY, first_token_s=1.6),),
    ),
    case(
        "hang-up during a tool",
        "what a tool has done is remembered although nobody waits for it",
        Say(text="check the booking please"),
        HangUp(at=At(event="tool.started", after_s=0.3)),
        expect=Expect(history=("user: check .*", "(tool check_table: )?a table for Miller.*"), tools=("check_table",)),
        replies=(Reply(match="check", tools=(ToolUse("check_table", {"name": "Miller"}),)),),
    ),
    case(
        "hang-up while speaking",
        "history holds what was heard of the reply, not what was generated",
        TELL,
        HangUp(at=At(reply_ms=(900, 2500))),
        expect=Expect(history=("user: tell me .*", "agent: Our .{0,50}")),
        replies=(STORY_REPLY,),
    ),
    case(
        "hang-up in the goodbye",
        "a caller who hangs up first ends the call once",
        Say(text="that is all"),
        HangUp(at=At(word="calling", after_s=0.2)),
        expect=Expect(tools=("say_goodbye",), errors=None),
        replies=(Reply(match="all", tools=(ToolUse("say_goodbye"),)),),
    ),
    case(
        "goodbye is heard out",
        "the agent hangs up when its goodbye was heard, not before",
        Say(text="that is all"),
        WaitEnd(),
        expect=Expect(heard=(GOODBYE,), ends="agent_hangup"),
        replies=(Reply(match="all", tools=(ToolUse("say_goodbye"),)),),
    ),
    case(
        "silence",
        "a silent caller is asked twice, then the call ends",
        LISTEN,
        WaitEnd(timeout_s=40),
        expect=Expect(events=("agent.idle_prompt", "agent.idle_prompt", "call.ended"), ends="(agent_|idle).*"),
        greeting="Good evening.",
        settings=AgentSettings(turns=TurnSettings(silence=SilenceSettings(idle_s=3.0, idle_count=2))),
    ),
    case(
        "maximum duration",
        "a call that lasts too long is announced to end, and ends",
        LISTEN,
        WaitEnd(timeout_s=40),
        expect=Expect(ends="(agent_|max).*"),
        greeting="Good evening.",
        settings=AgentSettings(turns=TurnSettings(silence=SilenceSettings(max_duration_s=8.0, warn_before_s=4.0))),
    ),
)
