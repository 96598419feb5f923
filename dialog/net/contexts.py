"""Which parts a voice may speak now, under which provider contexts, and which of them went silent.

Providers bound how many contexts are open at once, and end them by rules of their own. A part takes a
slot when there is one, in the order in which parts came; it may need several contexts, one after
another (``{uuid.hex}-{part}-{k}``). What a provider sends for a context that is not known here any
more is dropped by its id. Pure: time is an argument, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from uuid import UUID

__all__ = ["Contexts", "PartKey"]

_KEEP_FAILED = 16

PartKey = tuple[UUID, int]
"""A part of a turn: the turn's uuid and the part's number."""


class Contexts:
    """The contexts of one connection to a provider.

    Args:
        slots: How many contexts the provider allows at once.
        timeout_s: How long a context may be silent while its end is expected.
        release_s: How long a cancelled context still takes its slot if the provider says nothing.
    """

    def __init__(self, slots: int, *, timeout_s: float, release_s: float = 2.0) -> None:
        self.slots = slots
        self.timeout_s = timeout_s
        self.release_s = release_s
        self._waiting: dict[PartKey, None] = {}
        self._open: dict[str, PartKey] = {}
        self._context: dict[PartKey, str] = {}
        self._cancelled: dict[str, float] = {}
        self._failed: deque[str] = deque(maxlen=_KEEP_FAILED)
        self._alive: dict[str, float] = {}
        self._expected: set[str] = set()
        self._counters: dict[PartKey, int] = {}

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self.slots - len(self._open) - len(self._cancelled)

    def wait(self, part: PartKey) -> None:
        """Let ``part`` wait for a slot; it keeps its place if it waits already."""
        if part not in self._context:
            self._waiting.setdefault(part)

    def admit(self, now: float) -> Iterator[tuple[PartKey, str]]:
        """Give free slots to the parts that waited longest: each with the id of its new context."""
        while self._waiting and self.free > 0:
            part = next(iter(self._waiting))
            del self._waiting[part]
            k = self._counters.get(part, 0)
            self._counters[part] = k + 1
            context = f"{part[0].hex}-{part[1]}-{k}"
            self._open[context] = part
            self._context[part] = context
            self._alive[context] = now
            yield part, context

    def context(self, part: PartKey) -> str | None:
        """The open context of ``part``."""
        return self._context.get(part)

    def part(self, context: str, now: float) -> PartKey | None:
        """The part that a message for ``context`` belongs to, which is thereby alive; ``None``: drop it."""
        part = self._open.get(context)
        if part is not None:
            self._alive[context] = now
        return part

    def stray(self, context: str) -> bool:
        """Nothing ought to come for ``context``: it is over, was cancelled long ago, or was never begun."""
        return context not in self._open and context not in self._cancelled and context not in self._failed

    def expect(self, part: PartKey, now: float) -> None:
        """Nothing more will be sent for the part's context: from now on its silence counts."""
        context = self._context.get(part)
        if context is not None:
            self._expected.add(context)
            self._alive[context] = now

    def finish(self, context: str) -> None:
        """The provider ended ``context``: its slot is free."""
        self._cancelled.pop(context, None)
        self._close(context)

    def fail(self, context: str) -> None:
        """The provider gave ``context`` up: its slot is free, though audio of it may be on its way yet."""
        self.finish(context)
        self._failed.append(context)

    def cancel(self, part: PartKey, now: float) -> str | None:
        """Drop the part's open context, and return its id; its slot is free when the provider is done with it."""
        self._waiting.pop(part, None)
        context = self._context.get(part)
        if context is not None:
            self._close(context)
            self._cancelled[context] = now + self.release_s
        return context

    def forget(self, part: PartKey) -> None:
        """The part has ended; its name will not come again."""
        self._waiting.pop(part, None)
        self._counters.pop(part, None)

    def reset(self) -> None:
        """The connection is gone, and all contexts with it. Parts that had one wait again, before the others."""
        again = dict.fromkeys(self._open.values())
        self._waiting = again | self._waiting
        for context in list(self._open):
            self._close(context)
        self._cancelled.clear()

    @property
    def deadline(self) -> float | None:
        """When :meth:`expire` has something to do, unless a sign of life comes."""
        times = [self._alive[context] + self.timeout_s for context in self._expected]
        times += self._cancelled.values()
        return min(times, default=None)

    def release(self, now: float) -> tuple[str, ...]:
        """Free the slots of cancelled contexts whose time is over, and return their ids."""
        late = tuple(context for context, until in self._cancelled.items() if until <= now)
        for context in late:
            del self._cancelled[context]
        return late

    def expire(self, now: float) -> tuple[PartKey, ...]:
        """Free the slots of cancelled contexts whose time is over; return the parts that were silent too long."""
        self.release(now)
        return tuple(self._open[c] for c in self._expected if self._alive[c] + self.timeout_s <= now)

    def _close(self, context: str) -> None:
        part = self._open.pop(context, None)
        if part is not None:
            del self._context[part]
        self._alive.pop(context, None)
        self._expected.discard(context)
