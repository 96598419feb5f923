"""The host's side of a call whose agent runs in another process."""

from __future__ import annotations

import asyncio
import logging
from typing import cast
from uuid import UUID

from msgspec import structs

from dialog.calls.checkpoint import Checkpoint, fold
from dialog.calls.events import CALL_EVENTS, CallerSaid, CallEvent, ToolStarted
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import LimitError, UserCodeError
from dialog.message import (
    AnsweredBy,
    CallEnd,
    CallProgress,
    Failure,
    LineSnapshot,
    Message,
    Playback,
    SayRequest,
    StreamStarted,
    StreamStopped,
    TranscriptStatus,
    Whisper,
)
from dialog.net.ring import AudioRing
from dialog.participant import Participant
from dialog.scope import CallScope
from dialog.voip.admission import NoWorker
from dialog.voip.link import Command, Consult
from dialog.voip.voip import VoIP
from dialog.workers.cover import Cover
from dialog.workers.faults import fault_of
from dialog.workers.frames import (
    KEPT,
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
    FrameTooLong,
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
    SayWanted,
    SetBed,
    SetClips,
    Started,
    Stopped,
    Taken,
    Transcribed,
    Troubled,
    Whispered,
)
from dialog.workers.hosting import Former, HostingSettings, Placement
from dialog.workers.search import Search
from dialog.workers.stream import CallStream

__all__ = ["Hosted"]

logger = logging.getLogger(__name__)

