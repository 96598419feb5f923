"""How packets get from one node to another: by a socket to another process, by NATS to another machine."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextvars import Context
from typing import ClassVar, Protocol

from dialog.workers.frames import Frame, encode
from dialog.workers.ticker import SILENCE_S

__all__ = ["Fabric", "Receiver"]

logger = logging.getLogger(__name__)

_FLUSH_AT = 64_000
"""Bytes of a packet; a fuller one is sent at once."""


class Receiver(Protocol):
    """What a node does with what comes."""

    def receive(self, sender: str, frame: Frame) -> None:
        """A frame has come."""

    def gone(self, node: str, reason: str) -> None:
        """The connection to a node has ended; nothing more comes from it."""

    def back(self) -> None:
        """The connection to everybody is back; what was sent while it was away is lost."""


class Fabric(ABC):
    """Sends frames to other nodes by their names, in order, without ever blocking.

    What is sent within one step of the event loop goes as one packet to each node: under load frames
    travel together, and when there is little to do they wait for nothing.
    """

    silence_s: ClassVar[float] = SILENCE_S
    """A node that is not heard for so long is dead, or cut off."""

    host_lost_s: ClassVar[float | None] = None
    """So long a worker waits for a host that it does not hear, or for another one to go on with its calls; ``None``:
    the end of a host is told."""

    def __init__(self, node: str) -> None:
        self.node = node
        """Our own name."""
        self.receiver: Receiver | None = None
        """Set by the node that this fabric serves."""
        self._packets: dict[str, bytearray] = {}
        self._context = Context()  # a flush belongs to no call
        self._due = False

    def send(self, to: str, frame: Frame) -> None:
        """Send ``frame`` soon; one for a node that is gone is dropped.

        Raises:
            FrameTooLong: No node would take it.
        """
        packet = self._packets.get(to)
        if packet is None:
            packet = self._packets[to] = bytearray()
        encode(frame, packet)
        if len(packet) >= _FLUSH_AT:
            self._transmit(to, packet)
            del self._packets[to]
        elif not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush, context=self._context)

    def deliver(self, sender: str, frame: Frame) -> None:
        """Hand the receiver a frame that has come; for subclasses and their connections."""
        if self.receiver is None:
            return
        try:
            self.receiver.receive(sender, frame)
        except Exception:  # one call's fault, as a rule; the others' go on
            logger.exception("node %s: a frame of %s could not be handled", self.node, sender)

    def attentive(self, now: float) -> bool:
        """Whether somebody who is not heard is silent: not if it is we who hear nobody."""
        del now
        return True

    @abstractmethod
    def announce(self, frame: Frame) -> None:
        """Send ``frame`` to all nodes of the other role: workers to hosts, hosts to workers."""

    def _flush(self) -> None:
        self._due = False
        packets, self._packets = self._packets, {}
        for to, packet in packets.items():
            self._transmit(to, packet)

    @abstractmethod
    def _transmit(self, to: str, packet: bytearray) -> None:
        """Send a packet, which nobody touches any more; drop it if ``to`` is gone."""

    @abstractmethod
    async def close(self) -> None:
        """Send what waits, and let go of everything."""
