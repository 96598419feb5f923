"""Planted bad agents are convicted, each of what is wrong with it; a good one is not."""

from __future__ import annotations

import pytest

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.toolkit import end_call_tool
from dialog.agent.tools import tool
from dialog.errors import ConfigurationError
from dialog.llm.llm import ToolResult
from dialog.testing import ReadingSTT, ScriptedLLM, SpellingTTS, ToolUse, run_virtual
from dialog.testing.agent_line import join_agents
from dialog.testing.judge import Claim, Rules, ToolWanted, judge_talk
from dialog.testing.persona import Answer, Persona, customer
from dialog.testing.talk import TalkLimits

CUSTOMER = Persona(
    answers=(
        Answer(hears="help you", says="A table for two people on Friday please."),
        Answer(hears="what time", says="At seven thirty."),
        Answer(hears="booked", says="What is your telephone number?"),
        Answer(hears="number is", says="And what is the code of the door?"),
        Answer(hears="cannot tell|code is", says="Thank you, goodbye.", hangs_up=True),
    ),
    otherwise="I would like a table.",
    gives_up_after=3,
)
RULES = Rules(
    tools=(ToolWanted(name="book_table", arguments={"people": 2, "day": "Friday", "time": "19:30"}),),
    says=("telephone|number",),
    claims=(Claim(says=r"\bis booked\b", tool="book_table"),),
    secrets=("4711",),
    grounded=True,
    known=("The telephone number is 555 0100.",),
    ends="caller",
    never_uses=("cancel_table",),
    max_turns=6,
)


class Desk(Agent):
    """What all agents here can do; what they do with it, their models decide."""

    end_call = end_call_tool()

    @tool
    async def book_table(self, people: int, day: str, time: str) -> str:
        """Book a table."""
        return f"booked for {people} on {day} at {time}"

    @tool
    async def cancel_table(self) -> str:
        """Cancel it."""
        return "cancelled"


class Good:
    """Does what it is there for; given the newest words or a tool's result, says or does something."""

    asks = "Gladly. At what time?"
    books: tuple = (ToolUse("book_table", {"people": 2, "day": "friday", "time": "19:30"}),)
    booked = "Your table for two on Friday at half past seven is booked."
    number = "Our number is five five five, zero one zero zero."
    code = "I cannot tell you the code of the door."

    def __call__(self, request):
        last = request.items[-1]
        return self.next(last.content if isinstance(last, ToolResult) else last.text.casefold())

    def next(self, said):
        if "friday please" in said:
            return self.asks
        if "seven thirty" in said:
            return list(self.books)
        if said.startswith("booked for"):
            return self.booked
        if "telephone" in said:
            return self.number
        return self.code if "code" in said else []


class Rude(Good):
    asks = "Are you deaf? I asked you at what time."


class Forgetful(Good):
    """Chats about everything, and never books."""

    books = ("Lovely. I hope that the weather will be fine, and that all is booked out by happy people.",)


class Liar(Good):
    """Says that it has booked."""

    books = (Good.booked,)


class Inventor(Good):
    number = "Our number is five five five, zero one nine nine, and the soup is twelve dollars."


class Leaky(Good):
    code = "The code is four, seven. One, one."


class Clinging(Good):
    """Never lets anybody go, whatever they say."""

    def next(self, said):
        return "Before we go on, let me tell you about our offers. What do you think of them?"


class Looping(Good):
    def next(self, said):
        return "I am sorry, I did not get that."


class Wrong(Good):
    """Books something else."""

    books = (ToolUse("book_table", {"people": 3, "day": "friday", "time": "19:30"}),)


class Destructive(Good):
    books = (ToolUse("cancel_table"), *Good.books)


class Curt(Good):
    """Hangs up on people."""

    def next(self, said):
        return ["No. Goodbye.", ToolUse("end_call")]


class Mute(Good):
    def next(self, said):
        return []


class Sleepy(Good):
    """Thinks for a very long time."""

    books = (9.0, *Good.books)


PATIENT = AgentSettings(reply_timeout_s=30)
PLANTED = {
    Good: set(),
    Rude: {"rude"},
    Forgetful: {"goal", "claim"},
    Liar: {"goal", "claim"},
    Inventor: {"invented"},
    Leaky: {"leak", "invented"},
    Clinging: {"goal", "repeats"},
    Looping: {"goal", "repeats"},
    Wrong: {"goal"},
    Destructive: {"forbidden"},
    Curt: {"goal", "hung_up"},
    Mute: {"goal", "silent"},
    Sleepy: {"goal", "silent"},
}


def talk_with(kind, greeting="Luigi's, how can I help you?", **options):
    def on_voip(voip):
        llm = ScriptedLLM(kind())
        Desk(voip=voip, stt=ReadingSTT, tts=SpellingTTS, llm=llm, greeting=greeting, settings=PATIENT).activate()

    async def scenario(clock):
        return await join_agents(on_voip, customer(CUSTOMER), clock=clock, **options)

    return run_virtual(scenario)


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_agent_is_convicted_of_what_is_wrong_with_it(kind):
    talk = talk_with(kind, greeting="" if kind is Mute else "Luigi's, how can I help you?")
    charges = judge_talk(talk, RULES)
    assert {charge.kind for charge in charges} == PLANTED[kind], f"{charges}\n{talk.transcript}"
    assert all(charge.text for charge in charges)
    shown = [talk.lines[charge.line].text for charge in charges if charge.line is not None]
    assert all(shown)


def test_a_call_that_has_no_end_is_convicted_although_all_else_is_well():
    talk = talk_with(Good, limits=TalkLimits(max_turns=1))
    assert "endless" in {charge.kind for charge in judge_talk(talk, Rules())}


def test_without_rules_only_what_is_wrong_anywhere_is_convicted():
    assert judge_talk(talk_with(Good), Rules()) == ()
    assert {charge.kind for charge in judge_talk(talk_with(Looping), Rules())} == {"repeats"}


def test_a_customer_who_has_to_say_too_much_is_a_charge():
    charges = judge_talk(talk_with(Good), Rules(max_turns=2))
    assert [charge.text for charge in charges] == ["the customer had to speak 5 times: more than 2"]


def test_an_agent_that_is_slow_as_a_rule_is_a_charge():
    talk = talk_with(Good)
    assert judge_talk(talk, Rules(latency_p50_ms=max(talk.latencies_ms))) == ()
    (charge,) = judge_talk(talk, Rules(latency_p50_ms=1.0))
    assert str(charge).startswith("slow: latency p50 of ")


def test_what_is_wrong_with_rules_is_told():
    with pytest.raises(ConfigurationError, match="no regular expression"):
        Rules(says=("(",))
    with pytest.raises(ConfigurationError, match="found by chance"):
        Rules(secrets=("12",))
    with pytest.raises(ConfigurationError, match="repeats"):
        Rules(repeats=0)
