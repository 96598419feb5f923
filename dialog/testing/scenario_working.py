"""Calls in which the agent works, is slow, guesses, or fails."""

from __future__ import annotations

from dialog.agent.settings import AgentSettings
from dialog.testing.openai import ToolUse
from dialog.testing.scenario import Expect, Fault, Listen, Say
from dialog.testing.scenario_case import BYE, LISTEN, STORY, STORY_REPLY, TELL, Case, case
from dialog.testing.scenario_house import Reply
from dialog.testing.scenario_providers import Ears

__all__ = ["WORKING"]

WORKING: tuple[Case, ...] = (
    case(
        "slow tool",
        "while a tool works the caller hears that somebody is there",
        Say(text="find miller please"),
        Listen(silence_ms=2500),
        BYE,
        expect=Expect(
            heard=("moment", "found Miller"),
            history=("user: find miller please", "tool slow_lookup: found Miller", "agent: I have found Miller."),
        ),
        replies=(
            Reply(match="find", tools=(ToolUse("slow_lookup", {"name": "Miller"}),)),
            Reply(match="found", text="I have found Miller."),
        ),
    ),
    case(
        "slow first token",
        "while the model thinks the caller hears that somebody is there",
        TELL,
        Listen(silence_ms=2500),
        BYE,
        expect=Expect(heard=("moment", "Our restaurant"), history=("user: tell me .*", f"agent: {STORY}")),
        replies=(Reply(match="", text=STORY, first_token_s=4.0),),
        settings=AgentSettings(
            filler=("One moment please, let me think.", "Just a second longer."), first_token_filler_s=0.8
        ),
    ),
    case(
        "late result of a tool",
        "what a background tool found is spoken when there is room, and the call goes on meanwhile",
        Say(text="ask the chef about nuts"),
        LISTEN,
        Say(text="when do you open"),
        LISTEN,
        LISTEN,
        BYE,
        expect=Expect(heard=("I will ask", "at noon", "The chef agrees"), tools=("ask_the_chef",)),
        replies=(
            Reply(match="chef says", text="The chef agrees."),
            Reply(match="ask", tools=(ToolUse("ask_the_chef", {"question": "nuts"}),)),
            Reply(match="background", text="I will ask."),
            Reply(match="open", text="We open at noon."),
        ),
    ),
    case(
        "speculation promoted",
        "a reply that was begun early is spoken as soon as the turn has ended",
        TELL,
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me .*", f"agent: {STORY}"),
            events=("agent.speculation",),
            latency_ms=1500,
            dropped=0,
        ),
        replies=(Reply(match="", text=STORY, first_token_s=0.6),),
        ears=Ears(eager_s=0.15),
        endpointing_ms=800,
    ),
    case(
        "speculation withdrawn",
        "a reply to half a sentence is neither heard nor acted on",
        Say(text="please book a table [0.4] for six"),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: please book a table for six", "tool book_table: booked for 6", "agent: Six it is."),
            tools=("book_table",),
            events=("agent.speculation", "tool.started"),
            latency_ms=2500,
            dead_air_s=2.5,
        ),
        replies=(
            Reply(match="booked", text="Six it is."),
            Reply(match="for six$", tools=(ToolUse("book_table", {"people": 6}),)),
            Reply(match="a table$", tools=(ToolUse("book_table", {"people": 2}),)),
        ),
        ears=Ears(eager_s=0.15),
        endpointing_ms=600,
    ),
    case(
        "the model fails",
        "a reply that fails is apologised for, and the call goes on",
        Fault(provider="openai", refuse=500),
        TELL,
        LISTEN,
        Fault(provider="openai", times=0),
        Say(text="tell me about your restaurant please"),
        LISTEN,
        BYE,
        expect=Expect(
            heard=("I'm sorry", "Our restaurant"),
            errors=("provider",),
            # The client repeats a refused request after pauses of real time, four times as long on this clock.
            latency_ms=5000,
            dead_air_s=5.0,
        ),
        replies=(STORY_REPLY,),
    ),
)
