"""What a model that is made of parts remembers of a conversation: what was said, as far as it was heard. Pure."""

from __future__ import annotations

import asyncio
from uuid import UUID

from dialog.llm.llm import Entry, Item, ToolCall, ToolResult
from dialog.message import Playback, Word

__all__ = ["Memory", "Spoken"]

_CHARS_PER_S = 15.0
"""How fast voices speak, until all the audio of a part is known."""


class Spoken:
    """A part of a reply, as it is being spoken."""

    __slots__ = ("audio_ms", "complete", "cut", "ended", "heard_ms", "key", "text", "timings", "whole")

    def __init__(self, key: tuple[UUID, int]) -> None:
        self.key: tuple[UUID, int] = key
        self.text: str = ""
        self.complete: bool = False
        """No more text comes."""
        self.audio_ms: float = 0.0
        self.whole: bool = False
        """All its audio was made."""
        self.timings: tuple[Word, ...] = ()
        self.heard_ms: float | None = None
        """So much of it was heard; ``None``: all."""
        self.cut: bool = False
        self.ended: asyncio.Event = asyncio.Event()

    @property
    def heard(self) -> str:
        """The words of it that were heard."""
        if self.heard_ms is None:
            return self.text
        if self.timings:
            said = sum((word.start_ms + word.end_ms) / 2 <= self.heard_ms for word in self.timings)
            return " ".join(self.text.split()[:said])
        total_ms = self.audio_ms if self.whole else max(self.audio_ms, len(self.text) * 1000.0 / _CHARS_PER_S)
        share = min(1.0, self.heard_ms / total_ms) if total_ms else 0.0
        end = int(len(self.text) * share)
        return self.text[:end] if end >= len(self.text) else self.text[: self.text.rfind(" ", 0, end + 1) + 1].rstrip()


class Memory:
    """The conversation of one model, in its order."""

    def __init__(self) -> None:
        self._items: list[Item | Spoken] = []
        self._results: dict[str, str] = {}

    def add(self, item: Item) -> None:
        """Something was said, or noted; a result of a tool is put behind its call."""
        if isinstance(item, ToolResult):
            self._results[item.id] = item.content
        else:
            self._items.append(item)

    def call(self, call: ToolCall) -> None:
        """The model asks for a tool."""
        self._items.append(call)

    def answer(self, call_id: str, result: str) -> None:
        """A tool has answered: that is the newest, also if something was said while it was waited for."""
        self._results[call_id] = result
        place = next(
            (i for i, item in enumerate(self._items) if isinstance(item, ToolCall) and item.id == call_id), None
        )
        if place is not None and all(isinstance(item, Spoken | ToolCall) for item in self._items[place:]):
            self._items.append(self._items.pop(place))

    def speak(self, key: tuple[UUID, int]) -> Spoken:
        """A part begins to be spoken."""
        spoken = Spoken(key)
        self._items.append(spoken)
        return spoken

    def truncate(self, heard: Playback) -> None:
        """Of a part only this was heard, and nothing of those after it."""
        for item in tuple(self._items):
            if isinstance(item, Spoken) and item.key[0] == heard.uuid and item.key[1] >= heard.part:
                if item.key[1] > heard.part:
                    self._items.remove(item)
                item.heard_ms = heard.heard_ms
                item.cut = True

    def items(self) -> tuple[Item, ...]:
        """The conversation as a model is told it: calls have results, nothing is empty."""
        items: list[Item] = []
        calls: list[ToolCall] = []

        def close() -> None:
            for call in calls:
                content = self._results.get(call.id, "still running")
                items.append(ToolResult(id=call.id, name=call.name, content=content))
            calls.clear()

        for item in self._items:
            if isinstance(item, ToolCall):
                calls.append(item)
                items.append(item)
                continue
            close()
            if isinstance(item, Spoken):
                if item.heard.strip():
                    items.append(Entry(role="assistant", text=item.heard.strip(), interrupted=item.cut))
            else:
                items.append(item)
        close()
        return tuple(items)
