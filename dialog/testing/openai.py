"""OpenAI chat completions on loopback: scripted replies, a token schedule, and faults.

::

    async with OpenAIEmulator(["Hello!", ChatReply(tools=[ToolUse("book", {"people": 2})])]) as emulator:
        llm = OpenAILLM(api_key=emulator.api_key, base_url=emulator.base_url)

Source: OpenAI API reference, "Create chat completion" and "Streaming", seen November 2026.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import msgspec
from aiohttp import web

from dialog.testing.server import EmulatorServer, FaultDrop, FaultGate, Faults

__all__ = ["ChatExchange", "ChatReply", "OpenAIEmulator", "ToolUse", "pairing_error"]

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REFUSALS = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-t***."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country not supported."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", None, "The engine is currently overloaded."),
}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call of a scripted reply; ``arguments`` as text are sent as they are, valid or not."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict[str, Any])
    id: str = ""
    """Minted when empty, another one for every request."""

    def text(self) -> str:
        """The arguments as JSON text."""
        return self.arguments if isinstance(self.arguments, str) else msgspec.json.encode(self.arguments).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the model answers to one request."""

    text: str | Sequence[str] = ""
    """Streamed word by word, or token by token when it is a sequence."""
    tools: Sequence[ToolUse] = ()
    """Called after the text."""
    refusal: str = ""
    """Streamed as ``delta.refusal``."""
    finish: str | None = None
    """The finish reason; by default ``stop`` or ``tool_calls``, and none at all when empty."""
    done: bool = True
    """Send the terminator ``[DONE]``."""
    usage: bool = True
    """Send the usage chunk when it is asked for."""
    error: Mapping[str, Any] | None = None
    """Sent in the stream instead of the finish reason, which ends it."""
    tool_style: Literal["indexed", "no_index", "index_zero", "whole", "repeated_id", "no_id"] = "indexed"
    """How the fragments of tool calls look: OpenAI's way, or that of one of the compatible servers."""
    first_token_s: float = 0.0
    """Wait before the first chunk."""
    token_s: float = 0.0
    """Wait before each further token, or before each burst of them."""
    burst: int = 1
    """How many tokens are written at once."""
    split: int = 0
    """Write the body in pieces of so many bytes, wherever that cuts it; 0 writes whole events."""
    newline: str = "\n"
    """``\\r\\n`` as some proxies write it."""
    comments: bool = False
    """Send ``: ping`` before every event."""

    def tokens(self) -> list[str]:
        """The text as it is streamed: each word takes the space before it along."""
        return re.findall(r"\s*\S+\s*$|\s*\S+", self.text) if isinstance(self.text, str) else list(self.text)


@dataclass(slots=True, kw_only=True)
class ChatExchange:
    """One request and what became of its reply."""

    fields: dict[str, Any]
    """The request, decoded."""
    connection: int
    """Number of the TCP connection it came on, from 0: requests with the same number reused it."""
    at: float
    """When it came, by ``time.monotonic()``."""
    sent: int = 0
    """Text tokens and tool fragments written so far."""
    state: Literal["streaming", "finished", "dropped", "disconnected"] = "streaming"
    """``disconnected``: the client stopped listening at token ``sent``; ``dropped``: a fault cut it."""
    ended_at: float = 0.0
    """When the client disconnected or the stream ended, by ``time.monotonic()``."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation that was sent."""
        messages: list[dict[str, Any]] = self.fields["messages"]
        return messages


Script: TypeAlias = Iterable[ChatReply | str] | Callable[[dict[str, Any]], ChatReply | str]
"""Replies in their order, or a function of the decoded request."""


