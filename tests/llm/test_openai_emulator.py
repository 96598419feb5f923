"""The emulator is driven by the official SDK, which knows the real protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse, pairing_error
from dialog.testing.server import Faults

ASK: Any = [{"role": "user", "content": "Hello?"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "book", "parameters": {"type": "object", "properties": {"people": {"type": "integer"}}}},
}


@pytest.fixture
async def emulator() -> AsyncIterator[OpenAIEmulator]:
    async with OpenAIEmulator() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: OpenAIEmulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=emulator.api_key, base_url=emulator.base_url, max_retries=0) as client:
        yield client


def script(emulator: OpenAIEmulator, *replies: ChatReply | str) -> None:
    emulator.say(replies)


async def test_the_sdk_streams_a_reply_with_usage(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator, ChatReply(text="We open at eight.", split=3, comments=True))
    stream = await client.chat.completions.create(
        model="m", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    async with stream:
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "We open at eight."
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert emulator.exchanges[0].state == "finished"


async def test_the_sdks_own_accumulator_reads_tool_calls(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator, ChatReply(text="One moment.", tools=[ToolUse("book", {"people": 2}), ToolUse("book", "")]))
    async with client.chat.completions.stream(model="m", messages=ASK, tools=[TOOL]) as stream:
        completion = await stream.get_final_completion()
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "One moment."
    assert [(call.id, call.function.arguments) for call in choice.message.tool_calls or ()] == [
        ("call_1_0", '{"people":2}'),
        ("call_1_1", ""),
    ]


async def test_the_sdk_reads_a_reply_that_is_not_streamed(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator, "Hello there.", ChatReply(tools=[ToolUse("book", {"people": 2})]))
    completion = await client.chat.completions.create(model="m", messages=ASK)
    assert completion.choices[0].message.content == "Hello there."
    completion = await client.chat.completions.create(model="m", messages=ASK)
    assert completion.choices[0].finish_reason == "tool_calls"
    assert await client.models.list()


async def test_the_sdk_reads_a_refusal_and_a_cut_by_length(
    emulator: OpenAIEmulator, client: openai.AsyncOpenAI
) -> None:
    script(emulator, ChatReply(refusal="I cannot."), ChatReply(text="and so", finish="length"))
    async with client.chat.completions.stream(model="m", messages=ASK) as stream:
        assert (await stream.get_final_completion()).choices[0].message.refusal == "I cannot."
    async with client.chat.completions.stream(model="m", messages=ASK) as stream:
        with pytest.raises(openai.LengthFinishReasonError):
            await stream.get_final_completion()


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (400, openai.BadRequestError, None),
        (401, openai.AuthenticationError, "invalid_api_key"),
        (403, openai.PermissionDeniedError, "unsupported_country_region_territory"),
        (404, openai.NotFoundError, "model_not_found"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
    ],
)
async def test_the_sdk_knows_every_refusal(
    emulator: OpenAIEmulator,
    client: openai.AsyncOpenAI,
    status: int,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    emulator.faults = Faults(refuse=status, times=1)
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model="m", messages=ASK, stream=True)
    assert caught.value.code == code
    assert caught.value.request_id == "req_refused"


async def test_the_sdk_retries_as_the_headers_ask(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    emulator.faults = Faults(refuse=429, times=1, refuse_headers={"retry-after-ms": "1"})
    completion = await client.with_options(max_retries=1).chat.completions.create(model="m", messages=ASK)
    assert completion.choices[0].message.content == "You said: Hello?"
    assert len(emulator.requests) == 2


async def test_the_sdk_raises_for_an_error_in_the_stream(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator, ChatReply(text="a b", error={"message": "The server had an error", "type": "server_error"}))
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="had an error"):
        _ = [chunk async for chunk in stream]


async def test_the_sdk_sees_a_dropped_connection(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    emulator.faults = Faults(drop_after=2)
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    with pytest.raises(openai.APIConnectionError):
        _ = [chunk async for chunk in stream]
    assert emulator.exchanges[0].state == "dropped"


async def test_the_emulator_notes_at_which_token_the_client_left(
    emulator: OpenAIEmulator, client: openai.AsyncOpenAI
) -> None:
    script(emulator, ChatReply(text="word " * 1000, token_s=0.01))
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    async with stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
    assert 1 <= emulator.exchanges[0].sent < 20


async def test_tokens_keep_their_schedule(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator, ChatReply(text="a b c d e f", first_token_s=0.05, token_s=0.03, burst=2))
    clock = asyncio.get_running_loop().time
    started = clock()
    stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
    times = [clock() - started async for chunk in stream if chunk.choices[0].delta.content]
    assert len(times) == 6
    assert times[0] >= 0.05
    assert times[-1] >= 0.11


async def test_connections_are_kept_alive(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    for _ in range(3):
        stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
        _ = [chunk async for chunk in stream]
    assert {exchange.connection for exchange in emulator.exchanges} == {0}


def _call(*ids: str) -> dict[str, Any]:
    calls = [{"id": name, "type": "function", "function": {"name": "f", "arguments": "{}"}} for name in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _tool(name: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "ok"}


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        ([*ASK, _call("a", "b"), _tool("b"), _tool("a")], None),
        ([*ASK, _call("a"), _tool("a"), _call("a"), _tool("a")], None),
        ([*ASK, _call("a", "b"), _tool("a")], "did not have response messages: b"),
        ([*ASK, _call("a"), *ASK, _tool("a")], "did not have response messages: a"),
        ([*ASK, _tool("a")], "must be a response to a preceeding message"),
        ([*ASK, _call("a"), _tool("a"), _tool("a")], "must be a response to a preceeding message"),
        ([*ASK, _call("a", "a"), _tool("a")], "used twice"),
        ([{"role": "assistant", "content": None}], "expected a string, got null"),
        ([{"role": "robot", "content": "x"}], "Invalid value: 'robot'"),
    ],
)
async def test_the_pairing_of_tools_is_checked(
    emulator: OpenAIEmulator, client: openai.AsyncOpenAI, conversation: Any, reason: str | None
) -> None:
    if reason is None:
        assert pairing_error(conversation) is None
        assert await client.chat.completions.create(model="m", messages=conversation)
    else:
        with pytest.raises(openai.BadRequestError, match=reason):
            await client.chat.completions.create(model="m", messages=conversation)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": ASK, "stream_options": {"include_usage": True}},
        {"messages": ASK, "stream": True, "stream_options": {"surprise": True}},
        {"messages": ASK, "tools": [{"type": "function", "function": {"name": "bad name"}}]},
        {"messages": ASK, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
    ],
)
async def test_wrong_requests_are_refused(
    emulator: OpenAIEmulator, client: openai.AsyncOpenAI, fields: dict[str, Any]
) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="m", **fields)
    assert emulator.exchanges == []


async def test_a_wrong_key_is_refused(emulator: OpenAIEmulator) -> None:
    async with openai.AsyncOpenAI(api_key="other", base_url=emulator.base_url, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_a_script_that_has_ended_says_so(emulator: OpenAIEmulator, client: openai.AsyncOpenAI) -> None:
    script(emulator)
    with pytest.raises(openai.InternalServerError, match="no further reply in its script"):
        await client.chat.completions.create(model="m", messages=ASK)
