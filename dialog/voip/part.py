"""A part of a turn on its way to the caller, and the memory of those that have ended."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, TypeAlias
from uuid import UUID

__all__ = ["Key", "Part", "Tombstones"]

_TOMBSTONES = 256
_RUNS = 16
"""More runs of one part are never unheard at the same time: the lead is too short for them."""

Key: TypeAlias = tuple[UUID, int]
"""Turn and part."""


class Tombstones:
    """Parts that have had their final report; what still comes for them is dropped."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def add(self, key: Key) -> None:
        """Remember ``key``, and forget the oldest beyond the bound."""
        self._keys[key] = None
        if len(self._keys) > _TOMBSTONES:
            self._keys.popitem(last=False)

    def __contains__(self, key: Key) -> bool:
        return key in self._keys


class Part:
    """A stretch of speech. Offsets are bytes from its start."""

    __slots__ = (
        "aborted",
        "audio",
        "base",
        "begin",
        "done",
        "ended",
        "final",
        "heard",
        "key",
        "limit",
        "name",
        "next",
        "over",
        "reported",
        "reported_at",
        "runs",
        "size",
    )

    def __init__(self, key: Key) -> None:
        self.key: Key = key
        self.name: str = f"{key[0]}-{key[1]}"
        """What its marks are called, but for their number."""
        self.audio: bytearray = bytearray()
        self.base: int = 0
        """Offset of the first byte in ``audio``: older ones were heard and dropped."""
        self.size: int = 0
        self.next: int = 0
        """Offset of the next byte to send."""
        self.heard: int = 0
        self.begin: int = 0
        """Offset at which it started, or went on after the last clear."""
        self.runs: list[tuple[int, int]] = []
        """Where it is on the line: each run begins at an offset, and offset 0 of it would be at a line position.

        Empty before it is sent, and again after a clear. It has more than one run only where something
        else sounded while the voice made a pause.
        """
        self.limit: int | None = None
        self.over: bool = False
        """Its end was cut off, by a limit or by overflow."""
        self.done: bool = False
        self.ended: bool = False
        """Its last byte and its mark are on the line."""
        self.aborted: bool = False
        self.final: bool = False
        self.reported: int = -1
        self.reported_at: float | None = None

    @property
    def complete(self) -> bool:
        """Nothing more will be added."""
        return self.done or self.over or (self.limit is not None and self.size >= self.limit)

    @property
    def outcome(self) -> Literal["played", "cut"]:
        """How it ends when all of it was heard."""
        return "played" if self.done and not self.over else "cut"

    @property
    def heard_whole(self) -> bool:
        """Nothing of it is left to be heard, and nothing will be added."""
        return self.complete and self.size > 0 and self.heard >= self.size and self.next >= self.size

    def append(self, data: bytes, room: int) -> int:
        """Add ``data`` up to the part's limit and to ``room``; returns the bytes for which there was no room."""
        if self.limit is not None and self.size + len(data) > self.limit:
            self.over = True
            data = data[: self.limit - self.size]
        dropped = max(0, len(data) - room)
        if dropped:
            self.over = True
            data = data[:room]
        self.audio += data
        self.size += len(data)
        return dropped

    @property
    def on_line(self) -> bool:
        """Some of it was sent, and not cleared since."""
        return bool(self.runs)

    @property
    def line_start(self) -> int:
        """The line position where it began, or went on after the last clear; only if it is :attr:`on_line`."""
        begin, origin = self.runs[0]
        return origin + begin

    @property
    def line_end(self) -> int:
        """The line position behind what was sent of it; only if it is :attr:`on_line`."""
        return self.runs[-1][1] + self.next

    def take(self, size: int, position: int) -> bytes:
        """The next ``size`` bytes to send, which go to ``position`` of the line."""
        if not self.runs or self.runs[-1][1] + self.next != position:
            self.runs.append((self.next, position - self.next))
            if len(self.runs) > _RUNS:
                del self.runs[0]
        start = self.next - self.base
        self.next += size
        return bytes(memoryview(self.audio)[start : start + size])

    def shorten(self, limit: int) -> None:
        """End the part at ``limit``, or at the end of what was sent."""
        limit = max(limit, self.next, self.heard)
        if self.limit is not None:
            limit = min(limit, self.limit)
        self.limit = limit
        if self.size > limit:
            del self.audio[limit - self.base :]
            self.size = limit
            self.over = True

    def hear(self, position: int) -> None:
        """The line was heard up to ``position``."""
        if self.runs:
            self.heard = max(self.heard, self._offset(position))

    def rewind(self, position: int) -> None:
        """The line was cleared, and heard up to ``position``: send again from there."""
        self.ended = False
        if not self.runs:
            return
        self.hear(position)
        self.next = self.begin = max(self._offset(position), self.begin)
        self.runs.clear()

    def _offset(self, position: int) -> int:
        """How far it was heard when the line was heard up to ``position``."""
        end = self.next
        for begin, origin in reversed(self.runs):
            if position >= origin + begin:
                return min(position - origin, end)
            end = begin
        return end

    def trim(self, keep: int, step: int) -> None:
        """Forget what was heard more than ``keep`` ago, in steps that are worth the move."""
        surplus = self.heard - keep - self.base
        if surplus >= step:
            del self.audio[:surplus]
            self.base += surplus