class OpenAIEmulator(EmulatorServer):
    """``POST /v1/chat/completions`` and ``GET /v1/models``, with and without streaming.

    Args:
        replies: What the model says; more requests than replies are answered with 500.
        api_key: The only one that is accepted.
        stream_options: Which fields of ``stream_options`` the server knows: all, all but
            ``include_obfuscation``, or none, as compatible servers differ.
        faults: See :class:`Faults`; messages are counted in chunks.
    """

    def __init__(
        self,
        replies: Script = lambda fields: f"You said: {fields['messages'][-1].get('content')}",
        *,
        api_key: str = "test-openai-key",
        stream_options: Literal["all", "usage", "none"] = "all",
        faults: Faults | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.exchanges: list[ChatExchange] = []
        """Every valid request to the model, oldest first."""
        self.refusal_code: str | None = None
        """Instead of the usual error code of a refusal, for instance ``insufficient_quota``."""
        self._stream_options = stream_options
        self._connections: dict[object, int] = {}
        self._script: Callable[[dict[str, Any]], ChatReply | str | None]
        self.say(replies)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes: the address with its version."""
        return f"{self.url}/v1"

    def say(self, replies: Script) -> None:
        """Answer further requests with ``replies``."""
        if callable(replies):
            self._script = replies
        else:
            queue = iter(replies)
            self._script = lambda _: next(queue, None)

    def routes(self) -> Iterable[web.RouteDef]:
        """See :meth:`EmulatorServer.routes`."""
        return (web.post("/v1/chat/completions", self._complete), web.get("/v1/models", self._models))

    def refusal(self, status: int, request: web.Request) -> web.Response:
        """Return a refusal in OpenAI's shape."""
        del request
        kind, code, text = _REFUSALS.get(status, ("server_error", None, f"Refused with {status}."))
        return _error(status, text, kind=kind, code=self.refusal_code or code)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.refusal(401, request)
        return web.json_response({"object": "list", "data": []})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.refusal(401, request)
        try:
            fields = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except msgspec.DecodeError:
            return _error(400, "We could not parse the JSON body of your request.")
        invalid = self._invalid(fields)
        if invalid is not None:
            return _error(400, invalid[0], param=invalid[1])
        reply = self._script(fields)
        if reply is None:
            return _error(500, "The emulator has no further reply in its script.", kind="server_error")
        if isinstance(reply, str):
            reply = ChatReply(text=reply)
        number = self._connections.setdefault(request.transport, len(self._connections))
        exchange = ChatExchange(fields=fields, connection=number, at=time.monotonic())
        self.exchanges.append(exchange)
        self.changed()
        if not fields.get("stream"):
            exchange.state = "finished"
            return web.json_response(_completion(fields, reply, len(self.exchanges)))
        return await self._stream(request, exchange, reply)

    async def _stream(self, request: web.Request, exchange: ChatExchange, reply: ChatReply) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "x-request-id": f"req_{len(self.exchanges)}"}
        response = web.StreamResponse(headers=headers)
        writer = _Writer(response, self.gate, reply)
        try:
            await response.prepare(request)
            await self._write(writer, exchange, reply)
            await response.write_eof()
            exchange.state = "finished"
        except FaultDrop:
            exchange.state = "dropped"
            if request.transport is not None:
                request.transport.abort()
        except (asyncio.CancelledError, ConnectionError):
            exchange.state = "disconnected"
            raise
        finally:
            exchange.ended_at = time.monotonic()
            self.changed()
        return response

    async def _write(self, writer: _Writer, exchange: ChatExchange, reply: ChatReply) -> None:
        fields = exchange.fields
        options = cast("dict[str, Any]", fields.get("stream_options") or {})
        wants_usage = bool(options.get("include_usage"))
        chunk = _chunker(fields["model"], len(self.exchanges), with_usage=wants_usage)
        if reply.first_token_s:
            await asyncio.sleep(reply.first_token_s)
        await writer.send([chunk({"role": "assistant", "content": "", "refusal": None})])
        deltas: list[dict[str, Any]] = [{"content": token} for token in reply.tokens()]
        deltas += [{"refusal": token} for token in ChatReply(text=reply.refusal).tokens()]
        deltas += _tool_deltas(reply, len(self.exchanges))
        for start in range(0, len(deltas), reply.burst):
            if reply.token_s and start:
                await asyncio.sleep(reply.token_s)
            burst = deltas[start : start + reply.burst]
            await writer.send([chunk(delta) for delta in burst])
            exchange.sent += len(burst)
            self.changed()
        if reply.error is not None:
            await writer.send([{"error": dict(reply.error)}])
            return
        finish = reply.finish if reply.finish is not None else "tool_calls" if reply.tools else "stop"
        if finish:
            await writer.send([chunk({}, finish)])
        if wants_usage and reply.usage:
            await writer.send([{**chunk({}), "choices": [], "usage": _usage(fields, reply)}])
        if reply.done:
            await writer.send(["[DONE]"])

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
            if not _TOOL_NAME.fullmatch(function.get("name", "")):
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


class _Writer:
    """Writes server-sent events, each through the faults."""

    def __init__(self, response: web.StreamResponse, gate: FaultGate, reply: ChatReply) -> None:
        self._response = response
        self._gate = gate
        self._reply = reply

    async def send(self, events: Sequence[Mapping[str, Any] | str]) -> None:
        end = self._reply.newline
        out = ""
        try:
            for event in events:
                data = event if isinstance(event, str) else msgspec.json.encode(event).decode()
                for item in (*await self._gate.before(), data):
                    out += f": ping{end}{end}" if self._reply.comments else ""
                    out += f"data: {item}{end}{end}"
        finally:  # what came before a fault is on its way
            raw = out.encode()
            size = self._reply.split or len(raw) or 1
            for start in range(0, len(raw), size):
                await self._response.write(raw[start : start + size])


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
        half = (len(text) + 1) // 2
        fragments = [{**first, "function": {"name": tool.name, "arguments": ""}}]
        fragments += [{"index": number, "function": {"arguments": part}} for part in (text[:half], text[half:]) if part]
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
    asked = sum(len(str(message.get("content") or "")) for message in fields["messages"]) // 4 + 3
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


def _error(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return web.json_response(body, status=status, headers={"x-request-id": "req_refused"})
