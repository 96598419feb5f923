"""The emulator is driven by the official SDK, which knows the real protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx2
import pytest

from dialog.testing.anthropic import AnthropicEmulator, conversation_error
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.server import Faults

ASK: Any = [{"role": "user", "content": "Hello?"}]
TOOL: Any = {"name": "book", "input_schema": {"type": "object", "properties": {"people": {"type": "integer"}}}}
WANTED: Any = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": ASK}


@pytest.fixture
async def emulator() -> AsyncIterator[AnthropicEmulator]:
    async with AnthropicEmulator() as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: AnthropicEmulator) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=emulator.api_key, base_url=emulator.base_url, max_retries=0) as client:
        yield client


async def test_the_sdk_accumulates_a_reply_with_tools(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic
) -> None:
    tools = [ToolUse("book", {"people": 2}), ToolUse("book", "")]
    emulator.say([ChatReply(text="One moment.", tools=tools, split=3, comments=True)])
    async with client.messages.stream(**WANTED, tools=[TOOL]) as stream:
        words = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert words == ["One", " moment."]
    assert message.stop_reason == "tool_use"
    assert [(b.name, b.id, b.input) for b in message.content if b.type == "tool_use"] == [
        ("book", "toolu_1_0", {"people": 2}),
        ("book", "toolu_1_1", {}),
    ]
    assert message.usage.output_tokens == 2
    assert emulator.exchanges[0].state == "finished"


async def test_the_sdk_reads_the_raw_events_in_their_order(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic
) -> None:
    emulator.say(["Hello there."])
    stream = await client.messages.create(**WANTED, stream=True)
    kinds = [event.type async for event in stream]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_the_sdk_reads_a_reply_that_is_not_streamed(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic
) -> None:
    emulator.say(["Hello there.", ChatReply(tools=[ToolUse("book", {"people": 2})]), ChatReply(refusal="No.")])
    message = await client.messages.create(**WANTED)
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello there."
    message = await client.messages.create(**WANTED)
    assert message.stop_reason == "tool_use"
    assert (await client.messages.create(**WANTED)).stop_reason == "refusal"
    assert await client.models.list()


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.APIStatusError, "overloaded_error"),
    ],
)
async def test_the_sdk_knows_every_refusal(
    emulator: AnthropicEmulator,
    client: anthropic.AsyncAnthropic,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    emulator.faults = Faults(refuse=status, times=1)
    with pytest.raises(error) as caught:
        await client.messages.create(**WANTED, stream=True)
    body: Any = caught.value.body
    assert body["error"]["type"] == kind
    assert caught.value.request_id == "req_refused"


async def test_the_sdk_raises_for_an_error_in_the_stream(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic
) -> None:
    emulator.say([ChatReply(text="a b", error={"type": "overloaded_error", "message": "Overloaded"})])
    stream = await client.messages.create(**WANTED, stream=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        _ = [event async for event in stream]
    body: Any = caught.value.body
    assert (caught.value.status_code, body["error"]["type"]) == (200, "overloaded_error")


async def test_the_sdk_sees_a_dropped_connection(emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic) -> None:
    emulator.faults = Faults(drop_after=3)
    stream = await client.messages.create(**WANTED, stream=True)
    with pytest.raises((anthropic.APIConnectionError, httpx2.HTTPError)):
        _ = [event async for event in stream]
    assert emulator.exchanges[0].state == "dropped"


async def test_both_kinds_of_credentials_are_known(emulator: AnthropicEmulator) -> None:
    for credentials in ({"api_key": emulator.api_key}, {"auth_token": emulator.api_key}):
        async with anthropic.AsyncAnthropic(base_url=emulator.base_url, **credentials) as client:
            assert await client.messages.create(**WANTED)
    async with anthropic.AsyncAnthropic(api_key="other", base_url=emulator.base_url, max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**WANTED)
        with pytest.raises(anthropic.AuthenticationError):
            await client.models.list()


def _use(*ids: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": name, "name": "f", "input": {}} for name in ids],
    }


def _result(*ids: str, text: str = "") -> dict[str, Any]:
    blocks: list[Any] = [{"type": "tool_result", "tool_use_id": name, "content": "ok"} for name in ids]
    return {"role": "user", "content": [*blocks, *([{"type": "text", "text": text}] if text else [])]}


def _said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        ([*ASK, _use("a", "b"), _result("b", "a", text="And?")], None),
        ([*ASK, _said("Hi."), *ASK], None),
        ([*ASK, _use("a", "b"), _result("a")], "without `tool_result` blocks immediately after"),
        ([*ASK, _use("a"), *ASK], "without `tool_result` blocks immediately after"),
        ([*ASK, _result("a")], "unexpected `tool_use_id`"),
        ([*ASK, _use("a"), {**_result("a"), "content": _result("a", text="x")["content"][::-1]}], "must come first"),
        ([*ASK, _use("a"), _result("a"), _use("a"), _result("a")], "must be unique"),
        ([*ASK, _use("a:1"), _result("a:1")], "should match pattern"),
        ([*ASK, _said("Hi. "), *ASK], "trailing whitespace"),
        ([*ASK, _said("Hi.")], "prefill"),
        ([_said("Hi."), *ASK], "must use the"),
        ([*ASK, _said("")], "non-empty"),
        ([{"role": "system", "content": "x"}, *ASK], "should be 'user' or 'assistant'"),
    ],
)
async def test_the_conversation_is_checked(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic, conversation: Any, reason: str | None
) -> None:
    wanted = {**WANTED, "messages": conversation, "tools": [TOOL]}
    if reason is None:
        assert conversation_error(conversation) is None
        assert await client.messages.create(**wanted)
    else:
        with pytest.raises(anthropic.BadRequestError, match=reason):
            await client.messages.create(**wanted)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": []}, "at least one message"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"temperature": 1.0}}, "temperature"),
        ({"tools": [{"name": "bad name", "input_schema": {"type": "object"}}]}, "pattern"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "should be 'object'"),
        ({"messages": [*ASK, _use("a"), _result("a")]}, "must define tools"),
    ],
)
async def test_wrong_requests_are_refused(
    emulator: AnthropicEmulator, client: anthropic.AsyncAnthropic, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=reason):
        await client.messages.create(**{**WANTED, **fields})
    assert emulator.exchanges == []
