"""OpenAI chat completions on loopback: scripted replies, a token schedule, and faults.

::

    async with OpenAIEmulator(["Hello!", ChatReply(tools=[ToolUse("book", {"people": 2})])]) as emulator:
        llm = OpenAILLM(api_key=emulator.api_key, base_url=emulator.base_url)

Source: OpenAI API reference, "Create chat completion" and "Streaming", seen November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from aiohttp import web

from dialog.testing.model import (
    TOOL_NAME,
    ChatExchange,
    ChatReply,
    Events,
    ModelEmulator,
    Script,
    ToolUse,
    halves,
    size_of,
    tokens_of,
)
from dialog.testing.server import Faults

__all__ = ["ChatExchange", "ChatReply", "OpenAIEmulator", "ToolUse", "pairing_error"]

_REFUSALS = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-t***."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country not supported."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded."),
}


class OpenAIServer(ModelEmulator):
    """What the APIs of OpenAI share: the shape of refusals."""

    refusal_code: str | None = None
    """Instead of the usual error code of a refusal, for instance ``insufficient_quota``."""

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes: the address with its version."""
        return f"{self.url}/v1"

    def refusal(self, status: int, request: web.Request) -> web.Response:
        """Return a refusal in OpenAI's shape."""
        del request
        kind, code, text = _REFUSALS.get(status, ("server_error", None, f"Refused with {status}."))
        return error(status, text, kind=kind, code=self.refusal_code or code)

    def failure(self, status: int, message: str) -> web.Response:
        """See :meth:`ModelEmulator.failure`."""
        return error(status, message, kind="server_error" if status >= 500 else "invalid_request_error")


