"""Gateways that share one public address: each owns calls, and any of them may be asked about any call.

A load balancer, or the kernel, sends a request to whichever gateway it likes. What is of a call that
another one owns is passed on to that one: a checked request as bytes with an answer, a media socket as
a stream of audio, marks and keys. The playout, the call and its agent stay with the owner.

Gateways are told apart by their **nodes**: names that no other one ever has, not even after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.errors import DialogError
from dialog.message import MULAW_8K, AudioFormat, CallMetadata
from dialog.scope import CallScope
from dialog.voip.line import Wire
from dialog.voip.voip import VoIP

__all__ = ["Adoption", "MediaEnd", "MediaWire", "Orphan", "Owner", "PeerLost", "Peers", "Taker"]


class PeerLost(DialogError):
    """Another gateway is gone, or does not answer."""

    code = "peer_lost"


class MediaWire(Wire, Protocol):
    """A carrier's media socket, or a client's connection, as whoever relays it needs it."""

    @property
    def closed(self) -> bool:
        """Nothing is sent any more."""
        ...

    def send_control(self, message: bytes) -> None:
        """Send what is neither audio nor about it, in its turn; a clear does not purge it."""

    def fail(self, code: int) -> None:
        """Close the socket with a code, unless it is closed already."""


class MediaEnd(Protocol):
    """Where what comes from a media socket goes: to the call's line, here or at the gateway that owns the call."""

    @property
    def scope(self) -> CallScope | None:
        """The call's, if it is here."""

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio; see :meth:`dialog.voip.line.Line.receive_audio`."""

    def receive_mark(self, name: str) -> None:
        """Take the echo of a mark."""

    def receive_digit(self, digit: str) -> None:
        """Take a key that the caller pressed."""

    def receive_control(self, message: bytes) -> None:
        """Take what a client says beside that.

        Raises:
            RemoteProtocolError: It is nothing that can be said here.
        """

    def stopped(self) -> None:
        """The carrier said that the stream is over."""

    def closed(self) -> None:
        """The socket is closed; nothing more comes."""


class Orphan(Struct, frozen=True):
    """A call whose gateway is gone: its caller is still there, and the carrier asks what to do with them."""

    metadata: CallMetadata
    """As far as the carrier's request tells."""
    generation: int
    """Of the last stream that was announced."""
    node: str
    """Who owned it."""


Taker: TypeAlias = Callable[[VoIP], asyncio.Future[None] | None]
"""Takes a call within its scope: an ``on_voip``, or :meth:`dialog.voip.admission.Workers.take` with its future."""


class Adoption(Struct, frozen=True):
    """How a call goes on whose gateway is gone."""

    metadata: CallMetadata
    """The call as it was: its session, and all that its first webhook told."""
    take: Taker


class Owner(Protocol):
    """A gateway as its peers see it."""

    def holds(self, call_id: UUID) -> bool:
        """Whether the call is here, or was until a moment ago."""
        ...

    async def answer(self, request: bytes) -> bytes:
        """Answer a request that another gateway has checked and passed on."""
        ...

    def join_relayed(self, opening: bytes, wire: MediaWire) -> MediaEnd:
        """Connect a stream whose socket is at another gateway.

        Raises:
            RemoteProtocolError: The stream is refused, for instance because its token does not fit.
        """
        ...


class Peers(Protocol):
    """The other gateways. What is sent to one of them arrives in order, or its loss is told."""

    @property
    def node(self) -> str:
        """Our own name: it stands in every address and stream that the carrier is given."""
        ...

    async def start(self, owner: Owner) -> None:
        """Join the others; ``owner`` answers them from here on."""

    async def close(self) -> None:
        """Leave them."""

    @property
    def others(self) -> AbstractSet[str]:
        """Those that are there, as far as is known."""
        ...

    def watch(self, told: Callable[[str], object]) -> Callable[[], None]:
        """Call ``told`` with the name of each that comes from now on; returns what ends that."""
        ...

    def reaches(self, node: str) -> bool:
        """Whether a gateway is there, as far as is known."""
        ...

    async def find(self, call_id: UUID) -> str:
        """The gateway that holds a call, within a short bound; empty if none does."""
        ...

    async def ask(self, node: str, call_id: UUID, request: bytes) -> bytes:
        """Let the owner of a call answer a request.

        Raises:
            PeerLost: It went away, failed, or took too long.
        """
        ...

    def relay(
        self, node: str, call_id: UUID, opening: bytes, wire: MediaWire, audio_format: AudioFormat = MULAW_8K
    ) -> MediaEnd:
        """Connect a media socket to its call at another gateway.

        From here on ``wire`` is written to and closed by what comes from there, and closed with 1011 if that
        gateway is lost: then the carrier asks what to do next.
        """
        ...

    async def wait_idle(self) -> None:
        """Wait until no socket is relayed for another gateway."""

    async def adopt(self, orphan: Orphan) -> Adoption | None:
        """Go on with a call whose gateway is gone: what it is and who takes it here, or ``None`` if nobody can.

        Bounded by what the carrier grants a webhook. After an :class:`Adoption` the call is made here, ``lost``
        after ``orphan.generation``, and given to its taker; the carrier is told to connect the next stream.
        """
        ...
