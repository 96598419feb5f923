"""Which worker takes a call: what a host knows of its workers, without I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from msgspec import Struct

from dialog.workers.frames import Heartbeat, Hello

__all__ = ["Directory", "Known"]


class Known(Struct, gc=False):
    """A worker, as far as this host knows."""

    node: str
    hello: Hello
    heard_at: float
    beat: Heartbeat = Heartbeat()
    ours: int = 0
    """Calls of this host that take a slot there, or were offered."""
    held: int = 0
    """Those, and calls that have ended and wait there for a recording."""
    since_beat: int = 0
    """Offers of ours that its last heartbeat cannot know of."""
    retired: bool = False
    """It keeps its calls and gets no more: it runs old code, or has had its call."""

    @property
    def load(self) -> int:
        """Calls that it has, as far as can be known now."""
        return max(self.beat.calls + self.since_beat, self.ours)

    @property
    def room(self) -> int:
        """Calls that it may still take."""
        return 0 if self.retired or self.beat.draining else self.hello.capacity - self.load


class Directory:
    """The workers that a host can offer calls to.

    A worker alone decides whether it has a slot; what is known here only makes the first choice a good one,
    also between two heartbeats.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Known] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Known]:
        return iter(tuple(self._workers.values()))

    def get(self, node: str) -> Known | None:
        """What is known of a worker."""
        return self._workers.get(node)

    def greeted(self, node: str, hello: Hello, now: float) -> Known:
        """A worker has said what it is."""
        known = self._workers.get(node)
        if known is None:
            known = self._workers[node] = Known(node, hello, now)
        else:
            known.hello = hello
            known.heard_at = now
        return known

    def heard(self, node: str, now: float, beat: Heartbeat | None = None) -> None:
        """A worker lives; with ``beat`` it tells how it does."""
        known = self._workers.get(node)
        if known is None:
            return
        known.heard_at = now
        if beat is not None:
            known.beat = beat
            known.since_beat = 0

    def forget(self, node: str) -> bool:
        """A worker is gone; whether it was known."""
        return self._workers.pop(node, None) is not None

    def offered(self, node: str, now: float) -> None:
        """A call was offered to it: from now on it is heard more often."""
        known = self._workers.get(node)
        if known is not None:
            known.heard_at = now if not known.ours else known.heard_at
            known.ours += 1
            known.held += 1
            known.since_beat += 1

    def ended(self, node: str) -> None:
        """A call of ours has ended: its slot is free."""
        known = self._workers.get(node)
        if known is not None:
            known.ours -= 1

    def released(self, node: str) -> None:
        """Nothing of a call of ours is there any more; :meth:`ended` came before."""
        known = self._workers.get(node)
        if known is not None:
            known.held -= 1

    def choose(self, labels: Collection[str] = (), but: Collection[str] = (), *, only: str = "") -> str | None:
        """The worker with all of ``labels`` that has the most room for its size, except those in ``but``.

        ``only``: no other one will do, if it is given.
        """
        best: Known | None = None
        for known in self._workers.values():
            if only not in ("", known.node):
                continue
            if known.room <= 0 or known.node in but or not set(labels) <= set(known.hello.labels):
                continue
            if best is None or self._rank(known) < self._rank(best):
                best = known
        return best.node if best is not None else None

    def silent(self, now: float, limit_s: float, *, idle_s: float) -> list[str]:
        """Workers that were not heard for ``limit_s``; ``idle_s`` for those that have no call of ours."""
        return [
            known.node
            for known in self._workers.values()
            if now - known.heard_at >= (limit_s if known.ours else idle_s)
        ]

    def forgive(self, now: float) -> None:
        """We did not listen for a while: nobody's silence counts."""
        for known in self._workers.values():
            known.heard_at = now

    @staticmethod
    def _rank(known: Known) -> tuple[float, float]:
        return known.load / max(1, known.hello.capacity), known.beat.lag_ms
