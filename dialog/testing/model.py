"""What the emulators of all model servers share: scripted replies, a token schedule, what became of each request."""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

import msgspec
from aiohttp import web

from dialog.testing.server import EmulatorServer, FaultDrop, FaultGate, Faults

__all__ = [
    "SSE",
    "TOOL_NAME",
    "ChatExchange",
    "ChatReply",
    "Events",
    "ModelEmulator",
    "Script",
    "StreamWriter",
    "ToolUse",
    "fields_of",
    "halves",
    "size_of",
    "tokens_of",
]

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What all vendors allow."""


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
    """Streamed as the vendor streams the words of a refusal."""
    finish: str | None = None
    """The vendor's finish reason; by default the one that fits, and none at all when empty."""
    done: bool = True
    """Send the terminator of the stream."""
    usage: bool = True
    """Tell the usage (to who asks for it, where one has to ask)."""
    error: Mapping[str, Any] | None = None
    """Sent in the stream instead of the finish reason, which ends it."""
    tool_style: Literal["indexed", "no_index", "index_zero", "whole", "repeated_id", "no_id"] = "indexed"
    """Of chat completions: how the fragments of tool calls look, OpenAI's way or that of one of the
    compatible servers."""
    first_token_s: float = 0.0
    """Wait before the first token."""
    token_s: float = 0.0
    """Wait before each further token, or before each burst of them."""
    burst: int = 1
    """How many tokens are written at once."""
    split: int = 0
    """Write the body in pieces of so many bytes, wherever that cuts it; 0 writes whole events."""
    newline: str = "\n"
    """``\\r\\n`` as some proxies write it."""
    comments: bool = False
    """Send what keeps a connection alive (a comment, a ping) before every event."""

    def tokens(self) -> list[str]:
        """The text as it is streamed: each word takes the space before it along."""
        return tokens_of(self.text)


@dataclass(slots=True, kw_only=True)
class ChatExchange:
    """One request and what became of its reply."""

    fields: dict[str, Any]
    """The request, decoded."""
    connection: int
    """Number of the TCP connection it came on, from 0: requests with the same number reused it."""
    at: float
    """When it came, by ``loop.time()``."""
    sent: int = 0
    """Text tokens and tool fragments written so far."""
    state: Literal["streaming", "finished", "dropped", "disconnected"] = "streaming"
    """``disconnected``: the client stopped listening at token ``sent``; ``dropped``: a fault cut it."""
    ended_at: float = 0.0
    """When the client disconnected or the stream ended, by ``loop.time()``."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation that was sent."""
        messages: list[dict[str, Any]] = self.fields["input"] if "input" in self.fields else self.fields["messages"]
        return messages


Script: TypeAlias = Iterable[ChatReply | str] | Callable[[dict[str, Any]], ChatReply | str]
"""Replies in their order, or a function of the decoded request."""

SSE: TypeAlias = Mapping[str, Any] | str
"""The data of an event; one with a ``type`` may be sent under that name."""
Events: TypeAlias = tuple[list[SSE], list[list[SSE]], list[SSE]]


