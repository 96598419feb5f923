"""The wire of OpenAI chat completions, without a socket: requests out, events in.

Source: OpenAI API reference, "Create chat completion" and "Streaming", seen November 2026; the
tolerance towards compatible servers is noted where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from dialog.llm.decoding import CallParts, Decoder, brief, new_call_id, tool_calls
from dialog.llm.llm import Entry, Finish, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.refusals import error_of
from dialog.llm.sse import ServerSentEvent

__all__ = [
    "STREAM_OPTIONS",
    "ChatDecoder",
    "ConversationEncoder",
    "messages",
    "request_fields",
    "tool_fields",
]

STREAM_OPTIONS: tuple[dict[str, bool] | None, ...] = (
    # Obfuscation pads every chunk against traffic analysis; a phone call has no use for the bytes.
    {"include_usage": True, "include_obfuscation": False},
    {"include_usage": True},
    None,
)
"""What is asked of the stream, and what to fall back to when a compatible server refuses it."""


class _Function(Struct, gc=False):
    name: str | None = None
    # Some compatible servers send the object itself rather than its JSON text.
    arguments: str | dict[str, Any] | None = None


class _ToolDelta(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Choice(Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct, gc=False):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Raw = Raw()
    error: Any = None


class _Details(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


_chunks = msgspec.json.Decoder(_Chunk)
_usages = msgspec.json.Decoder(_Usage)


class ChatDecoder(Decoder):
    """Reads chat completion chunks; ``[DONE]``, or the end of the body, ends them."""

    def __init__(self, provider: str, model: str, *, new_id: Callable[[], str] = new_call_id) -> None:
        super().__init__(provider, model, new_id=new_id)
        self._calls: list[CallParts] = []
        self._by_index: dict[int, CallParts] = {}
        self._reason = ""
        self._refused = False

    def _read(self, parsed: Sequence[ServerSentEvent], events: list[LLMEvent]) -> None:
        for event in parsed:
            if self.done:
                break  # nothing counts behind the terminator
            data = event.data.strip()
            if data == b"[DONE]":
                if not self.finished:
                    raise self._error("the stream says [DONE] without a finish reason")
                self._terminate(events)
            elif data:
                self._chunk(data, events)

    def _chunk(self, data: bytes, events: list[LLMEvent]) -> None:
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            if self.finished:
                return  # the reply is whole: what trails behind it cannot spoil it
            raise self._error(f"an event of {len(data)} bytes is not a chat completion chunk ({brief(exc)})") from exc
        if chunk.error and not self.finished:
            raise error_of(self._provider, chunk.error, prefix="in the stream: ")
        self.chunks += 1
        for choice in chunk.choices or ():  # the usage chunk has none
            if choice.index:
                continue  # a second alternative cannot be spoken
            if choice.delta is not None:
                self._delta(choice.delta, events)
            if choice.finish_reason and not self.finished:
                self._end(choice.finish_reason, events)
        if len(chunk.usage) > 4:  # not "null"
            usage = self._usage(chunk)
            if usage is not None:
                events.append(usage)

    def _delta(self, delta: _Delta, events: list[LLMEvent]) -> None:
        text = delta.content
        if isinstance(text, list):  # Mistral streams lists of content parts
            parts = [cast("dict[str, Any]", part) for part in text if isinstance(part, dict)]
            text = "".join(str(part.get("text") or "") for part in parts)
        if text:
            events.append(TextDelta(text))
        if delta.refusal:
            self._refused = True
            events.append(TextDelta(delta.refusal))
        for fragment in delta.tool_calls or ():
            self._fragment(fragment)

    def _fragment(self, fragment: _ToolDelta) -> None:
        function = fragment.function or _Function()
        call = self._call_of(fragment, function)
        call.id = call.id or fragment.id or ""
        call.name = call.name or function.name or ""
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if arguments:
            self._append(call, arguments)

    def _call_of(self, fragment: _ToolDelta, function: _Function) -> CallParts:
        """Find the call that a fragment continues, or begin another.

        Fragments are told apart by ``index``. Compatible servers leave it out, or number every call
        0; then a name that comes with another id, or without any, begins a call.
        """
        if fragment.index is not None:
            call = self._by_index.get(fragment.index)
        else:
            call = self._calls[-1] if self._calls else None
        if call is not None and function.name:
            other = fragment.id != call.id if fragment.id else fragment.index is None and bool(call.name)
            if other and call.name:
                call = None
        if call is None:
            self._check_calls(len(self._calls))
            call = CallParts()
            self._calls.append(call)
            if fragment.index is not None:
                self._by_index[fragment.index] = call
        return call

    def _end(self, reason: str, events: list[LLMEvent]) -> None:
        if reason == "error":  # OpenRouter's word for an upstream failure
            raise self._error("the model failed in the middle of its reply")
        self._reason = reason
        self.finished = True
        calls = tool_calls(self._calls, self._new_id, cut=reason in ("length", "content_filter"))
        self._calls = []
        if calls:
            self._reason = "tool_calls"
            events.extend(calls)
        elif reason == "tool_calls":
            self._reason = "stop"

    def _terminate(self, events: list[LLMEvent]) -> None:
        self.done = True
        match self._reason:
            case "tool_calls":
                events.append(Finish("tool_calls"))
            case "length":
                events.append(Finish("length"))
            case "content_filter":
                events.append(Finish("refused"))
            case _:  # "stop", and whatever word a compatible server has for it
                events.append(Finish("refused" if self._refused else "stop"))

    def _usage(self, chunk: _Chunk) -> Usage | None:
        try:
            usage = _usages.decode(chunk.usage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # bookkeeping in another shape must not cost the caller the reply
        if not usage.prompt_tokens and not usage.completion_tokens:
            return None
        details = usage.prompt_tokens_details or _Details()
        return Usage(
            model=chunk.model or self._model,
            input_tokens=usage.prompt_tokens or 0,
            cached_tokens=details.cached_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
        )


def messages(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Return a conversation as chat messages; nothing is added that was not said.

    An assistant's words and the tool calls that directly follow them are one message. Empty entries
    are left out, and an assistant's words never end in a space, which some servers refuse.
    """
    out: list[dict[str, Any]] = []
    step: dict[str, Any] | None = None  # the assistant message that a tool call joins
    for item in items:
        if isinstance(item, ToolCall):
            if step is None:
                step = {"role": "assistant", "content": None}
                out.append(step)
            step.setdefault("tool_calls", []).append(
                {"id": item.id, "type": "function", "function": {"name": item.name, "arguments": item.arguments}}
            )
            continue
        step = None
        if isinstance(item, ToolResult):
            out.append({"role": "tool", "tool_call_id": item.id, "content": item.content})
        elif isinstance(item, Entry):
            text = item.text.rstrip() if item.role == "assistant" else item.text
            if not text.strip():
                continue
            message = {"role": item.role, "content": text}
            out.append(message)
            if item.role == "assistant":
                step = message
    return out


