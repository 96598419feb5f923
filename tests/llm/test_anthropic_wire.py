"""The messages API without a socket: what is asked, and what is read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vendors import ANTHROPIC, SPEC, Setup, collect

from dialog.errors import ProviderError
from dialog.llm import anthropic as module
from dialog.llm.anthropic import AnthropicLLM
from dialog.llm.llm import CONNECTED, Entry, Finish, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, Usage
from dialog.llm.messages import GO_ON, MessagesDecoder, conversation
from dialog.llm.response_events import ResponsesDecoder
from dialog.testing.anthropic import conversation_error


def user(text: str) -> Entry:
    return Entry(role="user", text=text)


def agent(text: str) -> Entry:
    return Entry(role="assistant", text=text)


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id=name, name="book", arguments=arguments)


def result(name: str, state: Any = "done") -> ToolResult:
    return ToolResult(id=name, name="book", content="ok", state=state)


def texts(message: dict[str, Any]) -> list[str]:
    return [block.get("text", block["type"]) for block in message["content"]]


def test_the_defaults_are_the_documented_ones() -> None:
    llm = AnthropicLLM(api_key="k")
    assert (llm.model, module.DEFAULT_MAX_TOKENS, module.API_VERSION) == ("claude-haiku-4-5", 2048, "2026-10-21")
    assert module.DEFAULT_BASE_URL == "https://api.anthropic.com"


def test_instructions_at_the_beginning_are_the_system_text_and_later_ones_stay_in_their_place() -> None:
    items = (
        Entry(role="system", text="Be brief."),
        Entry(role="developer", text="It is Monday. "),
        user("Hello."),
        agent("Hi. "),
        Entry(role="system", text="The kitchen closes."),
        user("And now?"),
    )
    system, messages = conversation(items)
    assert system == "Be brief.\n\nIt is Monday."
    assert [(message["role"], texts(message)) for message in messages] == [
        ("user", ["Hello."]),
        ("assistant", ["Hi."]),
        ("user", ["<system>\nThe kitchen closes.\n</system>", "And now?"]),
    ]


def test_a_user_begins_and_ends_every_conversation() -> None:
    assert [texts(m) for m in conversation(())[1]] == [[CONNECTED]]
    assert [texts(m) for m in conversation((agent("Good evening!"),))[1]] == [[CONNECTED], ["Good evening!"], [GO_ON]]
    assert [texts(m) for m in conversation((call("a"), result("a")))[1]] == [[CONNECTED], ["tool_use"], ["tool_result"]]


def test_parallel_calls_are_one_message_and_their_results_the_next() -> None:
    items = (
        user("Two."),
        agent("One moment."),
        call("a", '{"n":1}'),
        call("b", "oops"),
        result("a"),
        result("b", "failed"),
        user("Well?"),
    )
    messages = conversation(items)[1]
    assert [texts(message) for message in messages] == [
        ["Two."],
        ["One moment.", "tool_use", "tool_use"],
        ["tool_result", "tool_result", "Well?"],
    ]
    assert [block["input"] for block in messages[1]["content"][1:]] == [{"n": 1}, {"invalid_json": "oops"}]
    assert [block.get("is_error", False) for block in messages[2]["content"][:2]] == [False, True]
    assert conversation_error(messages) is None


def test_ids_of_other_vendors_are_made_acceptable_and_stay_in_pairs() -> None:
    items = (
        user("x"),
        call("fc:1"),
        result("fc:1"),
        call("fc:1"),
        call("fc_1"),
        result("fc_1"),
        result("fc:1"),
        user("y"),
    )
    messages = conversation(items)[1]
    assert conversation_error(messages) is None
    uses = [block["id"] for message in messages for block in message["content"] if block["type"] == "tool_use"]
    results = [b["tool_use_id"] for message in messages for b in message["content"] if b["type"] == "tool_result"]
    assert uses == ["fc_1", "fc_1_2", "fc_1_3"]
    assert results == ["fc_1", "fc_1_3", "fc_1_2"]


async def test_a_request_is_marked_for_the_cache_and_does_not_think_aloud() -> None:
    setup = Setup(ANTHROPIC, injected=False)
    async with setup.emulator(["Fine."] * 2) as emulator, setup.connect(emulator) as llm:
        await collect(llm, LLMRequest(items=(Entry(role="system", text="Be brief."), user("Hello?")), tools=(SPEC,)))
        arrived = emulator.requests[-1]
        assert arrived.json() == {
            "model": "claude-haiku-4-5",
            "max_tokens": 2048,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}],
            "thinking": {"type": "disabled"},
            "cache_control": {"type": "ephemeral"},
            "system": "Be brief.",
            "tools": [{"name": "book", "description": "Book a table.", "input_schema": json.loads(SPEC.parameters)}],
            "stream": True,
        }
        assert (arrived.headers["x-api-key"], arrived.headers["anthropic-version"]) == (emulator.api_key, "2026-10-21")
        await collect(llm, LLMRequest(items=(user("Hello?"), call("a"), result("a"))))
        fields = emulator.requests[-1].json()
        assert fields["tools"] == [{"name": "book", "input_schema": {"type": "object"}}]
        assert fields["tool_choice"] == {"type": "none"}


async def test_another_version_of_the_api_can_be_asked_for_and_the_address_may_have_its_version() -> None:
    setup = Setup(ANTHROPIC, injected=False)
    settings = {"headers": {"anthropic-version": "2023-06-01"}, "options": {"temperature": 0.3}}
    async with setup.emulator(["Fine."]) as emulator:
        async with setup.connect(emulator, base_url=emulator.base_url + "/v1/", **settings) as llm:
            await collect(llm)
        assert emulator.requests[-1].headers["anthropic-version"] == "2023-06-01"
        assert emulator.requests[-1].json()["temperature"] == 0.3


# -- reading ------------------------------------------------------------------------------------------


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def start(**usage: int) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": "claude-x", "content": [], "usage": usage}}


def text(words: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}


def stop(reason: str | None, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


STOP: dict[str, Any] = {"type": "message_stop"}


def read(*events: dict[str, Any]) -> list[LLMEvent]:
    return MessagesDecoder("anthropic", "m").feed(sse(*events))


def test_usage_counts_what_was_read_from_and_written_to_the_cache() -> None:
    events = read(
        start(input_tokens=5, cache_creation_input_tokens=100, cache_read_input_tokens=1000, output_tokens=1),
        text("Hi."),
        stop("end_turn", output_tokens=7),
        STOP,
    )
    assert events == [
        TextDelta("Hi."),
        Usage(model="claude-x", input_tokens=1105, cached_tokens=1000, output_tokens=7),
        Finish("stop"),
    ]


def test_usage_that_is_repeated_counts_once() -> None:
    events = read(
        start(input_tokens=5, output_tokens=1), text("x"), stop("end_turn", input_tokens=5, output_tokens=2), STOP
    )
    assert events[1] == Usage(model="claude-x", input_tokens=5, output_tokens=2)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("refusal", "refused"),
        ("tool_use", "stop"),
        ("something_new", "stop"),
    ],
)
def test_every_stop_reason_has_its_meaning(reason: str, finish: Any) -> None:
    assert read(start(), text("x"), stop(reason), STOP)[-1] == Finish(finish)


def test_a_refused_reply_calls_nothing() -> None:
    block = {"type": "tool_use", "id": "a", "name": "book", "input": {}}
    events = read({"type": "content_block_start", "index": 0, "content_block": block}, stop("refusal"), STOP)
    assert events == [Finish("refused")]


def test_a_call_that_comes_whole_and_blocks_of_others_are_read() -> None:
    events = read(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "So. "}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "server_tool_use", "id": "s", "name": "w", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"q":1}'}},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {"type": "tool_use", "id": "a", "name": "book", "input": {"n": 1}},
        },
        {"type": "content_block_delta", "index": 3, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        stop("tool_use"),
        STOP,
    )
    assert events == [TextDelta("So. "), ToolCall(id="a", name="book", arguments='{"n":1}'), Finish("tool_calls")]


def test_pings_and_the_start_are_no_signs_of_life_and_thinking_is() -> None:
    decoder = MessagesDecoder("anthropic", "m")
    decoder.feed(sse(start(), {"type": "ping"}))
    assert decoder.chunks == 0
    decoder.feed(
        sse({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}})
    )
    assert decoder.chunks == 1


def test_a_stop_without_a_reason_is_a_failure() -> None:
    with pytest.raises(ProviderError, match="without a stop reason"):
        read(start(), STOP)


def test_what_trails_behind_the_reason_cannot_spoil_the_reply() -> None:
    decoder = MessagesDecoder("anthropic", "m")
    decoder.feed(sse(text("Hi."), stop("end_turn")) + b"data: {{{\n\n" + sse({"type": "error", "error": {}}))
    assert decoder.close() == [Finish("stop")]


def test_endless_arguments_and_endless_calls_are_given_up() -> None:
    block = {"type": "tool_use", "id": "", "name": "book", "input": {}}
    starts = [{"type": "content_block_start", "index": n, "content_block": block} for n in range(129)]
    decoder = MessagesDecoder("anthropic", "m")
    decoder.feed(sse(*starts))
    with pytest.raises(ProviderError, match="more than 128 tools"):
        decoder.feed(b"")
    decoder = MessagesDecoder("anthropic", "m")
    decoder.feed(sse(starts[0]))
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": "x" * 200_000},
    }
    decoder.feed(sse(delta))
    decoder.feed(sse(delta))
    with pytest.raises(ProviderError, match="longer than 256000"):
        decoder.feed(b"")


# -- whatever comes -----------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[Item, ...]:
    """Items as History gives them: calls in groups with all their results behind them, in any order."""
    items: list[Item] = []
    for kind in draw(st.lists(st.sampled_from(["system", "developer", "user", "assistant", "tools"]), max_size=10)):
        if kind != "tools":
            items.append(Entry(role=kind, text=draw(st.sampled_from(["", " ", "x", "Hello. ", "\n"]))))  # type: ignore[arg-type]
            continue
        ids = draw(st.lists(st.sampled_from(["a", "a:b", "a_b", "é"]), min_size=1, max_size=3, unique=True))
        items += [call(name, draw(st.sampled_from(["{}", '{"n":1}', "[", "3", ""]))) for name in ids]
        items += [result(name, draw(st.sampled_from(["done", "failed"]))) for name in draw(st.permutations(ids))]
    return tuple(items)


@given(histories())
def test_every_conversation_is_one_that_anthropic_accepts(items: tuple[Item, ...]) -> None:
    _, messages = conversation(items)
    assert conversation_error(messages) is None


WHOLE = sse(
    start(input_tokens=5),
    text("Grüße"),
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "a", "name": "b", "input": {}},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x":"é"}'}},
    stop("tool_use", output_tokens=2),
    STOP,
)


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_however_the_bytes_are_cut_the_reply_is_the_same(cuts: list[int]) -> None:
    decoder = MessagesDecoder("anthropic", "m")
    places = [0, *sorted(cuts), len(WHOLE)]
    events = [event for begin, end in pairwise(places) for event in decoder.feed(WHOLE[begin:end])]
    assert events == MessagesDecoder("anthropic", "m").feed(WHOLE)
    assert decoder.done


@pytest.mark.parametrize("kind", [MessagesDecoder, ResponsesDecoder])
@given(data=st.data())
def test_whatever_a_server_sends_only_provider_errors_come_of_it(kind: Any, data: st.DataObject) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
        max_leaves=8,
    )
    event = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
    named = st.builds(lambda e, t: {**e, "type": t}, event, st.sampled_from(TYPES))
    decoder = kind("x", "m")
    try:
        for one in data.draw(st.lists(named | event | values, max_size=4)):
            decoder.feed(b"data: " + json.dumps(one).encode() + b"\n\n")
        decoder.feed(data.draw(st.binary(max_size=20)))
        decoder.close()
    except ProviderError:
        return
    assert decoder.done


FIELDS = [
    "type", "index", "delta", "content_block", "message", "usage", "error", "item", "response", "output_index",
    "text", "partial_json", "stop_reason", "id", "call_id", "name", "arguments", "input", "output", "code",
]  # fmt: skip
TYPES = [
    "message_start", "message_delta", "message_stop", "content_block_start", "content_block_delta", "error",
    "response.created", "response.completed", "response.incomplete", "response.failed", "response.output_text.delta",
    "response.output_item.added", "response.output_item.done", "response.function_call_arguments.delta",
]  # fmt: skip
