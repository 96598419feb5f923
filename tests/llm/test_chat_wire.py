from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialog.errors import AuthenticationError, ProviderError
from dialog.llm.chat import ChatDecoder, ConversationEncoder, messages
from dialog.llm.llm import Entry, Finish, LLMEvent, TextDelta, ToolCall, ToolResult, Usage
from dialog.llm.refusals import error_from_response

DONE = b"data: [DONE]\n\n"


def chunk(delta: Any = None, finish: str | None = None, **fields: Any) -> bytes:
    body = {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}], **fields}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def decode(*pieces: bytes) -> list[LLMEvent]:
    ids = iter(["new_1", "new_2", "new_3"])
    decoder = ChatDecoder("openai", "m", new_id=lambda: next(ids))
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events if decoder.done else events + decoder.close()


STREAM = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Grüße 😀"}),
    chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
    chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": '{"x":'}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": "1}"}}]}),
    chunk(finish="tool_calls", usage=None),
    b'data: {"choices":[],"model":"m-1","usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}\n\n',
    DONE,
)
EVENTS = [
    TextDelta("Grüße 😀"),
    ToolCall(id="a", name="f", arguments="{}"),
    ToolCall(id="b", name="g", arguments='{"x":1}'),
    Usage(model="m-1", input_tokens=9, cached_tokens=4, output_tokens=2),
    Finish("tool_calls"),
]


@given(st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_a_stream_means_the_same_however_it_is_cut(cuts: list[int]) -> None:
    raw = b"".join(STREAM)
    edges = [0, *sorted(cuts), len(raw)]
    assert decode(*(raw[a:b] for a, b in pairwise(edges))) == EVENTS


def test_arguments_may_come_as_an_object() -> None:
    call = {"function": {"name": "f", "arguments": {"city": "Paris"}}}
    assert decode(chunk({"tool_calls": [call]}, "tool_calls"), DONE)[0] == ToolCall(
        id="new_1", name="f", arguments='{"city":"Paris"}'
    )


def test_two_calls_with_one_id_are_told_apart() -> None:
    calls = [{"index": n, "id": "same", "function": {"name": "f", "arguments": "{}"}} for n in range(2)]
    found = decode(chunk({"tool_calls": calls}, "tool_calls"), DONE)
    assert [call.id for call in found if isinstance(call, ToolCall)] == ["same", "new_1"]


def test_content_may_be_a_list_of_parts() -> None:
    delta = {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Hi"}]}
    assert decode(chunk(delta, "stop"))[0] == TextDelta("Hi")


def test_a_second_alternative_is_not_spoken() -> None:
    both = {"choices": [{"index": n, "delta": {"content": f"{n}"}, "finish_reason": "stop"} for n in range(2)]}
    assert decode(b"data: " + json.dumps(both).encode() + b"\n\n") == [TextDelta("0"), Finish("stop")]


@pytest.mark.parametrize("usage", [{"prompt_tokens": "many"}, [], 7, {}, {"prompt_tokens": None}])
def test_usage_in_another_shape_costs_nobody_the_reply(usage: Any) -> None:
    assert decode(chunk({"content": "Hi"}, "stop", usage=usage), DONE) == [TextDelta("Hi"), Finish("stop")]


def test_what_follows_the_finish_cannot_spoil_the_reply() -> None:
    assert decode(chunk({"content": "Hi"}, "stop"), b"data: {{{\n\n", b'data: {"error":"x"}\n\n') == [
        TextDelta("Hi"),
        Finish("stop"),
    ]
    assert decode(chunk({"content": "Hi"}, "stop"), DONE + chunk({"content": "more"})) == [
        TextDelta("Hi"),
        Finish("stop"),
    ]


def test_words_that_came_with_a_failure_are_not_lost() -> None:
    decoder = ChatDecoder("openai", "m")
    assert decoder.feed(chunk({"content": "Hi"}) + b"data: {{{\n\n") == [TextDelta("Hi")]
    with pytest.raises(ProviderError, match="not a chat completion chunk"):
        decoder.feed(b"")
    with pytest.raises(ProviderError, match="not a chat completion chunk"):
        decoder.close()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "without a single event"),
        (b": ping\n\n", "without a single event"),
        (chunk({"content": "x"}), "before the model had finished"),
        (DONE, r"\[DONE\] without a finish reason"),
        (chunk(finish="error"), "failed in the middle"),
        (b'data: {"error":"overloaded"}\n\n', "in the stream: overloaded"),
        (b"data: [1,2]\n\n", "not a chat completion chunk"),
        (b'data: {"choices":[{"delta":{"content":{"a":1}}}]}\n\n', "not a chat completion chunk"),
        (b"data: \xff\xfe\n\n", "not a chat completion chunk"),
        (b'data: {"choices":' + b"[" * 100_000 + b"\n\n", "not a chat completion chunk"),
        (b"data: " + b"x" * 1_100_000, "longer than 1000000 bytes"),
        (
            b"".join(
                chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "x" * 100_000}}]})
                for _ in range(3)
            ),
            "arguments of a tool call are longer",
        ),
        (
            chunk({"tool_calls": [{"index": n, "id": str(n), "function": {"name": "f"}} for n in range(200)]}),
            "more than 128 tools",
        ),
    ],
    ids=range(13),
)
def test_a_stream_that_breaks_the_protocol_is_a_failure_worth_another_try(raw: bytes, reason: str) -> None:
    decoder = ChatDecoder("openai", "m")
    with pytest.raises(ProviderError, match=reason) as caught:  # noqa: PT012 - either may find it
        decoder.feed(raw)
        decoder.close()
    assert caught.value.retryable


