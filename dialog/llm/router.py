"""A model chosen anew for every turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

from dialog.errors import ConfigurationError, UserCodeError
from dialog.llm.llm import LLM, Entry, LLMEvent, LLMRequest, ToolResult
from dialog.recent import Recent

__all__ = ["RouterLLM"]

_MAX_TURNS = 256


class RouterLLM(LLM):
    """Asks the model that ``route`` names, turn by turn.

    ::

        RouterLLM({"quick": OpenAILLM(...), "clever": AnthropicLLM(...)}, lambda request: ...)

    A turn stays with its model: when tools have answered, the model that called them goes on.

    Args:
        llms: The models by their names; they are closed with this one.
        route: Given the request (the conversation so far and the tools), returns a name, or a model,
            which stays its owner's. It is called in the way of the answer, so it should not take long.

    Raises:
        ConfigurationError: There is no model.
    """

    def __init__(self, llms: Mapping[str, LLM], route: Callable[[LLMRequest], str | LLM]) -> None:
        if not llms:
            raise ConfigurationError("RouterLLM: give it at least one model")
        self._llms = dict(llms)
        self._route = route
        self._turns: Recent[int, LLM] = Recent(_MAX_TURNS)
        """The models of the newest turns, by the conversation that each began with."""

    def __repr__(self) -> str:
        return f"<RouterLLM {', '.join(self._llms)}>"

    @property
    def name(self) -> str:
        """See :attr:`LLM.name`."""
        return f"RouterLLM({', '.join(self._llms)})"

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """See :meth:`LLM.stream`.

        Raises:
            ConfigurationError: ``route`` names a model that is not there.
            UserCodeError: ``route`` raised.
            ProviderError: The model failed.
        """
        async with aclosing(cast("Any", self._choose(request).stream(request))) as events:
            async for event in events:
                yield event

    def warm(self) -> None:
        """Prepare every model: nobody knows which is asked first."""
        for llm in self._llms.values():
            llm.warm()

    async def close(self) -> None:
        """Close the models that have a name."""
        for llm in self._llms.values():
            await llm.close()

    def _choose(self, request: LLMRequest) -> LLM:
        asked = 0
        for number, item in enumerate(request.items):
            if isinstance(item, Entry) and item.role != "assistant":
                asked = number + 1
        turn = hash(request.items[:asked])
        if any(isinstance(item, ToolResult) for item in request.items[asked:]) and turn in self._turns:
            return self._turns[turn]
        llm = self._turns[turn] = self._routed(request)
        return llm

    def _routed(self, request: LLMRequest) -> LLM:
        try:
            chosen = self._route(request)
        except Exception as exc:  # the user's code
            raise UserCodeError(f"RouterLLM: route raised {exc!r}") from exc
        if isinstance(chosen, LLM):
            return chosen
        llm = self._llms.get(chosen)
        if llm is None:
            raise ConfigurationError(f"RouterLLM: route named {chosen!r}; there are {', '.join(self._llms)}")
        return llm
