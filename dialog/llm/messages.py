"""The wire of Anthropic's messages API, without a socket: requests out, events in.

Source: Anthropic API reference, "Messages" and "Streaming", seen November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dialog.llm.decoding import CallParts, Decoder, brief, new_call_id, tool_calls
from dialog.llm.llm import CONNECTED, Finish, Item, LLMEvent, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.refusals import error_of, fields_of
from dialog.llm.sse import ServerSentEvent

__all__ = ["GO_ON", "MessagesDecoder", "conversation", "tool_fields"]

GO_ON = "(go on)"
"""Stands behind the model's own words: models from 4.6 on refuse to continue an assistant's message."""

_BAD_ID = re.compile(r"[^a-zA-Z0-9_-]")


class _Usage(Struct):
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None


class _Message(Struct):
    model: str | None = None
    usage: _Usage | None = None


class _Block(Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: Any = None


_events = msgspec.json.Decoder(_Event)


class MessagesDecoder(Decoder):
    """Reads the events of a message; ``message_stop`` ends them.

    What is told of usage and pings is no sign that the model is at work. Thinking is, and is not spoken.
    """

    def __init__(self, provider: str, model: str, *, new_id: Callable[[], str] = new_call_id) -> None:
        super().__init__(provider, model, new_id=new_id)
        self._calls: dict[int, CallParts] = {}
        self._usage = _Usage()
        self._reason = ""

    def _read(self, parsed: Sequence[ServerSentEvent], events: list[LLMEvent]) -> None:
        for sse in parsed:
            if self.done:
                break  # nothing counts behind the terminator
            try:
                event = _events.decode(sse.data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                if self.finished:
                    continue  # the reply is whole: what trails behind it cannot spoil it
                what = f"an event of {len(sse.data)} bytes is not one of the messages API ({brief(exc)})"
                raise self._error(what) from exc
            self._event(event, events)

    def _event(self, event: _Event, events: list[LLMEvent]) -> None:
        match event.type:
            case "content_block_delta" if event.delta is not None:
                self.chunks += 1
                if event.delta.text:
                    events.append(TextDelta(event.delta.text))
                elif event.delta.partial_json:
                    call = self._calls.get(event.index)
                    if call is not None:  # else the input of a tool that runs at the vendor's
                        self._append(call, event.delta.partial_json)
            case "content_block_start" if event.content_block is not None:
                self.chunks += 1
                self._begin(event.index, event.content_block, events)
            case "message_delta":
                self._count(event.usage)
                if event.delta is not None and event.delta.stop_reason and not self.finished:
                    self.chunks += 1
                    self._end(event.delta.stop_reason, events)
            case "message_stop":
                if not self.finished:
                    raise self._error("the message stops without a stop reason")
                self._terminate(events)
            case "message_start" if event.message is not None:
                self._model = event.message.model or self._model
                self._count(event.message.usage)
            case "error" if not self.finished:
                raise error_of(self._provider, event.error, prefix="in the stream: ")
            case _:
                return  # new types may come at any time

    def _begin(self, index: int, block: _Block, events: list[LLMEvent]) -> None:
        if block.type == "tool_use":
            self._check_calls(len(self._calls))
            call = self._calls[index] = CallParts(block.id or "", block.name or "")
            if block.input:  # a compatible server sends the whole call at once
                self._append(call, msgspec.json.encode(block.input).decode())
        elif block.type == "text" and block.text:
            events.append(TextDelta(block.text))

    def _end(self, reason: str, events: list[LLMEvent]) -> None:
        self._reason = reason
        self.finished = True
        if reason != "refusal":  # what a refused reply asked for is not done
            cut = reason not in ("tool_use", "end_turn", "stop_sequence")
            calls = tool_calls(self._calls.values(), self._new_id, cut=cut)
            if calls:
                self._reason = "tool_use"
                events.extend(calls)
            elif reason == "tool_use":
                self._reason = "end_turn"

    def _terminate(self, events: list[LLMEvent]) -> None:
        self.done = True
        used = self._usage
        cached = used.cache_read_input_tokens or 0
        asked = (used.input_tokens or 0) + (used.cache_creation_input_tokens or 0) + cached
        if asked or used.output_tokens:
            said = used.output_tokens or 0
            events.append(Usage(model=self._model, input_tokens=asked, cached_tokens=cached, output_tokens=said))
        match self._reason:
            case "tool_use":
                events.append(Finish("tool_calls"))
            case "refusal":
                events.append(Finish("refused"))
            case "max_tokens" | "model_context_window_exceeded" | "pause_turn":
                events.append(Finish("length"))
            case _:
                events.append(Finish("stop"))

    def _count(self, usage: _Usage | None) -> None:
        """The numbers are cumulative, and later events leave out what has not changed."""
        for name in _Usage.__struct_fields__:
            value = getattr(usage, name, None)
            if value is not None:
                setattr(self._usage, name, value)


def conversation(items: Sequence[Item]) -> tuple[str, list[dict[str, Any]]]:
    """Return a conversation as the ``system`` text and the ``messages`` of a request.

    Instructions at its beginning are the system text; later ones stay in their place, marked, among
    the user's words. Roles alternate, results directly follow their calls, and a user begins and ends
    it. Empty entries are left out, and an assistant's words never end in a space.
    """
    system: list[str] = []
    out: list[dict[str, Any]] = []
    ids = _Ids()
    for item in items:
        if isinstance(item, ToolCall):
            made = {"id": ids.new(item.id), "name": item.name, "input": _object(item.arguments)}
            _add(out, "assistant", {"type": "tool_use", **made})
        elif isinstance(item, ToolResult):
            block: dict[str, Any] = {"type": "tool_result", "tool_use_id": ids.of(item.id), "content": item.content}
            if item.state in ("failed", "timed_out", "cancelled"):
                block["is_error"] = True
            _add(out, "user", block)
        elif not item.text.strip():
            continue
        elif item.role in ("system", "developer"):
            if out:
                _add(out, "user", _text(f"<system>\n{item.text.strip()}\n</system>"))
            else:
                system.append(item.text.strip())
        else:
            _add(out, item.role, _text(item.text.rstrip() if item.role == "assistant" else item.text))
    if not out or out[-1]["role"] == "assistant":
        _add(out, "user", _text(GO_ON if out else CONNECTED))
    if out[0]["role"] == "assistant":
        out.insert(0, {"role": "user", "content": [_text(CONNECTED)]})
    return "\n\n".join(system), out


def tool_fields(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Return the ``tools`` field of a request; worth keeping, it is the same at every step."""
    return [
        {"name": tool.name, "description": tool.description, "input_schema": msgspec.json.decode(tool.parameters)}
        for tool in tools
    ]


class _Ids:
    """Ids of calls as this API takes them: of letters, digits, ``_`` and ``-``, and none twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._latest: dict[str, str] = {}

    def new(self, call_id: str) -> str:
        name = made = _BAD_ID.sub("_", call_id)
        number = 1
        while made in self._used:
            number += 1
            made = f"{name}_{number}"
        self._used.add(made)
        self._latest[call_id] = made
        return made

    def of(self, call_id: str) -> str:
        return self._latest.get(call_id, call_id)


def _add(out: list[dict[str, Any]], role: str, block: dict[str, Any]) -> None:
    if out and out[-1]["role"] == role:
        out[-1]["content"].append(block)
    else:
        out.append({"role": role, "content": [block]})


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _object(arguments: str) -> dict[str, Any]:
    try:
        value = fields_of(msgspec.json.decode(arguments))
    except (msgspec.DecodeError, RecursionError):
        return {"invalid_json": arguments}  # the model should see what it wrote, and this API wants an object
    return value
