"""A model that says what a test tells it to, step by step."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeAlias

from dialog.errors import ProviderError
from dialog.llm.llm import LLM, Finish, LLMEvent, LLMRequest, TextDelta, ToolCall, Usage
from dialog.testing.model import ToolUse

__all__ = ["Answer", "ScriptedLLM"]

_WORD = re.compile(r"\s*\S+(?:\s+$)?")

Piece: TypeAlias = str | ToolUse | float
Answer: TypeAlias = Piece | Sequence[Piece] | Exception
"""What the model answers to one request: text, tool calls, or both in a list; a number in it is a wait
in seconds; an exception is raised."""


class ScriptedLLM(LLM):
    """Answers request after request by its script, whatever it is asked.

    ::

        ScriptedLLM([
            ToolUse("book_table", {"people": 2}),        # the first request
            "Your table for two is booked.",             # the second, with the tool's result
            ["Let me see.", ToolUse("opening_hours")],
        ])

    A request beyond the script fails, as a provider's would.

    Args:
        script: One answer per request, or a function of the request.
    """

    def __init__(self, script: Iterable[Answer] | Callable[[LLMRequest], Answer]) -> None:
        self.requests: list[LLMRequest] = []
        """What it was asked, oldest first."""
        self._answer = script if callable(script) else None
        self._script: list[Answer] = [] if callable(script) else list(script)

    def __repr__(self) -> str:
        return f"<ScriptedLLM, {len(self.requests)} requests, {len(self.left)} answers left>"

    @property
    def left(self) -> tuple[Answer, ...]:
        """The answers that were not given yet; of a function, none."""
        return tuple(self._script[len(self.requests) :])

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`.

        Raises:
            ProviderError: The script has come to its end.
            Exception: The one that the script has here.
        """
        number = len(self.requests)
        self.requests.append(request)
        answer = self._next(request, number)
        if isinstance(answer, Exception):
            raise answer
        words = calls = 0
        for piece in (answer,) if isinstance(answer, str | ToolUse | int | float) else answer:
            if isinstance(piece, str):
                for word in _WORD.findall(piece):
                    words += 1
                    yield TextDelta(word)
            elif isinstance(piece, ToolUse):
                calls += 1
                yield ToolCall(id=piece.id or f"call_{number}_{calls}", name=piece.name, arguments=piece.text())
            else:
                await asyncio.sleep(piece)
        yield Usage(model="script", input_tokens=len(request.items), output_tokens=words)
        yield Finish("tool_calls" if calls else "stop")

    def _next(self, request: LLMRequest, number: int) -> Answer:
        if self._answer is not None:
            return self._answer(request)
        if number < len(self._script):
            return self._script[number]
        raise ProviderError(
            "script", f"request {number + 1} has no answer: the script has {len(self._script)}", retryable=False
        )
