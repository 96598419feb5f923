"""The host's side of a call whose agent runs in another process."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol, cast
from uuid import UUID, uuid4

from msgspec import Struct, structs

from dialog.audio.sound import Sound, hold
from dialog.calls.checkpoint import Checkpoint, fold
from dialog.calls.events import CALL_EVENTS, CallerSaid, CallEvent, ToolStarted
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import CarrierError, DialogError, LimitError, UserCodeError
from dialog.message import (
    AnsweredBy,
    CallEnd,
    CallMetadata,
    CallProgress,
    Clips,
    Failure,
    LineSnapshot,
    Message,
    Playback,
    StreamStarted,
    StreamStopped,
    TranscriptStatus,
)
from dialog.net.ring import AudioRing
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.voip.admission import NoWorker
from dialog.voip.link import Command, Consult
from dialog.voip.voip import VoIP
from dialog.workers.faults import fault_of
from dialog.workers.frames import (
    Abort,
    AgentAudio,
    Answered,
    CallBody,
    CallerAudio,
    DigitCame,
    Downloading,
    Ended,
    Execute,
    Frame,
    Happened,
    More,
    Offered,
    Outcome,
    Pause,
    Piece,
    Played,
    Progressed,
    Recorded,
    Refused,
    Released,
    Resume,
    Revoked,
    SetBed,
    SetClips,
    Started,
    Stopped,
    Taken,
    Transcribed,
    Troubled,
    Yielded,
)
from dialog.workers.stream import CallStream

__all__ = ["Former", "Hosted", "HostingSettings", "Placement"]

logger = logging.getLogger(__name__)

_WINDOW_MS = 2_000.0
_KEEP_MS = 10_000.0
_REPORTS = 64
_PIECE = 64_000
_PIECES = 8
_RETRY_S = 0.2
_MISSED = 256
_KEPT = (DigitCame, Transcribed, Recorded)
_GOODBYE_S = 15.0


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
    most_losses: int = 5
    """A call that has lost so many workers in a row, each within ``soon_s``, is what kills them: it is given up."""
    soon_s: float = 10.0
    """See ``most_losses``."""
    failure_transfer: str = ""
    """Who takes the callers then; empty: they are hung up on."""
    wrap_up_s: float = 320.0
    """How long a worker may keep a call after its end, for recordings and the like."""
    longest_s: float | None = None
    """A call that lasts longer is hung up by the host, whatever its agent does."""


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


class Hosted(Participant):
    """Stands where the agent would: hands the call to a worker, and to another one when that is lost.

    The call's events are folded into a checkpoint as they come, from which the next worker goes on.
    """

    def __init__(
        self, voip: VoIP, placement: Placement, settings: HostingSettings, former: Former | None = None
    ) -> None:
        """``former``: another gateway had the call; its audio clock and its history go on here."""
        super().__init__()
        self.voip = voip
        self.epoch = 0
        self.checkpoint: Checkpoint | None = None
        self.worker = ""
        """The node that has the call; empty while none has."""
        self.handed_over = 0
        """How often another worker had to take over."""
        self._placement = placement
        self._settings = settings
        self._clock = voip.clock
        self._stream: CallStream | None = None
        self._answer: asyncio.Future[Taken | Refused] | None = None
        self._offered_to = ""
        self._missed: list[CallBody] = []
        """What happened while no worker had the call, or reached none …"""
        self._told_again: list[CallBody] = []
        """… and was told to the present one for the second time."""
        self._taken_at = 0.0
        self._losses = 0
        """Workers in a row that were lost soon after they had taken the call."""
        self._paused = False
        self._holding = False
        """The caller is in the queue."""
        self._done = False
        """The worker has let go of the call."""
        self._slot = False
        """The call counts with its worker."""
        self._taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()
        self._ms_per_byte = voip.audio_format.ms(1)
        self._ring = AudioRing(voip.audio_format, keep_ms=_KEEP_MS)
        self._safe_ms = 0.0
        """What the caller said until then is in the journal."""
        self._parts: dict[tuple[UUID, int], bool] = {}
        """Parts that are not final yet; whether all of their audio was posted."""
        self._reports: dict[tuple[UUID, int], Playback] = {}
        self._quiet = asyncio.Event()
        """No part of a worker is on the line."""
        self._quiet.set()
        self._own: set[UUID] = set()
        """Turns that the host itself said."""
        self._clips = Clips(apology=b"", goodbye=b"")
        self._credits: dict[int, asyncio.Semaphore] = {}
        self._former = former
        self._ahead_ms = 0.0
        """By how much the call's audio clock is ahead of the line's, which began here."""
        if former is not None:
            self.epoch = former.epoch
            self.checkpoint = former.known.checkpoint
            self._clips = former.known.clips
            self._reports = {(each.uuid, each.part): each for each in former.known.playbacks}
        self._listen(voip)
        self.spawn(self._run(), "worker")
        if settings.longest_s is not None:
            self.spawn(self._end_after(settings.longest_s), "longest duration")

    @property
    def scope(self) -> CallScope:
        """The call's."""
        assert self._scope is not None, "a call is taken inside its scope"
        return self._scope

    @property
    def call_id(self) -> UUID:
        """Dialog's id of the call."""
        return self.voip.metadata.call_id

    @property
    def taken(self) -> asyncio.Future[None]:
        """Done when the first worker has the call, or the call is in the queue."""
        return self._taken

    # Placement's side.

    def receive(self, sender: str, frame: Frame) -> None:
        """Take a frame of a worker; those of former workers are told that the call is not theirs any more."""
        stream = self._stream
        if stream is None or frame.epoch != stream.epoch or sender != stream.peer:
            if frame.epoch < self.epoch and not isinstance(frame.body, Refused):
                self._placement.send(sender, Frame(self.call_id, frame.epoch, 0, Revoked()))
            return
        body = frame.body
        if isinstance(body, Revoked):
            logger.warning("call %s: another gateway has it: it was not heard of here for a while", self.call_id)
            self._let_go()
            self.voip.dispose()
        elif isinstance(body, Taken | Refused):
            if isinstance(body, Taken):
                self._end_hold()
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(body)
        elif stream.take(frame):
            self._act(body)  # type: ignore[arg-type]  # what is numbered is about the call

    def lost_worker(self, node: str, reason: str) -> None:
        """A worker is gone."""
        if node == self._offered_to and self._answer is not None and not self._answer.done():
            self._answer.set_result(Refused("gone", reason))
        if node != self.worker:
            return
        logger.warning("call %s: its worker %s is lost: %s", self.call_id, node, reason)
        self._let_go()
        if self.voip.state == "ended":
            self.dispose()
            return
        self.handed_over += 1
        soon = SYSTEM_CLOCK.now() - self._taken_at < self._settings.soon_s
        self._losses = self._losses + 1 if soon else 0
        self._lost.set()

    def tick(self, now: float) -> None:
        """Acknowledge and repeat; a few times a second."""
        if self._stream is not None:
            self._stream.tick(now)

    def repeat(self) -> None:
        """Send again what is not acknowledged."""
        if self._stream is not None:
            self._stream.repeat()

    def stalled_s(self, now: float) -> float:
        """For how long the worker has taken nothing, in seconds."""
        return self._stream.stalled_s(now) if self._stream is not None else 0.0

    def dispose(self) -> None:
        """Let go of the call and of its worker."""
        if self._disposed:
            return
        super().dispose()
        if self._stream is not None and self.voip.state != "ended":
            self._placement.send(self._stream.peer, Frame(self.call_id, self.epoch, 0, Revoked()))
        self._let_go()
        if not self._taken.done():
            self._taken.cancel()
        self._placement.forget(self)

    @property
    def _at_ms(self) -> float:
        """Where the call's audio clock stands."""
        if self._former is not None and not self._ahead_ms:
            return self._clock_ms(self._former)
        return self._ring.end_ms

    def _clock_ms(self, former: Former) -> float:
        return former.known.audio_ms + (SYSTEM_CLOCK.now() - former.at) * 1000.0 * self._clock.scale

    # What the worker wants.

    def _act(self, body: CallBody) -> None:
        if isinstance(body, AgentAudio):
            if self._holding:
                self._end_hold()
            key = (body.uuid, body.part)
            self._parts[key] = body.done
            self._quiet.clear()
            self.voip.post(Message(uuid=body.uuid, data=body.data, part=body.part, at_ms=body.at_ms, done=body.done))
            return
        voip = self.voip
        match body:
            case Happened(event):
                self.checkpoint = fold(self.checkpoint or Checkpoint(), event)
                if type(event) in CALL_EVENTS:
                    voip.emit(VoIP.EVENT, cast("CallEvent", event))
                if isinstance(event, CallerSaid) and event.final:
                    # An STT that does not tell when: what has come in is what it heard.
                    self._safe_ms = max(self._safe_ms, event.end_ms or self._ring.end_ms)
                elif isinstance(event, ToolStarted) and self._stream is not None:
                    self._stream.acknowledge()  # the tool waits for it
            case Abort(uuid, part, after_ms):
                voip.abort(uuid, part=part, after_ms=after_ms)
            case Pause():
                self._paused = True
                voip.pause()
            case Resume(from_ms):
                self._paused = False
                voip.resume(from_ms=from_ms)
            case SetBed("background", sound, gain_db):
                voip.set_background(sound, gain_db=gain_db)
            case SetBed(_, sound, gain_db):
                voip.set_thinking(sound, gain_db=gain_db)
            case Execute(number, command):
                self.spawn(self._command(number, command), f"command {number}")
            case Downloading(number, url):
                self._credits[number] = asyncio.Semaphore(_PIECES)
                self.spawn(self._download(number, url), f"download {number}")
            case More(number):
                credit = self._credits.get(number)
                if credit is not None:
                    credit.release()
            case SetClips(clips):
                self._clips = clips
            case Released():
                self._released()
            case _:
                logger.warning("call %s: a worker sent %s, which is no wish", self.call_id, type(body).__name__)

    async def _command(self, number: int, command: Command) -> None:
        if isinstance(command, Consult):  # whoever asks takes that call, too
            command = structs.replace(command, worker=self.worker)
        try:
            result = await self.voip.execute(command)
        except Exception as exc:
            self._send(Outcome(number, fault_of(exc)))
        else:
            self._send(Outcome(number, None, result))

    async def _download(self, number: int, url: str) -> None:
        credit = self._credits[number]
        try:
            async for chunk in self.voip.download_recording(url):
                for at in range(0, len(chunk), _PIECE):
                    await credit.acquire()
                    self._send(Piece(number, chunk[at : at + _PIECE]))
        except Exception as exc:
            self._send(Outcome(number, fault_of(exc)))
        else:
            self._send(Piece(number, b""))
        finally:
            del self._credits[number]

    def _released(self) -> None:
        """The agent's side is done."""
        self._done = True
        if self.voip.state == "ended":
            self.dispose()
        else:
            self.spawn(self._hang_up("agent_hangup"), "hang up")

    # What happens to the call.

    def _listen(self, voip: VoIP) -> None:
        voip.on(VoIP.MESSAGE, self._on_audio)
        voip.on(VoIP.PLAYBACK, self._on_playback)
        voip.on(VoIP.DTMF, self._on_digit)
        voip.on(VoIP.TRANSCRIPT, self._on_transcript)
        voip.on(VoIP.RECORDING_URL, self._on_recording)
        voip.on(VoIP.PROGRESS, self._on_progress)
        voip.on(VoIP.ANSWERED_BY, self._on_answered_by)
        voip.on(VoIP.STREAMING_STARTED, self._on_started)
        voip.on(VoIP.STREAMING_STOPPED, self._on_stopped)
        voip.on(VoIP.ENDED, self._on_ended)
        voip.on(Participant.ERROR, self._on_error)

    def _on_audio(self, message: Message[bytes]) -> None:
        if self._ahead_ms:
            message = structs.replace(message, at_ms=message.at_ms + self._ahead_ms)
        self._ring.append(message)
        if self._stream is not None:
            data = message.data
            self._send(CallerAudio(message.at_ms, data), len(data) * self._ms_per_byte)

    def _on_playback(self, playback: Playback) -> None:
        if playback.uuid in self._own:
            if playback.final:
                self._own.discard(playback.uuid)
            return
        key = (playback.uuid, playback.part)
        self._reports.pop(key, None)
        self._reports[key] = playback
        if len(self._reports) > _REPORTS:
            del self._reports[next(iter(self._reports))]
        if playback.final:
            self._parts.pop(key, None)
            if not self._parts:
                self._quiet.set()
        self._send(Played(playback))

    def _on_digit(self, digit: str) -> None:
        self._send(DigitCame(digit))

    def _on_transcript(self, status: TranscriptStatus) -> None:
        self._send(Transcribed(status))

    def _on_recording(self, url: str) -> None:
        self._send(Recorded(url))

    def _on_progress(self, progress: CallProgress) -> None:
        self._send(Progressed(progress))

    def _on_answered_by(self, answered_by: AnsweredBy) -> None:
        self._send(Answered(answered_by))

    def _on_started(self, started: StreamStarted) -> None:
        if self._former is not None and not self._ahead_ms:
            self._ahead_ms = self._clock_ms(self._former)
        self._send(Started(started))

    def _on_stopped(self, stopped: StreamStopped) -> None:
        self._send(Stopped(stopped))

    def _on_error(self, failure: Failure) -> None:
        if failure.source != self.name:
            self._send(Troubled(fault_of(failure.error)))

    def _on_ended(self, end: CallEnd) -> None:
        self._refuse(NoWorker(f"call {self.call_id} ended before a worker had it"))
        if self._stream is None or not self.worker or self._done:
            self.dispose()
            return
        scope = CallScope.current()
        if scope is not None:
            # The worker's side has last words, a report, perhaps a recording to wait for.
            scope.linger(self, self._settings.wrap_up_s)
        self._send(Ended(end))
        self._free_slot()

    def _send(self, body: CallBody, audio_ms: float = 0.0) -> None:
        stream = self._stream
        if stream is None:
            if isinstance(body, _KEPT) and len(self._missed) < _MISSED:
                self._missed.append(body)
            return
        try:
            stream.post(body, audio_ms)
        except LimitError as exc:
            self._placement.overrun(stream.peer, str(exc))

    # From worker to worker.

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._settings.admit_s):
                await self._assign()
        except TimeoutError:
            if not await self._queue():
                return
        except UserCodeError as exc:
            self._refuse(exc)
            return
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._losses >= self._settings.most_losses:
                self.fail(
                    NoWorker(f"call {self.call_id}: {self._losses} workers in a row died with it; it is given up")
                )
                await self._settle()
                await self._give_up("lost_worker")
                return
            if not await self._hand_over():
                return

    async def _queue(self) -> bool:
        """No worker in time: hold the line, if there is a queue; whether a worker came."""
        settings = self._settings
        none = NoWorker(f"call {self.call_id}: no worker had room within {settings.admit_s:g} s")
        if settings.queue_s <= 0:
            self._refuse(none)
            return False
        if not self._taken.done():
            self._taken.set_result(None)
        self._holding = True
        self.voip.set_background(settings.hold or hold(), gain_db=0.0)
        try:
            async with asyncio.timeout(self._clock.real(settings.queue_s)):
                await self._assign()
        except (TimeoutError, UserCodeError) as exc:
            waited = NoWorker(f"call {self.call_id}: no worker had room within {settings.queue_s:g} s on hold")
            self.fail(exc if isinstance(exc, UserCodeError) else waited)
            self._end_hold()
            await self._give_up("no_worker")
            return False
        return True

    def _end_hold(self) -> None:
        if self._holding:
            self._holding = False
            self.voip.set_background(None)

    async def _hand_over(self) -> bool:
        """Find another worker for a call that has lost its own; whether one was found."""
        settings = self._settings
        cover = asyncio.create_task(self._cover(), name=f"call {self.call_id} without a worker")
        try:
            async with asyncio.timeout(settings.resume_s):
                await self._settle()
                await self._assign()
        except (TimeoutError, UserCodeError) as exc:
            nobody = NoWorker(f"call {self.call_id}: no other worker took it within {settings.resume_s:g} s")
            self.fail(exc if isinstance(exc, UserCodeError) else nobody)
            await self._give_up("lost_worker")
            return False
        finally:
            cover.cancel()
            await asyncio.wait([cover])
        return True

    async def _assign(self) -> None:
        """Offer the call to one worker after the other until one takes it; the caller bounds it.

        Raises:
            UserCodeError: ``on_voip`` raised, as it would with any other.
        """
        refused: set[str] = set()
        while True:
            node = await self._placement.choose(self.voip.metadata, refused)
            answer = await self._offer(node)
            if isinstance(answer, Taken):
                self.worker = node
                self._taken_at = SYSTEM_CLOCK.now()
                self._done = False
                if not self._taken.done():
                    self._taken.set_result(None)
                logger.info("call %s: taken by worker %s", self.call_id, node)
                return
            self._let_go()
            refused.add(node)
            if answer.reason == "error":
                raise UserCodeError(f"call {self.call_id}: worker {node}: {answer.detail}")
            if self._placement.full_for(self.voip.metadata, refused):
                refused.clear()  # whoever has room again will do
                await asyncio.sleep(_RETRY_S)

    async def _offer(self, node: str) -> Taken | Refused:
        voip = self.voip
        self.epoch += 1
        self._offered_to = node
        self._answer = asyncio.get_running_loop().create_future()
        stream = self._placement.stream(node, self)
        self._slot = True
        offer = Offered(
            voip.metadata,
            voip.audio_format,
            "lost" if voip.state == "ended" else voip.state,
            voip.generation,
            self.checkpoint,
            LineSnapshot(playbacks=tuple(self._reports.values()), at_ms=self._at_ms),
            voip.progress,
            voip.answered_by or (self._former.known.answered_by if self._former is not None else None),
        )
        self._placement.send(node, Frame(self.call_id, self.epoch, 0, offer))
        self._stream = stream
        missed, self._missed = self._missed, []
        self._told_again = missed
        for message in self._ring.since(self._safe_ms):
            self._send(CallerAudio(message.at_ms, message.data), len(message.data) * self._ms_per_byte)
        for body in missed:
            self._send(body)
        try:
            async with asyncio.timeout(self._settings.answer_s):
                return await self._answer
        except TimeoutError:
            self._placement.send(node, Frame(self.call_id, self.epoch, 0, Revoked()))
            return Refused("gone", f"no answer to an offer within {self._settings.answer_s:g} s")
        finally:
            self._offered_to = ""
            self._answer = None

    async def _settle(self) -> None:
        """Let what is on the line go on for a moment, then cut it, so that what was heard is known."""
        if not self._paused:  # else the caller speaks, and was listened to
            with suppress(TimeoutError):
                async with asyncio.timeout(self._clock.real(self._settings.settle_s)):
                    await self._quiet.wait()
        for uuid in {uuid for uuid, _ in self._parts}:
            self.voip.abort(uuid)
        if self._paused:
            self._paused = False
            self.voip.resume()
        self.voip.set_thinking(None)

    async def _cover(self) -> None:
        """Nobody is there: say so, at once if the caller waits for a reply, else after a while."""
        owed = bool(self._parts) or (self.checkpoint is not None and _owes(self.checkpoint))
        if not owed:
            await self._clock.sleep(self._settings.apology_after_s)
        await self._quiet.wait()
        self._say(self._clips.apology)

    async def _give_up(self, reason: str) -> None:
        settings = self._settings
        if self._clips.goodbye:
            uuid = self._say(self._clips.goodbye)
            with suppress(TimeoutError, DialogError):
                async with asyncio.timeout(self._clock.real(_GOODBYE_S)):
                    await self.voip.wait_played(uuid)
        if settings.failure_transfer:
            try:
                await self.voip.transfer_to(settings.failure_transfer)
            except DialogError as exc:
                logger.error("call %s: it could not be transferred: %s", self.call_id, exc)  # noqa: TRY400
            else:
                return
        await self._hang_up(reason)

    async def _hang_up(self, reason: str) -> None:
        if self.voip.disposed:
            return
        with suppress(CarrierError):  # the VoIP tells of it, and the media is closed all the same
            await self.voip.hangup(reason=reason)

    async def _end_after(self, longest_s: float) -> None:
        await self._clock.sleep(longest_s)
        logger.warning("call %s: it has lasted %g s, and is ended by the host", self.call_id, longest_s)
        await self._hang_up("max_duration")

    def _say(self, clip: bytes) -> UUID:
        uuid = uuid4()
        if clip:
            self._own.add(uuid)
            self.voip.post(Message(uuid=uuid, data=clip, done=True))
        return uuid

    def _refuse(self, error: DialogError) -> None:
        if not self._taken.done():
            self._taken.set_exception(error)
            self._taken.exception()  # whoever waits still sees it; nobody has to

    def _let_go(self) -> None:
        """No worker has the call."""
        if self._stream is not None:
            self._free_slot()
            self._placement.released(self._stream.peer)
            for body in self._stream.outbound.undelivered():
                # Once more at most: what kills a worker must not kill one after the other.
                if isinstance(body, _KEPT) and not any(body is told for told in self._told_again):
                    self._missed.append(body)
        self._stream = None
        self.worker = ""

    def _free_slot(self) -> None:
        if self._stream is not None and self._slot:
            self._slot = False
            self._placement.ended(self._stream.peer)


def _owes(checkpoint: Checkpoint) -> bool:
    """Whether the caller waits for the agent to say something."""
    waiting = any(not turn.settled and turn.questions for turn in checkpoint.turns)
    return bool(checkpoint.unanswered or checkpoint.owed or waiting)
