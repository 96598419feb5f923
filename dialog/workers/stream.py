"""Both directions of one call's frames, between this node and another."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from dialog.clock import SYSTEM_CLOCK
from dialog.workers.fabric import Fabric
from dialog.workers.frames import Acknowledged, CallBody, Frame, Repeat, check_length
from dialog.workers.ordered import Inbound, Outbound

__all__ = ["CallStream"]

logger = logging.getLogger(__name__)

_REPEAT_S = 1.0
"""What was not acknowledged for so long was lost."""


class CallStream:
    """Sends and receives what is numbered, of one epoch of a call."""

    __slots__ = ("_fabric", "_waiters", "call_id", "epoch", "inbound", "outbound", "peer")

    def __init__(
        self,
        fabric: Fabric,
        peer: str,
        call_id: UUID,
        epoch: int,
        *,
        window_ms: float,
        keep_ms: float,
    ) -> None:
        """``window_ms`` and ``keep_ms``: see :class:`~dialog.workers.ordered.Outbound`."""
        self.peer = peer
        self.call_id = call_id
        self.epoch = epoch
        self.outbound = Outbound(window_ms=window_ms, keep_ms=keep_ms)
        self.inbound = Inbound()
        self._fabric = fabric
        self._waiters: dict[asyncio.Future[None], int] = {}

    def post(self, body: CallBody, audio_ms: float = 0.0) -> int:
        """Send ``body``, which holds ``audio_ms`` of audio; its number, or 0 while it waits.

        Raises:
            FrameTooLong: It cannot cross at all.
            LimitError: The other side takes nothing any more.
        """
        check_length(body)
        numbered = self.outbound.push(body, SYSTEM_CLOCK.now(), audio_ms)
        if numbered is not None:
            self._fabric.send(self.peer, Frame(self.call_id, self.epoch, numbered.seq, body))
            return numbered.seq
        return 0

    def take(self, frame: Frame) -> bool:
        """Whether the frame's body is new and the next, and must be acted upon. Acknowledgements never are."""
        if frame.seq:
            if self.inbound.take(frame.seq):
                return True
            lost = self.inbound.missing(frame.seq)
            if lost is not None:
                logger.warning("call %s: frames from %d on were lost on the way", self.call_id, lost)
                self._beside(Repeat(lost))
        elif isinstance(frame.body, Acknowledged):
            for waiter, seq in tuple(self._waiters.items()):
                if seq <= frame.body.seq and not waiter.done():
                    waiter.set_result(None)
            for numbered in self.outbound.acknowledge(frame.body.seq, SYSTEM_CLOCK.now()):
                self._fabric.send(self.peer, Frame(self.call_id, self.epoch, numbered.seq, numbered.body))
        elif isinstance(frame.body, Repeat):
            self._again(frame.body.seq)
        return False

    async def wait_acknowledged(self, seq: int) -> None:
        """Wait until the other side has everything up to ``seq``."""
        oldest = self.outbound.oldest_seq()
        if oldest is None or oldest > seq:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = seq
        try:
            await waiter
        finally:
            del self._waiters[waiter]

    def acknowledge(self) -> None:
        """Tell the other side what has come, if it does not know."""
        seq = self.inbound.due()
        if seq is not None:
            self._beside(Acknowledged(seq))

    def show(self) -> None:
        """Let the other side see that the call is here; one that has it no more says so."""
        self._beside(Acknowledged(self.inbound.seq))

    def repeat(self) -> None:
        """Send again what is not acknowledged: the connection was away."""
        self._again(0)
        self.show()

    def tick(self, now: float) -> None:
        """Acknowledge, and repeat what seems lost; a few times a second."""
        self.acknowledge()
        tried = self.outbound.tried()
        if tried is not None and now - tried >= _REPEAT_S:
            self._again(0)

    def stalled_s(self, now: float) -> float:
        """For how long the other side has left something unacknowledged, in seconds."""
        oldest = self.outbound.oldest()
        return 0.0 if oldest is None else now - oldest

    def _again(self, seq: int) -> None:
        for numbered in self.outbound.again(seq, SYSTEM_CLOCK.now()):
            self._fabric.send(self.peer, Frame(self.call_id, self.epoch, numbered.seq, numbered.body))

    def _beside(self, body: Acknowledged | Repeat) -> None:
        self._fabric.send(self.peer, Frame(self.call_id, self.epoch, 0, body))
