"""A call whose line outlives the agent's side: what a bridge to worker processes does, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from dialog.agent.agent import Agent
from dialog.calls.checkpoint import Checkpoint, fold
from dialog.calls.journal import JournalEvent
from dialog.clock import Clock
from dialog.message import LineSnapshot, Message, Playback, StreamStarted
from dialog.scope import CallScope
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.link import Command
from dialog.voip.memory import MemoryLine, memory_call
from dialog.voip.voip import VoIP

_EVENTS = msgspec.msgpack.Decoder(JournalEvent)
_RELAYED = (
    VoIP.STREAMING_STARTED,
    VoIP.STREAMING_STOPPED,
    VoIP.DTMF,
    VoIP.PLAYBACK,
    VoIP.ENDED,
    VoIP.RECORDING_URL,
    VoIP.TRANSCRIPT,
)


class Life:
    """One worker's life; it ends when so many events were written. It is the worker's journal, too."""

    def __init__(
        self, events: list[bytes], after: int | None, *, died: Callable[[], object], wrote: Callable[[], object]
    ) -> None:
        self.alive = True
        self._events = events
        self._after = after
        self._died = died
        self._wrote = wrote

    def append(self, event: JournalEvent) -> None:
        if self.alive:
            assert event.seq == len(self._events), "numbered without a gap"
            self._events.append(msgspec.msgpack.encode(event))
            if self._after is not None and len(self._events) >= self._after:
                self.die()
            self._wrote()

    async def acknowledged(self, seq: int) -> None:
        if not self.alive:
            await asyncio.Event().wait()
        assert seq < len(self._events)

    def die(self) -> None:
        self.alive = False
        self._died()


class Cable:
    """The link of a worker's VoIP: to the gateway's, until the worker dies."""

    def __init__(self, gateway: VoIP, life: Life) -> None:
        self._gateway = gateway
        self._life = life
        self._relays: list[tuple[Any, Callable[[Any], object]]] = []

    def attach(self, voip: VoIP) -> None:
        def relay(event: Any) -> Callable[[Any], object]:
            return lambda payload: voip.receive(event, payload) if self._life.alive else None

        self._relays = [(event, relay(event)) for event in _RELAYED]
        self._relays.append((VoIP.MESSAGE, lambda m: voip.emit(VoIP.MESSAGE, m) if self._life.alive else None))
        for event, listener in self._relays:
            self._gateway.on(event, listener)

    def post(self, message: Message[bytes]) -> None:
        if self._life.alive:
            self._gateway.post(message)

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        if self._life.alive:
            self._gateway.abort(uuid, part=part, after_ms=after_ms)

    def pause(self) -> None:
        if self._life.alive:
            self._gateway.pause()

    def resume(self, *, from_ms: float | None) -> None:
        if self._life.alive:
            self._gateway.resume(from_ms=from_ms)

    def set_bed(self, *args: Any, **options: Any) -> None:
        """No sounds here."""

    async def command(self, command: Command) -> None:
        if not self._life.alive:
            await asyncio.Event().wait()
        await self._gateway._command(command)

    def download(self, url: str) -> AsyncIterator[bytes]:
        return self._gateway.download(url)

    def close(self) -> None:
        for event, listener in self._relays:
            self._gateway.off(event, listener)


class Survivor:
    """A call that is handed on from agent to agent, each in a life of its own.

    Args:
        clock: The call's.
        make: Makes an agent of a VoIP, its ears and its voice.
        kills: After how many events of the journal the first worker dies, the second …
        gap_s: How long nobody is there then.
        voice: Makes a voice.
    """

    def __init__(
        self,
        clock: Clock,
        make: Callable[[VoIP, ToldSTT, HummingTTS], Agent],
        *,
        kills: tuple[int, ...] = (),
        gap_s: float = 0.0,
        voice: Callable[[], HummingTTS] = HummingTTS,
        join: bool = True,
    ) -> None:
        self.clock = clock
        self.events: list[bytes] = []
        self.agents: list[Agent] = []
        self.checkpoints: list[Checkpoint] = []
        self.watcher: Callable[[], object] = lambda: None
        """Called after every event."""
        self._make = make
        self._kills = list(kills)
        self._gap_s = gap_s
        self._voice = voice
        self._playbacks: dict[tuple[UUID, int], Playback] = {}
        self._ring: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.call, self.line = memory_call(self._offered, clock=clock, join=join)

    @property
    def agent(self) -> Agent:
        """Who has the call now, or had it last."""
        return self.agents[-1]

    @property
    def playbacks(self) -> list[Playback]:
        """The newest report of every part that the line had."""
        return list(self._playbacks.values())

    @property
    def journal(self) -> list[JournalEvent]:
        """All events, of all lives."""
        return [_EVENTS.decode(event) for event in self.events]

    async def breaks(self, for_s: float) -> None:
        """The media stream breaks off, and is back after so long."""
        self.line.drop()
        await self.clock.sleep(for_s)
        self.line = MemoryLine(clock=self.clock)
        self.line.join(self.call)

    def fold(self) -> Checkpoint:
        """Where the call stands."""
        checkpoint = Checkpoint()
        for event in self.journal:
            checkpoint = fold(checkpoint, event)
        return Checkpoint.decode(checkpoint.encode())

    def says(self, text: str) -> None:
        """The caller says it; when nobody is there it waits in the line's ring."""
        if self.life.alive:
            self.stt.heard(text)
        else:
            self._ring.append(text)

    def expects(self, text: str) -> None:
        """The caller has probably said it."""
        if self.life.alive:
            self.stt.expects(text)

    async def quiet(self) -> None:
        """Wait until somebody is there and has done and said everything."""
        while self.call.state != "ended":
            conversation = self.agent._conversation
            if self.life.alive and not self._ring:
                if conversation is None:
                    return
                if conversation.engine.quiet and not any(tools.running for tools in conversation._tools):
                    return
            await self.clock.sleep(0.05)

    async def over(self) -> None:
        """The caller hangs up, if the call has not ended yet."""
        if self.call.state != "ended":
            self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()
        await asyncio.gather(*self._tasks)
        for agent in self.agents:
            await agent.wait_disposed()
            agent.voip.dispose()

    def _offered(self, gateway: VoIP) -> None:
        self._gateway = gateway
        self._scope = CallScope.current()
        gateway.on(VoIP.PLAYBACK, self._on_playback)
        self._begin(None)

    def _on_playback(self, playback: Playback) -> None:
        self._playbacks[playback.uuid, playback.part] = playback

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        after = self._kills.pop(0) if self._kills else None
        self.life = Life(self.events, after, died=self._died, wrote=self._wrote)
        cable = Cable(self._gateway, self.life)
        # It belongs to the worker, not to the scope of the gateway's side.
        made = partial(VoIP, self._gateway.metadata, cable, audio_format=self._gateway.audio_format, clock=self.clock)
        voip = Context().run(made)
        cable.attach(voip)
        voip.journal = self.life
        if checkpoint is not None:
            self.checkpoints.append(checkpoint)
            voip.checkpoint = checkpoint
            voip.snapshot = LineSnapshot(playbacks=tuple(self._playbacks.values()), at_ms=self._at_ms)
            if self._gateway.state == "live":
                voip.receive(VoIP.STREAMING_STARTED, StreamStarted(generation=self._gateway.generation))
        self.stt, self.tts = ToldSTT(), self._voice()
        self.agents.append(self._make(voip, self.stt, self.tts))
        if self.life.alive:
            self.agent.activate()

    @property
    def _at_ms(self) -> float:
        line = self.line.line
        return 0.0 if line is None else line.at_ms

    def _wrote(self) -> None:
        self.watcher()

    def _died(self) -> None:
        task = asyncio.get_running_loop().create_task(self._hand_over(self.agents[-1:]), name="hand over")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over(self, dead: list[Agent]) -> None:
        for agent in dead or self.agents[-1:]:
            agent.dispose()
            agent.voip.dispose()
        if self._gap_s:
            await self.clock.sleep(self._gap_s)
        if self._gateway.state == "ended":
            return
        assert self._scope is not None
        with self._scope.entered():
            self._gateway.resume()
            for uuid in list(self._gateway._open_parts):  # whatever the line was handed, heard of or not
                self._gateway.abort(uuid)
            self._begin(self.fold())
            ring, self._ring = self._ring, []
            for text in ring:
                self.says(text)
