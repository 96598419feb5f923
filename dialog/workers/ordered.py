"""One direction of a call's stream of frames: kept until it has come, complete and in order.

Sender and receiver are machines without I/O. A socket loses nothing and an acknowledgement only
frees memory; on a network that drops packets, or between two connections, they make good what was lost.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from dialog.errors import LimitError
from dialog.workers.frames import CallBody

__all__ = ["Inbound", "Numbered", "Outbound"]

_MAX_CONTROL = 20_000
"""Bodies other than audio that may wait: a call that nobody takes anything from is given up."""


class Numbered(Struct, frozen=True, gc=False):
    """A body and its number in the stream, from 1."""

    seq: int
    body: CallBody


class _Sent(Struct, gc=False):
    numbered: Numbered
    audio_ms: float
    at: float
    last_at: float


class Outbound:
    """What is sent. Audio that is not acknowledged holds back what comes after it.

    Args:
        window_ms: Audio that may be under way; more of it waits here. Waiting audio has no number yet.
        keep_ms: Audio that may wait; beyond it the oldest goes.
    """

    __slots__ = (
        "_control",
        "_keep_ms",
        "_sent",
        "_seq",
        "_under_way_ms",
        "_waiting",
        "_waiting_ms",
        "_window_ms",
        "dropped_ms",
    )

    def __init__(self, *, window_ms: float, keep_ms: float) -> None:
        self.dropped_ms = 0.0
        """Audio that was never sent because it had waited too long."""
        self._window_ms = window_ms
        self._keep_ms = keep_ms
        self._seq = 0
        self._sent: deque[_Sent] = deque()
        self._under_way_ms = 0.0
        self._waiting: deque[tuple[CallBody, float]] = deque()
        self._waiting_ms = 0.0
        self._control = 0

    @property
    def idle(self) -> bool:
        """Everything has come."""
        return not self._sent and not self._waiting

    def oldest_seq(self) -> int | None:
        """The lowest number that is not acknowledged."""
        return self._sent[0].numbered.seq if self._sent else None

    def oldest(self) -> float | None:
        """When the oldest frame that is not acknowledged was sent first."""
        return self._sent[0].at if self._sent else None

    def tried(self) -> float | None:
        """When the oldest frame that is not acknowledged was sent last."""
        return self._sent[0].last_at if self._sent else None

    def push(self, body: CallBody, now: float, audio_ms: float = 0.0) -> Numbered | None:
        """Take a body that holds ``audio_ms`` of audio; what it returns is to be sent, else it waits.

        Raises:
            LimitError: The other side takes nothing any more.
        """
        if not audio_ms:
            self._count()
        if not self._waiting and (not audio_ms or self._under_way_ms < self._window_ms):
            return self._number(body, now, audio_ms)
        self._waiting.append((body, audio_ms))
        self._waiting_ms += audio_ms
        if self._waiting_ms > self._keep_ms:
            self._drop()
        return None

    def acknowledge(self, seq: int, now: float) -> list[Numbered]:
        """Everything up to ``seq`` has come; return what may be sent now."""
        sent = self._sent
        while sent and sent[0].numbered.seq <= seq:
            gone = sent.popleft()
            self._under_way_ms -= gone.audio_ms
            if not gone.audio_ms:
                self._control -= 1
        out: list[Numbered] = []
        while self._waiting and (not self._waiting[0][1] or self._under_way_ms < self._window_ms):
            body, audio_ms = self._waiting.popleft()
            self._waiting_ms -= audio_ms
            out.append(self._number(body, now, audio_ms))
        return out

    @property
    def waiting_ms(self) -> float:
        """Audio that could not be sent yet."""
        return self._waiting_ms

    def withdraw(self) -> list[CallBody]:
        """Take back what was not sent yet."""
        bodies = [body for body, _ in self._waiting]
        self._control -= sum(not audio_ms for _, audio_ms in self._waiting)
        self._waiting.clear()
        self._waiting_ms = 0.0
        return bodies

    def undelivered(self) -> list[CallBody]:
        """What the other side may not have, audio included, in its order."""
        return [*(sent.numbered.body for sent in self._sent), *(body for body, _ in self._waiting)]

    def again(self, seq: int, now: float) -> list[Numbered]:
        """What was sent from ``seq`` on and is not acknowledged."""
        out: list[Numbered] = []
        for sent in self._sent:
            if sent.numbered.seq >= seq:
                sent.last_at = now
                out.append(sent.numbered)
        return out

    def _number(self, body: CallBody, now: float, audio_ms: float) -> Numbered:
        self._seq += 1
        numbered = Numbered(self._seq, body)
        self._sent.append(_Sent(numbered, audio_ms, now, now))
        self._under_way_ms += audio_ms
        return numbered

    def _count(self) -> None:
        if self._control >= _MAX_CONTROL:
            raise LimitError(f"{_MAX_CONTROL} messages wait for the other process, which takes none")
        self._control += 1

    def _drop(self) -> None:
        kept: deque[tuple[CallBody, float]] = deque()
        for body, audio_ms in self._waiting:
            if audio_ms and self._waiting_ms > self._keep_ms:
                self._waiting_ms -= audio_ms
                self.dropped_ms += audio_ms
            else:
                kept.append((body, audio_ms))
        self._waiting = kept


class Inbound:
    """What comes: in order, each once."""

    __slots__ = ("_asked", "_told", "seq")

    def __init__(self) -> None:
        self.seq = 0
        """The last number that was taken."""
        self._told = 0
        self._asked = 0

    def take(self, seq: int) -> bool:
        """Whether the frame of this number is the next; others are dropped, :meth:`missing` tells of them."""
        if seq != self.seq + 1:
            if seq <= self.seq:
                self._told = -1  # our acknowledgement was lost
            return False
        self.seq = seq
        return True

    def missing(self, seq: int) -> int | None:
        """After a frame that was not the next: from where on everything has to come again, if not asked yet."""
        if seq <= self.seq or self._asked == self.seq + 1:
            return None
        self._asked = self.seq + 1
        return self._asked

    def due(self) -> int | None:
        """What to acknowledge, if anything is new."""
        self._asked = 0  # what was asked for may have been lost as well: the next gap asks again
        if self.seq == self._told:
            return None
        self._told = self.seq
        return self.seq
