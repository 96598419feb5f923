"""The library: scripted calls, each of which guards one behaviour of a conversation.

They run against the scripted house of :mod:`dialog.testing.scenario_house`, through the real gateway::

    outcomes = await play(LIBRARY, seed=7)
    assert not any(outcome.problems for outcome in outcomes)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from dialog.agent.settings import AgentSettings
from dialog.agent.turns.settings import BACKCHANNELS, BargeIn, TurnSettings
from dialog.agent.turns.settings import Silence as SilenceSettings
from dialog.clock import Clock
from dialog.testing.openai import ToolUse
from dialog.testing.scenario import At, Expect, Fault, HangUp, Listen, Noise, Press, Say, Scenario, WaitEnd
from dialog.testing.scenario_check import check
from dialog.testing.scenario_house import GOODBYE, Reply, Setup, serve
from dialog.testing.scenario_outcome import Outcome
from dialog.testing.scenario_providers import Ears
from dialog.testing.scenario_run import run_scenario

__all__ = ["LIBRARY", "Case", "play"]

STORY = "Our restaurant opened a hundred years ago in a small house by the river, and it has been in the family since."
SECOND = "Of course, we serve fresh fish from the market, home made pasta, and a very good soup of the day."
SENTENCES = "We open at noon today. The kitchen closes at ten in the evening. On Sundays we are closed all day long."
GREETING = "Good evening, this is the restaurant by the river, how can I help you tonight?"
NOTICE = "This call is recorded for quality, please hold on a moment."

_TELL = Say(text="tell me about your restaurant")
_STORY = Reply(match="about your restaurant", text=STORY)
_LISTEN = Listen()
_BYE = HangUp()


class Case(Struct, frozen=True, kw_only=True):
    """A scenario and the house that it is played in."""

    scenario: Scenario
    setup: Setup = Setup()

    @property
    def name(self) -> str:
        """Of the scenario."""
        return self.scenario.name


def _case(name: str, guards: str, *steps: object, expect: Expect | None = None, **setup: object) -> Case:
    scenario = Scenario(name=name, guards=guards, steps=steps, expect=expect or Expect())  # type: ignore[arg-type]
    return Case(scenario=scenario, setup=Setup(**setup))  # type: ignore[arg-type]


def _barge_in(**options: object) -> AgentSettings:
    return AgentSettings(turns=TurnSettings(barge_in=BargeIn(**options)))  # type: ignore[arg-type]


_LISTENING = (
    _case(
        "pause in mid-sentence",
        "an unfinished sentence is waited for, and answered once",
        Say(text="I would like a table for [0.9] six people please"),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: I would like a table for six people please", "agent: Six it is."),
            dropped=0,
            interruptions=0,
        ),
        replies=(Reply(match="six", text="Six it is."), Reply(match="table for$", text="For how many people?")),
    ),
    _case(
        "correction",
        "what is corrected before the answer is heard is answered together",
        Say(text="a table for four please"),
        Say(text="no wait six people", at=At(after_s=(0.7, 0.9))),
        _LISTEN,
        _BYE,
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
    _case(
        "very long utterance",
        "an utterance of half a minute is one utterance, and nobody talks into it",
        Say(
            text="well let me think [0.2] we are going to be eleven people on friday [0.2] or maybe twelve because my "
            "cousin is not sure yet [0.2] and two of us eat no meat at all [0.2] and the children would like to "
            "sit by the window [0.2] if that is possible [0.2] and somebody has a birthday so we need a cake please",
        ),
        _LISTEN,
        _BYE,
        expect=Expect(history=("user: well let me think .* so we need a cake please", "agent: Fine.*"), dropped=0),
    ),
    _case(
        "number in groups",
        "a number that is read in groups is one utterance",
        Say(text="my number is [0.8] five five five [0.8] one two three [0.8] four four seven seven"),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: my number is five five five one two three four four seven seven", "agent: Thank you.*"),
            dropped=0,
            interruptions=0,
            latency_ms=3500,
            dead_air_s=3.5,
        ),
        replies=(Reply(match="seven", text="Thank you, I have it."), Reply(match="", text="Go on.")),
    ),
    _case(
        "no final ever",
        "a provider that never says final does not leave the caller alone",
        Say(text="what are your opening hours"),
        Listen(timeout_s=15),
        _BYE,
        expect=Expect(history=("user: what are your opening hours", "agent: Fine.*"), latency_ms=4000, dead_air_s=4.0),
        ears=Ears(speech_final=False, utterance_end=False),
    ),
    _case(
        "short yes that the VAD missed",
        "words open a turn that no VAD has announced",
        _TELL,
        _LISTEN,
        Say(text="yes", quiet=True),
        _LISTEN,
        _BYE,
        expect=Expect(history=("user: tell me .*", "agent: Shall I.*", "user: yes", "agent: Very well.*")),
        replies=(Reply(match="^yes", text="Very well."), Reply(match="", text="Shall I tell you all?")),
    ),
    _case(
        "keys during a prompt",
        "a key stops the prompt and is answered",
        Press(digits="2", at=At(reply_ms=(900, 1400))),
        Listen(timeout_s=12),
        _BYE,
        expect=Expect(
            events=("dtmf",),
            heard=("press one", "kitchen"),
            unheard=("stay on the line",),
            latency_ms=3500,
            dead_air_s=3.5,
        ),
        greeting="Please press one for a table, press two for the kitchen, or just stay on the line for a person.",
        replies=(Reply(match="2", text="The kitchen it is."),),
    ),
)

_INTERRUPTING = (
    _case(
        "cough before the reply",
        "a noise while the reply is made does not lose it",
        _TELL,
        Noise(at=At(after_s=(0.25, 0.5))),
        _LISTEN,
        _BYE,
        expect=Expect(history=("user: tell me .*", f"agent: {STORY}"), dropped=0, interruptions=0),
        replies=(_STORY,),
    ),
    _case(
        "cough during the reply",
        "a noise pauses a reply, which goes on where it was",
        _TELL,
        Noise(at=At(reply_ms=(700, 2500))),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: tell me .*", f"agent: {STORY}"),
            interruptions=0,
            false_interruptions=1,
            resume_ms=1800,
        ),
        replies=(_STORY,),
    ),
    _case(
        "cough during the greeting",
        "a noise over the greeting does not lose the rest of it",
        Noise(at=At(reply_ms=(500, 1500))),
        _LISTEN,
        _BYE,
        expect=Expect(history=("agent: Good evening.* tonight.",), false_interruptions=1, resume_ms=1800),
        greeting=GREETING,
    ),
    _case(
        "a noise that does not end",
        "a lasting noise holds a reply for two seconds at most",
        _TELL,
        Noise(ms=4000, at=At(reply_ms=(700, 1500))),
        _LISTEN,
        _BYE,
        expect=Expect(history=("user: tell me .*", f"agent: {STORY}"), interruptions=0, dead_air_s=2.8, stops_ms=1000),
        replies=(_STORY,),
    ),
    _case(
        "backchannel",
        "an uh-huh neither interrupts nor is answered",
        _TELL,
        Say(text="uh-huh", at=At(reply_ms=(900, 2500))),
        _LISTEN,
        _BYE,
        expect=Expect(history=("user: tell me .*", f"agent: {STORY}"), interruptions=0, stops_ms=6000),
        replies=(_STORY,),
        settings=_barge_in(backchannels=BACKCHANNELS),
    ),
    _case(
        "double-talk",
        "an agent that is talked over falls silent, and answers what was said",
        _TELL,
        Say(text="actually I just wanted to know whether you are open on sunday", at=At(reply_ms=(900, 1500))),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: tell me .*", "agent: Our .*", "user: actually I just .* sunday", "agent: We are closed.*"),
            unheard=("in the family since",),
            interruptions=1,
        ),
        replies=(_STORY, Reply(match="sunday", text="We are closed on sunday.")),
    ),
    _case(
        "interruption in the first 300 ms",
        "a reply that was cut before a word of it was heard leaves no trace, and both utterances are answered",
        _TELL,
        Say(text="wait just the hours please", at=At(reply_ms=(60, 220))),
        _LISTEN,
        _BYE,
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
    _case(
        "interruption in the last word",
        "words over the last word of a reply are answered, and nothing is said twice",
        _TELL,
        Say(text="thank you very much", at=At(last_word=True)),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: tell me .*", "agent: Our .* family( since.)?", "user: thank you .*", "agent: You are .*")
        ),
        replies=(_STORY, Reply(match="thank you", text="You are welcome.")),
    ),
    _case(
        "interrupted twice in a row",
        "the reply to an interruption can be interrupted",
        _TELL,
        Say(text="what do you serve", at=At(reply_ms=(900, 1500))),
        Say(text="only the soup please", at=At(reply_ms=(900, 1500))),
        _LISTEN,
        _BYE,
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
        replies=(_STORY, Reply(match="serve", text=SECOND)),
    ),
    _case(
        "interruption during a tool",
        "a tool that has started finishes once, whatever the caller says",
        Say(text="check the booking please"),
        Say(text="it is under miller", at=At(event="tool.started", after_s=(0.9, 1.1))),
        _LISTEN,
        _BYE,
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
    _case(
        "interruption during the greeting",
        "a caller who knows what they want need not hear the greeting",
        Say(text="a table for two please", at=At(reply_ms=(900, 1500))),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("agent: Good evening.*", "user: a table for two please", "agent: Fine.*"),
            unheard=("tonight",),
            interruptions=1,
        ),
        greeting=GREETING,
    ),
    _case(
        "notice that may not be interrupted",
        "a notice is heard out, and what was said into it is answered",
        Say(text="a table for two please", at=At(reply_ms=(500, 900))),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=(f"agent: {NOTICE}", "user: a table for two please", "agent: Fine.*"),
            interruptions=0,
            stops_ms=10_000,
        ),
        greeting=NOTICE,
        settings=AgentSettings(greeting_interruptible=False),
    ),
    _case(
        "after the sentence",
        "by its mode, an interrupted reply ends with its sentence",
        Say(text="when do you open"),
        Say(text="and on sundays", at=At(word="noon")),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=(
                "user: when .*",
                "agent: We open at noon today(.|. The kitchen .*)",
                "user: and .*",
                "agent: Sun.*",
            ),
            heard=("noon today", "Sundays never"),
            unheard=("closed all day",),
            stops_ms=6000,
        ),
        replies=(Reply(match="when do", text=SENTENCES), Reply(match="sundays", text="Sundays never.")),
        settings=_barge_in(mode="after_sentence"),
    ),
    _case(
        "interruption disabled",
        "by its mode, a reply is heard out before the next is given",
        _TELL,
        Say(text="what do you serve", at=At(reply_ms=(900, 1500))),
        _LISTEN,
        _BYE,
        expect=Expect(
            history=("user: tell me .*", f"agent: {STORY}", "user: what .*", "agent: Fine.*"),
            interruptions=0,
            false_interruptions=0,
            stops_ms=10_000,
        ),
        replies=(_STORY,),
        settings=_barge_in(mode="disabled"),
    ),
)

_LEAVING = (
    _case(
        "hang-up in the greeting",
        "history holds what was heard of the greeting",
        HangUp(at=At(reply_ms=(900, 1500))),
        expect=Expect(history=("agent: Good evening.{0,40}",)),
        greeting=GREETING,
    ),
    _case(
        "hang-up while listening",
        "a call that ends while nobody speaks ends once",
        _LISTEN,
        HangUp(at=At(after_s=0.5)),
        expect=Expect(history=("agent: Good evening.*",), events=("stream", "call.measured", "call.ended")),
        greeting="Good evening.",
    ),
    _case(
        "hang-up while thinking",
        "a reply that nobody will hear is not made any further",
        _TELL,
        HangUp(at=At(after_s=(0.8, 1.2))),
        expect=Expect(history=("user: tell me .*",), no_events=("usage",)),
        replies=(Reply(match="", text=STORY, first_token_s=1.6),),
    ),
    _case(
        "hang-up during a tool",
        "what a tool has done is remembered although nobody waits for it",
        Say(text="check the booking please"),
        HangUp(at=At(event="tool.started", after_s=0.3)),
        expect=Expect(history=("user: check .*", "(tool check_table: )?a table for Miller.*"), tools=("check_table",)),
        replies=(Reply(match="check", tools=(ToolUse("check_table", {"name": "Miller"}),)),),
    ),
    _case(
        "hang-up while speaking",
        "history holds what was heard of the reply, not what was generated",
        _TELL,
        HangUp(at=At(reply_ms=(900, 2500))),
        expect=Expect(history=("user: tell me .*", "agent: Our .{0,50}")),
        replies=(_STORY,),
    ),
    _case(
        "hang-up in the goodbye",
        "a caller who hangs up first ends the call once",
        Say(text="that is all"),
        HangUp(at=At(word="calling", after_s=0.2)),
        expect=Expect(tools=("say_goodbye",), errors=None),
        replies=(Reply(match="all", tools=(ToolUse("say_goodbye"),)),),
    ),
    _case(
        "goodbye is heard out",
        "the agent hangs up when its goodbye was heard, not before",
        Say(text="that is all"),
        WaitEnd(),
        expect=Expect(heard=(GOODBYE,), ends="agent_hangup"),
        replies=(Reply(match="all", tools=(ToolUse("say_goodbye"),)),),
    ),
    _case(
        "silence",
        "a silent caller is asked twice, then the call ends",
        _LISTEN,
        WaitEnd(timeout_s=40),
        expect=Expect(events=("agent.idle_prompt", "agent.idle_prompt", "call.ended"), ends="(agent_|idle).*"),
        greeting="Good evening.",
        settings=AgentSettings(turns=TurnSettings(silence=SilenceSettings(idle_s=3.0, idle_count=2))),
    ),
    _case(
        "maximum duration",
        "a call that lasts too long is announced to end, and ends",
        _LISTEN,
        WaitEnd(timeout_s=40),
        expect=Expect(ends="(agent_|max).*"),
        greeting="Good evening.",
        settings=AgentSettings(turns=TurnSettings(silence=SilenceSettings(max_duration_s=8.0, warn_before_s=4.0))),
    ),
)

_WORKING = (
    _case(
        "slow tool",
        "while a tool works the caller hears that somebody is there",
        Say(text="find miller please"),
        Listen(silence_ms=2500),
        _BYE,
        expect=Expect(
            heard=("moment", "found Miller"),
            history=("user: find miller please", "tool slow_lookup: found Miller", "agent: I have found Miller."),
        ),
        replies=(
            Reply(match="find", tools=(ToolUse("slow_lookup", {"name": "Miller"}),)),
            Reply(match="found", text="I have found Miller."),
        ),
    ),
    _case(
        "slow first token",
        "while the model thinks the caller hears that somebody is there",
        _TELL,
        Listen(silence_ms=2500),
        _BYE,
        expect=Expect(heard=("moment", "Our restaurant"), history=("user: tell me .*", f"agent: {STORY}")),
        replies=(Reply(match="", text=STORY, first_token_s=4.0),),
        settings=AgentSettings(
            filler=("One moment please, let me think.", "Just a second longer."), first_token_filler_s=0.8
        ),
    ),
    _case(
        "late result of a tool",
        "what a background tool found is spoken when there is room, and the call goes on meanwhile",
        Say(text="ask the chef about nuts"),
        _LISTEN,
        Say(text="when do you open"),
        _LISTEN,
        _LISTEN,
        _BYE,
        expect=Expect(heard=("I will ask", "at noon", "The chef agrees"), tools=("ask_the_chef",)),
        replies=(
            Reply(match="chef says", text="The chef agrees."),
            Reply(match="ask", tools=(ToolUse("ask_the_chef", {"question": "nuts"}),)),
            Reply(match="background", text="I will ask."),
            Reply(match="open", text="We open at noon."),
        ),
    ),
    _case(
        "speculation promoted",
        "a reply that was begun early is spoken as soon as the turn has ended",
        _TELL,
        _LISTEN,
        _BYE,
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
    _case(
        "speculation withdrawn",
        "a reply to half a sentence is neither heard nor acted on",
        Say(text="please book a table [0.5] for six"),
        _LISTEN,
        _BYE,
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
        endpointing_ms=800,
    ),
    _case(
        "the model fails",
        "a reply that fails is apologised for, and the call goes on",
        Fault(provider="openai", refuse=500),
        _TELL,
        _LISTEN,
        Fault(provider="openai", times=0),
        Say(text="tell me about your restaurant please"),
        _LISTEN,
        _BYE,
        expect=Expect(
            heard=("I'm sorry", "Our restaurant"),
            errors=("provider",),
            # The client repeats a refused request after pauses of real time, four times as long on this clock.
            latency_ms=5000,
            dead_air_s=5.0,
        ),
        replies=(_STORY,),
    ),
)

LIBRARY: tuple[Case, ...] = _LISTENING + _INTERRUPTING + _LEAVING + _WORKING
"""Every case; names are unique."""


_STALL_MS = 300.0
"""A machine that stands still for so long on the scenarios' clock makes their times worthless."""