class OpenAIEmulator(OpenAIServer):
    """``POST /v1/chat/completions`` and ``GET /v1/models``, with and without streaming.

    Args:
        replies: What the model says; more requests than replies are answered with 500.
        api_key: The only one that is accepted.
        stream_options: Which fields of ``stream_options`` the server knows: all, all but
            ``include_obfuscation``, or none, as compatible servers differ.
        faults: See :class:`Faults`; messages are counted in chunks.
    """

    opens_at_once = False

    def __init__(
        self,
        replies: Script = lambda fields: f"You said: {fields['messages'][-1].get('content')}",
        *,
        api_key: str = "test-openai-key",
        stream_options: Literal["all", "usage", "none"] = "all",
        faults: Faults | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(replies, api_key=api_key, faults=faults, port=port)
        self._stream_options = stream_options

    def routes(self) -> Iterable[web.RouteDef]:
        """See :meth:`EmulatorServer.routes`."""
        return (web.post("/v1/chat/completions", self.answer), web.get("/v1/models", self.list_models))

    def check(self, request: web.Request, fields: Mapping[str, Any]) -> web.Response | None:
        """See :meth:`ModelEmulator.check`."""
        del request
        invalid = self._invalid(fields)
        return None if invalid is None else error(400, invalid[0], param=invalid[1])

    def events(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> Events:
        """See :meth:`ModelEmulator.events`."""
        options = cast("dict[str, Any]", fields.get("stream_options") or {})
        wants_usage = bool(options.get("include_usage"))
        chunk = _chunker(fields["model"], number, with_usage=wants_usage)
        deltas: list[dict[str, Any]] = [{"content": token} for token in reply.tokens()]
        deltas += [{"refusal": token} for token in tokens_of(reply.refusal)]
        deltas += _tool_deltas(reply, number)
        ending: list[Mapping[str, Any] | str] = []
        if reply.error is not None:
            ending = [{"error": dict(reply.error)}]
        else:
            finish = reply.finish if reply.finish is not None else "tool_calls" if reply.tools else "stop"
            if finish:
                ending.append(chunk({}, finish))
            if wants_usage and reply.usage:
                ending.append({**chunk({}), "choices": [], "usage": _usage(fields, reply)})
            if reply.done:
                ending.append("[DONE]")
        opening = chunk({"role": "assistant", "content": "", "refusal": None})
        return [opening], [[chunk(delta)] for delta in deltas], ending

    def whole(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
        """See :meth:`ModelEmulator.whole`."""
        return _completion(fields, reply, number)

    def _invalid(self, fields: Mapping[str, Any]) -> tuple[str, str] | None:
        """Say what OpenAI would refuse, and the parameter it would name."""
        if not isinstance(fields.get("model"), str):
            return "you must provide a model parameter", "model"
        messages: Any = fields.get("messages")
        if not isinstance(messages, list) or not messages:
            return "Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages"
        options = fields.get("stream_options")
        if options is not None:
            if not fields.get("stream"):
                return "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
            known = {"all": {"include_usage", "include_obfuscation"}, "usage": {"include_usage"}, "none": set[str]()}
            unknown = set(cast("dict[str, Any]", options)) - known[self._stream_options]
            if unknown or self._stream_options == "none":
                return f"Unknown parameter: 'stream_options.{min(unknown, default='')}'.", "stream_options"
        for number, tool in enumerate(fields.get("tools") or ()):
            function = tool.get("function") or {}
            if not TOOL_NAME.fullmatch(function.get("name", "")):
                return f"Invalid 'tools[{number}].function.name': string does not match pattern.", f"tools[{number}]"
            if function.get("parameters", {"type": "object"}).get("type") != "object":
                return f"Invalid schema for function {function['name']!r}: not of type 'object'.", f"tools[{number}]"
        return pairing_error(cast("list[dict[str, Any]]", messages))


def pairing_error(messages: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return why OpenAI refuses a conversation, and the parameter it names; ``None`` for a valid one.

    Every id of an assistant's ``tool_calls`` must be answered by a ``tool`` message before anything
    else is said, and nothing may be answered that was not asked.
    """
    open_ids: list[str] = []
    asked = False
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        param = f"messages.[{number}].role"
        if role == "tool":
            if not asked or message.get("tool_call_id") not in open_ids:
                reason = "must be a response to a preceeding message with 'tool_calls'."
                return f"Invalid parameter: messages with role 'tool' {reason}", param
            open_ids.remove(message["tool_call_id"])
            continue
        if open_ids:
            return _unanswered(open_ids), param
        asked = False
        if role == "assistant" and message.get("tool_calls"):
            open_ids = [call["id"] for call in message["tool_calls"]]
            if len(set(open_ids)) != len(open_ids):
                return "Invalid 'messages': a tool call id is used twice.", param
            asked = True
        elif role not in ("system", "developer", "user", "assistant"):
            return f"Invalid value: {role!r}.", param
        elif content is None:
            return f"Invalid value for 'content': expected a string, got null. ({role})", f"messages.[{number}].content"
    return (_unanswered(open_ids), "messages") if open_ids else None


def _unanswered(ids: Sequence[str]) -> str:
    return (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(ids)}"
    )


def _chunker(model: str, number: int, *, with_usage: bool) -> Callable[..., dict[str, Any]]:
    def chunk(delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "id": f"chatcmpl-{number}",
            "object": "chat.completion.chunk",
            "created": 1790000000,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": "fp_emulator",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        return {**fields, "usage": None} if with_usage else fields

    return chunk


def _ids(reply: ChatReply, request: int) -> list[str]:
    return [tool.id or f"call_{request}_{number}" for number, tool in enumerate(reply.tools)]


def _tool_deltas(reply: ChatReply, request: int) -> list[dict[str, Any]]:
    """The fragments of a reply's tool calls: name first, then the arguments in two halves."""
    style = reply.tool_style
    calls: list[list[dict[str, Any]]] = []
    for number, (tool, call_id) in enumerate(zip(reply.tools, _ids(reply, request), strict=True)):
        text = tool.text()
        first: dict[str, Any] = {"index": number, "id": call_id, "type": "function"}
        if style == "whole":
            calls.append([{**first, "function": {"name": tool.name, "arguments": text}}])
            continue
        fragments = [{**first, "function": {"name": tool.name, "arguments": ""}}]
        fragments += [{"index": number, "function": {"arguments": part}} for part in halves(text)]
        for fragment in fragments:
            if style in ("no_index", "no_id"):
                del fragment["index"]
            elif style == "index_zero":
                fragment["index"] = 0
            elif style == "repeated_id":
                fragment["id"] = call_id
            if style == "no_id":
                fragment.pop("id", None)
        calls.append(fragments)
    if style == "whole":
        return [{"tool_calls": [fragment for fragments in calls for fragment in fragments]}] if calls else []
    return [{"tool_calls": [fragment]} for fragments in calls for fragment in fragments]


def _usage(fields: Mapping[str, Any], reply: ChatReply) -> dict[str, Any]:
    """Plausible numbers: four characters to a token."""
    asked = size_of(fields["messages"])
    said = max(1, len(reply.tokens()))
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _completion(fields: Mapping[str, Any], reply: ChatReply, request: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.tokens()) or None, "refusal": None}
    if reply.tools:
        message["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": tool.name, "arguments": tool.text()}}
            for tool, call_id in zip(reply.tools, _ids(reply, request), strict=True)
        ]
    finish = reply.finish or ("tool_calls" if reply.tools else "stop")
    return {
        "id": f"chatcmpl-{request}",
        "object": "chat.completion",
        "created": 1790000000,
        "model": fields["model"],
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(fields, reply),
    }


def error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> web.Response:
    """A refusal in OpenAI's shape."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status, headers={"x-request-id": "req_refused"})
