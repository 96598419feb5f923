"""Utterances of OpenAI's realtime transcription, which may be finished in another order than they were said. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from dialog.message import Word

__all__ = ["Item", "Items"]

_REMEMBERED = 32


class Item:
    """An utterance, with what is known of it; times on the call's audio clock, in ms."""

    __slots__ = ("done", "end_ms", "language", "start_ms", "text", "words")

    def __init__(self) -> None:
        self.start_ms: float | None = None
        self.end_ms: float | None = None
        self.text = ""
        self.language: str | None = None
        self.words: list[Word] = []
        """Stretches of one speaker each, if speakers are told apart."""
        self.done = False
        """The text will not change."""


class Items:
    """Utterances in the order in which they were said, until they are told."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._over: deque[str] = deque(maxlen=_REMEMBERED)

    def get(self, item_id: str) -> Item | None:
        """The utterance of this id, a new one if need be; ``None`` if it was told to its end."""
        item = self._items.get(item_id)
        if item is None and item_id not in self._over:
            item = self._items[item_id] = Item()
        return item

    @property
    def first(self) -> Item | None:
        """The one whose turn it is."""
        return next(iter(self._items.values()), None)

    @property
    def held_up(self) -> bool:
        """Whether one is done and waits for another."""
        return any(item.done for item in self._items.values())

    def take_done(self) -> Iterator[Item]:
        """Those that are done and have none before them, one after the other."""
        while (first := self.first) is not None and first.done:
            item_id = next(iter(self._items))
            del self._items[item_id]
            self._over.append(item_id)
            yield first

    def clear(self) -> None:
        """Another session begins."""
        self._items.clear()
        self._over.clear()
