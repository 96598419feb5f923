"""Responses without a socket: what is asked, and what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vendors import RESPONSES, SPEC, Setup, collect

from dialog.errors import AuthenticationError, ProviderError
from dialog.llm.llm import Entry, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, Usage
from dialog.llm.response_events import ResponsesDecoder, conversation
from dialog.llm.responses import DEFAULT_BASE_URL, DEFAULT_MODEL, ResponsesLLM

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "book", "arguments": '{"people":2}'}


def test_the_defaults_are_the_documented_ones() -> None:
    assert (DEFAULT_MODEL, DEFAULT_BASE_URL) == ("gpt-4.1-mini", "https://api.openai.com/v1")
    assert ResponsesLLM(api_key="k").model == DEFAULT_MODEL


def test_a_conversation_keeps_its_order() -> None:
    items = (
        Entry(role="system", text="Be brief."),
        Entry(role="user", text="A table."),
        Entry(role="assistant", text="One moment. "),
        ToolCall(id="c1", name="book", arguments='{"people":2}'),
        ToolResult(id="c1", name="book", content="booked"),
        Entry(role="assistant", text=" "),
        Entry(role="developer", text="It is late."),
    )
    assert conversation(items, {"c1": THOUGHT}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "A table."},
        {"role": "assistant", "content": "One moment."},
        THOUGHT,
        {"type": "function_call", "call_id": "c1", "name": "book", "arguments": '{"people":2}'},
        {"type": "function_call_output", "call_id": "c1", "output": "booked"},
        {"role": "developer", "content": "It is late."},
    ]


async def test_a_request_stores_nothing_and_its_tools_may_leave_arguments_out() -> None:
    setup = Setup(RESPONSES, injected=False)
    async with setup.emulator(["Fine."]) as emulator, setup.connect(emulator) as llm:
        await collect(llm, LLMRequest(items=(Entry(role="user", text="Hello?"),), tools=(SPEC,)))
        assert emulator.requests[-1].json() == {
            "model": "gpt-4.1-mini",
            "input": [{"role": "user", "content": "Hello?"}],
            "store": False,
            "stream_options": {"include_obfuscation": False},
            "tools": [
                {
                    "type": "function",
                    "name": "book",
                    "description": "Book a table.",
                    "parameters": json.loads(SPEC.parameters),
                    "strict": False,
                }
            ],
            "stream": True,
        }


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def text(words: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "delta": words}


def item(kind: str, index: int, what: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"response.output_item.{kind}", "output_index": index, "item": what}


def ended(kind: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "response": {"model": "m-1", "output": [], **fields}}


def read(*events: dict[str, Any], **settings: Any) -> list[LLMEvent]:
    decoder = ResponsesDecoder("openai", "m", **settings)
    out = decoder.feed(sse(*events))
    return out if decoder.done else out + decoder.close()


def test_words_usage_and_finish() -> None:
    usage = {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 2}
    assert read(text("Hi"), text("."), ended(usage=usage)) == [
        TextDelta("Hi"),
        TextDelta("."),
        Usage(model="m-1", input_tokens=36, cached_tokens=30, output_tokens=2),
        Finish("stop"),
    ]


def test_a_call_is_known_by_its_call_id_however_it_comes() -> None:
    expected = [ToolCall(id="c1", name="book", arguments='{"people":2}'), Finish("tool_calls")]
    begun = item("added", 0, {**CALL, "arguments": ""})
    half = {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": '{"people":'}
    rest = {**half, "delta": "2}"}
    assert read(begun, half, rest, ended()) == expected
    assert read(begun, half, rest, item("done", 0, CALL), ended()) == expected
    assert read(item("done", 0, CALL), ended()) == expected
    assert read(ended(output=[CALL])) == expected


def test_what_was_thought_before_a_call_is_told_with_its_id() -> None:
    kept: list[Any] = []
    read(
        item("done", 0, THOUGHT),
        item("added", 1, {**CALL, "arguments": ""}),
        item("done", 1, CALL),
        ended(),
        reasoning=lambda call_id, thought: kept.append((call_id, thought)),
    )
    assert kept == [("c1", THOUGHT)]


async def test_what_was_thought_goes_back_with_the_result_and_is_not_kept_for_ever() -> None:
    llm = ResponsesLLM(api_key="k")
    decoder = llm.decoder()
    decoder.feed(sse(item("done", 0, THOUGHT), item("done", 1, CALL), ended()))
    items = (ToolCall(id="c1", name="book", arguments="{}"), ToolResult(id="c1", name="book", content="ok"))
    assert llm.fields(LLMRequest(items=items))["input"][0] == THOUGHT
    for number in range(64):
        llm._keep(f"later {number}", THOUGHT)
    assert llm.fields(LLMRequest(items=items))["input"][0]["type"] == "function_call"


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        (ended(), "stop"),
        (ended("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (ended("incomplete", incomplete_details={"reason": "content_filter"}), "refused"),
        (ended("incomplete"), "length"),
    ],
)
def test_every_end_has_its_meaning(end: dict[str, Any], finish: Any) -> None:
    assert read(text("x"), end) == [TextDelta("x"), Finish(finish)]


@pytest.mark.parametrize(
    ("event", "kind", "reason", "retryable"),
    [
        (
            ended("failed", error={"code": "server_error", "message": "Sorry"}),
            ProviderError,
            "server_error: Sorry",
            True,
        ),
        (ended("failed", error={"code": "invalid_prompt", "message": "No"}), ProviderError, "invalid_prompt", False),
        (ended("cancelled"), ProviderError, "without an explanation", True),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "Slow"}, ProviderError, "Slow", True),
        ({"type": "error", "error": {"code": "invalid_api_key"}}, AuthenticationError, "check api_key", False),
        ({"type": "error", "code": "insufficient_quota", "message": "x"}, ProviderError, "add credit", False),
    ],
)
def test_every_failure_is_told(event: dict[str, Any], kind: type[ProviderError], reason: str, retryable: bool) -> None:
    with pytest.raises(kind, match=reason) as caught:
        read(event)
    assert caught.value.retryable is retryable


def test_events_of_other_shapes_are_skipped_and_broken_ones_are_not() -> None:
    other = {"type": "response.reasoning_summary_part.added", "output_index": "x", "delta": {"a": 1}}
    assert read(other, {"type": "surprise", "item": 3}, text("x"), ended()) == [TextDelta("x"), Finish("stop")]
    with pytest.raises(ProviderError, match="is not one of a response"):
        read({**text("x"), "delta": 3})


def test_a_terminator_of_chat_completions_changes_nothing() -> None:
    decoder = ResponsesDecoder("openai", "m")
    assert decoder.feed(sse(text("x")) + b"data: [DONE]\n\n") == [TextDelta("x")]
    with pytest.raises(ProviderError, match="before the model had finished"):
        decoder.close()
    assert read(text("x"), ended(), text("y")) == [TextDelta("x"), Finish("stop")]