async def play(
    cases: Sequence[Case] = LIBRARY, *, seed: int, scale: float = 4.0, parallel: int = 16, attempts: int = 3
) -> list[Outcome]:
    """Play cases, several at once, and judge them: an outcome for each, in their order.

    Args:
        cases: What to play.
        seed: Varies the times; the same seed plays the same times.
        scale: So many times as fast as real time.
        parallel: So many calls at once.
        attempts: So often a case is played while it fails and the machine stands still meanwhile.
    """
    clock = Clock(scale)
    free = asyncio.Semaphore(parallel)

    async def once(case: Case) -> Outcome:
        async with serve(case.setup, clock) as house, _stalls(clock) as stalls:
            outcome = await run_scenario(case.scenario, house, seed=seed)
            if house.broken is not None:
                raise house.broken
        outcome.problems = check(case.scenario.expect, outcome)
        outcome.stall_ms = max(stalls)
        return outcome

    async def one(case: Case) -> Outcome:
        async with free:
            outcome = await once(case)
            for _ in range(attempts - 1):
                if outcome.problems and outcome.stall_ms >= _STALL_MS:
                    outcome = await once(case)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(case), name=case.name) for case in cases]
    return [task.result() for task in tasks]


@asynccontextmanager
async def _stalls(clock: Clock) -> AsyncGenerator[list[float]]:
    """By how many milliseconds of ``clock`` the event loop was late meanwhile, again and again."""
    late = [0.0]

    async def look() -> None:
        while True:
            before = clock.now()
            await clock.sleep(0.04)
            late.append((clock.now() - before - 0.04) * 1000)

    task = asyncio.create_task(look(), name="stalls")
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.wait([task])
