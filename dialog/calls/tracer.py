"""What an agent needs of whoever traces its call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol
from uuid import UUID

from dialog.llm.llm import LLM, LLMEvent, ToolCall

__all__ = ["CallTracer"]


class CallTracer(Protocol):
    """Knows what the user's code is run for; all else a tracer learns from the events of the call."""

    @property
    def trace(self) -> str:
        """The call's span as W3C ``traceparent``; empty if there is none."""
        ...

    def work(self, turn: UUID, what: str, times: Mapping[str, float]) -> AbstractContextManager[None]:
        """What runs inside is the user's code of a turn: its ``inference``, or a ``stream`` that was dispatched.

        ``times``: when which stage of the turn was reached, on the call's clock.
        """
        ...

    def tool(self, turn: UUID, call: ToolCall) -> AbstractContextManager[None]:
        """What runs inside is a tool."""
        ...

    def request(self, turn: UUID, llm: LLM, stream: AsyncIterator[LLMEvent]) -> AsyncIterator[LLMEvent]:
        """Hand on what a model answers."""
        ...