class ModelEmulator(EmulatorServer):
    """A server that answers requests to a model by a script.

    A subclass gives its vendor's :meth:`check`, :meth:`events`, :meth:`whole` and refusals.

    Args:
        replies: What the model says; more requests than replies are answered with 500.
        api_key: The only one that is accepted.
        faults: See :class:`Faults`; messages are counted in events.
    """

    named_events = False
    """Send the type of an event as its name too."""
    ping = ": ping"
    """What keeps a connection alive."""
    opens_at_once = True
    """The stream opens before the model's first token."""

    def __init__(self, replies: Script, *, api_key: str, faults: Faults | None, port: int) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.exchanges: list[ChatExchange] = []
        """Every valid request to the model, oldest first."""
        self._connections: dict[object, int] = {}
        self._script: Callable[[dict[str, Any]], ChatReply | str | None]
        self.say(replies)

    def say(self, replies: Script) -> None:
        """Answer further requests with ``replies``."""
        if callable(replies):
            self._script = replies
        else:
            queue = iter(replies)
            self._script = lambda _: next(queue, None)

    def authorized(self, request: web.Request) -> bool:
        """Whether the request shows the key."""
        return request.headers.get("Authorization") == f"Bearer {self.api_key}"

    @abstractmethod
    def check(self, request: web.Request, fields: Mapping[str, Any]) -> web.Response | None:
        """Refuse what the vendor would refuse."""

    @abstractmethod
    def failure(self, status: int, message: str) -> web.Response:
        """A refusal that says ``message``."""

    @abstractmethod
    def events(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> Events:
        """The events of a reply: what opens it, those of each token, and what ends it."""

    @abstractmethod
    def whole(self, fields: Mapping[str, Any], reply: ChatReply, number: int) -> dict[str, Any]:
        """The reply to a request that is not streamed."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request to the model."""
        if not self.authorized(request):
            return self.refusal(401, request)
        try:
            fields = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except msgspec.DecodeError:
            return self.failure(400, "We could not parse the JSON body of your request.")
        refused = self.check(request, fields)
        if refused is not None:
            return refused
        reply = self._script(fields)
        if reply is None:
            return self.failure(500, "The emulator has no further reply in its script.")
        if isinstance(reply, str):
            reply = ChatReply(text=reply)
        number = self._connections.setdefault(request.transport, len(self._connections))
        exchange = ChatExchange(fields=fields, connection=number, at=asyncio.get_running_loop().time())
        self.exchanges.append(exchange)
        self.changed()
        if not fields.get("stream"):
            exchange.state = "finished"
            return web.json_response(self.whole(fields, reply, len(self.exchanges)))
        return await self._stream(request, exchange, reply)

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /v1/models``: none, to who shows the key."""
        if not self.authorized(request):
            return self.refusal(401, request)
        return web.json_response({"object": "list", "data": [], "has_more": False})

    async def _stream(self, request: web.Request, exchange: ChatExchange, reply: ChatReply) -> web.StreamResponse:
        number = f"req_{len(self.exchanges)}"
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "x-request-id": number, "request-id": number}
        response = web.StreamResponse(headers=headers)
        writer = StreamWriter(response, self.gate, reply, named=self.named_events, ping=self.ping)
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
            exchange.ended_at = asyncio.get_running_loop().time()
            self.changed()
        return response

    async def _write(self, writer: StreamWriter, exchange: ChatExchange, reply: ChatReply) -> None:
        opening, tokens, ending = self.events(exchange.fields, reply, len(self.exchanges))
        if self.opens_at_once:
            await writer.send(opening)
        if reply.first_token_s:
            await asyncio.sleep(reply.first_token_s)
        if not self.opens_at_once:
            await writer.send(opening)
        for start in range(0, len(tokens), reply.burst):
            if reply.token_s and start:
                await asyncio.sleep(reply.token_s)
            burst = tokens[start : start + reply.burst]
            await writer.send([event for events in burst for event in events])
            exchange.sent += len(burst)
            self.changed()
        await writer.send(ending)


class StreamWriter:
    """Writes server-sent events, each through the faults."""

    def __init__(
        self, response: web.StreamResponse, gate: FaultGate, reply: ChatReply, *, named: bool, ping: str
    ) -> None:
        self._response = response
        self._gate = gate
        self._reply = reply
        self._named = named
        self._ping = ping

    async def send(self, events: Sequence[SSE]) -> None:
        """Write events in one piece, as far as the faults let them pass."""
        end = self._reply.newline
        out = ""
        try:
            for event in events:
                data = event if isinstance(event, str) else msgspec.json.encode(event).decode()
                kind = "" if isinstance(event, str) or not self._named else str(event["type"])
                for item in (*await self._gate.before(), data):
                    out += f"{self._ping}{end}{end}" if self._reply.comments else ""
                    out += f"event: {kind}{end}" if kind else ""
                    out += f"data: {item}{end}{end}"
        finally:  # what came before a fault is on its way
            raw = out.encode()
            size = self._reply.split or len(raw) or 1
            for start in range(0, len(raw), size):
                await self._response.write(raw[start : start + size])


def tokens_of(text: str | Sequence[str]) -> list[str]:
    """A text as it is streamed: each word takes the space before it along."""
    return re.findall(r"\s*\S+\s*$|\s*\S+", text) if isinstance(text, str) else list(text)


def halves(text: str) -> list[str]:
    """The arguments of a tool call as they are streamed, in two fragments; nothing of none."""
    half = (len(text) + 1) // 2
    return [part for part in (text[:half], text[half:]) if part]


def size_of(messages: Sequence[Mapping[str, Any]]) -> int:
    """A plausible number of tokens: four characters to one."""
    return sum(len(str(message.get("content") or "")) for message in messages) // 4 + 3


def fields_of(value: object) -> dict[str, Any]:
    """``value`` as the JSON object that it should be; another thing is an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
