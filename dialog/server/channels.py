"""Several owners behind one set of peers: the gateways of a service's tenants, and its REST API.

Processes reach each other once; what they say is marked with the name of the channel that it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from uuid import UUID

from dialog.errors import RemoteProtocolError
from dialog.message import MULAW_8K, AudioFormat
from dialog.voip.peers import Adoption, MediaEnd, MediaWire, Orphan, Owner, Peers

__all__ = ["Channel", "Channels"]


class Channels:
    """Shares ``peers`` among channels: they start with the first of them, and close with the last."""

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self._owners: dict[str, Owner] = {}
        self._open: set[str] = set()
        self._started = False

    def channel(self, name: str) -> Channel:
        """The channel of that name, which is to be closed."""
        self._open.add(name)
        return Channel(self, name)

    async def start(self, name: str, owner: Owner) -> None:
        """``owner`` answers what comes for the channel from here on."""
        self._owners[name] = owner
        if not self._started:
            self._started = True
            await self.peers.start(self)

    async def close(self, name: str) -> None:
        """Nobody answers there any more; calling it again is harmless."""
        self._owners.pop(name, None)
        if name in self._open:
            self._open.discard(name)
            if not self._open:
                await self.peers.close()

    # What peers ask.

    def holds(self, call_id: UUID) -> bool:
        """See :class:`~dialog.voip.peers.Owner`."""
        return any(owner.holds(call_id) for owner in self._owners.values())

    async def answer(self, request: bytes) -> bytes:
        """See :class:`~dialog.voip.peers.Owner`."""
        owner, rest = self._split(request)
        return await owner.answer(rest)

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """See :class:`~dialog.voip.peers.Owner`."""
        owner, rest = self._split(opening)
        return owner.join_relayed(rest, wire)

    def _split(self, data: bytes) -> tuple[Owner, bytes]:
        name = data[1 : 1 + data[0]].decode() if data else ""
        owner = self._owners.get(name)
        if owner is None:
            raise RemoteProtocolError(
                f"another process asks for {name!r}, which is not served here (yet): have both the same configuration?"
            )
        return owner, data[1 + data[0] :]


class Channel:
    """:class:`~dialog.voip.peers.Peers`, of which only what is marked with a name is heard."""

    def __init__(self, channels: Channels, name: str) -> None:
        encoded = name.encode()
        self._channels = channels
        self._name = name
        self._peers = channels.peers
        self._mark = len(encoded).to_bytes() + encoded

    @property
    def node(self) -> str:
        """See :class:`~dialog.voip.peers.Peers`, as for all of these."""
        return self._peers.node

    @property
    def others(self) -> AbstractSet[str]:
        """Those that are there."""
        return self._peers.others

    def watch(self, told: Callable[[str], object]) -> Callable[[], None]:
        """Hear of those that come."""
        return self._peers.watch(told)

    async def start(self, owner: Owner) -> None:
        """Join the others."""
        await self._channels.start(self._name, owner)

    async def close(self) -> None:
        """Leave them."""
        await self._channels.close(self._name)

    def reaches(self, node: str) -> bool:
        """Whether one is there."""
        return self._peers.reaches(node)

    async def find(self, call_id: UUID) -> str:
        """Who holds a call."""
        return await self._peers.find(call_id)

    async def ask(self, node: str, call_id: UUID, request: bytes) -> bytes:
        """Let an owner answer."""
        return await self._peers.ask(node, call_id, self._mark + request)

    def relay(
        self, node: str, call_id: UUID, opening: bytes, wire: MediaWire, audio_format: AudioFormat = MULAW_8K
    ) -> MediaEnd:
        """Connect a media socket to its call."""
        return self._peers.relay(node, call_id, self._mark + opening, wire, audio_format)

    async def wait_idle(self) -> None:
        """Wait until no socket is relayed."""
        await self._peers.wait_idle()

    async def adopt(self, orphan: Orphan) -> Adoption | None:
        """Go on with a call whose gateway is gone."""
        return await self._peers.adopt(orphan)
