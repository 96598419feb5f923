"""The gateways of a fleet, which pass on what is of each other's calls and go on with those of one that is gone."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final, get_args

from msgspec.structs import replace

from dialog.clock import SYSTEM_CLOCK
from dialog.voip.peers import Adoption, Orphan, Owner
from dialog.voip.voip import VoIP
from dialog.workers.frames import NOBODY, Frame
from dialog.workers.host import Host
from dialog.workers.hosting import Former
from dialog.workers.nats import NatsFabric
from dialog.workers.peerframes import PeerBody, Present
from dialog.workers.peers import FabricPeers
from dialog.workers.ticker import SILENCE_S, Ticker

__all__ = ["FleetPeers"]

logger = logging.getLogger(__name__)

_ADOPT_S: Final = 4.0
"""A worker waits until it has not heard its gateway for a second."""
_PEER_BODIES: Final = frozenset(get_args(PeerBody))


class FleetPeers(FabricPeers):
    """Tells the other gateways five times a second that we are there, and misses those that do not."""

    def __init__(self, fabric: NatsFabric, host: Host) -> None:
        super().__init__(fabric)
        self._nats = fabric
        self._host = host
        self._heard: dict[str, float] = {}
        self._presence = Ticker(self._show)

    async def start(self, owner: Owner) -> None:
        """See :class:`~dialog.voip.peers.Peers`."""
        await super().start(owner)
        self._presence.start()

    def announce(self) -> None:
        """Tell the others at once that we are there: the first call may come before the next beat."""
        if self._owner is not None:
            self._tell(Present())

    async def close(self) -> None:
        """See :class:`~dialog.voip.peers.Peers`."""
        self._presence.stop()
        self._tell(Present(leaving=True))
        await super().close()

    async def adopt(self, orphan: Orphan) -> Adoption | None:
        """See :class:`~dialog.voip.peers.Peers`: the worker of the call has survived its gateway, or nobody can."""
        former = await self._host.seek_call(orphan.metadata.call_id, _ADOPT_S)
        if former is None:
            return None
        metadata = former.known.metadata or orphan.metadata
        if not metadata.carrier_call_id:  # its worker was lost before it heard how the carrier calls it
            metadata = replace(metadata, carrier_call_id=orphan.metadata.carrier_call_id)
        return Adoption(metadata, partial(self._take, former))

    def _take(self, former: Former, voip: VoIP) -> asyncio.Future[None]:
        return self._host.take(voip, former).taken

    # The fabric's side.

    def concerns(self, frame: Frame) -> bool:
        """Whether a frame is between gateways."""
        return type(frame.body) in _PEER_BODIES or frame.epoch in self._ends

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        if sender == self.node:
            return
        if isinstance(frame.body, Present):
            if frame.body.leaving:
                self.gone(sender, "it has left")
                return
            if sender not in self.others:
                logger.info("gateway %s is there", sender)
                self.came(sender)
                self.announce()  # it is new, and knows nobody yet
        if sender in self.others:
            self._heard[sender] = SYSTEM_CLOCK.now()
        super().receive(sender, frame)

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self._heard.pop(node, None)
        super().gone(node, reason)

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        for end in self._ends.values():
            end.stream.repeat()

    def _show(self, now: float) -> None:
        self._tell(Present())
        if self._presence.late_s > SILENCE_S / 2 or not self._nats.attentive(now):
            for node in self._heard:
                self._heard[node] = now
        for node, heard_at in tuple(self._heard.items()):
            if now - heard_at >= SILENCE_S:
                logger.warning("gateway %s is not heard any more", node)
                self.gone(node, f"not heard for {SILENCE_S:g} s")

    def _tell(self, body: Present) -> None:
        self._nats.tell("hosts", Frame(NOBODY, 0, 0, body))
