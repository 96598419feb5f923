from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from email.utils import formatdate
from time import time
from typing import Any, Protocol, cast

import openai
import pytest

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError
from dialog.llm import openai as module
from dialog.llm.llm import Entry, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.openai import DEFAULT_BASE_URL, DEFAULT_MODEL, OpenAILLM
from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse
from dialog.testing.server import Faults

ASK = LLMRequest(items=(Entry(role="user", text="Hello?"),))
SPEC = ToolSpec(
    name="book",
    description="Book a table.",
    parameters='{"type":"object","properties":{"people":{"type":"integer"}},"required":["people"],"additionalProperties":false}',
)


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    """No test leaves a task, and what one server refused is not remembered for another."""
    module._refused_options.clear()
    yield
    async with asyncio.timeout(3):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


class Connect(Protocol):
    def __call__(self, emulator: OpenAIEmulator, **settings: Any) -> Any: ...


@asynccontextmanager
async def _own_session(emulator: OpenAIEmulator, **settings: Any) -> AsyncIterator[OpenAILLM]:
    settings = {"api_key": emulator.api_key, "base_url": emulator.base_url, **settings}
    llm = OpenAILLM(**settings)
    try:
        yield llm
    finally:
        await llm.close()


@asynccontextmanager
async def _injected(emulator: OpenAIEmulator, **settings: Any) -> AsyncIterator[OpenAILLM]:
    key = settings.pop("api_key", emulator.api_key)
    base_url = settings.pop("base_url", emulator.base_url)
    retries = settings.pop("max_retries", 1)
    async with openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=retries) as client:
        llm = OpenAILLM(client=client, **settings)
        try:
            yield llm
        finally:
            await llm.close()


