"""A model that hears and speaks, as the model that answers turns: its words go by, its tools are run like any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from dialog.agent.turn import Turn, current_turn
from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.llm import LLM, Entry, Finish, Item, LLMEvent, LLMRequest, ToolCall, ToolResult
from dialog.message import Playback
from dialog.s2s.s2s import NOT_RUN, S2S, Replied, ToolAsked

__all__ = ["SpeakingModel", "leading"]

_NONE = 1_000_000
"""Number of a part that there is not: all that was said stands."""


class _Reply:
    """A reply that is awaited."""

    __slots__ = ("calls", "ended", "replied")

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.replied: Replied | None = None
        self.ended = asyncio.Event()


class SpeakingModel(LLM):
    """Answers a turn by letting the model speak; what it says goes another way than through here.

    The model remembers what it heard and said. Of the rest of the conversation it is told when it is asked:
    answers of tools, and what was noted that nobody said.
    """

    def __init__(self, s2s: S2S) -> None:
        self._s2s = s2s
        self._replies: dict[UUID, _Reply] = {}
        self._heard: set[UUID] = set()
        """Turns that the model answers without being asked."""
        self._asked: dict[str, Turn] = {}
        """Tools that the model waits for."""
        self._told: set[str] = set()
        """Notes that it knows of."""

    @property
    def name(self) -> str:
        """The model's."""
        return self._s2s.name

    async def stream(self, request: LLMRequest) -> AsyncIterator[LLMEvent]:
        """Let it speak, until its reply has ended; yields the tools that it wants.

        Raises:
            ConfigurationError: Asked outside a turn.
            ProviderError: The reply failed.
        """
        turn = current_turn.get()
        if turn is None:
            raise ConfigurationError(f"{self.name} answers turns of a call, and nothing else")
        self._tell(request.items)
        reply = self.reply(turn)
        if turn.uuid in self._heard and self._s2s.capabilities.replies == "unasked":
            self._heard.discard(turn.uuid)  # it replies by itself
        else:
            self._s2s.respond(turn.uuid)
        try:
            await reply.ended.wait()
        finally:
            if reply.replied is None and not turn.speech.closed:  # it took too long: what it still makes is not wanted
                self._s2s.cancel(Playback(uuid=turn.uuid, part=_NONE, state="cut", heard_ms=0.0))
            if self._replies.get(turn.uuid) is reply:  # only now: that it is cancelled is told at once
                del self._replies[turn.uuid]
        assert reply.replied is not None
        state = reply.replied.state
        if state == "failed":
            raise ProviderError(self.name, "a reply failed", retryable=True)
        if state == "cancelled":
            reply.calls.clear()
        for call in reply.calls:
            yield call
        yield Finish("tool_calls" if reply.calls else "length" if state == "incomplete" else "stop")

    def heard(self, turn: Turn) -> None:
        """The turn answers what the model has heard."""
        if self._s2s.capabilities.replies == "unasked":
            self._heard.add(turn.uuid)

    def reply(self, turn: Turn) -> _Reply:
        """The reply of a turn that is being made, or about to be."""
        return self._replies.setdefault(turn.uuid, _Reply())

    def replies(self, turn: Turn) -> bool:
        """Whether a reply of the turn is being made."""
        return turn.uuid in self._replies

    def wants(self, turn: Turn, asked: ToolAsked) -> None:
        """The model wants a tool."""
        self._asked[asked.call.id] = turn
        self.reply(turn).calls.append(asked.call)

    def does_not_want(self, call_id: str) -> None:
        """The answer of a tool is not wanted any more; the tool itself goes on as it is declared."""
        self._asked.pop(call_id, None)

    def replied(self, turn: Turn, replied: Replied) -> None:
        """The reply has ended."""
        reply = self.reply(turn)
        reply.replied = replied
        reply.ended.set()

    def forget(self, turn: Turn) -> None:
        """The turn is over."""
        self._heard.discard(turn.uuid)
        self._replies.pop(turn.uuid, None)

    def note(self, item: Entry) -> None:
        """Tell of a note at once: a model that answers by itself is not asked before it does."""
        self._told.add(item.text)
        self._s2s.add(item)

    def knows(self, items: Sequence[Item]) -> None:
        """A session begins with these."""
        self._told.update(item.text for item in items if isinstance(item, Entry) and item.role == "system")
        for item in items:
            if isinstance(item, ToolResult) and item.state != "running":
                self._asked.pop(item.id, None)

    def _tell(self, items: Sequence[Item]) -> None:
        results = {item.id: item for item in items if isinstance(item, ToolResult)}
        for call_id, turn in tuple(self._asked.items()):
            result = results.get(call_id)
            if result is not None:
                del self._asked[call_id]
                self._s2s.answer(call_id, result.content)
            elif turn.speech.closed:
                del self._asked[call_id]
                self._s2s.answer(call_id, NOT_RUN)
        for item in items[len(leading(items)) :]:
            if isinstance(item, Entry) and item.role in ("system", "developer") and item.text not in self._told:
                self._told.add(item.text)
                self._s2s.add(item)


def leading(items: Sequence[Item]) -> list[str]:
    """The instructions that a conversation begins with."""
    texts: list[str] = []
    for item in items:
        if not isinstance(item, Entry) or item.role not in ("system", "developer"):
            break
        texts.append(item.text)
    return texts
