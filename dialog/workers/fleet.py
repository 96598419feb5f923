"""Workers on other machines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from dialog.errors import ConfigurationError
from dialog.scope import CallScope
from dialog.voip.voip import VoIP
from dialog.workers.fleetpeers import FleetPeers
from dialog.workers.frames import Frame
from dialog.workers.host import Host, Labels, no_labels
from dialog.workers.hosting import HostingSettings
from dialog.workers.nats import NatsFabric, NatsSettings, node_name

__all__ = ["Fleet"]

_DEFAULT_HOSTING = HostingSettings()


class Fleet:
    """Runs the agents of a gateway's calls in the workers of a fleet, which it meets on NATS.

    ::

        gateway = TwilioGateway(..., workers=Fleet("nats://nats-1:4222,nats://nats-2:4222"))

    Workers are started with ``python -m dialog worker main:on_voip --nats …``, on as many machines as there
    are; they come and go. Any number of gateways may share them.

    Args:
        servers: The servers of the cluster, a list or with commas in between; or all settings of a connection.
        labels: What a call asks of its worker, from its metadata: ``lambda call: ("gpu",)``.
        hosting: How calls are given away, queue and wait.
        connect_timeout_s: How long the first connection may take.
        **connection: What else :class:`~dialog.workers.nats.NatsSettings` has: ``prefix``, ``user`` …
    """

    def __init__(
        self,
        servers: str | Sequence[str] | NatsSettings = "nats://127.0.0.1:4222",
        *,
        labels: Labels = no_labels,
        hosting: HostingSettings = _DEFAULT_HOSTING,
        connect_timeout_s: float = 10.0,
        **connection: Any,
    ) -> None:
        self.settings = nats_settings(servers, **connection)
        self._connect_timeout_s = connect_timeout_s
        self._fabric = NatsFabric(node_name("gateway"), self.settings, listens="hosts", tells="workers")
        self.host = Host(self._fabric, labels=labels, settings=hosting)
        self.peers: FleetPeers = FleetPeers(self._fabric, self.host)
        """The other gateways of the fleet."""
        self._fabric.receiver = self
        self._started = False

    def __repr__(self) -> str:
        return f"<Fleet {self.settings.where} with {len(self.host.directory)} workers>"

    @property
    def ready(self) -> bool:
        """Whether a worker is there to take a call."""
        return self._fabric.connected and any(known.room > 0 for known in self.host.directory)

    async def start(self) -> None:
        """Connect, and ask who is there; workers may come later.

        Raises:
            ConfigurationError: The credentials are refused.
            NatsUnavailable: No server of the cluster is there.
        """
        if self._started:
            return
        self._started = True
        await self._fabric.connect(within_s=self._connect_timeout_s)
        self.peers.announce()
        self.host.seek()

    def take(self, voip: VoIP) -> asyncio.Future[None]:
        """See :class:`~dialog.voip.admission.Workers`."""
        return self.host.take(voip).taken

    async def close(self) -> None:
        """Take leave of the workers; calling it again is harmless."""
        CallScope.adopt(None)
        await self.peers.close()
        self.host.close()
        await self._fabric.close()

    # The fabric's side.

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        if self.peers.concerns(frame):
            self.peers.receive(sender, frame)
        else:
            self.host.receive(sender, frame)

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self.host.gone(node, reason)
        self.peers.gone(node, reason)

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self.host.back()
        self.peers.back()


def nats_settings(servers: str | Sequence[str] | NatsSettings, **connection: Any) -> NatsSettings:
    """Settings from what is easy to write: addresses with commas in between.

    Raises:
        ConfigurationError: They are of no use.
    """
    if isinstance(servers, NatsSettings):
        if connection:
            raise ConfigurationError(f"{', '.join(connection)}: settings of the connection are given twice")
        return servers
    if isinstance(servers, str):
        servers = [part.strip() for part in servers.split(",") if part.strip()]
    try:
        return NatsSettings(servers=tuple(servers), **connection)
    except TypeError as exc:
        raise ConfigurationError(f"a connection to NATS has no such setting: {exc}") from exc
