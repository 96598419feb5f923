"""OpenAI's Responses on loopback: scripted replies, a token schedule, and faults.

::

    async with ResponsesEmulator(["Hello!", ChatReply(tools=[ToolUse("book", {"people": 2})])]) as emulator:
        llm = ResponsesLLM(api_key=emulator.api_key, base_url=emulator.base_url)

Source: OpenAI API reference, "Responses" and "Streaming events", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from aiohttp import web

from dialog.testing.model import TOOL_NAME, ChatReply, Events, Script, fields_of, halves, size_of, tokens_of
from dialog.testing.openai import OpenAIServer, error
from dialog.testing.server import Faults

__all__ = ["ResponsesEmulator", "input_error"]


class ResponsesEmulator(OpenAIServer):
    """``POST /v1/responses`` and ``GET /v1/models``, with and without streaming.

    ``finish`` of a reply is its status: ``completed``, ``max_output_tokens`` or ``content_filter`` (both
    incomplete), or none when empty. ``error`` is sent as ``response.failed``, unless it has a ``type`` of
    ``error``.

    Args:
        replies: What the model says; more requests than replies are answered with 500.
        api_key: The only one that is accepted.
        faults: See :class:`Faults`; messages are counted in events.
    """

    named_events = True

    def __init__(
        self,
        replies: Script = lambda fields: f"You said: {_inputs(fields)[-1].get('content')}",
        *,
        api_key: str = "test-openai-key",
        faults: Faults | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(replies, api_key=api_key, faults=faults, port=port)

    def routes(self) -> Iterable[web.RouteDef]:
        """See :meth:`EmulatorServer.routes`."""
        return (web.post("/v1/responses", self.answer), web.get("/v1/models", self.list_models))

    def check(self, request: web.Request, fields: Mapping[str, Any]) -> web.Response | None:
        """See :meth:`ModelEmulator.check`."""
        del request
        invalid = _invalid(fields)
        return None if invalid is None else error(400, invalid[0], param=invalid[1])

    def events(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> Events:
        """See :meth:`ModelEmulator.events`."""
        begun: dict[str, Any] = _response(fields, reply, number)
        begun.update(status="in_progress", output=[], usage=None)
        opening = [_event("response.created", response=begun), _event("response.in_progress", response=begun)]
        tokens: list[list[dict[str, Any]]] = []
        for index, item in enumerate(_output(reply, number)):
            tokens += _call(index, item) if item["type"] == "function_call" else _message(index, item)
        ending = _ending(fields, reply, number)
        for count, event in enumerate([*opening, *(event for group in tokens for event in group), *ending]):
            event["sequence_number"] = count
        return list(opening), [list(group) for group in tokens], list(ending)

    def whole(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
        """See :meth:`ModelEmulator.whole`."""
        return _response(fields, reply, number)


def input_error(items: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return why OpenAI refuses the input of a response, and the parameter it names; ``None`` for a valid one.

    Every call has its output, and every output its call, by ``call_id``.
    """
    calls: list[str] = []
    outputs: list[str] = []
    for number, item in enumerate(items):
        param = f"input[{number}]"
        kind = item.get("type", "message")
        if kind == "function_call":
            calls.append(item["call_id"])
        elif kind == "function_call_output":
            if item.get("call_id") not in calls:
                return f"No tool call found for function call output with call_id {item.get('call_id')}.", param
            if not isinstance(item.get("output"), str):
                return "Invalid type for 'output': expected a string.", param
            outputs.append(item["call_id"])
        elif kind == "message":
            if item.get("role") not in ("system", "developer", "user", "assistant"):
                return f"Invalid value: {item.get('role')!r}.", param
            if not item.get("content"):
                return "Invalid 'content': empty.", param
        elif kind != "reasoning":
            return f"Invalid value: {kind!r}.", param
    missing = [call_id for call_id in calls if call_id not in outputs]
    return (f"No tool output found for function call {missing[0]}.", "input") if missing else None


