"""The wire of OpenAI chat completions, without a socket: requests out, events in.

Source: OpenAI API reference, "Create chat completion" and "Streaming", seen November 2026; the
tolerance towards compatible servers is noted where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import uuid4

import msgspec
from msgspec import Raw, Struct

from dialog.errors import AuthenticationError, LimitError, ProviderError
from dialog.llm.llm import Entry, Finish, Item, LLMEvent, LLMRequest, TextDelta, ToolCall, ToolResult, ToolSpec, Usage
from dialog.llm.sse import ServerSentEvent, SSEParser

__all__ = [
    "STREAM_OPTIONS",
    "ChatDecoder",
    "ConversationEncoder",
    "error_from_response",
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

_MAX_TOOL_CALLS = 128
_MAX_ARGUMENTS = 256_000
_TEXT_LIMIT = 300
"""Characters of a vendor's message that go into an error."""


class _Function(Struct):
    name: str | None = None
    # Some compatible servers send the object itself rather than its JSON text.
    arguments: str | dict[str, Any] | None = None


class _ToolDelta(Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct):
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None


class _Choice(Struct):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
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


class _Call:
    """A tool call while its fragments arrive."""

    __slots__ = ("arguments", "id", "name", "size")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.size = 0


class ChatDecoder:
    """The reply of one request: bytes of the body in, events out, :class:`Finish` last.

    Text comes out as it arrives. Tool calls come when the model has finished, and :class:`Finish`
    after them and after the usage, once the server says ``[DONE]`` or the body ends.

    Args:
        provider: Name for errors.
        model: Name for the usage when the server does not repeat it.
        new_id: Mints the id of a tool call that came without one.
    """

    def __init__(
        self, provider: str, model: str, *, new_id: Callable[[], str] = lambda: f"call_{uuid4().hex[:24]}"
    ) -> None:
        self._provider = provider
        self._model = model
        self._new_id = new_id
        self._sse = SSEParser()
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._reason = ""
        self._refused = False
        self.failure: ProviderError | None = None
        """What went wrong behind the events that :meth:`feed` returned last; nothing more comes."""
        self.chunks: int = 0
        """Chunks seen so far: the sign that the model is at work."""
        self.finished: bool = False
        """The model gave its finish reason; only the usage may still come."""
        self.done: bool = False
        """:class:`Finish` was returned."""

    def feed(self, data: bytes) -> list[LLMEvent]:
        """Return what ``data`` completes.

        Raises:
            ProviderError: The server reports an error or does not speak the protocol. When good
                events came in the same bytes, they are returned and the next call raises.
        """
        if self.failure is not None:
            raise self.failure
        events: list[LLMEvent] = []
        before = self.chunks
        try:
            self._read(self._sse.feed(data), events)
        except LimitError as exc:
            raise self._error(str(exc)) from exc
        except ProviderError as exc:
            if self.chunks == before:
                raise
            self.failure = exc
        return events

    def close(self) -> list[LLMEvent]:
        """Return what is left when the body has ended, or when nothing more is waited for.

        Raises:
            ProviderError: It ended before the model had finished.
        """
        if self.failure is not None:
            raise self.failure
        events: list[LLMEvent] = []
        self._read(self._sse.close(), events)
        if not self.done:
            if not self.finished:
                what = "before the model had finished" if self.chunks else "without a single event"
                raise self._error(f"the stream ended {what}")
            events.append(self._finish())
        return events

    def _read(self, parsed: Sequence[ServerSentEvent], events: list[LLMEvent]) -> None:
        for event in parsed:
            if self.done:
                break  # nothing counts behind the terminator
            data = event.data.strip()
            if data == b"[DONE]":
                if not self.finished:
                    raise self._error("the stream says [DONE] without a finish reason")
                events.append(self._finish())
            elif data:
                self._chunk(data, events)

    def _chunk(self, data: bytes, events: list[LLMEvent]) -> None:
        try:
            chunk = _chunks.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            if self.finished:
                return  # the reply is whole: what trails behind it cannot spoil it
            raise self._error(f"an event of {len(data)} bytes is not a chat completion chunk ({_brief(exc)})") from exc
        if chunk.error and not self.finished:
            raise _error_of(self._provider, chunk.error, prefix="in the stream: ")
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
            call.arguments.append(arguments)
            call.size += len(arguments)
            if call.size > _MAX_ARGUMENTS:
                raise self._error(f"the arguments of a tool call are longer than {_MAX_ARGUMENTS} characters")

    def _call_of(self, fragment: _ToolDelta, function: _Function) -> _Call:
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
            if len(self._calls) >= _MAX_TOOL_CALLS:
                raise self._error(f"the model asks for more than {_MAX_TOOL_CALLS} tools at once")
            call = _Call()
            self._calls.append(call)
            if fragment.index is not None:
                self._by_index[fragment.index] = call
        return call

    def _end(self, reason: str, events: list[LLMEvent]) -> None:
        if reason == "error":  # OpenRouter's word for an upstream failure
            raise self._error("the model failed in the middle of its reply")
        self._reason = reason
        self.finished = True
        calls: list[ToolCall] = []
        for call in self._calls:
            # Results are matched by id, so an id that is missing or comes twice is replaced.
            taken = any(call.id == other.id for other in calls)
            arguments = "".join(call.arguments).strip() or "{}"
            calls.append(
                ToolCall(id=self._new_id() if taken or not call.id else call.id, name=call.name, arguments=arguments)
            )
        if reason in ("length", "content_filter"):
            # The last call was probably cut in its middle: half an order is no order.
            calls = [call for call in calls if _is_object(call.arguments)]
        self._calls = []
        if calls:
            self._reason = "tool_calls"
            events.extend(calls)
        elif reason == "tool_calls":
            self._reason = "stop"

    def _finish(self) -> Finish:
        self.done = True
        match self._reason:
            case "tool_calls":
                return Finish("tool_calls")
            case "length":
                return Finish("length")
            case "content_filter":
                return Finish("refused")
            case _:  # "stop", and whatever word a compatible server has for it
                return Finish("refused" if self._refused else "stop")

    def _usage(self, chunk: _Chunk) -> Usage | None:
        try:
            usage = _usages.decode(chunk.usage)
        except msgspec.DecodeError:
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

    def _error(self, reason: str) -> ProviderError:
        return ProviderError(self._provider, reason, retryable=True)


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


