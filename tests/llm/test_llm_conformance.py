"""What holds for every model behind a server, whoever its vendor is and however it is reached."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, cast

import pytest
from vendors import (
    ANTHROPIC,
    ASK,
    CHAT,
    RESPONSES,
    SETUPS,
    SPEC,
    VENDORS,
    Setup,
    Vendor,
    calls,
    collect,
    nothing_left,
    spoken,
)

from dialog.errors import AuthenticationError, ConfigurationError, ProviderError, StateError
from dialog.llm.llm import LLM, Entry, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, Usage
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.server import Faults


@pytest.fixture(autouse=True)
async def _nothing_left() -> AsyncIterator[None]:
    yield
    await nothing_left()


@pytest.fixture(params=SETUPS, ids=lambda setup: setup.id)
def setup(request: pytest.FixtureRequest) -> Setup:
    return cast(Setup, request.param)


@pytest.fixture(params=VENDORS, ids=lambda vendor: vendor.name)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return cast(Vendor, request.param)


# -- the events of a reply --------------------------------------------------------------------------


async def test_a_reply_streams_word_by_word_and_ends_with_usage_and_finish(setup: Setup) -> None:
    async with setup.emulator(["We open at eight."]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["We", " open", " at", " eight."]
        assert isinstance(events[-2], Usage)
        assert (events[-2].output_tokens, events[-2].model) == (4, llm.model)
        assert events[-2].input_tokens > 0
        assert events[-1] == Finish("stop")
        assert emulator.requests[-1].path == setup.vendor.path
        assert repr(llm) == f"<{type(llm).__name__} {llm.model}>"


async def test_parallel_tool_calls_come_whole_behind_the_words(setup: Setup) -> None:
    tools = [ToolUse("book", {"people": 2, "note": "é"}), ToolUse("book", {"people": 3}), ToolUse("now", "")]
    async with setup.emulator([ChatReply(text="Let me see.", tools=tools)]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm, LLMRequest(items=ASK.items, tools=(SPEC,)))
    assert [(call.name, call.arguments) for call in calls(events)] == [
        ("book", '{"people":2,"note":"é"}'),
        ("book", '{"people":3}'),
        ("now", "{}"),
    ]
    assert len({call.id for call in calls(events)}) == 3
    assert all(call.id for call in calls(events))
    assert spoken(events) == "Let me see."
    assert events[-1] == Finish("tool_calls")
    kinds = [type(event) for event in events]
    assert kinds.index(ToolCall) > max(at for at, kind in enumerate(kinds) if kind is TextDelta)


async def test_invalid_arguments_come_as_the_model_wrote_them(setup: Setup) -> None:
    reply = ChatReply(tools=[ToolUse("book", '{"people": tw')])
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        assert [call.arguments for call in calls(await collect(llm))] == ['{"people": tw']


async def test_two_calls_of_one_id_become_two(setup: Setup) -> None:
    reply = ChatReply(tools=[ToolUse("book", {"people": 2}, id="c"), ToolUse("book", {"people": 3}, id="c")])
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        assert len({call.id for call in calls(await collect(llm))}) == 2


@pytest.mark.parametrize(
    "how",
    [
        {"split": 1},
        {"split": 7, "newline": "\r\n", "comments": True},
        {"burst": 3},
        {"usage": False},
    ],
    ids=["every byte", "crlf and pings", "bursts", "no usage"],
)
async def test_a_reply_is_whole_however_it_arrives(setup: Setup, how: dict[str, Any]) -> None:
    reply = ChatReply(text="Grüße, señor 😀", tools=[ToolUse("book", {"note": "😀"})], **how)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
    assert spoken(events) == "Grüße, señor 😀"
    assert [call.arguments for call in calls(events)] == ['{"note":"😀"}']
    assert events[-1] == Finish("tool_calls")
    assert any(isinstance(event, Usage) for event in events) is how.get("usage", True)


async def test_unknown_events_are_skipped(setup: Setup) -> None:
    faults = Faults(unknown=True)
    async with setup.emulator(["All is well."], faults=faults) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm)) == "All is well."


async def test_a_reply_that_is_cut_by_its_length_says_so(setup: Setup) -> None:
    reply = ChatReply(text="And so on and", finish=setup.vendor.length)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
    assert (spoken(events), events[-1]) == ("And so on and", Finish("length"))


async def test_a_call_that_was_cut_by_the_length_is_no_call(setup: Setup) -> None:
    tools = [ToolUse("book", {"people": 2}), ToolUse("book", '{"peo')]
    reply = ChatReply(tools=tools, finish=setup.vendor.length)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
    assert [call.arguments for call in calls(events)] == ['{"people":2}']
    assert events[-1] == Finish("tool_calls")


async def test_a_reply_that_a_filter_stops_is_refused(setup: Setup) -> None:
    reply = ChatReply(text="Well", finish=setup.vendor.filtered)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
    assert (spoken(events), events[-1]) == ("Well", Finish("refused"))


async def test_the_words_of_a_refusal_are_spoken(setup: Setup) -> None:
    async with setup.emulator([ChatReply(refusal="I cannot help.")]) as emulator, setup.connect(emulator) as llm:
        events = await collect(llm)
    assert (spoken(events), events[-1]) == ("I cannot help.", Finish("refused"))


# -- the request --------------------------------------------------------------------------------------

HISTORY = (
    Entry(role="system", text="You are brief."),
    Entry(role="developer", text="It is Monday."),
    Entry(role="assistant", text="Good evening! "),
    Entry(role="user", text="A table for two."),
    Entry(role="assistant", text="One moment. "),
    ToolCall(id="c1", name="book", arguments='{"people":2}'),
    ToolCall(id="c2", name="book", arguments="not json"),
    ToolResult(id="c1", name="book", content="booked"),
    ToolResult(id="c2", name="book", content="full", state="failed"),
    Entry(role="assistant", text="It is boo", interrupted=True),
    Entry(role="user", text="For three, I mean."),
    ToolCall(id="c1", name="book", arguments='{"people":3}'),
    ToolResult(id="c1", name="book", content=""),
    Entry(role="user", text=""),
    Entry(role="system", text="The kitchen closes."),
)


@pytest.mark.parametrize("end", range(1, len(HISTORY) + 1))
async def test_every_history_is_one_that_the_vendor_accepts(vendor: Vendor, end: int) -> None:
    """The emulators refuse what the vendors refuse: unanswered calls, empty texts, a first entry by the model …"""
    items = HISTORY[:end]
    if isinstance(items[-1], ToolCall) or any(
        isinstance(item, ToolCall) and not any(isinstance(i, ToolResult) and i.id == item.id for i in items[at:])
        for at, item in enumerate(items)
    ):
        items = tuple(item for item in items if isinstance(item, Entry))  # History answers every call before it asks
    setup = Setup(vendor, injected=False)
    async with setup.emulator(["Fine."] * 2) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm, LLMRequest(items=items, tools=(SPEC,)))) == "Fine."
        assert spoken(await collect(llm, LLMRequest(items=items))) == "Fine."
        sent = emulator.requests[-1].body.decode()
    for item in items:
        if isinstance(item, Entry) and item.text.strip():
            assert item.text.strip() in sent


async def test_a_call_without_a_word_is_accepted_where_a_user_has_to_begin() -> None:
    setup = Setup(ANTHROPIC, injected=False)
    async with setup.emulator(["Fine."]) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm, LLMRequest(items=()))) == "Fine."


async def test_options_headers_and_query_reach_the_server(setup: Setup) -> None:
    settings = {
        "model": "some-model",
        "options": {"metadata": {"user_id": "u"}, "vendor_field": {"x": 1}, "store": None, "thinking": None},
        "headers": {"X-Team": "night"},
        "query": {"api-version": "1"},
    }
    async with setup.emulator(["Done."]) as emulator, setup.connect(emulator, **settings) as llm:
        await collect(llm)
        arrived = emulator.requests[-1]
    fields = arrived.json()
    assert (fields["model"], fields["stream"], fields["vendor_field"]) == ("some-model", True, {"x": 1})
    assert fields["metadata"] == {"user_id": "u"}
    assert "store" not in fields
    assert "thinking" not in fields
    assert arrived.headers["X-Team"] == "night"
    assert arrived.values("api-version") == ["1"]


async def test_a_websocket_address_is_read_as_http(vendor: Vendor) -> None:
    setup = Setup(vendor, injected=False)
    async with setup.emulator(["Hello."]) as emulator:
        base_url = emulator.base_url.replace("http://", "ws://") + "/"
        async with setup.connect(emulator, base_url=base_url) as llm:
            assert spoken(await collect(llm)) == "Hello."


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"api_key": "k", "timeout_s": 0},
        {"api_key": "k", "max_retries": -1},
        {"api_key": "k", "base_url": "localhost:80"},
    ],
)
def test_wrong_settings_are_refused_at_construction(vendor: Vendor, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        vendor.llm(**settings)


def test_a_client_and_a_key_contradict_each_other(vendor: Vendor) -> None:
    with pytest.raises(ConfigurationError, match="give either"):
        vendor.llm(api_key="k", client=vendor.client(api_key="k"))


# -- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "tries"), [(429, 2), (500, 2), (503, 2), (529, 2), (400, 1), (404, 1)])
async def test_what_may_pass_is_tried_again_once(setup: Setup, status: int, tries: int) -> None:
    faults = Faults(refuse=status, refuse_headers={"retry-after-ms": "1"})
    async with setup.emulator(faults=faults) as emulator, setup.connect(emulator) as llm:
        with pytest.raises(ProviderError, match=f"HTTP {status}.*request req_refused") as caught:
            await collect(llm)
        assert len(emulator.requests) == tries
    assert caught.value.retryable is (tries == 2)


async def test_a_passing_failure_goes_unnoticed(setup: Setup) -> None:
    faults = Faults(refuse=503, times=1, refuse_headers={"retry-after-ms": "1"})
    async with setup.emulator(["Hello."], faults=faults) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm)) == "Hello."


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_are_told_without_showing_them(setup: Setup, status: int) -> None:
    key = "sk-test-wrong"
    async with setup.emulator(faults=Faults(refuse=status)) as emulator, setup.connect(emulator, api_key=key) as llm:
        with pytest.raises(AuthenticationError, match=f"HTTP {status}.*check api_key") as caught:
            await collect(llm)
        assert key not in str(caught.value) + repr(llm)
        assert len(emulator.requests) == 1


async def test_a_wrong_key_is_refused(setup: Setup) -> None:
    async with setup.emulator() as emulator, setup.connect(emulator, api_key="other") as llm:
        with pytest.raises(AuthenticationError):
            await collect(llm)


async def test_a_stream_that_dies_before_its_first_word_is_tried_again(vendor: Vendor) -> None:
    setup = Setup(vendor, injected=False)
    faults = Faults(drop_after=0 if vendor is CHAT else 1, times=1)
    async with setup.emulator(["lost", "Hello."], faults=faults) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm)) == "Hello."
        assert len(emulator.exchanges) == 2


@pytest.mark.parametrize("vendor", [RESPONSES, ANTHROPIC], ids=lambda vendor: vendor.name)
async def test_an_error_that_comes_before_the_first_word_is_tried_again(vendor: Vendor) -> None:
    """Of chat completions the first chunk, an empty one, says that the model is at work."""
    setup = Setup(vendor, injected=False)
    replies = [ChatReply(error=vendor.overloaded), "Hello."]
    async with setup.emulator(replies) as emulator, setup.connect(emulator) as llm:
        assert spoken(await collect(llm)) == "Hello."


@pytest.mark.parametrize("fault", ["drop", "garbage", "no terminator", "error", "hopeless error"])
async def test_a_failure_in_mid_stream_comes_after_the_words_that_arrived(setup: Setup, fault: str) -> None:
    vendor = setup.vendor
    opening = {"chat": 1, "responses": 4, "anthropic": 2}[vendor.name]  # events before the first word
    reply = ChatReply(text="a b c d e")
    faults = None
    reason, retryable = "", True
    match fault:
        case "drop":
            faults, reason = Faults(drop_after=opening + 2), "connection broke|ended before"
        case "garbage":
            faults, reason = Faults(garbage_after=opening + 2), "an event of .* bytes is not"
        case "no terminator":
            reply, reason = ChatReply(text="a b", finish="", done=False, usage=False), "before the model had finished"
        case "error":
            reply, reason = ChatReply(text="a b", error=vendor.overloaded), "in the stream: (server|overloaded)_error"
        case _:
            reply, reason, retryable = ChatReply(text="a b", error=vendor.too_long), "too long", False
    events: list[LLMEvent] = []
    async with setup.emulator([reply, "Another"], faults=faults) as emulator, setup.connect(emulator) as llm:
        with pytest.raises(ProviderError, match=reason) as caught:
            await collect(llm, into=events)
        assert len(emulator.exchanges) == 1, "a reply that was heard in part is not asked for again"
    assert caught.value.retryable is retryable
    assert spoken(events) == "a b"
    assert not any(isinstance(event, Finish) for event in events)


async def test_a_cut_in_the_middle_of_a_tool_call_calls_nothing(setup: Setup) -> None:
    reply = ChatReply(text="One moment.", tools=[ToolUse("book", {"people": 2})], error=setup.vendor.overloaded)
    events: list[LLMEvent] = []
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm:
        with pytest.raises(ProviderError):
            await collect(llm, into=events)
    assert spoken(events) == "One moment."
    assert not calls(events)


async def test_a_stall_in_mid_stream_is_an_error_and_ends_the_request(setup: Setup) -> None:
    faults = Faults(stall_after=5)
    async with setup.emulator(["a b c d e"], faults=faults) as emulator, setup.connect(emulator, timeout_s=0.2) as llm:
        with pytest.raises(ProviderError, match=r"stalled for 0\.2 s|connection broke") as caught:
            await collect(llm)
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
    assert caught.value.retryable


@pytest.mark.parametrize("silence", ["no answer", "no word"])
async def test_a_model_that_never_begins_is_given_up(setup: Setup, silence: str) -> None:
    faults = Faults(hang=True) if silence == "no answer" else None
    replies = [ChatReply(text="late", first_token_s=30, comments=True)] * 3
    async with setup.emulator(replies, faults=faults) as emulator, setup.connect(emulator, timeout_s=0.2) as llm:
        with pytest.raises(ProviderError, match=r"no answer .*within 0.2 s") as caught:
            await collect(llm)
    assert caught.value.retryable


async def test_a_server_that_is_not_there_is_named(setup: Setup, unused_tcp_port: int) -> None:
    async with setup.emulator() as emulator:
        settings = {"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "max_retries": 0}
        async with setup.connect(emulator, **settings) as llm:
            with pytest.raises(ProviderError, match="no answer") as caught:
                await collect(llm)
    assert caught.value.retryable


async def test_a_server_that_answers_with_a_page_says_to_check_the_address(vendor: Vendor) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Hello</html>")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    llm = vendor.llm(base_url=f"http://127.0.0.1:{port}/v1", timeout_s=2.0)
    with pytest.raises(ProviderError, match="check base_url"):
        await collect(llm)
    await llm.close()
    server.close()
    await server.wait_closed()


# -- cancelling, connections, life --------------------------------------------------------------------


async def _close_generator(llm: LLM) -> None:
    async with aclosing(cast(Any, llm.stream(ASK))) as stream:
        assert isinstance(await anext(stream), TextDelta)


async def _cancel_task(llm: LLM) -> None:
    heard = asyncio.Event()

    async def read() -> None:
        async with aclosing(cast(Any, llm.stream(ASK))) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    heard.set()

    task = asyncio.create_task(read())
    await heard.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


@pytest.mark.parametrize("stop", [_close_generator, _cancel_task])
async def test_stopping_in_mid_stream_stops_the_model_at_once(
    setup: Setup, stop: Callable[[LLM], Awaitable[None]]
) -> None:
    reply = ChatReply(text="word " * 2000, token_s=0.01)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator) as llm, asyncio.timeout(5):
        await stop(llm)
        stopped = asyncio.get_running_loop().time()
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
        assert emulator.exchanges[0].ended_at - stopped < 0.1
        assert emulator.exchanges[0].sent < 20


async def test_cancelling_while_the_model_thinks_stops_it_too(setup: Setup) -> None:
    reply = ChatReply(text="late", first_token_s=30)
    async with setup.emulator([reply]) as emulator, setup.connect(emulator, timeout_s=20) as llm:
        task = asyncio.create_task(collect(llm))
        await emulator.until(lambda: emulator.exchanges)
        task.cancel()
        await asyncio.wait((task,))
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")


async def test_a_connection_serves_one_request_after_another(setup: Setup) -> None:
    async with setup.emulator(["One.", "Two.", "Three."]) as emulator, setup.connect(emulator) as llm:
        for _ in range(3):
            await collect(llm)
        assert [exchange.connection for exchange in emulator.exchanges] == [0, 0, 0]


async def test_warming_opens_the_connection_that_the_first_request_uses(vendor: Vendor) -> None:
    setup = Setup(vendor, injected=False)
    async with setup.emulator(["Hello."]) as emulator, setup.connect(emulator) as llm:
        llm.warm()
        await llm._warming
        assert [(request.method, request.path) for request in emulator.requests] == [("HEAD", "/v1/models")]
        await collect(llm)
        assert len(llm._lease.value._open) == llm._lease.value.idle == 1


async def test_warming_an_injected_client_makes_one_cheap_request(vendor: Vendor) -> None:
    setup = Setup(vendor, injected=True)
    async with setup.emulator(["Hello."]) as emulator, setup.connect(emulator) as llm:
        llm.warm()
        await llm._warming
        assert [request.path for request in emulator.requests] == ["/v1/models"]


async def test_warming_an_unreachable_server_is_only_noted(
    setup: Setup, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dialog.llm")
    async with setup.emulator() as emulator:
        settings = {"base_url": f"http://127.0.0.1:{unused_tcp_port}/v1", "max_retries": 0}
        async with setup.connect(emulator, **settings) as llm:
            llm.warm()
            await llm._warming
    assert "could not open a connection ahead" in caplog.text


async def test_after_its_end_a_model_answers_no_more(setup: Setup) -> None:
    async with setup.emulator(faults=Faults(hang=True)) as emulator, setup.connect(emulator) as llm:
        llm.warm()
        await emulator.until(lambda: emulator.requests)
        await llm.close()
        await llm.close()
        with pytest.raises(StateError, match="after close"):
            await collect(llm)


async def test_models_of_many_calls_share_their_connections(vendor: Vendor) -> None:
    async with vendor.emulator(lambda _: "Hello.") as emulator:
        llms = [vendor.llm(api_key=emulator.api_key, base_url=emulator.base_url) for _ in range(20)]
        assert len({llm.identity for llm in llms}) == 1
        await asyncio.gather(*(collect(llm) for llm in llms))
        shared = {id(llm._lease.value) for llm in llms}
        assert len(shared) == 1
        for llm in llms:
            await llm.close()
