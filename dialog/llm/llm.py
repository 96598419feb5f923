"""Language models: what they are asked, what they answer, and the interface of each.

An :class:`LLM` is a component that an agent uses, not a base class: it can be swapped, wrapped and
shared. The conversation is given in neutral items; adapters only translate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Hashable
from typing import Literal, TypeAlias

from msgspec import Struct

from dialog.usage import Usage

__all__ = [
    "CONNECTED",
    "LLM",
    "Entry",
    "Finish",
    "Item",
    "LLMEvent",
    "LLMRequest",
    "ModelSwitched",
    "TextDelta",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "Usage",
]


CONNECTED = "(call connected)"
"""Stands where the caller has said nothing yet and something has to: no model answers nothing."""


class Entry(Struct, frozen=True, kw_only=True, tag="entry"):
    """Something that was said, or an instruction."""

    role: Literal["system", "developer", "user", "assistant"]
    text: str
    interrupted: bool = False
    """An assistant's words that the caller cut off: ``text`` is what was heard."""

    def __repr__(self) -> str:
        return f"<Entry {self.role} {len(self.text)} chars>"


class ToolCall(Struct, frozen=True, kw_only=True, tag="tool_call"):
    """The model asks for a tool; an item of history as well as an event of the stream."""

    id: str
    name: str
    arguments: str
    """JSON text of an object, as the model wrote it; it may be invalid."""

    def __repr__(self) -> str:
        return f"<ToolCall {self.id} {self.name}>"


class ToolResult(Struct, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered."""

    id: str
    """Of the :class:`ToolCall`."""
    name: str
    content: str
    state: Literal["done", "failed", "timed_out", "cancelled", "running", "unknown"] = "done"

    def __repr__(self) -> str:
        return f"<ToolResult {self.id} {self.name} {self.state}>"


Item: TypeAlias = Entry | ToolCall | ToolResult
"""One item of a conversation, in its order."""


class ToolSpec(Struct, frozen=True, kw_only=True):
    """A tool as the model sees it."""

    name: str
    description: str
    parameters: str
    """JSON Schema of the arguments object, as JSON text."""


class LLMRequest(Struct, frozen=True, kw_only=True):
    """One question to a model. Every ToolCall among ``items`` has its ToolResult."""

    items: tuple[Item, ...]
    tools: tuple[ToolSpec, ...] = ()


class TextDelta(Struct, frozen=True, gc=False):
    """The next characters of the reply."""

    text: str


class Finish(Struct, frozen=True, gc=False):
    """The end of a stream that ended well. ``tool_calls``: results are wanted."""

    reason: Literal["stop", "tool_calls", "length", "refused"]


class ModelSwitched(Struct, frozen=True, kw_only=True):
    """Another model answers than the one that was to: told in the stream, for whoever reports on the call."""

    model: str
    """Who answers from here on; see :attr:`LLM.name`."""
    instead_of: str
    reason: str
    """What became of the other one."""


LLMEvent: TypeAlias = TextDelta | ToolCall | Usage | Finish | ModelSwitched


class LLM(ABC):
    """A language model."""

    @property
    def name(self) -> str:
        """How it is called in events and logs."""
        return type(self).__name__

    @property
    def identity(self) -> Hashable:
        """What fails together: equal for the models of several calls behind one server; ``None`` stands alone."""
        return None

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """Answer ``request`` as an async generator that ends with :class:`Finish`.

        Closing the generator, or cancelling the task that iterates it, stops the model at once.

        Raises:
            ProviderError: The request failed, also in mid-stream; a stream that stops without its
                terminator has failed.
        """

    def warm(self) -> None:  # noqa: B027  # most models have nothing to prepare
        """Prepare a connection; called when a call is known. Returns at once, fails silently."""

    async def close(self) -> None:  # noqa: B027  # most models hold nothing
        """Give back what the model holds (shared clients are reference-counted)."""