_KEEP_MS = 10_000.0
_REPORTS = 64
_PIECE = 64_000
_PIECES = 8
_CREDIT_S = 60.0
"""A worker that takes no more of a recording has given it up."""
_MISSED = 256


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
        self._missed: list[CallBody] = []
        """What the next worker is told as soon as it has taken the call …"""
        self._told_once: list[CallBody] = []
        """… of that, what a lost one was told, and may have died of …"""
        self._told_again: list[CallBody] = []
        """… and what the present one was told of that."""
        self._done = False
        """The worker has let go of the call."""
        self._slot = False
        """The call counts with its worker."""
        self._ms_per_byte = voip.audio_format.ms(1)
        self._ring = AudioRing(voip.audio_format, keep_ms=_KEEP_MS)
        self._safe_ms = 0.0
        """What the caller said until then is in the journal."""
        self._reports: dict[tuple[UUID, int], Playback] = {}
        self._credits: dict[tuple[int, int], asyncio.Semaphore] = {}
        """Of the downloads, by epoch and number."""
        self._former = former
        self._ahead_ms = 0.0
        """By how much the call's audio clock is ahead of the line's, which began here."""
        if former is not None:
            self.epoch = former.epoch
            self.checkpoint = former.known.checkpoint
            self._reports = {(each.uuid, each.part): each for each in former.known.playbacks}
        self._cover = Cover(voip, settings, None if former is None else former.known.clips)
        self._search = Search(self, placement, settings, self._cover)
        self._listen(voip)
        self.spawn(self._search.run(), "worker")
        if settings.max_duration_s is not None:
            self.spawn(self._end_after(settings.max_duration_s), "longest duration")

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
        return self._search.taken

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
            self.withdraw()
            self.voip.dispose()
        elif isinstance(body, Taken | Refused):
            if self._answer is not None and not self._answer.done():
                if isinstance(body, Taken):
                    self.worker, self._done = sender, False
                    self._search.found()
                    self._tell_missed()
                self._answer.set_result(body)
        elif stream.take(frame):
            self._act(stream, body)  # type: ignore[arg-type]  # what is numbered is about the call

    def lost_worker(self, node: str, reason: str) -> None:
        """A worker is gone."""
        offered = self._stream is not None and self._stream.peer == node
        if offered and self._answer is not None and not self._answer.done():
            self._answer.set_result(Refused("gone", reason))
        if node != self.worker:
            return
        if self.voip.state == "ended":  # what it waited for there is told to nobody
            self.withdraw()
            self.dispose()
            return
        logger.warning("call %s: its worker %s is lost: %s", self.call_id, node, reason)
        self.withdraw()
        self.handed_over += 1
        self._search.lost()

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
            self._revoke(self._stream.peer)
        self.withdraw()
        self._search.taken.cancel()
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

    def _act(self, stream: CallStream, body: CallBody) -> None:
        if isinstance(body, AgentAudio):
            self._cover.play(body)
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
                elif isinstance(event, ToolStarted):
                    stream.acknowledge()  # the tool waits for it
            case Abort(uuid, part, after_ms):
                voip.abort(uuid, part=part, after_ms=after_ms)
            case Pause():
                self._cover.pause()
            case Resume(from_ms):
                self._cover.resume(from_ms)
            case SetBed("background", sound, gain_db):
                voip.set_background(sound, gain_db=gain_db)
            case SetBed(_, sound, gain_db):
                voip.set_thinking(sound, gain_db=gain_db)
            case Execute(number, command):
                self.spawn(self._command(stream, number, command), f"command {number}")
            case Downloading(number, url):
                credit = self._credits[stream.epoch, number] = asyncio.Semaphore(_PIECES)
                self.spawn(self._download(stream, number, url, credit), f"download {number}")
            case More(number):
                waiting = self._credits.get((stream.epoch, number))
                if waiting is not None:
                    waiting.release()
            case SetClips(clips):
                self._cover.clips = clips
            case Released():
                self._released()
            case _:
                logger.warning("call %s: a worker sent %s, which is no wish", self.call_id, type(body).__name__)

    async def _command(self, stream: CallStream, number: int, command: Command) -> None:
        if isinstance(command, Consult):  # whoever asks takes that call, too
            command = structs.replace(command, worker=stream.peer)
        try:
            result = await self.voip.execute(command)
        except Exception as exc:
            self._answer_to(stream, Outcome(number, fault_of(exc)))
        else:
            self._answer_to(stream, Outcome(number, None, result))

    async def _download(self, stream: CallStream, number: int, url: str, credit: asyncio.Semaphore) -> None:
        try:
            async for chunk in self.voip.download_recording(url):
                for at in range(0, len(chunk), _PIECE):
                    async with asyncio.timeout(_CREDIT_S):
                        await credit.acquire()
                    self._answer_to(stream, Piece(number, chunk[at : at + _PIECE]))
        except Exception as exc:
            self._answer_to(stream, Outcome(number, fault_of(exc)))
        else:
            self._answer_to(stream, Piece(number, b""))
        finally:
            del self._credits[stream.epoch, number]

    def _answer_to(self, stream: CallStream, body: CallBody) -> None:
        """Send what a worker has asked for, unless another one has the call: it would take it for its own."""
        if self._stream is stream:
            self._send(body)

    def _released(self) -> None:
        """The agent's side is done."""
        self._done = True
        if self.voip.state == "ended":
            self.dispose()
        else:
            self.spawn(self._cover.hang_up("agent_hangup"), "hang up")

    # What happens to the call.

    def _listen(self, voip: VoIP) -> None:
        voip.on(VoIP.MESSAGE, self._on_audio)
        voip.on(VoIP.PLAYBACK, self._on_playback)
        voip.on(VoIP.DTMF, self._on_digit)
        voip.on(VoIP.SAY, self._on_say)
        voip.on(VoIP.WHISPER, self._on_whisper)
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
        if not self._cover.reported(playback):
            return
        key = (playback.uuid, playback.part)
        self._reports.pop(key, None)
        self._reports[key] = playback
        if len(self._reports) > _REPORTS:
            del self._reports[next(iter(self._reports))]
        self._send(Played(playback))

    def _on_digit(self, digit: str) -> None:
        self._send(DigitCame(digit))

    def _on_say(self, request: SayRequest) -> None:
        self._send(SayWanted(request))

    def _on_whisper(self, whisper: Whisper) -> None:
        self._send(Whispered(whisper))

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
        self._search.refuse(NoWorker(f"call {self.call_id} ended before a worker had it"))
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
        if stream is None or (not self.worker and isinstance(body, KEPT)):
            self._miss(body)
            return
        try:
            stream.post(body, audio_ms)
        except FrameTooLong as exc:
            self.fail(exc)
        except LimitError as exc:
            self._placement.overrun(stream.peer, str(exc))

    # From worker to worker.

    async def offer(self, node: str) -> Taken | Refused:
        """See :class:`~dialog.workers.search.Seeker`."""
        voip = self.voip
        self.epoch += 1
        answer: asyncio.Future[Taken | Refused] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._stream = self._placement.stream(node, self)
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
        try:
            self._placement.send(node, Frame(self.call_id, self.epoch, 0, offer))
        except FrameTooLong as exc:
            raise UserCodeError(f"call {self.call_id}: it has too much to tell another worker: {exc}") from exc
        for message in self._ring.since(self._safe_ms):
            self._send(CallerAudio(message.at_ms, message.data), len(message.data) * self._ms_per_byte)
        try:
            async with asyncio.timeout(self._settings.answer_s):
                return await answer
        except TimeoutError:
            if not answer.cancelled():
                return answer.result()  # it came in that moment
            self._revoke(node)
            return Refused("gone", f"no answer to an offer within {self._settings.answer_s:g} s")
        except asyncio.CancelledError:
            self._revoke(node)
            raise
        finally:
            self._answer = None

    async def _end_after(self, max_duration_s: float) -> None:
        await self._clock.sleep(max_duration_s)
        logger.warning("call %s: it has lasted %g s, and is ended by the host", self.call_id, max_duration_s)
        await self._cover.hang_up("max_duration")

    def withdraw(self) -> None:
        """See :class:`~dialog.workers.search.Seeker`."""
        if self._stream is not None:
            self._free_slot()
            self._placement.released(self._stream.peer)
            for body in self._stream.outbound.undelivered():
                # Once more at most: what kills a worker must not kill one after the other.
                if not _among(body, self._told_again) and self._miss(body):
                    self._told_once.append(body)
        self._stream = None
        self.worker = ""

    def _miss(self, body: CallBody) -> bool:
        """Keep what no worker has acted upon for the next one, if it is worth it: not more than it can take."""
        kept = isinstance(body, KEPT) and len(self._missed) < _MISSED
        if kept:
            self._missed.append(body)
        return kept

    def _tell_missed(self) -> None:
        """Tell the worker that has just taken the call what nobody has acted upon."""
        missed, self._missed = self._missed, []
        self._told_again, self._told_once = self._told_once, []
        for body in missed:
            self._send(body)

    def _revoke(self, node: str) -> None:
        self._placement.send(node, Frame(self.call_id, self.epoch, 0, Revoked()))

    def _free_slot(self) -> None:
        if self._stream is not None and self._slot:
            self._slot = False
            self._placement.ended(self._stream.peer)


def _among(body: CallBody, bodies: list[CallBody]) -> bool:
    """Whether it is one of these, and not only like one: a key may be pressed twice."""
    return any(body is each for each in bodies)