class ConversationEncoder:
    """Encodes a conversation for one request after another: each time only what is new in it."""

    def __init__(self) -> None:
        self._items: tuple[Item, ...] = ()
        """What the last conversation began with."""
        self._encoded = b""
        """Its messages, each followed by a comma."""

    def encode(self, items: tuple[Item, ...]) -> Raw:
        """The :func:`messages` of a conversation as JSON."""
        known = len(self._items)
        if items[:known] != self._items or (known < len(items) and isinstance(items[known], ToolCall)):
            # Not the same conversation, or a call that may belong to the message before it.
            known, self._encoded = 0, b""
        new = msgspec.json.encode(messages(items[known:]))[1:-1]
        if new:
            self._encoded += new + b","
        self._items = items
        return Raw(b"[%b]" % self._encoded[:-1])


def tool_fields(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Return the ``tools`` field of a request; worth keeping, it is the same at every step."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": msgspec.json.decode(tool.parameters),
            },
        }
        for tool in tools
    ]


def request_fields(
    request: LLMRequest,
    *,
    model: str,
    options: Mapping[str, Any],
    stream_options: Mapping[str, bool] | None,
    tools: Sequence[Mapping[str, Any]] = (),
    conversation: Raw | None = None,
) -> dict[str, Any]:
    """Return the fields of a request. ``options`` win over what is set here; a ``None`` leaves a field out.

    ``conversation``: the messages, if they are encoded already.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(request.items) if conversation is None else conversation,
    }
    if tools:
        body["tools"] = tools
    if stream_options is not None:
        body["stream_options"] = stream_options
    body.update(options)
    body["stream"] = True  # there is no other way to speak while the model thinks
    return {name: value for name, value in body.items() if value is not None}
