"""How calls are given to workers: settings, and what a call needs of whoever knows the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from dialog.audio.sound import Sound
from dialog.message import CallMetadata
from dialog.workers.frames import Frame, Yielded
from dialog.workers.stream import CallStream

if TYPE_CHECKING:
    from dialog.workers.hosted import Hosted

__all__ = ["Former", "HostingSettings", "Placement"]


class HostingSettings(Struct, frozen=True, kw_only=True):
    """How calls are given to workers, in seconds unless named otherwise."""

    admit_s: float = 2.5
    """How long a new call may wait for its worker before the webhook is answered; below what the carrier allows."""
    answer_s: float = 1.0
    """How long one worker may take to answer an offer."""
    queue_s: float = 0.0
    """How long a call is held on the line, with ``hold``, while no worker has room; 0: it is refused."""
    hold: Sound | None = None
    """What a caller in the queue hears; ``None``: :func:`dialog.audio.sound.hold`."""
    settle_s: float = 1.0
    """When a worker is lost: how long what it has said goes on before somebody else takes over."""
    apology_after_s: float = 1.0
    """After so long without a worker, on a silent line, the apology is played, if nobody waits for a reply."""
    resume_s: float = 8.0
    """How long another worker may take to be found, before the caller is told goodbye."""
    max_losses: int = 5
    """A call that has lost so many workers in a row is what kills them: it is given up …"""
    losses_within_s: float = 10.0
    """… if each was lost so soon after it had taken the call."""
    failure_transfer: str = ""
    """Who takes the callers then; empty: they are hung up on."""
    wrap_up_s: float = 320.0
    """How long a worker may keep a call after its end, for recordings and the like."""
    max_duration_s: float | None = None
    """A call that lasts longer is hung up by the host, whatever its agent does; ``None``: none is."""


class Former(Struct, frozen=True):
    """A call that another gateway had."""

    epoch: int
    """Of the worker that had it there."""
    known: Yielded
    at: float
    """When it was told, on the system's clock."""


class Placement(Protocol):
    """Where a call finds its workers."""

    async def choose(self, metadata: CallMetadata, but: set[str]) -> str:
        """A worker with room, as soon as there is one; the caller bounds the wait."""
        ...

    def stream(self, node: str, call: Hosted) -> CallStream:
        """A stream to that worker, with the call's epoch; its frames come to :meth:`Hosted.receive`."""
        ...

    def send(self, node: str, frame: Frame) -> None:
        """Send a frame outside the streams."""

    def full_for(self, metadata: CallMetadata, but: set[str]) -> bool:
        """Whether nobody else would do, though one in ``but`` might."""
        ...

    def overrun(self, node: str, reason: str) -> None:
        """A worker takes nothing any more: it is as good as dead."""

    def ended(self, node: str) -> None:
        """A call takes no slot there any more."""

    def released(self, node: str) -> None:
        """Nothing of a call is with that worker any more; :meth:`ended` came before."""

    def forget(self, call: Hosted) -> None:
        """The call is over."""
