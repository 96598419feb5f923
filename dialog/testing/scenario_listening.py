"""Calls in which the agent has to wait until the caller has finished, and to notice that they have."""

from __future__ import annotations

from dialog.agent.settings import AgentSettings
from dialog.testing.scenario import At, Expect, Listen, Press, Say, Silence
from dialog.testing.scenario_case import BYE, LISTEN, TELL, Case, case
from dialog.testing.scenario_house import Reply
from dialog.testing.scenario_providers import Ears

__all__ = ["LISTENING"]

LISTENING: tuple[Case, ...] = (
    case(
        "pause in mid-sentence",
        "an unfinished sentence is waited for, and answered once",
        Say(text="I would like a table for [0.9] six people please"),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: I would like a table for six people please", "agent: Six it is."),
            dropped=0,
            interruptions=0,
        ),
        replies=(Reply(match="six", text="Six it is."), Reply(match="table for$", text="For how many people?")),
    ),
    case(
        "correction",
        "what is corrected before the answer is heard is answered together",
        Say(text="a table for four please"),
        Say(text="no wait six people", at=At(after_s=(0.7, 0.9))),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: a table for four please no wait six people", "agent: Six it is."),
            unheard=("four it is",),
            interruptions=0,
        ),
        replies=(
            Reply(match="six", text="Six it is."),
            Reply(match="four", text="Four it is, then, and thank you.", first_token_s=0.7),
        ),
    ),
    case(
        "very long utterance",
        "an utterance of half a minute is one utterance, and nobody talks into it",
        Say(
            text="well let me think [0.25] we are going to be eleven people on friday [0.25] or twelve because my "
            "cousin is not sure yet [0.25] and two of us eat no meat at all [0.25] and the children want to "
            "sit by the window [0.25] if that is possible [0.25] and somebody has a birthday so we need a cake please",
        ),
        LISTEN,
        BYE,
        expect=Expect(history=("user: well let me think .* so we need a cake please", "agent: Fine.*"), dropped=0),
    ),
    case(
        "number in groups",
        "a number that is read in groups is one utterance",
        Say(text="my number is [0.8] five five five [0.8] one two three [0.8] four four seven seven"),
        LISTEN,
        BYE,
        expect=Expect(
            history=("user: my number is five five five one two three four four seven seven", "agent: Thank you.*"),
            dropped=0,
            interruptions=0,
            latency_ms=3500,
            dead_air_s=3.5,
        ),
        replies=(Reply(match="seven", text="Thank you, I have it."), Reply(match="", text="Go on.")),
    ),
    case(
        "no final ever",
        "a provider that never says final does not leave the caller alone",
        Say(text="what are your opening hours"),
        Listen(timeout_s=15),
        BYE,
        expect=Expect(history=("user: what are your opening hours", "agent: Fine.*"), latency_ms=2000, dead_air_s=2.0),
        ears=Ears(speech_final=False, utterance_end=False),
        settings=AgentSettings(vad="local"),  # without it the words are asked for only when they stay as they are
    ),
    case(
        "short yes that the VAD missed",
        "words open a turn that no VAD has announced",
        TELL,
        LISTEN,
        Say(text="yes", quiet=True),
        LISTEN,
        BYE,
        expect=Expect(history=("user: tell me .*", "agent: Shall I.*", "user: yes", "agent: Very well.*")),
        replies=(Reply(match="^yes", text="Very well."), Reply(match="", text="Shall I tell you all?")),
    ),
    case(
        "keys during a prompt",
        "a key stops the prompt and is answered",
        Press(digits="2", at=At(reply_ms=(900, 1400))),
        Silence(seconds=1.5),
        Listen(timeout_s=12),
        BYE,
        expect=Expect(
            events=("dtmf",),
            heard=("press one", "kitchen"),
            unheard=("stay on the line",),
            latency_ms=3500,
            dead_air_s=3.5,
        ),
        settings=AgentSettings(digits_between_s=0.6),
        greeting="Please press one for a table, press two for the kitchen, or just stay on the line for a person.",
        replies=(Reply(match="2", text="The kitchen it is."),),
    ),
)