def _invalid(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    if not isinstance(fields.get("model"), str):
        return "you must provide a model parameter", "model"
    items = _inputs(fields) if fields.get("input") else []
    if not items:
        return "One of 'input' or 'previous_response_id' must be provided.", "input"
    for number, tool in enumerate(fields.get("tools") or ()):
        if tool.get("type") != "function" or not TOOL_NAME.fullmatch(tool.get("name", "")):
            return f"Invalid 'tools[{number}].name': string does not match pattern.", f"tools[{number}]"
        schema = fields_of(tool.get("parameters"))
        if schema.get("type") != "object":
            return f"Invalid schema for function {tool['name']!r}: not of type 'object'.", f"tools[{number}]"
        wanted = set(fields_of(schema.get("properties"))) - set(cast("list[str]", schema.get("required") or []))
        if tool.get("strict", True) and (wanted or schema.get("additionalProperties") is not False):
            reason = "'required' is required to be supplied and to be an array including every key in properties"
            return f"Invalid schema for function {tool['name']!r}: {reason}.", f"tools[{number}].parameters"
    return input_error(items)


def _inputs(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The input as items; a text is one of the user."""
    given = fields["input"]
    return cast("list[dict[str, Any]]", given if isinstance(given, list) else [{"role": "user", "content": given}])


def _event(event: str, **fields: Any) -> dict[str, Any]:
    return {**fields, "type": event}


def _message(index: int, item: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The events of words, grouped by token."""
    part: dict[str, Any] = item["content"][0]
    name = "refusal" if part["type"] == "refusal" else "text"
    kind = "response.refusal" if name == "refusal" else "response.output_text"
    extra: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
    place: dict[str, Any] = {"item_id": item["id"], "output_index": index, "content_index": 0}
    groups = [[_event(f"{kind}.delta", **place, delta=word, **extra)] for word in tokens_of(part[name])]
    groups[0][:0] = [
        _event("response.output_item.added", output_index=index, item=_begun(item, content=[])),
        _event("response.content_part.added", **place, part={**part, name: ""}),
    ]
    groups[-1] += [
        _event(f"{kind}.done", **place, **{name: part[name]}, **extra),
        _event("response.content_part.done", **place, part=part),
        _event("response.output_item.done", output_index=index, item=item),
    ]
    return groups


def _call(index: int, item: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The events of a tool call, grouped by fragment."""
    kind = "response.function_call_arguments"
    place: dict[str, Any] = {"item_id": item["id"], "output_index": index}
    groups = [[_event(f"{kind}.delta", **place, delta=part)] for part in halves(item["arguments"]) or [""]]
    groups[0].insert(0, _event("response.output_item.added", output_index=index, item=_begun(item, arguments="")))
    groups[-1] += [
        _event(f"{kind}.done", **place, arguments=item["arguments"], name=item["name"]),
        _event("response.output_item.done", output_index=index, item=item),
    ]
    return groups


def _begun(item: dict[str, Any], **empty: Any) -> dict[str, Any]:
    return {**item, "status": "in_progress", **empty}


def _ending(fields: Mapping[str, Any], reply: ChatReply, number: int) -> list[dict[str, Any]]:
    response = _response(fields, reply, number)
    if not reply.usage:
        response["usage"] = None
    if reply.error is not None:
        if reply.error.get("type") == "error":
            return [_event("error", **{"code": None, "message": "", "param": None, **reply.error})]
        return [_event("response.failed", response={**response, "status": "failed", "error": dict(reply.error)})]
    if not reply.done or reply.finish == "":
        return []
    return [_event(f"response.{response['status']}", response=response)]


def _output(reply: ChatReply, number: int) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    if reply.tokens():
        parts.append({"type": "output_text", "text": "".join(reply.tokens()), "annotations": [], "logprobs": []})
    if reply.refusal:
        parts.append({"type": "refusal", "refusal": reply.refusal})
    for place, part in enumerate(parts):
        name = f"msg_{number}_{place}"
        output.append({"id": name, "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    for place, tool in enumerate(reply.tools):
        call_id = tool.id or f"call_{number}_{place}"
        item = {"id": f"fc_{number}_{place}", "type": "function_call", "status": "completed", "call_id": call_id}
        output.append({**item, "name": tool.name, "arguments": tool.text()})
    return output


def _response(fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
    cut = reply.finish if reply.finish in ("max_output_tokens", "content_filter") else None
    asked, said = size_of(_inputs(fields)), max(1, len(reply.tokens()))
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1790000000,
        "status": "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": fields.get("instructions"),
        "metadata": {},
        "model": fields["model"],
        "output": _output(reply, number),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": list(fields.get("tools") or ()),
        "top_p": 1.0,
        "usage": {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + said,
        },
    }
