"""Calls in which the caller, a noise, or a line that breaks comes into what the agent says."""

from __future__ import annotations

from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import BACKCHANNELS
from dialog.testing.openai import ToolUse
from dialog.testing.scenario import At, Drop, Expect, Noise, Say
from dialog.testing.scenario_case import BYE, GREETING, LISTEN, STORY, STORY_REPLY, TELL, Case, barge_in, case
from dialog.testing.scenario_house import Reply

__all__ = ["INTERRUPTING"]

SECOND = "Of course, we serve fresh fish from the market, home made pasta, and a very good soup of the day."
SENTENCES = (
    "We open at noon today, and also tomorrow, as on every weekday. "
    "The kitchen closes at ten in the evening. On Sundays we are closed all day long."
)
NOTICE = "This call is recorded for quality, please hold on a moment."

INTERRUPTING: tuple[Case, ...] = (
    case(
        "cough before the reply",
        "a noise while the reply is made does not lose it",
        TELL,
        Noise(ms=120, at=At(after_s=(0.52, 0.64))),
        LISTEN,
        BYE,
        expect=Expect(history=("user: tell me .*", f"agent: {STORY}"), dropped=0, interruptions=0),
        replies=(Reply(match="restaurant", text=STORY, first_token_s=0.6),),
    ),
    case(
        "cough during the reply",
        "a noise pauses a reply, which goes on where it was",
        TELL,
        Noise(at=At(reply_ms=(700, 2500))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me .*", f"agent: {STORY}"),
            interruptions=0,
            false_interruptions=1,
            resume_ms=1800,
        ),
        replies=(STORY_REPLY,),
    ),
    case(
        "cough during the greeting",
        "a noise over the greeting does not lose the rest of it",
        Noise(at=At(reply_ms=(500, 1500))),
        LISTEN,
        BYE,
        expect=Expect(history=("agent: Good evening.* tonight.",), false_interruptions=1, resume_ms=1800),
        greeting=GREETING,
    ),
    case(
        "a noise that does not end",
        "a lasting noise holds a reply for two seconds at most",
        TELL,
        Noise(ms=4000, at=At(reply_ms=(700, 1500))),
        LISTEN,
        BYE,
        expect=Expect(history=("user: tell me .*", f"agent: {STORY}"), interruptions=0, dead_air_s=2.8, stops_ms=1000),
        replies=(STORY_REPLY,),
    ),
    case(
        "backchannel",
        "an uh-huh neither interrupts nor is answered",
        TELL,
        Say(text="uh-huh", at=At(reply_ms=(900, 2500))),
        LISTEN,
        BYE,
        expect=Expect(heard=(STORY,), unheard=("Fine",), interruptions=0, false_interruptions=1, stops_ms=6000),
        replies=(STORY_REPLY,),
        settings=barge_in(backchannels=BACKCHANNELS),
    ),
    case(
        "double-talk",
        "an agent that is talked over falls silent, and answers what was said",
        TELL,
        Say(text="actually I just wanted to know whether you are open on sunday", at=At(reply_ms=(900, 1500))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me .*", "agent: Our .*", "user: actually I just .* sunday", "agent: We are closed.*"),
            unheard=("in the family since",),
            interruptions=1,
        ),
        replies=(STORY_REPLY, Reply(match="sunday", text="We are closed on sunday.")),
    ),
    case(
        "interruption in the first 300 ms",
        "a reply that was cut before a word of it was heard leaves no trace, and both utterances are answered",
        TELL,
        Say(text="wait just the hours please", at=At(reply_ms=(60, 220))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me about your restaurant wait just the hours please", "agent: We open at noon."),
            dropped=1,
            interruptions=0,
        ),
        replies=(
            Reply(match="hours", text="We open at noon."),
            Reply(match="restaurant", text=f"Unquestionably, {STORY}"),
        ),
    ),
    case(
        "interruption in the last word",
        "words over the last word of a reply are answered, and nothing is said twice",
        TELL,
        Say(text="thank you very much", at=At(last_word=True)),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me .*", "agent: Our .* family( since.)?", "user: thank you .*", "agent: You are .*")
        ),
        replies=(STORY_REPLY, Reply(match="thank you", text="You are welcome.")),
    ),
    case(
        "interrupted twice in a row",
        "the reply to an interruption can be interrupted",
        TELL,
        Say(text="what do you serve", at=At(reply_ms=(900, 1500))),
        Say(text="only the soup please", at=At(reply_ms=(900, 1500))),
        LISTEN,
        BYE,
        expect=Expect(
            history=(
                "user: tell me .*",
                "agent: Our .*",
                "user: what do you serve",
                "agent: Of .*",
                "user: only the soup please",
                "agent: Fine.*",
            ),
            interruptions=2,
        ),
        replies=(STORY_REPLY, Reply(match="serve", text=SECOND)),
    ),
    case(
        "interruption during a tool",
        "a tool that has started finishes once, whatever the caller says",
        Say(text="check the booking please"),
        Say(text="it is under miller", at=At(event="tool.started", after_s=(0.9, 1.1))),
        LISTEN,
        BYE,
        expect=Expect(
            history=(
                "user: check the booking please",
                "agent: One moment.",
                "tool check_table: a table for Miller.*",
                "user: it is under miller",
                "agent: There it is, .*",
            ),
            tools=("check_table",),
        ),
        replies=(
            Reply(match="under miller", text="There it is, under Miller."),
            Reply(match="check", text="One moment. ", tools=(ToolUse("check_table", {"name": "Miller"}),)),
            Reply(match="a table for", text="I have found it."),
        ),
    ),
    case(
        "interruption during the greeting",
        "a caller who knows what they want need not hear the greeting",
        Say(text="a table for two please", at=At(reply_ms=(900, 1500))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("agent: Good evening.*", "user: a table for two please", "agent: Fine.*"),
            unheard=("tonight",),
            interruptions=1,
        ),
        greeting=GREETING,
    ),
    case(
        "notice that may not be interrupted",
        "a notice is heard out, and what was said into it is answered",
        Say(text="a table for two please", at=At(reply_ms=(500, 900))),
        LISTEN,
        BYE,
        expect=Expect(
            history=(f"agent: {NOTICE}", "user: a table for two please", "agent: Fine.*"),
            interruptions=0,
            stops_ms=10_000,
        ),
        greeting=NOTICE,
        settings=AgentSettings(greeting_interruptible=False),
    ),
    case(
        "after the sentence",
        "by its mode, an interrupted reply ends with its sentence",
        Say(text="when do you open"),
        Say(text="and on sundays", at=At(word="noon")),
        LISTEN,
        BYE,
        expect=Expect(
            history=(
                "user: when .*",
                "agent: We open .* every weekday\\.( The)?",
                "user: and on sundays",
                "agent: Sundays never\\.",
            ),
            unheard=("kitchen closes",),
            interruptions=1,
            stops_ms=6000,
        ),
        replies=(Reply(match="when do", text=SENTENCES), Reply(match="sundays", text="Sundays never.")),
        settings=barge_in(mode="after_sentence"),
    ),
    case(
        "interruption disabled",
        "by its mode, a reply is heard out before the next is given",
        TELL,
        Say(text="what do you serve", at=At(reply_ms=(900, 1500))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: tell me .*", f"agent: {STORY}", "user: what .*", "agent: Fine.*"),
            interruptions=0,
            false_interruptions=0,
            stops_ms=10_000,
        ),
        replies=(STORY_REPLY,),
        settings=barge_in(mode="disabled"),
    ),
    case(
        "line that breaks in a reply",
        "when the line is back, the reply goes on with the sentence that was cut",
        Say(text="when do you open"),
        Drop(at=At(word="kitchen")),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: when .*", "agent: We open .* every weekday\\. The.*", "agent: .*closes at ten .* long\\."),
            heard=("every weekday", "the kitchen closes .*ten"),
            interruptions=0,
            dead_air_s=3.0,
            repeated=4,
        ),
        replies=(Reply(match="when do", text=SENTENCES),),
    ),
)
