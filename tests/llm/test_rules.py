from __future__ import annotations

import asyncio
import json
import re
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.llm.llm import Entry, Finish, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.rules import Rule, RuleLLM

TOOLS = tuple(ToolSpec(name=name, description="", parameters='{"type":"object"}') for name in ("book", "hours"))
RULES = (
    Rule(pattern=r"\bbye\b", reply="Goodbye, and see you soon."),
    Rule(
        pattern=r"table for (?P<people>\w+)(?: at (?P<time>[\d:]+))?",
        reply="One moment.",
        tool="book",
        arguments={"people": "{people}", "time": "{time}", "source": "phone", "count": 1},
        result="Your table for {people} is ready: {result}.",
        failure="No table for {people}: {result}",
    ),
    Rule(
        pattern=r"open (today|tomorrow)",
        tool="hours",
        arguments=lambda match: {"day": match[1]},
        result="We open {result}.",
    ),
    Rule(pattern=r"fly", tool="fly"),
    Rule(
        pattern=r"yes",
        reply="I was asked before.",
        when=lambda items: any(isinstance(item, Entry) and item.role == "assistant" for item in items),
    ),
)


def user(text: str) -> Entry:
    return Entry(role="user", text=text)


def answer(*items: Item, tools: tuple[ToolSpec, ...] = TOOLS) -> tuple[str, list[ToolCall]]:
    return RuleLLM(RULES, fallback="Pardon?").answer(LLMRequest(items=items, tools=tools))


async def collect(llm: RuleLLM, *items: Item) -> list[LLMEvent]:
    return [event async for event in llm.stream(LLMRequest(items=items, tools=TOOLS))]


async def test_a_reply_streams_word_by_word() -> None:
    events = await collect(RuleLLM(RULES), user("Well, Bye!"))
    assert [event.text for event in events if isinstance(event, TextDelta)] == [
        "Goodbye,",
        " and",
        " see",
        " you",
        " soon.",
    ]
    assert events[-2:] == [Usage(model="rules", input_tokens=2, output_tokens=5), Finish("stop")]


async def test_a_rule_calls_its_tool_with_what_was_said() -> None:
    events = await collect(RuleLLM(RULES), user("A table for four at 19:30 please"))
    assert events[:2] == [TextDelta("One"), TextDelta(" moment.")]
    assert isinstance(events[2], ToolCall)
    assert (events[2].id, events[2].name) == ("rule_0", "book")
    assert json.loads(events[2].arguments) == {"people": "four", "time": "19:30", "source": "phone", "count": 1}
    assert events[-1] == Finish("tool_calls")


def test_a_group_that_matched_nothing_leaves_its_argument_out() -> None:
    (call,) = answer(user("table for two"))[1]
    assert json.loads(call.arguments) == {"people": "two", "source": "phone", "count": 1}


def test_arguments_may_be_computed_from_the_match() -> None:
    (call,) = answer(user("Are you OPEN tomorrow?"))[1]
    assert json.loads(call.arguments) == {"day": "tomorrow"}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (
            ToolResult(id="rule_0", name="book", content="by the {window}"),
            "Your table for two is ready: by the {window}.",
        ),
        (ToolResult(id="rule_0", name="book", content="full", state="failed"), "No table for two: full"),
        (ToolResult(id="rule_0", name="hours", content="at six"), "We open at six."),
        (ToolResult(id="rule_0", name="other", content="something else"), "something else"),
    ],
)
def test_a_result_is_spoken_in_the_words_of_its_rule(result: ToolResult, said: str) -> None:
    call = ToolCall(id="rule_0", name=result.name, arguments="{}")
    assert answer(user("table for two"), call, result) == (said, [])


def test_several_results_are_spoken_together() -> None:
    items = (
        user("table for two"),
        ToolCall(id="1", name="book", arguments="{}"),
        ToolCall(id="2", name="hours", arguments="{}"),
        ToolResult(id="1", name="book", content="yes"),
        ToolResult(id="2", name="hours", content="at six"),
    )
    assert answer(*items)[0] == "Your table for two is ready: yes. We open at six."


def test_every_call_of_a_conversation_has_its_own_id() -> None:
    items = [user("table for two"), ToolCall(id="rule_0", name="book", arguments="{}")]
    items += [ToolResult(id="rule_0", name="book", content="yes"), Entry(role="assistant", text="Done.")]
    (call,) = answer(*items, user("and a table for three"))[1]
    assert call.id == "rule_1"


@pytest.mark.parametrize("text", ["What is the weather?", "please fly", ""])
def test_what_no_rule_fits_gets_the_fallback(text: str) -> None:
    assert answer(user(text)) == ("Pardon?", [])


def test_a_tool_that_is_not_offered_is_not_called() -> None:
    assert answer(user("table for two"), tools=()) == ("Pardon?", [])


def test_a_rule_may_look_at_the_conversation() -> None:
    assert answer(user("yes"))[0] == "Pardon?"
    assert answer(Entry(role="assistant", text="Shall I?"), user("yes"))[0] == "I was asked before."


def test_only_the_last_words_of_the_caller_count() -> None:
    assert answer(user("bye"), user("table for two"))[0] == "One moment."


def test_nobody_has_spoken_yet() -> None:
    assert answer(Entry(role="system", text="bye")) == ("Hello.", [])


def test_a_late_fact_is_answered_by_a_rule_of_its_own_or_not_at_all() -> None:
    before = (user("table for two"), Entry(role="assistant", text="It takes a while."))
    late = Entry(role="system", text="The tool book (rule_0) has finished (done): window seat")
    assert answer(*before, late) == ("", [])
    told = RuleLLM([Rule(pattern=r"tool book .* \(done\): (?P<what>.*)", reply="Good news: {what}.")])
    assert told.answer(LLMRequest(items=(*before, late)))[0] == "Good news: window seat."


async def test_words_come_at_the_pace_of_the_clock() -> None:
    waits: list[float] = []

    class Recorded(Clock):
        async def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    await collect(RuleLLM(RULES, first_token_s=0.3, token_s=0.05, clock=Recorded()), user("bye"))
    assert waits == [0.3, 0.05, 0.05, 0.05, 0.05]


async def test_closing_it_stops_it() -> None:
    llm = RuleLLM(RULES, token_s=60)
    async with aclosing(cast(Any, llm.stream(LLMRequest(items=(user("bye"),))))) as stream:
        assert await anext(stream) == TextDelta("Goodbye,")
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
    assert waiting.cancelled()


@pytest.mark.parametrize("settings", [{"pattern": "x"}, {"pattern": "(", "reply": "y"}])
def test_a_wrong_rule_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(repr(settings["pattern"]))):
        Rule(**settings)


@given(st.text(max_size=60))
async def test_the_words_of_a_reply_are_its_text(text: str) -> None:
    events = await collect(RuleLLM((), fallback=text), user("x"))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == (text if text.strip() else "")