@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_reply_or_a_provider_error(raw: bytes) -> None:
    with pytest.raises(ProviderError):
        decode(b"data: " + raw + b"\n\n")


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (401, b'{"error":{"code":"invalid_api_key","message":"sk-12"}}', AuthenticationError, False),
        (403, b"<html>", AuthenticationError, False),
        (429, b'{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}', ProviderError, False),
        (429, b'{"error":{"type":"requests","code":"rate_limit_exceeded"}}', ProviderError, True),
        (500, b"", ProviderError, True),
        (502, b"<html>bad gateway</html>", ProviderError, True),
        (404, b'{"detail":"Not Found"}', ProviderError, False),
        (400, b'{"error":"model is loading"}', ProviderError, False),
        (422, b"[" * 100_000, ProviderError, False),
        (408, b"null", ProviderError, True),
    ],
)
def test_refusals_say_whether_another_try_can_help(status: int, body: bytes, kind: type, retryable: bool) -> None:
    error = error_from_response("openai", status, body, {"X-Request-Id": "req_7"})
    assert type(error) is kind
    assert error.retryable is retryable
    assert "req_7" in str(error)
    assert "sk-12" not in str(error)
    assert len(str(error)) < 500


def test_nothing_empty_is_sent() -> None:
    items = (
        Entry(role="user", text=" "),
        Entry(role="assistant", text=""),
        ToolCall(id="a", name="f", arguments="{}"),
        ToolResult(id="a", name="f", content="ok"),
        Entry(role="assistant", text="Done.  "),
    )
    assert messages(items) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "assistant", "content": "Done."},
    ]


def test_each_step_of_tool_calls_is_its_own_message() -> None:
    call, result = ToolCall(id="a", name="f", arguments="{}"), ToolResult(id="a", name="f", content="ok")
    assert [message["role"] for message in messages((call, result, call, result))] == ["assistant", "tool"] * 2


_items = st.lists(
    st.one_of(
        st.builds(Entry, role=st.sampled_from(["system", "user", "assistant"]), text=st.sampled_from(["", "Hi ", "ü"])),
        st.builds(ToolCall, id=st.sampled_from("ab"), name=st.just("f"), arguments=st.just("{}")),
        st.builds(ToolResult, id=st.sampled_from("ab"), name=st.just("f"), content=st.just("ok")),
    ),
    max_size=8,
)


@given(conversations=st.lists(st.tuples(st.integers(0, 8), _items), max_size=6))
def test_a_conversation_that_grows_or_changes_is_encoded_as_if_it_were_new(
    conversations: list[tuple[int, list[Any]]],
) -> None:
    encoder, items = ConversationEncoder(), ()
    for kept, new in conversations:
        items = (*items[:kept], *new)
        assert json.loads(bytes(encoder.encode(items))) == messages(items)
