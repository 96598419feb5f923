"""A node that runs agents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import DialogError, UserCodeError
from dialog.message import CallEnd
from dialog.providers.registry import find_class
from dialog.scope import CallScope
from dialog.voip.belongings import Belongings
from dialog.voip.consults import take_expected
from dialog.voip.lifecycle import CallSettings
from dialog.voip.voip import VoIP
from dialog.workers.fabric import Fabric
from dialog.workers.frames import (
    NOBODY,
    VERSION,
    Frame,
    Goodbye,
    Heartbeat,
    Hello,
    Offered,
    Refused,
    Revoked,
    Sought,
    Taken,
    Unknown,
    Yielded,
)
from dialog.workers.link import BridgeLink
from dialog.workers.stream import CallStream
from dialog.workers.ticker import SILENCE_S, Ticker

__all__ = ["Worker"]

logger = logging.getLogger(__name__)

_AGENT_AUDIO_MS = 90_000.0
"""Beyond what a playout takes: whoever posts more is stopped there."""
_IDLE_BEATS = 5
"""So many beats are one sign of life for hosts without a call here."""
_SHOW_BEATS = 50
"""… and one sign of every call for its host, which may have lost the word that it is over."""
_LAST_WORDS_S = 10.0
"""How long what a call said last is repeated until its host has it."""
_FORGET_S = 60.0
"""A host that has no call here and is not heard is forgotten after so long."""
_DEFAULTS = CallSettings()


class _RemoteCall:
    """One call that this worker has, from the offer to the last late callback."""

    def __init__(self, worker: Worker, host: str, epoch: int, offer: Offered) -> None:
        call_id = offer.metadata.call_id
        self.host = host
        self.epoch = epoch
        self.ended = False
        """Its slot is free again."""
        self.stream = CallStream(
            worker.fabric,
            host,
            call_id,
            epoch,
            window_ms=_AGENT_AUDIO_MS,
            keep_ms=_AGENT_AUDIO_MS,
        )
        self.link = BridgeLink(
            self.stream,
            offer.audio_format,
            on_close=self._disposed,
        )
        self.scope = CallScope(str(call_id))
        with self.scope.entered():
            self.voip: VoIP = voip_class(offer.metadata.carrier)(
                offer.metadata, self.link, audio_format=offer.audio_format, clock=worker.clock
            )
            self.voip.adopt(offer.state, offer.generation, progress=offer.progress, answered_by=offer.answered_by)
            self.voip.checkpoint = offer.checkpoint
            self.link.checkpoint = offer.checkpoint
            self.voip.snapshot = offer.snapshot
            self.voip.journal = self.link
            self.voip.may_act = lambda: worker.hears(self.host)
            self.voip.on_clips = self.link.set_clips
        self.link.attach(self.voip)
        self.belongings = Belongings(
            self.voip, self.scope, worker.settings, on_closed=lambda: worker.forget(call_id, self)
        )
        self._worker = worker

    def receive(self, frame: Frame) -> None:
        if not self.stream.take(frame):
            return
        with self.scope.entered():
            self.link.receive(frame.body)  # type: ignore[arg-type]  # what is numbered is about the call
        if self.voip.end is not None and not self.ended:
            self._over()

    def end(self, reason: str, detail: str) -> None:
        """The host is gone, or has given the call to somebody else."""
        if not self.ended:
            with self.scope.entered():
                self.link.end(CallEnd(reason=reason, detail=detail))
            self._over()

    def _over(self) -> None:
        self.ended = True
        self.belongings.end()
        self._worker.freed()

    def _disposed(self) -> None:
        if not self.ended:
            self.end("agent_hangup", "the VoIP was disposed of")


class Worker:
    """Takes calls from hosts, up to ``capacity``, and runs ``on_voip`` for each as a gateway would.

    Args:
        fabric: How it reaches its hosts.
        on_voip: The user's code: builds the participants of one call.
        capacity: Calls at the same time; exactly so many, whoever offers them.
        labels: What calls may ask for.
        code: Names the version of the user's code.
        settings: Bounds of a call; those that concern the line are the host's.
        clock: Time of the calls.
    """

    def __init__(
        self,
        fabric: Fabric,
        on_voip: Callable[[VoIP], object],
        *,
        capacity: int = 200,
        labels: tuple[str, ...] = (),
        code: str = "",
        settings: CallSettings = _DEFAULTS,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.fabric = fabric
        self.clock = clock
        self.settings = settings
        self.capacity = capacity
        self.labels = labels
        self.code = code
        self.draining = False
        self._left = False
        """It has taken leave: who asks what it is gets no answer."""
        self.sources: tuple[str, ...] = ()
        """The files that the user's code comes from, for a host on the same machine."""
        self.memory_mb: Callable[[], float] = lambda: 0.0
        """Set by the process that measures it."""
        self._on_voip = on_voip
        self._calls: dict[UUID, _RemoteCall] = {}
        self._leaving: set[_RemoteCall] = set()
        """Calls of an older epoch, whose call is here again."""
        self._last_words: dict[CallStream, float] = {}
        """Of calls that are over: what their hosts have not acknowledged, and how long it is tried."""
        self._yields: dict[UUID, tuple[str, int, Yielded, float]] = {}
        """Calls that another gateway goes on with: which one, their epoch, what it is told, and for how long."""
        self._listening_from = 0.0
        """What was not heard before counts against nobody."""
        self._hosts: dict[str, float] = {}
        """When each host was heard last."""
        self._changed = asyncio.Event()
        self._beats = 0
        self._ticker = Ticker(self._tick)
        fabric.receiver = self

    @property
    def calls(self) -> int:
        """Calls that take a slot."""
        return sum(not call.ended for call in self._calls.values())

    @property
    def left(self) -> int:
        """Calls of which something is left, if only the wait for a recording."""
        return len(self._calls) + len(self._leaving)

    def start(self) -> None:
        """Show that this worker is there, to whoever asks what it is."""
        self._ticker.start()
        self._announce(self.heartbeat())

    def greet(self, host: str) -> None:
        """Tell a host what this worker is; it may offer calls from then on."""
        self._hosts[host] = SYSTEM_CLOCK.now()
        self._beside(host, self.hello())
        self._ticker.start()

    def hello(self) -> Hello:
        """What this worker is."""
        return Hello(VERSION, self.capacity, self.labels, self.code, self.sources)

    def heartbeat(self) -> Heartbeat:
        """How it does."""
        return Heartbeat(self.calls, self.draining, round(self._ticker.lag_ms(), 1), round(self.memory_mb(), 1))

    def hears(self, host: str) -> bool:
        """Whether ``host`` was heard within the last second."""
        return SYSTEM_CLOCK.now() - self._hosts.get(host, -1e9) < SILENCE_S

    def drain(self) -> None:
        """Take no more calls."""
        self.draining = True
        self._announce(self.heartbeat())
        self._changed.set()

    async def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no call takes a slot, at most ``timeout_s``; whether that came."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.calls:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Take leave of the hosts, end what is left, and wait until nothing of it is there."""
        self.draining = self._left = True
        self._ticker.stop()
        for host in self._hosts:
            self._beside(host, Goodbye())  # before what the calls say last: they go on elsewhere
        self._announce(Goodbye())
        calls = [*self._calls.values(), *self._leaving]
        for call in calls:
            call.end("shutdown", "the worker was closed")
        for call in calls:
            for participant in call.scope.members:
                participant.dispose()
        for call in calls:
            await call.belongings.wait_closed()
        self._hosts.clear()

    # The fabric's side.

    def receive(self, sender: str, frame: Frame) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self._hosts[sender] = SYSTEM_CLOCK.now()
        body = frame.body
        call = self._calls.get(frame.call_id)
        if isinstance(body, Offered):
            self._offered(sender, frame.epoch, body)
        elif isinstance(body, Goodbye):
            logger.info("worker %s: its host %s leaves", self.fabric.node, sender)
            self.gone(sender, "")
        elif isinstance(body, Unknown):
            if not self._left:
                self.greet(sender)
        elif isinstance(body, Sought):
            self._sought(sender, frame.call_id)
        elif frame.call_id == NOBODY:
            return  # a heartbeat
        elif call is None:
            self._after_the_end(sender, frame)
        elif isinstance(body, Revoked):
            if call.epoch <= frame.epoch:
                call.end("revoked", "another worker has the call")
        elif call.epoch == frame.epoch and call.host == sender:
            call.receive(frame)
        elif call.host != sender and frame.epoch < call.epoch:
            self._answer(sender, frame.call_id, frame.epoch, Revoked())  # it was thought dead, and another has the call

    def gone(self, node: str, reason: str) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        if self._hosts.pop(node, None) is None:
            return
        if reason:
            logger.warning("worker %s: its host %s is gone: %s", self.fabric.node, node, reason)
        for call in tuple(self._calls.values()):
            if call.host == node:
                call.end("lost", "the process of the line is gone")

    def back(self) -> None:
        """See :class:`~dialog.workers.fabric.Receiver`."""
        self._announce(self.heartbeat())
        for stream in self._streams():
            stream.repeat()

    # The calls' side.

    def freed(self) -> None:
        """A call has ended: there is room."""
        self._changed.set()
        self._announce(self.heartbeat())

    def forget(self, call_id: UUID, call: _RemoteCall) -> None:
        """Nothing of a call is left."""
        self._leaving.discard(call)
        if self._calls.get(call_id) is call:
            del self._calls[call_id]
            if not call.stream.outbound.idle:
                self._last_words[call.stream] = SYSTEM_CLOCK.now() + _LAST_WORDS_S
        self._changed.set()

    def _offered(self, host: str, epoch: int, offer: Offered) -> None:
        call_id = offer.metadata.call_id
        former = self._calls.get(call_id)
        if former is not None and former.epoch >= epoch:
            return  # the same offer again, or an old one
        if self.draining or self.calls - (former is not None and not former.ended) >= self.capacity:
            self._answer(host, call_id, epoch, Refused("draining" if self.draining else "full"))
            return
        if former is not None:
            self._leaving.add(former)
            former.end("revoked", "the call was given to this worker again")
        try:
            call = _RemoteCall(self, host, epoch, offer)
        except DialogError as exc:  # there is no such VoIP here
            logger.error("call %s cannot be taken: %s", call_id, exc)  # noqa: TRY400
            self._answer(host, call_id, epoch, Refused("error", str(exc)))
            return
        self._calls[call_id] = call
        try:
            call.belongings.offer(take_expected(call_id) or self._on_voip)
        except UserCodeError as exc:
            logger.error("%s", exc, exc_info=exc.__cause__)  # noqa: TRY400
            self._answer(host, call_id, epoch, Refused("error", str(exc)))
            call.end("error", "on_voip raised")
            return
        self._answer(host, call_id, epoch, Taken())

    def _streams(self) -> list[CallStream]:
        return [*(call.stream for call in (*self._calls.values(), *self._leaving)), *self._last_words]

    def _after_the_end(self, host: str, frame: Frame) -> None:
        """Something about a call that is over, on its way before the other side knew."""
        for stream in self._last_words:
            if (stream.call_id, stream.epoch, stream.peer) == (frame.call_id, frame.epoch, host):
                stream.take(frame)
        to, _, _, _ = self._yields.get(frame.call_id, (host, 0, None, 0.0))
        if to != host:
            self._answer(host, frame.call_id, frame.epoch, Revoked())

    def _sought(self, host: str, call_id: UUID) -> None:
        """A gateway looks for a call: it may have it, if the gateway of the call is not heard."""
        call = self._calls.get(call_id)
        if call is not None and not call.ended and call.host != host and not self.hears(call.host):
            logger.warning("call %s: its gateway %s is gone; %s goes on with it", call_id, call.host, host)
            yielded = call.link.yielded(self._hosts.get(call.host, 0.0))
            self._yields[call_id] = (host, call.epoch, yielded, SYSTEM_CLOCK.now() + _FORGET_S)
            call.end("revoked", "another gateway has the call")
        to, epoch, yielded_to, _ = self._yields.get(call_id, ("", 0, None, 0.0))
        if to == host and yielded_to is not None:
            self._answer(host, call_id, epoch, yielded_to)

    def _tick(self, now: float) -> None:
        self._beats += 1
        for stream in self._streams():
            stream.tick(now)
            if self._beats % _SHOW_BEATS == 0:
                stream.show()
        for stream, until in tuple(self._last_words.items()):
            if stream.outbound.idle or now >= until:
                del self._last_words[stream]
        for call_id, (_, _, _, until) in tuple(self._yields.items()):
            if now >= until:
                del self._yields[call_id]
        beat, busy = self.heartbeat(), {call.host for call in self._calls.values()}
        if self._beats % _IDLE_BEATS == 0:
            self._announce(beat)
            for host, heard_at in tuple(self._hosts.items()):
                if host not in busy and now - heard_at > _FORGET_S:
                    del self._hosts[host]
        else:
            for host in busy:
                self._beside(host, beat)
        self._miss(now, busy)

    def _miss(self, now: float, busy: set[str]) -> None:
        """Give up the calls of hosts that are gone, and that no other host goes on with."""
        limit_s = self.fabric.host_lost_s
        if limit_s is None:
            return
        if not self.fabric.attentive(now):
            self._listening_from = now
        for host in busy:
            if now - max(self._hosts.get(host, 0.0), self._listening_from) >= limit_s:
                self.gone(host, f"not heard for {limit_s:g} s")

    def _answer(self, host: str, call_id: UUID, epoch: int, body: Taken | Refused | Revoked | Yielded) -> None:
        self.fabric.send(host, Frame(call_id, epoch, 0, body))

    def _beside(self, host: str, body: Hello | Heartbeat | Goodbye) -> None:
        self.fabric.send(host, Frame(NOBODY, 0, 0, body))

    def _announce(self, body: Heartbeat | Goodbye) -> None:
        self.fabric.announce(Frame(NOBODY, 0, 0, body))


def voip_class(carrier: str) -> type[VoIP]:
    """The class that an agent of this carrier expects."""
    return VoIP if carrier in ("", "memory") else find_class("voip", carrier)
