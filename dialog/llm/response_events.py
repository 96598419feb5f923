"""The wire of OpenAI's Responses, without a socket: requests out, events in.

Source: OpenAI API reference, "Responses" and "Streaming events", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dialog.llm.decoding import CallParts, Decoder, brief, new_call_id, tool_calls
from dialog.llm.llm import Finish, Item, LLMEvent, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.refusals import error_of
from dialog.llm.sse import ServerSentEvent

__all__ = ["Reasoning", "ResponsesDecoder", "conversation", "tool_fields"]

Reasoning = Mapping[str, dict[str, Any]]
"""What the model thought before it called a tool, by the id of the call."""

_NO_LIFE = frozenset(
    ("response.created", "response.in_progress", "response.queued", "response.failed", "response.cancelled")
)
"""These do not say that the model is at work."""


class _Item(Struct):
    type: str = ""
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    encrypted_content: str | None = None
    summary: list[Any] | None = None


class _Details(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Reason(Struct):
    reason: str | None = None


class _Response(Struct):
    model: str | None = None
    output: list[_Item] | None = None
    usage: _Usage | None = None
    error: Any = None
    incomplete_details: _Reason | None = None


class _Event(Struct):
    type: str = ""
    delta: str | None = None
    output_index: int = 0
    item: _Item | None = None
    response: _Response | None = None
    code: str | None = None
    message: str | None = None
    error: Any = None


class _Kind(Struct):
    type: str = ""


_events = msgspec.json.Decoder(_Event)
_kinds = msgspec.json.Decoder(_Kind)


class ResponsesDecoder(Decoder):
    """Reads the events of a response; ``response.completed``, ``.incomplete`` or ``.failed`` ends them.

    Args:
        provider: Name for errors.
        model: Name for the usage when the server does not repeat it.
        reasoning: Told of what the model gave back of its thinking, with the id of the call that it
            led to: it wants to read it again beside the call.
        new_id: Mints the id of a tool call that came without one.
    """

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        reasoning: Callable[[str, dict[str, Any]], object] = lambda _id, _thought: None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        super().__init__(provider, model, new_id=new_id)
        self._keep = reasoning
        self._calls: dict[int, CallParts] = {}
        self._refused = False
        self._thought: dict[str, Any] | None = None

    def _read(self, parsed: Sequence[ServerSentEvent], events: list[LLMEvent]) -> None:
        for sse in parsed:
            data = sse.data.strip()
            if self.done or data == b"[DONE]":  # some servers end as chat completions do
                break
            try:
                event = _events.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                if not _is_other_event(data):
                    what = f"an event of {len(data)} bytes is not one of a response ({brief(exc)})"
                    raise self._error(what) from exc
                continue
            if event.type not in _NO_LIFE and event.type.startswith("response."):
                self.chunks += 1
            self._event(event, events)

    def _event(self, event: _Event, events: list[LLMEvent]) -> None:
        match event.type:
            case "response.output_text.delta":
                if event.delta:
                    events.append(TextDelta(event.delta))
            case "response.refusal.delta":
                self._refused = True
                if event.delta:
                    events.append(TextDelta(event.delta))
            case "response.function_call_arguments.delta":
                self._append(self._call(event.output_index), event.delta or "")
            case "response.output_item.added" | "response.output_item.done" if event.item is not None:
                self._item(event.output_index, event.item)
            case "response.completed" | "response.incomplete":
                self._end(event.response or _Response(), events, completed=event.type == "response.completed")
            case "response.failed" | "response.cancelled":
                error = event.response.error if event.response is not None else None
                raise error_of(self._provider, error, prefix="in the stream: ")
            case "error":
                error = event.error or {"code": event.code, "message": event.message}
                raise error_of(self._provider, error, prefix="in the stream: ")
            case _:
                return  # new types may come at any time

    def _call(self, index: int) -> CallParts:
        call = self._calls.get(index)
        if call is None:
            self._check_calls(len(self._calls))
            call = self._calls[index] = CallParts()
        return call

    def _item(self, index: int, item: _Item) -> None:
        if item.type == "reasoning" and item.encrypted_content:
            self._thought = {
                "type": "reasoning",
                "id": item.id,
                "summary": item.summary or [],
                "encrypted_content": item.encrypted_content,
            }
        elif item.type == "function_call":
            call = self._call(index)
            call.id = item.call_id or call.id
            call.name = item.name or call.name
            if item.arguments:  # whole, when the item is done
                call.arguments.clear()
                self._append(call, item.arguments)
            if self._thought is not None and call.id:
                self._keep(call.id, self._thought)
                self._thought = None

    def _end(self, response: _Response, events: list[LLMEvent], *, completed: bool) -> None:
        for index, item in enumerate(response.output or ()):
            if item.type == "function_call" and index not in self._calls:
                self._item(index, item)
        self.finished = self.done = True
        calls = tool_calls((call for call in self._calls.values() if call.name), self._new_id, cut=not completed)
        events.extend(calls)
        used = response.usage
        if used is not None and (used.input_tokens or used.output_tokens):
            details = used.input_tokens_details or _Details()
            events.append(
                Usage(
                    model=response.model or self._model,
                    input_tokens=used.input_tokens or 0,
                    cached_tokens=details.cached_tokens or 0,
                    output_tokens=used.output_tokens or 0,
                )
            )
        why = response.incomplete_details.reason if response.incomplete_details is not None else None
        if calls:
            events.append(Finish("tool_calls"))
        elif self._refused or (not completed and why == "content_filter"):
            events.append(Finish("refused"))
        else:
            events.append(Finish("stop" if completed else "length"))

    def _terminate(self, events: list[LLMEvent]) -> None:
        """One event tells of the finish and ends the stream."""


def conversation(items: Sequence[Item], reasoning: Reasoning) -> list[dict[str, Any]]:
    """Return a conversation as the ``input`` of a request; nothing is added that was not said.

    Empty entries are left out, and an assistant's words never end in a space.
    """
    out: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, ToolCall):
            if item.id in reasoning:
                out.append(reasoning[item.id])
            call = {"type": "function_call", "call_id": item.id, "name": item.name, "arguments": item.arguments}
            out.append(call)
        elif isinstance(item, ToolResult):
            out.append({"type": "function_call_output", "call_id": item.id, "output": item.content})
        elif item.text.strip():
            text = item.text.rstrip() if item.role == "assistant" else item.text
            out.append({"role": item.role, "content": text})
    return out


def tool_fields(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Return the ``tools`` field of a request; worth keeping, it is the same at every step."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": msgspec.json.decode(tool.parameters),
            "strict": False,  # on by default, and it allows no argument that may be left out
        }
        for tool in tools
    ]


def _is_other_event(data: bytes) -> bool:
    """Whether it is an event that has other fields than those that are read here."""
    try:
        kind = _kinds.decode(data).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return bool(kind) and not kind.startswith(("response.output_", "response.function_call", "response.refusal"))