@pytest.fixture(params=[_own_session, _injected], ids=["aiohttp", "client"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """The adapter with Dialog's shared session, and with a client that the user configured."""
    return cast(Connect, request.param)


async def collect(llm: OpenAILLM, request: LLMRequest = ASK, *, into: list[LLMEvent] | None = None) -> list[LLMEvent]:
    """All events of a reply; ``into`` keeps those that came before a failure."""
    events = [] if into is None else into
    async with asyncio.timeout(10):
        async for event in llm.stream(request):
            events.append(event)
    return events


def spoken(events: list[LLMEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_a_reply_streams_word_by_word_and_ends_with_usage_and_finish(connect: Connect) -> None:
    async with OpenAIEmulator(["We open at eight."]) as emulator, connect(emulator) as llm:
        events = await collect(llm)
    assert [event.text for event in events if isinstance(event, TextDelta)] == ["We", " open", " at", " eight."]
    assert isinstance(events[-2], Usage)
    assert (events[-2].output_tokens, events[-2].model) == (4, DEFAULT_MODEL)
    assert events[-1] == Finish("stop")


async def test_the_defaults_are_the_documented_ones() -> None:
    assert (DEFAULT_MODEL, DEFAULT_BASE_URL) == ("gpt-4.1-mini", "https://api.openai.com/v1")
    assert OpenAILLM(api_key="k").model == DEFAULT_MODEL


def test_the_sdk_is_not_imported_for_dialogs_own_requests() -> None:
    code = "import sys, dialog.llm.openai; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_the_request_carries_options_headers_query_tools_and_history(connect: Connect) -> None:
    items = (
        Entry(role="system", text="You are brief."),
        Entry(role="developer", text="It is Monday."),
        Entry(role="assistant", text="Good evening! "),
        Entry(role="user", text="A table for two."),
        Entry(role="assistant", text="One moment. "),
        ToolCall(id="c1", name="book", arguments='{"people":2}'),
        ToolCall(id="c2", name="book", arguments='{"people":3}'),
        ToolResult(id="c1", name="book", content="booked"),
        ToolResult(id="c2", name="book", content="full", state="failed"),
        Entry(role="user", text=""),
    )
    settings = {
        "model": "some-model",
        "options": {"temperature": 0.2, "vendor_field": {"x": 1}},
        "headers": {"X-Team": "night"},
        "query": {"api-version": "1"},
    }
    async with OpenAIEmulator(["Done."]) as emulator, connect(emulator, **settings) as llm:
        await collect(llm, LLMRequest(items=items, tools=(SPEC,)))
        arrived = emulator.requests[-1]
    fields = arrived.json()
    assert fields["messages"] == [
        {"role": "system", "content": "You are brief."},
        {"role": "developer", "content": "It is Monday."},
        {"role": "assistant", "content": "Good evening!"},
        {"role": "user", "content": "A table for two."},
        {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "book", "arguments": '{"people":2}'}},
                {"id": "c2", "type": "function", "function": {"name": "book", "arguments": '{"people":3}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "booked"},
        {"role": "tool", "tool_call_id": "c2", "content": "full"},
    ]
    assert fields["tools"] == [
        {
            "type": "function",
            "function": {"name": "book", "description": "Book a table.", "parameters": json.loads(SPEC.parameters)},
        }
    ]
    assert (fields["model"], fields["stream"], fields["temperature"]) == ("some-model", True, 0.2)
    assert fields["vendor_field"] == {"x": 1}
    assert fields["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert arrived.headers["X-Team"] == "night"
    assert arrived.values("api-version") == ["1"]


@pytest.mark.parametrize("style", ["indexed", "no_index", "index_zero", "whole", "repeated_id", "no_id"])
async def test_parallel_tool_calls_are_put_together_however_a_server_cuts_them(connect: Connect, style: Any) -> None:
    tools = [ToolUse("book", {"people": 2, "note": "é"}), ToolUse("book", {"people": 3}), ToolUse("now", "")]
    reply = ChatReply(text="Let me see.", tools=tools, tool_style=style)
    async with OpenAIEmulator([reply]) as emulator, connect(emulator) as llm:
        events = await collect(llm)
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [
        ("book", '{"people":2,"note":"é"}'),
        ("book", '{"people":3}'),
        ("now", "{}"),
    ]
    assert len({call.id for call in calls}) == 3
    assert all(call.id for call in calls)
    assert spoken(events) == "Let me see."
    assert events[-1] == Finish("tool_calls")


async def test_invalid_arguments_come_as_the_model_wrote_them(connect: Connect) -> None:
    reply = ChatReply(tools=[ToolUse("book", '{"people": tw')])
    async with OpenAIEmulator([reply]) as emulator, connect(emulator) as llm:
        events = await collect(llm)
    assert [event.arguments for event in events if isinstance(event, ToolCall)] == ['{"people": tw']


@pytest.mark.parametrize(
    "reply",
    [
        ChatReply(text="Grüße, señor 😀", split=1),
        ChatReply(text="Grüße, señor 😀", split=7, newline="\r\n", comments=True),
        ChatReply(text="Grüße, señor 😀", burst=3),
        ChatReply(text="Grüße, señor 😀", usage=False),
        ChatReply(text="Grüße, señor 😀", done=False),
    ],
    ids=["every byte", "crlf and comments", "bursts", "no usage", "no terminator"],
)
async def test_a_reply_is_whole_however_it_arrives(connect: Connect, reply: ChatReply) -> None:
    async with OpenAIEmulator([reply]) as emulator, connect(emulator) as llm:
        events = await collect(llm)
    assert spoken(events) == "Grüße, señor 😀"
    assert events[-1] == Finish("stop")


@pytest.mark.parametrize(
    ("reply", "finish"),
    [
        (ChatReply(text="And so on and", finish="length"), "length"),
        (ChatReply(text="Well", finish="content_filter"), "refused"),
        (ChatReply(refusal="I cannot help with that."), "refused"),
        (ChatReply(text="Hi", finish="eos"), "stop"),
        (ChatReply(tools=[ToolUse("book", {"people": 2})], finish="stop"), "tool_calls"),
        (ChatReply(text="x", finish="tool_calls"), "stop"),
        (ChatReply(tools=[ToolUse("book", '{"peo')], finish="length"), "length"),
    ],
)
async def test_every_finish_reason_has_its_meaning(connect: Connect, reply: ChatReply, finish: str) -> None:
    async with OpenAIEmulator([reply]) as emulator, connect(emulator) as llm:
        events = await collect(llm)
    assert events[-1] == Finish(cast(Any, finish))
    assert spoken(events) == str(reply.text) + reply.refusal


async def test_unknown_events_are_skipped(connect: Connect) -> None:
    async with OpenAIEmulator(["All is well."], faults=Faults(unknown=True)) as emulator, connect(emulator) as llm:
        assert spoken(await collect(llm)) == "All is well."


@pytest.mark.parametrize(
    ("faults", "reply", "reason", "retryable"),
    [
        (Faults(drop_after=3), ChatReply(text="a b c d e"), "connection broke|ended before", True),
        (Faults(garbage_after=3), ChatReply(text="a b c d e"), "not a chat completion chunk", True),
        (None, ChatReply(text="a b", finish="", done=False, usage=False), "before the model had finished", True),
        (None, ChatReply(text="a b", finish=""), "without a finish reason", True),
        (
            None,
            ChatReply(text="a b", error={"message": "The server had an error", "type": "server_error", "code": None}),
            "in the stream: server_error: The server had an error",
            True,
        ),
        (
            None,
            ChatReply(text="a b", error={"message": "too long", "code": "context_length_exceeded"}),
            "context_length_exceeded",
            False,
        ),
    ],
    ids=["dropped", "garbage", "cut cleanly", "done without finish", "server error", "context length"],
)
async def test_a_failure_in_mid_stream_comes_after_the_words_that_arrived(
    connect: Connect, faults: Faults | None, reply: ChatReply, reason: str, retryable: bool
) -> None:
    events: list[LLMEvent] = []
    async with OpenAIEmulator([reply, "Another"], faults=faults) as emulator, connect(emulator) as llm:
        with pytest.raises(ProviderError, match=reason) as caught:
            await collect(llm, into=events)
        assert len(emulator.exchanges) == 1, "a reply that was heard in part is not asked for again"
    assert caught.value.retryable is retryable
    assert spoken(events).startswith("a b")
    assert not any(isinstance(event, Finish) for event in events)


async def test_a_cut_in_the_middle_of_a_tool_call_calls_nothing(connect: Connect) -> None:
    reply = ChatReply(text="One moment.", tools=[ToolUse("book", {"people": 2})])
    events: list[LLMEvent] = []
    async with OpenAIEmulator([reply], faults=Faults(drop_after=5)) as emulator, connect(emulator) as llm:
        with pytest.raises(ProviderError):
            await collect(llm, into=events)
    assert spoken(events) == "One moment."
    assert not any(isinstance(event, ToolCall) for event in events)


async def test_a_stall_in_mid_stream_is_an_error_and_ends_the_request(connect: Connect) -> None:
    faults = Faults(stall_after=3)
    async with OpenAIEmulator(["a b c d e"], faults=faults) as emulator, connect(emulator, timeout_s=0.2) as llm:
        with pytest.raises(ProviderError, match=r"stalled for 0\.2 s") as caught:
            await collect(llm)
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
    assert caught.value.retryable


async def test_comments_alone_are_no_sign_of_life() -> None:
    """A proxy that keeps the connection alive must not keep a stalled model alive."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        try:
            while True:
                writer.write(b": PROCESSING\n\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()
            left.set()

    left = asyncio.Event()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    llm = OpenAILLM(base_url=f"http://127.0.0.1:{port}/v1", timeout_s=0.2)
    with pytest.raises(ProviderError, match=r"no answer from gpt-4\.1-mini within 0\.2 s"):
        await collect(llm)
    await llm.close()
    async with asyncio.timeout(5):
        await left.wait()
    server.close()
    await server.wait_closed()


async def test_a_server_that_never_answers_is_given_up(connect: Connect) -> None:
    async with OpenAIEmulator(faults=Faults(hang=True)) as emulator, connect(emulator, timeout_s=0.2) as llm:
        with pytest.raises(ProviderError, match=r"no answer .*within 0.2 s") as caught:
            await collect(llm)
    assert caught.value.retryable


async def test_a_server_that_is_not_there_is_named(connect: Connect, unused_tcp_port: int) -> None:
    async with OpenAIEmulator() as emulator:
        settings = {"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "max_retries": 0}
        async with connect(emulator, **settings) as llm:
            with pytest.raises(ProviderError, match="no answer") as caught:
                await collect(llm)
    assert caught.value.retryable


@pytest.mark.parametrize(("status", "tries"), [(429, 2), (500, 2), (503, 2), (400, 1), (404, 1)])
async def test_what_may_pass_is_tried_again_once(connect: Connect, status: int, tries: int) -> None:
    faults = Faults(refuse=status, refuse_headers={"retry-after-ms": "1"})
    async with OpenAIEmulator(faults=faults) as emulator, connect(emulator) as llm:
        with pytest.raises(ProviderError, match=f"HTTP {status}.*request req_refused") as caught:
            await collect(llm)
        assert len(emulator.requests) == tries
    assert caught.value.retryable is (tries == 2)


async def test_a_passing_failure_goes_unnoticed(connect: Connect) -> None:
    faults = Faults(refuse=503, times=1, refuse_headers={"retry-after-ms": "1"})
    async with OpenAIEmulator(["Hello."], faults=faults) as emulator, connect(emulator) as llm:
        assert spoken(await collect(llm)) == "Hello."


async def test_a_stream_that_dies_before_its_first_chunk_is_tried_again() -> None:
    faults = Faults(drop_after=0, times=1)
    async with OpenAIEmulator(["lost", "Hello."], faults=faults) as emulator, _own_session(emulator) as llm:
        assert spoken(await collect(llm)) == "Hello."


@pytest.mark.parametrize("wait", ["30", formatdate(time() + 3600, usegmt=True)], ids=["seconds", "a date"])
async def test_a_server_that_asks_to_wait_longer_than_a_caller_would_is_not_tried_again(wait: str) -> None:
    faults = Faults(refuse=429, refuse_headers={"Retry-After": wait})
    async with OpenAIEmulator(faults=faults) as emulator, _own_session(emulator) as llm:
        with pytest.raises(ProviderError, match="rate_limit_exceeded"):
            await collect(llm)
        assert len(emulator.requests) == 1


async def test_an_empty_account_is_not_tried_again() -> None:
    async with OpenAIEmulator(faults=Faults(refuse=429)) as emulator, _own_session(emulator) as llm:
        emulator.refusal_code = "insufficient_quota"
        with pytest.raises(ProviderError, match=r"insufficient_quota.*add credit") as caught:
            await collect(llm)
        assert len(emulator.requests) == 1
    assert not caught.value.retryable


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_told_without_showing_them(connect: Connect, status: int) -> None:
    key = "sk-test-wrong"
    async with OpenAIEmulator(faults=Faults(refuse=status)) as emulator, connect(emulator, api_key=key) as llm:
        with pytest.raises(AuthenticationError, match=f"HTTP {status}.*check api_key") as caught:
            await collect(llm)
        assert key not in str(caught.value) + repr(llm)
        assert "sk-t" not in str(caught.value)
        assert len(emulator.requests) == 1


async def test_a_wrong_key_is_refused(connect: Connect) -> None:
    async with OpenAIEmulator() as emulator, connect(emulator, api_key="other") as llm:
        with pytest.raises(AuthenticationError, match="invalid_api_key"):
            await collect(llm)


@pytest.mark.parametrize(
    ("known", "sent"), [("all", 1), ("usage", 2), ("none", 3)], ids=["openai", "no obfuscation", "no stream options"]
)
async def test_a_server_that_refuses_stream_options_is_asked_without_and_remembered(
    connect: Connect, known: Any, sent: int
) -> None:
    async with OpenAIEmulator(["One.", "Two."], stream_options=known) as emulator:
        async with connect(emulator) as llm:
            assert spoken(await collect(llm)) == "One."
        assert len(emulator.requests) == sent
        async with connect(emulator) as llm:
            assert spoken(await collect(llm)) == "Two."
        assert len(emulator.requests) == sent + 1
    assert ("stream_options" in emulator.requests[-1].json()) is (known != "none")


async def test_an_option_of_none_leaves_a_field_out(connect: Connect) -> None:
    async with OpenAIEmulator(["Hi."]) as emulator, connect(emulator, options={"stream_options": None}) as llm:
        events = await collect(llm)
        assert "stream_options" not in emulator.requests[-1].json()
    assert not any(isinstance(event, Usage) for event in events)


async def test_a_web_page_instead_of_a_stream_says_to_check_the_address(connect: Connect) -> None:
    async with OpenAIEmulator() as emulator, connect(emulator, base_url=emulator.url) as llm:
        with pytest.raises(ProviderError, match="HTTP 404"):
            await collect(llm)


async def _after_two_words(llm: OpenAILLM, heard: asyncio.Event) -> None:
    words = 0
    async with aclosing(cast(Any, llm.stream(ASK))) as stream:
        async for event in stream:
            words += isinstance(event, TextDelta)
            if words == 2:
                heard.set()


async def _close_generator(llm: OpenAILLM) -> None:
    async with aclosing(cast(Any, llm.stream(ASK))) as stream:
        assert isinstance(await anext(stream), TextDelta)


async def _cancel_task(llm: OpenAILLM) -> None:
    heard = asyncio.Event()
    task = asyncio.create_task(_after_two_words(llm, heard))
    await heard.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


@pytest.mark.parametrize("stop", [_close_generator, _cancel_task])
async def test_stopping_in_mid_stream_stops_the_model_at_once(
    connect: Connect, stop: Callable[[OpenAILLM], Awaitable[None]]
) -> None:
    reply = ChatReply(text="word " * 2000, token_s=0.01)
    async with OpenAIEmulator([reply]) as emulator, connect(emulator) as llm, asyncio.timeout(5):
        await stop(llm)
        stopped = asyncio.get_running_loop().time()
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
        assert emulator.exchanges[0].ended_at - stopped < 0.1
        assert emulator.exchanges[0].sent < 20


async def test_cancelling_while_the_model_thinks_stops_it_too(connect: Connect) -> None:
    reply = ChatReply(text="late", first_token_s=30)
    async with OpenAIEmulator([reply]) as emulator, connect(emulator, timeout_s=20) as llm:
        task = asyncio.create_task(collect(llm))
        await emulator.until(lambda: emulator.exchanges)
        task.cancel()
        await asyncio.wait((task,))
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")


async def test_a_connection_serves_one_request_after_another(connect: Connect) -> None:
    async with OpenAIEmulator(["One.", "Two.", "Three."]) as emulator, connect(emulator) as llm:
        for _ in range(3):
            await collect(llm)
        assert [exchange.connection for exchange in emulator.exchanges] == [0, 0, 0]


async def test_a_reader_that_stops_at_the_finish_keeps_the_connection(connect: Connect) -> None:
    async with OpenAIEmulator(["One.", "Two."]) as emulator, connect(emulator) as llm:
        for _ in range(2):
            async with aclosing(cast(Any, llm.stream(ASK))) as stream:
                async for event in stream:
                    if isinstance(event, Finish):
                        break
        assert [exchange.connection for exchange in emulator.exchanges] == [0, 0]


async def test_warming_opens_the_connection_that_the_first_request_uses() -> None:
    async with OpenAIEmulator(["Hello."]) as emulator, _own_session(emulator) as llm:
        llm.warm()
        llm.warm()
        await emulator.until(lambda: emulator.requests)
        assert llm._warming is not None
        await llm._warming
        assert [request.method for request in emulator.requests] == ["HEAD"]
        await collect(llm)
        assert llm._lease is not None
        assert len(llm._lease.value._open) == llm._lease.value.idle == 1


async def test_warming_an_injected_client_makes_one_cheap_request() -> None:
    async with OpenAIEmulator(["Hello."]) as emulator, _injected(emulator) as llm:
        llm.warm()
        assert llm._warming is not None
        await llm._warming
        assert [request.path for request in emulator.requests] == ["/v1/models"]


async def test_warming_an_unreachable_server_is_only_noted(
    connect: Connect, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dialog.llm")
    async with OpenAIEmulator() as emulator:
        settings = {"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "max_retries": 0}
        async with connect(emulator, **settings) as llm:
            llm.warm()
            assert llm._warming is not None
            await llm._warming
    assert "could not open a connection ahead" in caplog.text


async def test_closing_while_warming_leaves_nothing() -> None:
    async with OpenAIEmulator(faults=Faults(hang=True)) as emulator, _own_session(emulator) as llm:
        llm.warm()
        await emulator.until(lambda: emulator.requests)
        await llm.close()
        await llm.close()
        with pytest.raises(StateError, match="after close"):
            await collect(llm)


async def test_models_of_many_calls_share_one_session() -> None:
    async with OpenAIEmulator() as emulator:
        llms = [OpenAILLM(api_key=emulator.api_key, base_url=emulator.base_url) for _ in range(100)]
        await asyncio.gather(*(collect(llm) for llm in llms))
        assert len({id(llm._lease.value) for llm in llms if llm._lease is not None}) == 1
        session = llms[0]._lease.value  # type: ignore[union-attr]
        for llm in llms[:-1]:
            await llm.close()
        assert not session.closed
        await llms[-1].close()
        assert session.closed


async def test_an_injected_client_stays_open() -> None:
    async with (
        OpenAIEmulator() as emulator,
        openai.AsyncOpenAI(api_key=emulator.api_key, base_url=emulator.base_url) as client,
    ):
        llm = OpenAILLM(client=client)
        await collect(llm)
        await llm.close()
        assert not client.is_closed()


async def test_a_websocket_address_is_read_as_http() -> None:
    async with OpenAIEmulator(["Hello."]) as emulator, _own_session(emulator, base_url=emulator.ws_url + "/v1/") as llm:
        assert spoken(await collect(llm)) == "Hello."


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"api_key": "k", "timeout_s": 0},
        {"api_key": "k", "max_retries": -1},
        {"api_key": "k", "base_url": "localhost:80"},
        {"api_key": "k", "client": openai.AsyncOpenAI(api_key="k")},
    ],
)
async def test_wrong_settings_are_refused_at_construction(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        OpenAILLM(**settings)
