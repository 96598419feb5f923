"""The emulator is driven by the official SDK, which knows the real protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.responses import ResponsesEmulator, input_error
from dialog.testing.server import Faults

TOOL: Any = {
    "type": "function",
    "name": "book",
    "strict": False,
    "parameters": {"type": "object", "properties": {"people": {"type": "integer"}}},
}


@pytest.fixture
async def emulator() -> AsyncIterator[ResponsesEmulator]:
    async with ResponsesEmulator() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: ResponsesEmulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=emulator.api_key, base_url=emulator.base_url, max_retries=0) as client:
        yield client


async def test_the_sdk_accumulates_a_reply_with_tools(emulator: ResponsesEmulator, client: openai.AsyncOpenAI) -> None:
    tools = [ToolUse("book", {"people": 2}), ToolUse("book", "{}")]
    emulator.say([ChatReply(text="One moment.", tools=tools, split=3, comments=True)])
    numbers: list[int] = []
    words = ""
    async with client.responses.stream(model="m", input="Hello?", tools=[TOOL]) as stream:
        async for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                words += event.delta
        response = await stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert words == response.output_text == "One moment."
    assert [(item.call_id, item.arguments) for item in response.output if item.type == "function_call"] == [
        ("call_1_0", '{"people":2}'),
        ("call_1_1", "{}"),
    ]
    assert response.usage is not None
    assert response.usage.output_tokens == 2


async def test_the_sdk_reads_the_raw_events_in_their_order(
    emulator: ResponsesEmulator, client: openai.AsyncOpenAI
) -> None:
    emulator.say(["Hello there."])
    stream = await client.responses.create(model="m", input="Hello?", stream=True)
    assert [event.type async for event in stream] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


async def test_the_sdk_reads_a_reply_that_is_not_streamed(
    emulator: ResponsesEmulator, client: openai.AsyncOpenAI
) -> None:
    emulator.say(["Hello there.", ChatReply(tools=[ToolUse("book", {"people": 2})])])
    assert (await client.responses.create(model="m", input="Hello?")).output_text == "Hello there."
    response = await client.responses.create(model="m", input=[{"role": "user", "content": "Hello?"}], tools=[TOOL])
    assert response.output[0].type == "function_call"
    assert await client.models.list()


@pytest.mark.parametrize("finish", ["max_output_tokens", "content_filter"])
async def test_the_sdk_reads_a_reply_that_was_cut(
    emulator: ResponsesEmulator, client: openai.AsyncOpenAI, finish: str
) -> None:
    emulator.say([ChatReply(text="and so", finish=finish)])
    async with client.responses.stream(model="m", input="Hello?") as stream:
        events = [event async for event in stream]
    last: Any = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == finish


async def test_the_sdk_reads_a_refusal_and_a_failure(emulator: ResponsesEmulator, client: openai.AsyncOpenAI) -> None:
    emulator.say(
        [
            ChatReply(refusal="I cannot."),
            ChatReply(error={"code": "server_error", "message": "Sorry"}),
            ChatReply(error={"type": "error", "code": "server_error", "message": "Sorry"}),
        ]
    )
    stream = await client.responses.create(model="m", input="Hello?", stream=True)
    assert "".join([event.delta async for event in stream if event.type == "response.refusal.delta"]) == "I cannot."
    stream = await client.responses.create(model="m", input="Hello?", stream=True)
    failed: Any = [event async for event in stream][-1]
    assert (failed.type, failed.response.error.code) == ("response.failed", "server_error")
    stream = await client.responses.create(model="m", input="Hello?", stream=True)
    error: Any = [event async for event in stream][-1]
    assert (error.type, error.code, error.message) == ("error", "server_error", "Sorry")


async def test_the_sdk_knows_refusals_and_drops(emulator: ResponsesEmulator, client: openai.AsyncOpenAI) -> None:
    emulator.faults = Faults(refuse=429, times=1)
    with pytest.raises(openai.RateLimitError):
        await client.responses.create(model="m", input="Hello?", stream=True)
    emulator.faults = Faults(drop_after=5)
    stream = await client.responses.create(model="m", input="Hello?", stream=True)
    with pytest.raises(openai.APIConnectionError):
        _ = [event async for event in stream]
    assert emulator.exchanges[0].state == "dropped"


def _call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def _output(name: str, output: Any = "ok") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": output}


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([_call("a"), _call("b"), _output("b"), _output("a"), {"role": "user", "content": "x"}], None),
        ([_call("a")], "No tool output found"),
        ([_output("a")], "No tool call found"),
        ([_call("a"), _output("a", {"x": 1})], "expected a string"),
        ([{"role": "robot", "content": "x"}], "Invalid value"),
        ([{"role": "user", "content": ""}], "empty"),
        ([{"type": "surprise"}], "Invalid value"),
        ([], "must be provided"),
    ],
)
async def test_the_input_is_checked(
    emulator: ResponsesEmulator, client: openai.AsyncOpenAI, items: Any, reason: str | None
) -> None:
    if reason is None:
        assert input_error(items) is None
        assert await client.responses.create(model="m", input=items)
    else:
        with pytest.raises(openai.BadRequestError, match=reason):
            await client.responses.create(model="m", input=items)


@pytest.mark.parametrize(
    "tool",
    [
        {**TOOL, "name": "bad name"},
        {**TOOL, "parameters": {"type": "array"}},
        {**TOOL, "strict": True},
        {"type": "function", "function": {"name": "book"}},
    ],
)
async def test_wrong_tools_are_refused(emulator: ResponsesEmulator, client: openai.AsyncOpenAI, tool: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model="m", input="Hello?", tools=[tool])