def error_from_response(provider: str, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """Return the error that a refused request stands for.

    401 and 403 are an :class:`AuthenticationError`, whose text leaves the vendor's message out
    because it repeats parts of the key. 408, 409, 429 and 5xx are worth another try, except 429
    ``insufficient_quota``: no waiting refills an account.
    """
    try:
        error: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    error = _fields(error).get("error") or error
    request_id = next((value for name, value in headers.items() if name.lower() == "x-request-id"), "")
    tail = f" (request {request_id})" if request_id else ""
    if status in (401, 403):
        word = _code(error)
        word = f" {word}" if word else ""
        return AuthenticationError(provider, f"the API key was refused with HTTP {status}{word}{tail}: check api_key")
    return _error_of(provider, error, prefix=f"HTTP {status} ", status=status, tail=tail)


def _error_of(provider: str, error: Any, *, prefix: str, status: int = 0, tail: str = "") -> ProviderError:
    code = _code(error)
    message = error if isinstance(error, str) else str(_fields(error).get("message") or "")
    words = ": ".join(word for word in (code, message[:_TEXT_LIMIT].strip()) if word)
    if code == "insufficient_quota":
        return ProviderError(provider, f"{prefix}{words}{tail}: add credit to the account", retryable=False)
    if code in ("invalid_api_key", "authentication_error", "permission_error"):
        return AuthenticationError(provider, f"{prefix}the API key was refused ({code}){tail}: check api_key")
    if status:
        retryable = status in (408, 409, 429) or status >= 500
    else:
        retryable = code not in ("invalid_request_error", "context_length_exceeded", "model_not_found")
    return ProviderError(provider, f"{prefix}{words or 'without an explanation'}{tail}", retryable=retryable)


def _code(error: Any) -> str:
    """Return the most telling word of an error in the vendor's shape."""
    for name in ("code", "type"):
        value = _fields(error).get(name)
        if isinstance(value, str) and value:
            return value
    return ""


def _fields(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _brief(exc: Exception) -> str:
    return str(exc).partition("\n")[0][:120]
