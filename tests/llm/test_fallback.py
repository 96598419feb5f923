"""A chain of models: who answers when one fails, before and after words were given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendors import ANTHROPIC, ASK, CHAT, calls, collect, nothing_left, spoken

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError
from dialog.llm.continuation import INSTRUCTION, Seam
from dialog.llm.fallback import FallbackLLM
from dialog.llm.llm import (
    LLM,
    Entry,
    Finish,
    LLMEvent,
    LLMRequest,
    ModelSwitched,
    TextDelta,
    ToolCall,
    ToolResult,
    Usage,
)
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.server import Faults
from dialog.testing.virtual import run_virtual


class Model(LLM):
    """Gives what it is told to: events, waits in seconds, and errors."""

    def __init__(self, name: str, *script: Any, identity: Any = None) -> None:
        self._name = name
        self._identity = identity
        self.script = list(script)
        self.requests: list[LLMRequest] = []
        self.stopped = 0
        self.closed = False
        self.warmed = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> Any:
        return self._identity

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        self.requests.append(request)
        steps = self.script.pop(0) if self.script else ["Hello", " from ", self._name, "."]
        try:
            for step in steps if isinstance(steps, list) else [steps]:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, str):
                    yield TextDelta(step)
                else:
                    yield step
            yield Usage(model=self._name, output_tokens=1)
            if not any(isinstance(step, Finish) for step in (steps if isinstance(steps, list) else [steps])):
                yield Finish("stop")
        finally:
            self.stopped += 1

    def warm(self) -> None:
        self.warmed += 1

    async def close(self) -> None:
        self.closed = True


DOWN = ProviderError("a", "HTTP 500", retryable=True)
BAD = ProviderError("a", "HTTP 400", retryable=False)
CALL = ToolCall(id="c1", name="book", arguments="{}")


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    yield
    await nothing_left()


def switches(events: list[LLMEvent]) -> list[tuple[str, str, str]]:
    return [(e.instead_of, e.model, e.reason) for e in events if isinstance(e, ModelSwitched)]


# -- before any word --------------------------------------------------------------------------------


async def test_while_all_is_well_the_first_answers() -> None:
    a, b = Model("A"), Model("B")
    events = await collect(FallbackLLM([a, b]))
    assert (spoken(events), switches(events), b.requests) == ("Hello from A.", [], [])
    assert events[-1] == Finish("stop")


@pytest.mark.parametrize("error", [DOWN, BAD, AuthenticationError("a", "no"), RuntimeError("a bug"), OSError("x")])
async def test_a_failure_before_any_word_lets_the_next_answer_in_its_place(error: Exception) -> None:
    a, b = Model("A", error), Model("B")
    events = await collect(FallbackLLM([a, b]))
    assert spoken(events) == "Hello from B."
    [(old, new, reason)] = switches(events)
    assert (old, new) == ("A", "B")
    assert str(error) in reason
    assert b.requests == [ASK]


async def test_blanks_are_no_words() -> None:
    a, b = Model("A", [" ", "\n", DOWN]), Model("B")
    events = await collect(FallbackLLM([a, b]))
    assert spoken(events).strip() == "Hello from B."
    assert b.requests == [ASK]


def test_a_model_that_gives_nothing_in_time_is_left_for_the_next() -> None:
    async def scenario(clock: Any) -> None:
        a, b = Model("A", [30.0, "late"]), Model("B", [3.0, "In time."])
        events = await collect(FallbackLLM([a, b], timeout_s=4.0))
        assert spoken(events) == "In time."
        assert switches(events)[0][2] == "A: it gave nothing for 4 s"
        assert clock.now() == pytest.approx(7.0, abs=0.1)
        assert a.stopped == 1

    run_virtual(scenario)


async def test_a_model_that_declines_to_answer_at_all_gives_way_and_is_not_blamed() -> None:
    a, b = Model("A", *[[Finish("refused")]] * 5), Model("B")
    llm = FallbackLLM([a, b], failures=1)
    for _ in range(2):
        events = await collect(llm)
        assert spoken(events) == "Hello from B."
    assert len(a.requests) == 2
    assert all(circuit.closed for circuit in llm.circuits)


async def test_what_nobody_wants_to_answer_stays_refused() -> None:
    a, b = Model("A", [Finish("refused")]), Model("B", [Finish("refused")])
    assert (await collect(FallbackLLM([a, b])))[-1] == Finish("refused")


async def test_when_all_fail_the_error_names_every_reason() -> None:
    a, b = Model("A", DOWN), Model("B", BAD)
    with pytest.raises(ProviderError, match="A: a: HTTP 500; B: a: HTTP 400") as caught:
        await collect(FallbackLLM([a, b]))
    assert caught.value.retryable


async def test_a_mistake_of_the_program_is_not_hidden() -> None:
    with pytest.raises(ConfigurationError):
        await collect(FallbackLLM([Model("A", ConfigurationError("wrong")), Model("B")]))


# -- after words ------------------------------------------------------------------------------------


async def test_after_words_the_next_is_told_them_and_goes_on() -> None:
    a, b = Model("A", ["We are open", " until", DOWN]), Model("B", ["ten", " o'clock."])
    events = await collect(FallbackLLM([a, b]))
    assert spoken(events) == "We are open until ten o'clock."
    assert b.requests[0].items == (
        *ASK.items,
        Entry(role="assistant", text="We are open until", interrupted=True),
        Entry(role="system", text=INSTRUCTION),
    )
    assert switches(events) == [("A", "B", "a: HTTP 500")]


async def test_a_next_one_that_begins_anew_is_not_heard_twice() -> None:
    a, b = Model("A", ["We are open", DOWN]), Model("B", ["We are", " open until", " ten."])
    assert spoken(await collect(FallbackLLM([a, b]))) == "We are open until ten."


async def test_a_third_goes_on_where_the_second_stopped() -> None:
    a, b, c = Model("A", ["One", DOWN]), Model("B", ["two", DOWN]), Model("C", ["three."])
    assert spoken(await collect(FallbackLLM([a, b, c]))) == "One two three."
    assert c.requests[0].items[-2] == Entry(role="assistant", text="One two", interrupted=True)


async def test_a_stall_in_mid_reply_is_a_failure_too() -> None:
    a, b = Model("A", ["One", 5.0, "late"]), Model("B", ["two."])
    assert spoken(await collect(FallbackLLM([a, b], timeout_s=0.05))) == "One two."


async def test_tools_of_a_model_that_failed_are_never_called() -> None:
    a, b = Model("A", ["One moment.", CALL, DOWN]), Model("B", [CALL, Finish("tool_calls")])
    events = await collect(FallbackLLM([a, b]))
    assert calls(events) == [CALL]
    assert events[-1] == Finish("tool_calls")


async def test_a_stream_without_its_finish_has_failed() -> None:
    class Cut(Model):
        async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
            yield TextDelta("One")

    assert spoken(await collect(FallbackLLM([Cut("A"), Model("B", ["two."])]))) == "One two."


async def test_stopping_the_chain_stops_the_model_that_answers() -> None:
    a, b = Model("A", ["One", DOWN]), Model("B", ["two", 30.0])
    task = asyncio.create_task(collect(FallbackLLM([a, b], timeout_s=60)))
    while not b.requests:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert (task.cancelled(), a.stopped, b.stopped) == (True, 1, 1)
    a, b = Model("A"), Model("B")
    async with aclosing(cast(Any, FallbackLLM([a, b]).stream(ASK))) as stream:
        await anext(stream)
    assert a.stopped == 1


# -- circuits ---------------------------------------------------------------------------------------


def test_a_model_that_keeps_failing_is_left_out_and_probes_itself_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dialog.llm")

    async def scenario(clock: Any) -> None:
        a, b = Model("A", DOWN, DOWN, DOWN, ["still", " here"]), Model("B")
        llm = FallbackLLM([a, b], probe_after_s=15)
        for _ in range(4):
            assert spoken(await collect(llm)) == "Hello from B."
        assert len(a.requests) == 2, "after two failures it is not asked any more"
        await clock.sleep(15)
        assert spoken(await collect(llm)) == "Hello from B.", "nobody waits for the probe"
        await clock.sleep(0.1)
        assert len(a.requests) == 3, "which failed"
        await clock.sleep(29)
        await collect(llm)
        assert len(a.requests) == 3, "and doubles the wait"
        await clock.sleep(1)
        await collect(llm)
        await clock.sleep(0.1)
        assert len(a.requests) == 4
        events = await collect(llm)
        assert spoken(events) == "Hello from A."
        assert switches(events) == [("B", "A", "it is tried again")]

    run_virtual(scenario)
    assert [
        record.message for record in caplog.records if "left out" in record.message or "again" in record.message
    ] == [
        "A answers instead of B: it is tried again",
        "A is left out after repeated failures: a: HTTP 500",
        "A answers again",
        "A answers instead of B: it is tried again",
    ]


async def test_what_one_call_has_learnt_the_next_one_knows() -> None:
    first = FallbackLLM([Model("A", AuthenticationError("a", "no"), identity="server a"), Model("B")])
    await collect(first)
    a = Model("A", identity="server a")
    events = await collect(FallbackLLM([a, Model("B")]))
    assert a.requests == []
    assert switches(events) == [("A", "B", "it has failed repeatedly")]
    assert spoken(await collect(FallbackLLM([a, Model("B")], failures=3))) == "Hello from A.", (
        "others ask by themselves"
    )


async def test_of_two_that_are_behind_the_same_server_only_the_one_that_fails_is_left_out() -> None:
    a, b = Model("A", DOWN, DOWN, identity="server"), Model("B", identity="server")  # with a key of its own each
    llm = FallbackLLM([a, b])
    for _ in range(3):
        assert spoken(await collect(llm)) == "Hello from B."
    assert len(a.requests) == 2
    assert [circuit.closed for circuit in llm.circuits] == [False, True]


async def test_when_all_have_failed_all_are_tried() -> None:
    a, b = Model("A", DOWN, DOWN), Model("B", DOWN, DOWN)
    llm = FallbackLLM([a, b])
    for _ in range(2):
        with pytest.raises(ProviderError):
            await collect(llm)
    assert not any(circuit.closed for circuit in llm.circuits)
    assert spoken(await collect(llm)) == "Hello from A."
    assert llm.circuits[0].closed


async def test_a_request_that_is_wrong_in_itself_blames_nobody() -> None:
    llm = FallbackLLM([Model("A", BAD, BAD, BAD), Model("B")])
    for _ in range(3):
        await collect(llm)
    assert llm.circuits[0].closed


def test_a_probe_ends_with_the_chain() -> None:
    async def scenario(clock: Any) -> None:
        a = Model("A", DOWN, DOWN, [60.0])
        llm = FallbackLLM([a, Model("B")], timeout_s=100)
        for _ in range(2):
            await collect(llm)
        await clock.sleep(16)
        await collect(llm)
        await clock.sleep(1)
        assert len(a.requests) == 3
        await llm.close()
        assert a.stopped == 3
        assert llm.circuits[0].due(clock.now()), "the next one may probe at once"
        with pytest.raises(StateError):
            await collect(llm)

    run_virtual(scenario)


# -- life ---------------------------------------------------------------------------------------------


async def test_the_chain_warms_and_closes_all_its_models() -> None:
    a, b = Model("A"), Model("B")
    llm = FallbackLLM([a, b])
    llm.warm()
    await llm.close()
    assert (a.warmed, b.warmed, a.closed, b.closed) == (1, 1, True, True)
    assert repr(llm) == "<FallbackLLM A, B>"


@pytest.mark.parametrize(
    ("llms", "settings"),
    [([], {}), ([Model("A")], {"timeout_s": 0}), ([Model("A")], {"failures": 0}), ([Model("A")], {"probe_after_s": 0})],
)
def test_wrong_settings_are_refused_at_construction(llms: list[LLM], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        FallbackLLM(llms, **settings)


# -- two vendors, over sockets --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refused", "hangs", "dropped", "stalls", "error in the stream"])
async def test_one_vendor_goes_on_for_another(fault: str) -> None:
    faults, reply = None, ChatReply(text="We are open until ten.")
    match fault:
        case "refused":
            faults = Faults(refuse=500)
        case "hangs":
            faults = Faults(hang=True)
        case "dropped":
            faults = Faults(drop_after=4)
        case "stalls":
            faults = Faults(stall_after=4)
        case _:
            reply = ChatReply(text="We are open", error=CHAT.overloaded)
    before = fault in ("refused", "hangs")
    rest = "We are open until ten." if before else "until ten."
    async with CHAT.emulator([reply] * 3, faults=faults) as first, ANTHROPIC.emulator([rest]) as second:
        llm = FallbackLLM(
            [
                CHAT.llm(api_key=first.api_key, base_url=first.base_url, max_retries=0),
                ANTHROPIC.llm(api_key=second.api_key, base_url=second.base_url),
            ],
            timeout_s=0.3,
        )
        events = await collect(llm)
        assert spoken(events) == "We are open until ten."
        assert [(old, new) for old, new, _ in switches(events)] == [
            ("OpenAILLM gpt-4.1-mini", "AnthropicLLM claude-haiku-4-5")
        ]
        if not before:
            *_, said, instruction = second.exchanges[0].messages
            assert said["content"][0]["text"] == "We are open"
            assert INSTRUCTION in instruction["content"][0]["text"]
        if fault == "stalls":
            await first.until(lambda: first.exchanges[0].state == "disconnected")
        await llm.close()


async def test_tools_of_two_vendors_follow_each_other() -> None:
    """The second vendor is told of a call that the first one made, in its own terms."""
    async with (
        CHAT.emulator([ChatReply(tools=[ToolUse("book", {"people": 2}, id="call:1")])]) as first,
        ANTHROPIC.emulator(["Booked."]) as second,
    ):
        llm = FallbackLLM(
            [
                CHAT.llm(api_key=first.api_key, base_url=first.base_url, max_retries=0),
                ANTHROPIC.llm(api_key=second.api_key, base_url=second.base_url),
            ]
        )
        [call] = calls(await collect(llm))
        items = (*ASK.items, call, ToolResult(id=call.id, name=call.name, content="ok"))
        assert spoken(await collect(llm, LLMRequest(items=items))) == "Booked."
        await llm.close()


# -- the seam -----------------------------------------------------------------------------------------


def joined(said: str, *pieces: str) -> str:
    seam = Seam(said)
    return said + "".join([seam.feed(piece) for piece in pieces]) + seam.close()


@pytest.mark.parametrize(
    ("said", "pieces", "whole"),
    [
        ("We are open", ("until", " ten."), "We are open until ten."),
        ("We are open ", (" until", " ten."), "We are open until ten."),
        ("We are open", (", until ten.",), "We are open, until ten."),
        ("We are open", ("We", " are", " open", " until", " ten."), "We are open until ten."),
        ("We are open ", ("we are  open until ten.",), "We are open until ten."),
        ("We are op", ("We are open until ten.",), "We are open until ten."),
        ("We are open.", ("We are open.",), "We are open."),
        ("We are open", ("We are open",), "We are open"),
        ("We are open", ("We are", " closed."), "We are open We are closed."),
        ("No, no", ("no", "!"), "No, no no!"),
        ("Well", ("W",), "Well W"),
        ("Well", (), "Well"),
        ("Well", ("", " "), "Well "),
        ("Eins", ("", "zwei ", "drei"), "Eins zwei drei"),
    ],
)
def test_the_words_of_two_models_join(said: str, pieces: tuple[str, ...], whole: str) -> None:
    assert joined(said, *pieces) == whole


@given(
    st.lists(st.sampled_from(["a", "b", "no", "yes", " ", ".", "A"]), max_size=8),
    st.lists(st.integers(1, 4), max_size=9),
)
def test_however_the_words_are_cut_the_same_is_said(tokens: list[str], cuts: list[int]) -> None:
    text = "".join(tokens)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(text[at : at + cut])
        at += cut
    pieces.append(text[at:])
    assert joined("a no", *pieces).split() == joined("a no", text).split()
