"""A node that owns calls at the carrier, and has workers run their agents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from dialog.clock import SYSTEM_CLOCK
from dialog.message import CallMetadata
from dialog.voip.consults import CONSULT_WORKER
from dialog.voip.voip import VoIP
from dialog.workers.directory import Directory, Known
from dialog.workers.fabric import Fabric
from dialog.workers.frames import (
    NOBODY,
    VERSION,
    Frame,
    Goodbye,
    Heartbeat,
    Hello,
    Refused,
    Revoked,
    Sought,
    Unknown,
    Yielded,
)
from dialog.workers.hosted import Hosted
from dialog.workers.hosting import Former, HostingSettings
from dialog.workers.stream import CallStream
from dialog.workers.ticker import BEAT_S, SILENCE_S, Ticker

__all__ = ["Host", "Labels", "no_labels"]

logger = logging.getLogger(__name__)

Labels = Callable[[CallMetadata], tuple[str, ...]]
"""What a call asks of its worker."""

_WINDOW_MS = 2_000.0
_KEEP_MS = 10_000.0
_STALLED_S = 2.0
"""A worker that lives and takes nothing for so long has lost the call."""
_DEFAULTS = HostingSettings()


def no_labels(_: CallMetadata) -> tuple[str, ...]:
    """Any worker will do."""
    return ()


class Host:
    """Gives calls to workers, and to other workers when those are lost.

    Args:
        fabric: How it reaches its workers.
        labels: What a call asks of its worker; nothing unless given.
        settings: How calls are given away.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        labels: Labels = no_labels,
        settings: HostingSettings = _DEFAULTS,
    ) -> None:
        self.directory = Directory()
        self.settings = settings
        self._fabric = fabric
        self._labels = labels
        self._calls: dict[UUID, Hosted] = {}
        self._room = asyncio.Event()
        self._listening_from = 0.0
        """What was not heard before counts against nobody."""
        self._sought: dict[UUID, asyncio.Future[Former]] = {}
        self._foreign: set[str] = set()
        """Workers of another release, which get no calls."""
        self._ticker = Ticker(self._tick)
        fabric.receiver = self

    @property
    def calls(self) -> tuple[Hosted, ...]:
        """The calls that are here, oldest first."""
        return tuple(self._calls.values())

    def seek(self) -> None:
        """Ask all workers to say what they are, as they would sooner or later."""
        self._fabric.announce(Frame(NOBODY, 0, 0, Unknown()))

    async def seek_call(self, call_id: UUID, within_s: float) -> Former | None:
        """Have the worker of a call, whose gateway is gone, yield it to us; ``None`` if none does ``within_s``."""
        found: asyncio.Future[Former] = asyncio.get_running_loop().create_future()
        self._sought[call_id] = found
        try:
            async with asyncio.timeout(within_s):
                while not found.done():  # what was not heard a moment ago may be asked again
                    self._fabric.announce(Frame(call_id, 0, 0, Sought()))
                    await asyncio.wait([found], timeout=BEAT_S)
            return found.result()
        except TimeoutError:
            return None
        finally:
            del self._sought[call_id]

    def take(self, voip: VoIP, former: Former | None = None) -> Hosted:
        """Give a call to a worker, as ``on_voip`` gives it to an agent; in the call's scope.

        ``former``: what is known of it, if another gateway had it before.
        """
        call = Hosted(voip, self, self.settings, former)
        self._calls[call.call_id] = call
        self._ticker.start()
        return call

    def close(self) -> None:
        """Take leave of the workers. Calls that are left are their gateway's to end, before."""
        self._ticker.stop()
        for known in self.directory:
            self.send(known.node, Frame(NOBODY, 0, 0, Goodbye()))

    # The fabric's side.

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        now, body = SYSTEM_CLOCK.now(), frame.body
        if isinstance(body, Hello):
            self._greeted(sender, body, now)
        elif isinstance(body, Yielded):
            sought = self._sought.get(frame.call_id)
            if sought is not None and not sought.done():
                sought.set_result(Former(frame.epoch, body, now))
        elif isinstance(body, Goodbye):
            node = body.node or sender
            self._foreign.discard(node)
            self.gone(node, "it has left" if node == sender else "its process has ended")
        elif isinstance(body, Heartbeat):
            if self.directory.get(sender) is None and sender not in self._foreign:
                self.send(sender, Frame(NOBODY, 0, 0, Unknown()))
            self.directory.heard(sender, now, body)
            self._room.set()
        else:
            self.directory.heard(sender, now)
            call = self._calls.get(frame.call_id)
            if call is not None:
                with call.scope.entered():
                    call.receive(sender, frame)
            elif not isinstance(body, Refused | Revoked):
                # It was not told that the call is over, or the word was lost.
                self.send(sender, Frame(frame.call_id, frame.epoch, 0, Revoked()))

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        if not self.directory.forget(node):
            return
        for call in self.calls:
            call.lost_worker(node, reason)

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self._forgive(SYSTEM_CLOCK.now())
        for call in self.calls:
            call.repeat()
        self.seek()

    # The calls' side.

    async def choose(self, metadata: CallMetadata, but: set[str]) -> str:
        """See :class:`~dialog.workers.hosting.Placement`."""
        labels = self._labels(metadata)
        only = metadata.parameter(CONSULT_WORKER)
        while True:
            node = self.directory.choose(labels, but, only=only)
            if node is not None:
                return node
            self._room.clear()
            await self._room.wait()

    def full_for(self, metadata: CallMetadata, but: set[str]) -> bool:
        """See :class:`~dialog.workers.hosting.Placement`."""
        only = metadata.parameter(CONSULT_WORKER)
        return self.directory.choose(self._labels(metadata), but, only=only) is None

    def stream(self, node: str, call: Hosted) -> CallStream:
        """See :class:`~dialog.workers.hosting.Placement`."""
        self.directory.offered(node, SYSTEM_CLOCK.now())
        return CallStream(
            self._fabric,
            node,
            call.call_id,
            call.epoch,
            window_ms=_WINDOW_MS,
            keep_ms=_KEEP_MS,
        )

    def send(self, node: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.hosting.Placement`."""
        self._fabric.send(node, frame)

    def overrun(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.hosting.Placement`."""
        asyncio.get_running_loop().call_soon(self.gone, node, reason)

    def ended(self, node: str) -> None:
        """See :class:`~dialog.workers.hosting.Placement`."""
        self.directory.ended(node)
        self._room.set()

    def released(self, node: str) -> None:
        """See :class:`~dialog.workers.hosting.Placement`."""
        self.directory.released(node)

    def forget(self, call: Hosted) -> None:
        """See :class:`~dialog.workers.hosting.Placement`."""
        if self._calls.get(call.call_id) is call:
            del self._calls[call.call_id]

    def greeted(self, known: Known) -> None:
        """A worker has said what it is; for subclasses that know more about their workers."""

    def _greeted(self, node: str, hello: Hello, now: float) -> None:
        if hello.version != VERSION:
            self._foreign.add(node)
            logger.error(
                "worker %s speaks version %d of the bridge, this host %d: it gets no calls; run the same release of "
                "Dialog on both sides",
                node,
                hello.version,
                VERSION,
            )
            return
        new = self.directory.get(node) is None
        self.greeted(self.directory.greeted(node, hello, now))
        if new:
            logger.info("worker %s: up to %d calls, labels %s", node, hello.capacity, ", ".join(hello.labels) or "none")
        self._ticker.start()
        self._room.set()

    def _tick(self, now: float) -> None:
        if self._ticker.late_s > SILENCE_S / 2 or not self._fabric.attentive(now):
            # It was us who did not listen: what came meanwhile is read after this.
            self._forgive(now)
        for node in self.directory.silent(now, self._fabric.silence_s, idle_s=3 * self._fabric.silence_s):
            self.gone(node, f"not heard for {self._fabric.silence_s:g} s")
        beat = Heartbeat(len(self._calls), lag_ms=round(self._ticker.lag_ms(), 1))
        for known in self.directory:
            if known.held:  # also of calls that have ended: whoever is not heard is given up
                self.send(known.node, Frame(NOBODY, 0, 0, beat))
        for call in self.calls:
            call.tick(now)
            stalled_s = min(call.stalled_s(now), now - self._listening_from)
            if call.worker and stalled_s >= _STALLED_S:
                call.lost_worker(call.worker, f"it has taken nothing for {_STALLED_S:g} s")

    def _forgive(self, now: float) -> None:
        self._listening_from = now
        self.directory.forgive(now)
