"""What the caller of a call hears while no worker has it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final
from uuid import UUID, uuid4

from dialog.audio.sound import hold
from dialog.calls.checkpoint import Checkpoint
from dialog.errors import CarrierError, DialogError
from dialog.message import Clips, Message, Playback
from dialog.recent import Recent
from dialog.voip.voip import VoIP
from dialog.workers.frames import AgentAudio
from dialog.workers.hosting import HostingSettings

__all__ = ["Cover"]

logger = logging.getLogger(__name__)

_GOODBYE_S: Final = 15.0
_FINAL_PARTS: Final = 256
"""As a VoIP remembers them."""


class Cover:
    """Knows what of a worker is on the line, and says what is to be said when there is no worker."""

    def __init__(self, voip: VoIP, settings: HostingSettings, clips: Clips | None = None) -> None:
        self.clips = clips or Clips(apology=b"", goodbye=b"")
        """What is said then, in the call's own voice."""
        self._voip = voip
        self._settings = settings
        self._clock = voip.clock
        self._parts: set[tuple[UUID, int]] = set()
        """Parts of a worker that are not final yet."""
        self._final: Recent[tuple[UUID, int], None] = Recent(_FINAL_PARTS)
        """The last parts that are: what was under way when they were cut or lost is played no more."""
        self._quiet = asyncio.Event()
        """None is open."""
        self._quiet.set()
        self._own: set[UUID] = set()
        """Turns that are said here."""
        self._paused = False
        self._holding = False

    # While a worker has the call.

    def play(self, audio: AgentAudio) -> None:
        """Post what a worker says."""
        self.end_hold()
        key = (audio.uuid, audio.part)
        if key in self._final:
            return
        self._parts.add(key)
        self._quiet.clear()
        self._voip.post(Message(uuid=audio.uuid, data=audio.data, part=audio.part, at_ms=audio.at_ms, done=audio.done))

    def reported(self, playback: Playback) -> bool:
        """Take a report; whether it is of what a worker said."""
        if playback.uuid in self._own:
            if playback.final:
                self._own.discard(playback.uuid)
            return False
        if playback.final:
            key = (playback.uuid, playback.part)
            self._parts.discard(key)
            self._final[key] = None
            if not self._parts:
                self._quiet.set()
        return True

    def pause(self) -> None:
        """See :meth:`dialog.voip.voip.VoIP.pause`."""
        self._paused = True
        self._voip.pause()

    def resume(self, from_ms: float | None = None) -> None:
        """See :meth:`dialog.voip.voip.VoIP.resume`."""
        self._paused = False
        self._voip.resume(from_ms=from_ms)

    # While none has it.

    def hold(self) -> None:
        """The caller waits in the queue."""
        self._holding = True
        self._voip.set_background(self._settings.hold or hold(), gain_db=0.0)

    def end_hold(self) -> None:
        """Somebody comes, or nobody; harmless if nobody waits."""
        if self._holding:
            self._holding = False
            self._voip.set_background(None)

    async def settle(self) -> None:
        """Let what is on the line go on for a moment, then cut it, so that what was heard is known."""
        if not self._paused:  # else the caller speaks, and was listened to
            with suppress(TimeoutError):
                async with asyncio.timeout(self._clock.real(self._settings.settle_s)):
                    await self._quiet.wait()
        for uuid in {uuid for uuid, _ in self._parts}:
            self._voip.abort(uuid)
        if self._paused:
            self.resume()
        self._voip.set_thinking(None)

    async def apologise(self, checkpoint: Checkpoint | None) -> None:
        """Say that nobody is there: at once if the caller waits for a reply, else after a while."""
        if not self._parts and not (checkpoint is not None and _owes(checkpoint)):
            await self._clock.sleep(self._settings.apology_after_s)
        await self._quiet.wait()
        self._say(self.clips.apology)

    async def give_up(self, reason: str) -> None:
        """Say goodbye, and hand the caller to a person, or hang up."""
        settings = self._settings
        if self.clips.goodbye:
            uuid = self._say(self.clips.goodbye)
            with suppress(TimeoutError, DialogError):
                async with asyncio.timeout(self._clock.real(_GOODBYE_S)):
                    await self._voip.wait_played(uuid)
        if settings.failure_transfer:
            try:
                await self._voip.transfer_to(settings.failure_transfer)
            except DialogError as exc:
                call_id = self._voip.metadata.call_id
                logger.error("call %s: it could not be transferred: %s", call_id, exc)  # noqa: TRY400
            else:
                return
        await self.hang_up(reason)

    async def hang_up(self, reason: str) -> None:
        """End the call, unless it is over."""
        if self._voip.disposed:
            return
        with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
            await self._voip.hangup(reason=reason)

    def _say(self, clip: bytes) -> UUID:
        uuid = uuid4()
        if clip:
            self._own.add(uuid)
            self._voip.post(Message(uuid=uuid, data=clip, done=True))
        return uuid


def _owes(checkpoint: Checkpoint) -> bool:
    """Whether the caller waits for the agent to say something."""
    waiting = any(not turn.settled and turn.questions for turn in checkpoint.turns)
    return bool(checkpoint.unanswered or checkpoint.owed or waiting)
