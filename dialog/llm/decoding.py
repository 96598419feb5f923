"""What the readers of all models' streams share: bytes of the body in, events out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

import msgspec

from dialog.errors import LimitError, ProviderError
from dialog.llm.llm import LLMEvent, ToolCall
from dialog.llm.sse import ServerSentEvent, SSEParser

__all__ = ["MAX_TOOL_CALLS", "CallParts", "Decoder", "brief", "is_object", "new_call_id", "tool_calls"]

MAX_TOOL_CALLS = 128
"""So many tools at once are no reply but a model gone wild."""
_MAX_ARGUMENTS = 256_000


def new_call_id() -> str:
    """The id of a tool call that came without one."""
    return f"call_{uuid4().hex[:24]}"


class CallParts:
    """A tool call while its fragments arrive."""

    __slots__ = ("arguments", "id", "name", "size")

    def __init__(self, id: str = "", name: str = "") -> None:  # noqa: A002  # the field's name everywhere
        self.id = id
        self.name = name
        self.arguments: list[str] = []
        self.size = 0

    @property
    def text(self) -> str:
        """The arguments so far; none at all are an empty object."""
        return "".join(self.arguments).strip() or "{}"


class Decoder(ABC):
    """The reply of one request: bytes of the body in, events out, :class:`~dialog.llm.llm.Finish` last.

    Text comes out as it arrives. Tool calls come when the model has finished, and the finish after
    them and after the usage.

    Args:
        provider: Name for errors.
        model: Name for the usage when the server does not repeat it.
        new_id: Mints the id of a tool call that came without one.
    """

    def __init__(self, provider: str, model: str, *, new_id: Callable[[], str] = new_call_id) -> None:
        self._provider = provider
        self._model = model
        self._new_id = new_id
        self._sse = SSEParser()
        self.failure: ProviderError | None = None
        """What went wrong behind the events that :meth:`feed` returned last; nothing more comes."""
        self.chunks: int = 0
        """Signs that the model is at work, seen so far."""
        self.finished: bool = False
        """The model gave its finish reason; only usage and terminator may still come."""
        self.done: bool = False
        """:class:`~dialog.llm.llm.Finish` was returned."""

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
            self._terminate(events)
        return events

    @abstractmethod
    def _read(self, parsed: Sequence[ServerSentEvent], events: list[LLMEvent]) -> None:
        """Turn what the server sent into events."""

    @abstractmethod
    def _terminate(self, events: list[LLMEvent]) -> None:
        """The model had finished, and the body ended: add the finish, and what belongs before it."""

    def _append(self, call: CallParts, arguments: str) -> None:
        call.arguments.append(arguments)
        call.size += len(arguments)
        if call.size > _MAX_ARGUMENTS:
            raise self._error(f"the arguments of a tool call are longer than {_MAX_ARGUMENTS} characters")

    def _check_calls(self, number: int) -> None:
        if number >= MAX_TOOL_CALLS:
            raise self._error(f"the model asks for more than {MAX_TOOL_CALLS} tools at once")

    def _error(self, reason: str) -> ProviderError:
        return ProviderError(self._provider, reason, retryable=True)


def tool_calls(parts: Iterable[CallParts], new_id: Callable[[], str], *, cut: bool) -> list[ToolCall]:
    """The finished calls of a reply, each under an id of its own.

    ``cut``: the reply was broken off, so a call whose arguments are no object is left out: half an
    order is no order.
    """
    calls: list[ToolCall] = []
    for call in parts:
        # Results are matched by id, so an id that is missing or comes twice is replaced.
        taken = not call.id or any(call.id == other.id for other in calls)
        calls.append(ToolCall(id=new_id() if taken else call.id, name=call.name, arguments=call.text))
    return [call for call in calls if is_object(call.arguments)] if cut else calls


def is_object(text: str) -> bool:
    """Whether ``text`` is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def brief(exc: Exception) -> str:
    """The first line of an error, for another one's text."""
    return str(exc).partition("\n")[0][:120]
