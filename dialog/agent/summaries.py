"""Long conversations: their oldest turns are replaced by a summary, which a model writes beside the call.

::

    class Desk(OpenAIAgent):
        def __init__(self, **agent):
            super().__init__(**agent)
            HistorySummaries(self)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, cast

from dialog.agent.agent import Agent
from dialog.agent.history import Excerpt
from dialog.calls import events as ev
from dialog.errors import ConfigurationError, DialogError, ProviderError
from dialog.llm.llm import LLM, Entry, Finish, Item, LLMRequest, TextDelta, ToolCall, ToolResult, Usage
from dialog.participant import Participant

__all__ = ["HistorySummaries"]

logger = logging.getLogger(__name__)

_INSTRUCTION = (
    "What follows is the beginning of a phone conversation between a caller and an agent. Write down, in the "
    "language of the conversation and in at most 150 words, what the agent has to remember to go on with it: who "
    "the caller is, what they want, what was agreed, what tools have done, what is still open; names, numbers and "
    "dates exactly as they were said. Write only that."
)
_PATIENCE_S = 60.0
_REST_TURNS = 3
"""After a failure, so many turns pass before it is tried again."""
_NAMES = {"user": "Caller", "assistant": "Agent", "system": "Note", "developer": "Note"}


class HistorySummaries(Participant):
    """Keeps an agent's history short: no turn waits for it, and what was said last stays as it was.

    When a turn has ended and the conversation is longer than ``over_chars``, a model is asked for a summary
    of its oldest turns; when that has come, it takes their place. Until then, and when it fails (which is
    an error that does not end the call), the model goes on with the whole conversation.

    Args:
        agent: Whose history; it ends with its call.
        llm: Writes the summaries and is closed at the end; without one, the agent's own does.
        over_chars: So much text is left alone; 12,000 characters are about 3,000 tokens.
        keep_turns: The newest turns, which stay as they are.

    Raises:
        ConfigurationError: There is no model, or a value is out of its range.
    """

    def __init__(self, agent: Agent, llm: LLM | None = None, *, over_chars: int = 12_000, keep_turns: int = 6) -> None:
        if llm is None and agent.llm is None:
            raise ConfigurationError("HistorySummaries: neither it nor the agent has an llm")
        if over_chars < 1 or keep_turns < 1:
            got = f"{over_chars} and {keep_turns}"
            raise ConfigurationError(f"HistorySummaries: need over_chars >= 1 and keep_turns >= 1, got {got}")
        super().__init__()
        self._agent = agent
        self._llm = llm
        self._over_chars = over_chars
        self._keep_turns = keep_turns
        self._task: asyncio.Task[None] | None = None
        self._rest = 0
        agent.on(Agent.EVENT, self._on_event)

    def dispose(self) -> None:
        """Stop; a summary that is being written is given up."""
        if self.disposed:
            return
        self._agent.off(Agent.EVENT, self._on_event)
        super().dispose()
        if self._llm is not None:
            closing = asyncio.get_running_loop().create_task(self._llm.close(), name="HistorySummaries closing")
            self._tasks.add(closing)
            closing.add_done_callback(self._task_done)

    def _on_event(self, event: ev.CallEvent) -> None:
        if isinstance(event, ev.CallEnded):
            self.dispose()
        elif isinstance(event, ev.TurnMeasured):
            self._consider(event)

    def _consider(self, event: ev.TurnMeasured) -> None:
        if self._task is not None and not self._task.done():
            return
        if self._rest:
            self._rest -= 1
            return
        history = self._agent.history
        if history.chars <= self._over_chars:
            return
        excerpt = history.oldest_turns(self._keep_turns)
        llm = self._llm or self._agent.llm
        if excerpt is not None and llm is not None:
            self._task = self.spawn(self._summarise(llm, excerpt, event), "summary")

    async def _summarise(self, llm: LLM, excerpt: Excerpt, event: ev.TurnMeasured) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                summary = await self._ask(llm, excerpt, event)
        except TimeoutError:
            self._failed(ProviderError(llm.name, "it was not done in time", retryable=True))
        except DialogError as exc:
            self._failed(exc)
        except Exception as exc:  # a model of the user's own
            error = ProviderError(llm.name, f"it raised {exc!r}", retryable=True)
            error.__cause__ = exc
            self._failed(error)
        else:
            if len(summary) >= excerpt.size:
                self._rest = _REST_TURNS  # nothing is won by it
            elif not self._agent.history.replace_turns(excerpt, summary):
                logger.debug("%s: the turns were forgotten before their summary came", self.name)

    async def _ask(self, llm: LLM, excerpt: Excerpt, event: ev.TurnMeasured) -> str:
        items = (Entry(role="system", text=_INSTRUCTION), Entry(role="user", text=_told(excerpt.items)))
        words: list[str] = []
        finish: Finish | None = None
        async with aclosing(cast("Any", llm.stream(LLMRequest(items=items)))) as stream:
            async for happening in stream:
                if isinstance(happening, TextDelta):
                    words.append(happening.text)
                elif isinstance(happening, Usage):
                    self._used(happening, event)
                elif isinstance(happening, Finish):
                    finish = happening
        summary = "".join(words).strip()
        if finish is None or finish.reason != "stop" or not summary:
            why = f"it ended with {finish.reason!r}" if finish is not None else "it did not end"
            raise ProviderError(llm.name, f"it gave no summary ({why})", retryable=True)
        return summary

    def _used(self, usage: Usage, event: ev.TurnMeasured) -> None:
        conversation = self._agent._conversation
        if conversation is not None:
            conversation.used(event.timeline.turn, usage)

    def _failed(self, error: DialogError) -> None:
        self._rest = _REST_TURNS
        if not self.disposed:
            self._agent._failed(error)


def _told(items: Sequence[Item]) -> str:
    """The conversation as a text: a model that is to write about it must not take part in it."""
    lines: list[str] = []
    for item in items:
        if isinstance(item, ToolCall):
            lines.append(f"Agent calls {item.name}({item.arguments})")
        elif isinstance(item, ToolResult):
            lines.append(f"{item.name} answers ({item.state}): {item.content}")
        else:
            lines.append(f"{_NAMES[item.role]}: {item.text}{' (interrupted)' * item.interrupted}")
    return "\n".join(lines)
