"""Long histories: their oldest turns are replaced by a summary, beside the call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog import Agent, HistorySummaries, RuleAgent, tool
from dialog.agent.history import History
from dialog.calls import events as ev
from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.chat import messages
from dialog.llm.llm import LLM, Entry, Item, LLMRequest, ToolCall, ToolResult
from dialog.testing import ScriptedLLM, TextSession, ToolUse
from dialog.testing.doubles import HummingTTS
from dialog.testing.openai import pairing_error

oldest_turns, replace_turns = History.oldest_turns, History.replace_turns

SUMMARY = "Summary of the conversation so far:\n"


def turn(history: History, asked: str, said: str, *, tool: bool = False, answered: bool = True) -> Any:
    draft = history.draft(asked)
    if tool:
        draft.call(ToolCall(id=f"c {asked}", name="book", arguments="{}"))
        if answered:
            draft.result(ToolResult(id=f"c {asked}", name="book", content="booked"))
    draft.say(0, said)
    history.commit(draft, {0: (said, True)})
    return draft


def texts(history: History) -> list[str]:
    return [item.text if isinstance(item, Entry) else type(item).__name__ for item in history.request_items()]


def test_the_oldest_turns_are_whole_and_instructions_are_not_among_them() -> None:
    history = History()
    history.system("Be brief.")
    turn(history, "one", "1", tool=True)
    history.developer("It is Monday.")
    turn(history, "two", "2")
    turn(history, "three", "3")
    excerpt = oldest_turns(history, 1)
    assert excerpt is not None
    assert [getattr(item, "text", type(item).__name__) for item in excerpt.items] == [
        "one",
        "ToolCall",
        "ToolResult",
        "1",
        "two",
        "2",
    ]
    assert repr(excerpt) == f"<Excerpt of 2 turns, {excerpt.size} chars>"
    version = history.version
    assert replace_turns(history, excerpt, " They said one and two. ")
    assert texts(history) == ["Be brief.", SUMMARY + "They said one and two.", "It is Monday.", "three", "3"]
    assert history.version == version, "replies under way stay valid"
    assert oldest_turns(history, 1) is None, "a summary alone is not summarised again"
    assert not replace_turns(history, excerpt, "late")


def test_the_next_summary_takes_the_last_one_in() -> None:
    history = History()
    for word in ("one", "two", "three"):
        turn(history, word, word)
    first = oldest_turns(history, 1)
    assert first is not None
    replace_turns(history, first, "S1")
    turn(history, "four", "four")
    second = oldest_turns(history, 1)
    assert second is not None
    assert [item.text for item in second.items if isinstance(item, Entry)] == [SUMMARY + "S1", "three", "three"]
    replace_turns(history, second, "S2")
    assert texts(history) == [SUMMARY + "S2", "four", "four"]


def test_a_turn_that_is_under_way_or_has_a_tool_at_work_stays_with_all_that_follows() -> None:
    history = History()
    turn(history, "one", "1")
    working = turn(history, "two", "2", tool=True, answered=False)
    turn(history, "three", "3")
    history.draft("four")
    excerpt = oldest_turns(history, 1)
    assert excerpt is not None
    assert len(excerpt.items) == 2
    replace_turns(history, excerpt, "S")
    working.result(ToolResult(id="c two", name="book", content="booked"))
    assert pairing_error(messages(history.request_items())) is None
    assert texts(history)[:2] == [SUMMARY + "S", "two"]


def test_a_turn_that_was_dropped_with_its_question_waits_for_the_next() -> None:
    history = History()
    turn(history, "one", "1")
    history.drop(history.draft("a question"))
    turn(history, "", "2")
    excerpt = oldest_turns(history, 1)
    assert excerpt is not None
    assert len(excerpt.items) == 2


def test_instructions_that_an_earlier_conversation_begins_with_stay() -> None:
    history = History([Entry(role="system", text="Be brief."), Entry(role="user", text="hello")])
    turn(history, "one", "1")
    excerpt = oldest_turns(history, 1)
    assert excerpt is not None
    replace_turns(history, excerpt, "S")
    assert texts(history) == ["Be brief.", SUMMARY + "S", "one", "1"]


@given(
    st.lists(st.tuples(st.sampled_from("tpdis"), st.booleans(), st.booleans()), max_size=12),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_whatever_has_happened_the_history_can_be_sent_and_loses_no_instruction(
    steps: list[tuple[str, bool, bool]], keep: int, late: int
) -> None:
    history = History()
    pending: list[tuple[Any, str]] = []
    for number, (kind, with_tool, answered) in enumerate(steps):
        if kind == "i":
            history.system(f"rule {number}")
        elif kind == "s":
            excerpt = oldest_turns(history, keep)
            if excerpt is not None:
                assert replace_turns(history, excerpt, "S")
        elif kind == "d":
            history.drop(history.draft(f"q{number}"))
        elif kind == "p":
            history.draft(f"q{number}").say(0, "half")
        else:
            draft = turn(history, f"q{number}", "a", tool=with_tool, answered=answered)
            if with_tool and not answered:
                pending.append((draft, f"c q{number}"))
    for draft, name in pending[:late]:
        draft.result(ToolResult(id=name, name="book", content="late"))
    items: tuple[Item, ...] = history.request_items()
    assert pairing_error([*messages(items), {"role": "user", "content": "x"}]) is None
    rules = [item.text for item in items if isinstance(item, Entry) and item.text.startswith("rule")]
    assert rules == [f"rule {number}" for number, step in enumerate(steps) if step[0] == "i"]


# -- on a call ----------------------------------------------------------------------------------------


class Desk(Agent):
    summaries: HistorySummaries

    @tool
    async def book(self) -> str:
        """Book."""
        return "booked"


def session(llm: LLM, writer: LLM | None, **settings: Any) -> TextSession:
    def factory(voip: Any) -> None:
        agent = Desk(voip=voip, tts=HummingTTS, llm=llm, system="Be brief.")
        agent.summaries = HistorySummaries(agent, writer, **{"over_chars": 40, "keep_turns": 1, **settings})
        agent.activate()

    return TextSession(factory)


class Writer(ScriptedLLM):
    closed = False

    async def close(self) -> None:
        self.closed = True


async def test_the_model_reads_the_summary_in_place_of_the_oldest_turns() -> None:
    llm = ScriptedLLM(["First answer, which is long.", [ToolUse("book")], "Second answer.", "Third.", "Fourth."])
    writer = Writer([["They said things."], ["They said more."]])
    async with session(llm, writer) as call:
        await call.run("the first question is long too")
        assert writer.requests == [], "one turn is kept"
        await call.run("book it")
        assert len(writer.requests) == 1
        request = writer.requests[0]
        assert [item.role for item in request.items if isinstance(item, Entry)] == ["system", "user"]
        told = request.items[-1]
        assert isinstance(told, Entry)
        assert told.text == "Caller: the first question is long too\nAgent: First answer, which is long."
        await call.run("and now")
        assert [item.text for item in llm.requests[-1].items if isinstance(item, Entry)] == [
            "Be brief.",
            SUMMARY + "They said things.",
            "book it",
            "Second answer.",
            "and now",
        ]
        told = writer.requests[1].items[-1]
        assert isinstance(told, Entry)
        assert told.text.splitlines() == [
            f"Note: {SUMMARY.strip()}",
            "They said things.",
            "Caller: book it",
            "Agent calls book({})",
            "book answers (done): booked",
            "Agent: Second answer.",
        ]
        used = [e for e in call.events if isinstance(e, ev.UsageReported)]
        assert len(used) == 6, "four answers' and two summaries'"
    assert writer.closed


async def test_no_turn_waits_for_a_summary() -> None:
    llm = ScriptedLLM(lambda _: "A rather long answer to it.")
    writer = Writer([[30.0, "Summed up."]])
    async with session(llm, writer, keep_turns=1) as call:
        for number in range(4):
            before = call.now
            await call.run(f"a rather long question {number}")
            assert call.now - before < 10
        assert len(writer.requests) == 1, "one at a time"
        assert len(llm.requests[-1].items) == 8
        await call.silence(30)
        items = call.history
        assert isinstance(items[1], Entry)
        assert items[1].text == SUMMARY + "Summed up."
        assert len(items) == 8, "it stands for the first turn, which was all there was to sum up"


@pytest.mark.parametrize("answer", [ProviderError("x", "HTTP 500", retryable=True), "", RuntimeError("bug")])
async def test_a_summary_that_fails_is_told_and_tried_again_later(answer: Any) -> None:
    llm = ScriptedLLM(lambda _: "A rather long answer to it.")
    writer = Writer([answer, "Summed up."])
    async with session(llm, writer) as call:
        for number in range(5):
            await call.run(f"a rather long question {number}")
            assert len(writer.requests) == (number > 0)
        errors = [e for e in call.events if isinstance(e, ev.ErrorRaised)]
        assert [(e.code, e.fatal) for e in errors] == [("provider", False)]
        assert len(llm.requests[-1].items) == 10, "all of it"
        await call.run("another one")
        await call.run("another one")
        assert any(isinstance(item, Entry) and item.text == SUMMARY + "Summed up." for item in call.history)


async def test_a_summary_that_is_no_shorter_is_not_taken() -> None:
    llm = ScriptedLLM(lambda _: "A rather long answer to it.")
    async with session(llm, Writer(["long " * 100])) as call:
        for number in range(3):
            await call.run(f"a rather long question {number}")
        assert len(call.history) == 7


async def test_without_a_model_of_its_own_the_agents_writes() -> None:
    def answer(request: LLMRequest) -> str:
        first = request.items[0]
        return "Summed up." if isinstance(first, Entry) and "phone conversation" in first.text else "A long answer."

    async with session(ScriptedLLM(answer), None) as call:
        for number in range(3):
            await call.run(f"a rather long question {number}")
        assert any(isinstance(item, Entry) and item.text == SUMMARY + "Summed up." for item in call.history)


async def test_a_call_that_ends_gives_a_summary_up() -> None:
    started = asyncio.Event()
    stopped: list[bool] = []

    class Slow(Writer):
        async def stream(self, request: LLMRequest) -> Any:
            started.set()
            try:
                await asyncio.Event().wait()
                yield
            finally:
                stopped.append(True)

    writer = Slow([])
    async with session(ScriptedLLM(lambda _: "A rather long answer to it."), writer) as call:
        await call.run("a rather long question")
        await call.run("a rather long question")
        await started.wait()
        summaries = call.agent.summaries  # type: ignore[attr-defined]
    await summaries.wait_disposed()
    assert (stopped, writer.closed, summaries.disposed) == ([True], True, True)


async def test_wrong_settings_are_refused() -> None:
    async with TextSession(lambda voip: RuleAgent(voip=voip, tts=HummingTTS).activate()) as call:
        for settings in ({"over_chars": 0}, {"keep_turns": 0}):
            with pytest.raises(ConfigurationError):
                HistorySummaries(call.agent, **settings)
        call.agent.llm = None
        with pytest.raises(ConfigurationError, match="neither"):
            HistorySummaries(call.agent)
