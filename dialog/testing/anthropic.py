"""Anthropic's messages API on loopback: scripted replies, a token schedule, and faults.

::

    async with AnthropicEmulator(["Hello!", ChatReply(tools=[ToolUse("book", {"people": 2})])]) as emulator:
        llm = AnthropicLLM(api_key=emulator.api_key, base_url=emulator.base_url)

Source: Anthropic API reference, "Messages" and "Streaming", seen November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from aiohttp import web

from dialog.testing.model import (
    SSE,
    TOOL_NAME,
    ChatReply,
    Events,
    ModelEmulator,
    Script,
    fields_of,
    halves,
    size_of,
    tokens_of,
)
from dialog.testing.server import Faults

__all__ = ["AnthropicEmulator", "conversation_error"]

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_REMOVED = ("temperature", "top_p", "top_k")


class AnthropicEmulator(ModelEmulator):
    """``POST /v1/messages`` and ``GET /v1/models``, with and without streaming.

    Args:
        replies: What the model says; more requests than replies are answered with 500.
        api_key: The only one that is accepted, as ``x-api-key`` or as a bearer token.
        faults: See :class:`Faults`; messages are counted in events.
    """

    named_events = True
    ping = 'event: ping\ndata: {"type": "ping"}'

    def __init__(
        self,
        replies: Script = lambda fields: f"You said: {fields['messages'][-1]['content']}",
        *,
        api_key: str = "test-anthropic-key",
        faults: Faults | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(replies, api_key=api_key, faults=faults, port=port)

    @property
    def base_url(self) -> str:
        """What an Anthropic client takes: the address without a version."""
        return self.url

    def routes(self) -> Iterable[web.RouteDef]:
        """See :meth:`EmulatorServer.routes`."""
        return (web.post("/v1/messages", self.answer), web.get("/v1/models", self.list_models))

    def authorized(self, request: web.Request) -> bool:
        """Whether the request shows the key, in either of the two ways."""
        return request.headers.get("x-api-key", "") == self.api_key or super().authorized(request)

    def refusal(self, status: int, request: web.Request) -> web.Response:
        """Return a refusal in Anthropic's shape."""
        del request
        return self.failure(status, "invalid x-api-key" if status == 401 else f"Refused with {status}.")

    def failure(self, status: int, message: str) -> web.Response:
        """See :meth:`ModelEmulator.failure`."""
        error = {"type": _KINDS.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error, "request_id": "req_refused"}
        return web.json_response(body, status=status, headers={"request-id": "req_refused"})

    def check(self, request: web.Request, fields: Mapping[str, Any]) -> web.Response | None:
        """See :meth:`ModelEmulator.check`."""
        version = request.headers.get("anthropic-version")
        reason = "anthropic-version: header is required" if version is None else _invalid(fields, version)
        return None if reason is None else self.failure(400, reason)

    def events(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> Events:
        """See :meth:`ModelEmulator.events`."""
        message = self._message(fields, reply, number)
        asked: dict[str, Any] = message["usage"]
        message.update(content=[], stop_reason=None, usage={**asked, "output_tokens": 1} if reply.usage else None)
        tokens: list[list[SSE]] = []
        blocks = 0
        words = [*reply.tokens(), *tokens_of(reply.refusal)]
        if words:
            tokens += _block(0, {"type": "text", "text": ""}, [{"type": "text_delta", "text": word} for word in words])
            blocks = 1
        for tool, call_id in zip(reply.tools, _ids(reply, number), strict=True):
            fragments = [{"type": "input_json_delta", "partial_json": part} for part in ("", *halves(tool.text()))]
            tokens += _block(blocks, {"type": "tool_use", "id": call_id, "name": tool.name, "input": {}}, fragments)
            blocks += 1
        ending: list[SSE] = []
        if reply.error is not None:
            ending.append({"type": "error", "error": dict(reply.error)})
        else:
            finish = _finish(reply)
            if finish:
                delta = {"stop_reason": finish, "stop_sequence": None}
                usage: dict[str, Any] | None = {"output_tokens": asked["output_tokens"]} if reply.usage else None
                ending.append({"type": "message_delta", "delta": delta, "usage": usage})
            if reply.done:
                ending.append({"type": "message_stop"})
        return [{"type": "message_start", "message": message}], tokens, ending

    def whole(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
        """See :meth:`ModelEmulator.whole`."""
        return self._message(fields, reply, number)

    def _message(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
        text = "".join(reply.tokens()) + reply.refusal
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
        for tool, call_id in zip(reply.tools, _ids(reply, number), strict=True):
            content.append({"type": "tool_use", "id": call_id, "name": tool.name, "input": _input(tool.text())})
        return {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": fields["model"],
            "content": content,
            "stop_reason": _finish(reply),
            "stop_sequence": None,
            "usage": {
                "input_tokens": size_of(fields["messages"]),
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": max(1, len(reply.tokens())),
            },
        }


def conversation_error(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why Anthropic refuses a conversation; ``None`` for a valid one.

    A user begins and ends it, no text is empty, and the results of all calls of a message stand first in the
    next one.
    """
    used: set[str] = set()
    waiting: list[str] = []
    for number, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            return f"messages.{number}.role: Input should be 'user' or 'assistant'"
        if number == 0 and role != "user":
            return 'messages: first message must use the "user" role'
        blocks = _blocks(content)
        if not blocks:
            return f"messages.{number}: all messages must have non-empty content"
        results = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
        if waiting and (role != "user" or set(waiting) - set(results)):
            left = ", ".join(waiting)
            return (
                f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: {left}"
            )
        if [block.get("tool_use_id") for block in blocks[: len(results)]] != results:
            return f"messages.{number}: `tool_result` blocks must come first"
        if set(results) - set(waiting) or len(set(results)) != len(results):
            return f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {results}"
        waiting = []
        for block in blocks:
            reason = _block_error(block, role, used)
            if reason is not None:
                return f"messages.{number}.content: {reason}"
            if block.get("type") == "tool_use":
                waiting.append(block["id"])
    if messages[-1].get("role") == "assistant":
        return "This model does not support assistant message prefill. The conversation must end with a user message."
    return None


def _block_error(block: Mapping[str, Any], role: str, used: set[str]) -> str | None:
    kind = block.get("type")
    if kind == "text":
        if not str(block.get("text", "")).strip():
            return "text content blocks must be non-empty"
        if role == "assistant" and str(block["text"]) != str(block["text"]).rstrip():
            return "final assistant content cannot end with trailing whitespace"
    elif kind == "tool_use":
        call_id = block.get("id", "")
        if role != "assistant" or not _TOOL_ID.fullmatch(call_id):
            return "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
        if call_id in used:
            return "`tool_use` ids must be unique"
        used.add(call_id)
        if not isinstance(block.get("input"), dict):
            return "tool_use.input: Input should be a valid dictionary"
    elif kind != "tool_result":
        return f"Input tag {kind!r} does not match any of the expected tags"
    return None


def _invalid(fields: Mapping[str, Any], version: str) -> str | None:
    if not isinstance(fields.get("model"), str):
        return "model: Field required"
    if not isinstance(fields.get("max_tokens"), int) or fields["max_tokens"] < 1:
        return "max_tokens: Field required"
    messages: Any = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        return "messages: at least one message is required"
    if version >= "2026-10-21":
        for name in _REMOVED:
            if name in fields:
                return f"{name}: Extra inputs are not permitted"
    for number, tool in enumerate(fields.get("tools") or ()):
        if not TOOL_NAME.fullmatch(tool.get("name", "")):
            return f"tools.{number}.name: String should match pattern"
        if fields_of(tool.get("input_schema")).get("type") != "object":
            return f"tools.{number}.input_schema.type: Input should be 'object'"
    conversation = cast("list[dict[str, Any]]", messages)
    calls = any(block.get("type") == "tool_use" for message in conversation for block in _blocks(message["content"]))
    if calls and not fields.get("tools"):
        return "Requests which include `tool_use` or `tool_result` blocks in the messages must define tools"
    return conversation_error(conversation)


def _blocks(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return cast("list[dict[str, Any]]", content) if isinstance(content, list) else []


def _block(index: int, block: Mapping[str, Any], deltas: Sequence[Mapping[str, Any]]) -> list[list[SSE]]:
    """The events of a content block, grouped by token."""
    groups: list[list[SSE]] = [[{"type": "content_block_delta", "index": index, "delta": delta}] for delta in deltas]
    groups[0].insert(0, {"type": "content_block_start", "index": index, "content_block": block})
    groups[-1].append({"type": "content_block_stop", "index": index})
    return groups


def _finish(reply: ChatReply) -> str:
    if reply.finish is not None:
        return reply.finish
    return "refusal" if reply.refusal else "tool_use" if reply.tools else "end_turn"


def _ids(reply: ChatReply, request: int) -> list[str]:
    return [tool.id or f"toolu_{request}_{number}" for number, tool in enumerate(reply.tools)]


def _input(arguments: str) -> dict[str, Any]:
    try:
        return fields_of(msgspec.json.decode(arguments))
    except msgspec.DecodeError:
        return {}
