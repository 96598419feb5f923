"""The worker's side of a call: the link behind the VoIP that its agent holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from uuid import UUID

from msgspec import structs

from dialog.audio.sound import Sound
from dialog.calls.checkpoint import Checkpoint, fold
from dialog.calls.journal import JournalEvent
from dialog.clock import SYSTEM_CLOCK
from dialog.errors import CarrierError, LimitError, StateError
from dialog.message import AudioFormat, CallEnd, Clips, Message, Playback
from dialog.voip.bed import Layer
from dialog.voip.link import Command, CommandResult
from dialog.voip.voip import VoIP
from dialog.workers.faults import error_of
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
    FrameTooLong,
    Happened,
    More,
    Outcome,
    Pause,
    Piece,
    Played,
    Progressed,
    Recorded,
    Released,
    Resume,
    SayWanted,
    SetBed,
    SetClips,
    Started,
    Stopped,
    Transcribed,
    Troubled,
    Whispered,
    Yielded,
)
from dialog.workers.stream import CallStream

__all__ = ["BridgeLink"]

_COMMAND_S = 60.0
"""The host bounds each command itself; this is for a host that is gone."""
_JOURNAL_S = 5.0
"""A tool may wait so long for the record that it starts; then somebody else has the call by now."""
_REPORTS = 64
_REPORT_S = 0.25
"""How often a line tells what was heard."""
_PIECES = 64
"""Of a recording: more than the host may have under way."""


class BridgeLink:
    """The :class:`~dialog.voip.link.Link` whose Line is in another process.

    What the agent posts goes as a numbered frame to the host, what comes from there is told to the VoIP.
    """

    def __init__(
        self,
        stream: CallStream,
        audio_format: AudioFormat,
        *,
        on_close: Callable[[], object],
    ) -> None:
        """``on_close`` is called when the VoIP is disposed."""
        self.checkpoint: Checkpoint | None = None
        """Where the call stands, as the host knows it, too."""
        self._stream = stream
        self._ms_per_byte = audio_format.ms(1)
        self._on_close = on_close
        self._voip: VoIP | None = None
        self._number = 0
        self._outcomes: dict[int, asyncio.Future[CommandResult]] = {}
        self._downloads: dict[int, asyncio.Queue[bytes | Exception]] = {}
        self._closed = False
        self._overrun = False
        self._journaled = 0
        """Number of the newest entry of the journal; 0: it was not sent."""
        self._reports: dict[tuple[UUID, int], tuple[Playback, float]] = {}
        self._clips = Clips(apology=b"", goodbye=b"")
        self._audio_ms = 0.0
        self._audio_at = SYSTEM_CLOCK.now()

    def attach(self, voip: VoIP) -> None:
        """Name the VoIP that this link serves; called once, right after its construction."""
        self._voip = voip

    # The VoIP's side.

    def post(self, message: Message[bytes]) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        data = message.data
        self._send(
            AgentAudio(message.uuid, message.part, message.at_ms, message.done, data), len(data) * self._ms_per_byte
        )

    def abort(self, uuid: UUID, *, part: int | None, after_ms: float | None) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        self._send(Abort(uuid, part, after_ms))

    def pause(self) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        self._send(Pause())

    def resume(self, *, from_ms: float | None) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        self._send(Resume(from_ms))

    def set_bed(self, layer: Layer, sound: Sound | None, *, gain_db: float) -> None:
        """See :class:`~dialog.voip.link.Link`."""
        self._send(SetBed(layer, sound, gain_db))

    async def command(self, command: Command) -> CommandResult:
        """See :class:`~dialog.voip.link.Link`."""
        number = self._next()
        outcome: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._outcomes[number] = outcome
        name = type(command).__name__
        try:
            self._send(Execute(number, command))
            async with asyncio.timeout(_COMMAND_S):
                return await outcome
        except TimeoutError:
            raise self._no_answer(name) from None
        finally:
            self._outcomes.pop(number, None)

    async def download(self, url: str) -> AsyncIterator[bytes]:
        """See :class:`~dialog.voip.link.Link`."""
        number = self._next()
        pieces: asyncio.Queue[bytes | Exception] = asyncio.Queue(_PIECES)
        self._downloads[number] = pieces
        try:
            self._send(Downloading(number, url))
            while True:
                async with asyncio.timeout(_COMMAND_S):
                    piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                if not piece:
                    return
                self._send(More(number))
                yield piece
        except TimeoutError:
            raise self._no_answer("fetching a recording") from None
        finally:
            self._downloads.pop(number, None)

    def close(self) -> None:
        """The VoIP was disposed."""
        if self._closed:
            return
        self._send(Released())
        self._closed = True
        gone = StateError(f"call {self._stream.call_id}: the VoIP was disposed of")
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(gone)
        for pieces in self._downloads.values():
            if not pieces.full():
                pieces.put_nowait(gone)
        self._on_close()

    # Survival.

    def append(self, event: JournalEvent) -> None:
        """See :class:`~dialog.calls.journal.Journal`."""
        self.checkpoint = fold(self.checkpoint or Checkpoint(), event)
        self._journaled = self._send(Happened(event))

    async def acknowledged(self, seq: int) -> None:
        """See :class:`~dialog.calls.journal.Journal`; everything that was appended until now is waited for.

        Raises:
            StateError: The host does not answer: somebody else may have the call by now.
        """
        del seq
        no_answer = StateError(f"call {self._stream.call_id}: its journal does not answer")
        if not self._journaled:  # it could not even be sent
            raise no_answer
        try:
            async with asyncio.timeout(_JOURNAL_S):
                await self._stream.wait_acknowledged(self._journaled)
        except TimeoutError:
            raise no_answer from None

    def set_clips(self, clips: Clips) -> None:
        """What the line shall say while no worker has the call."""
        self._clips = clips
        self._send(SetClips(clips))

    def yielded(self, alive_at: float) -> Yielded:
        """What another host has to know to go on, after the present one was heard last at ``alive_at``."""
        scale = 1.0 if self._voip is None else self._voip.clock.scale
        playbacks: list[Playback] = []
        for report, at in self._reports.values():
            if report.final:
                playbacks.append(report)
                continue
            heard_ms = report.heard_ms
            if report.state == "playing":  # it went on until the next report was due, or the host was gone
                since_ms = max(0.0, min(alive_at - at, _REPORT_S / scale)) * 1000.0 * scale
                heard_ms += min(since_ms, report.queued_ms)
            playbacks.append(structs.replace(report, state="lost", heard_ms=heard_ms, queued_ms=0.0, confirmed=False))
        since_ms = (SYSTEM_CLOCK.now() - self._audio_at) * 1000.0 * scale
        voip = self._voip
        return Yielded(
            self._audio_ms + since_ms,
            self.checkpoint,
            tuple(playbacks),
            self._clips,
            None if voip is None else voip.answered_by,
            None if voip is None else voip.metadata,
        )

    # The host's side.

    def receive(self, body: CallBody) -> None:
        """Act on what the host sent; inside the call's scope."""
        voip = self._voip
        assert voip is not None
        if isinstance(body, CallerAudio):
            self._audio_ms = body.at_ms + len(body.data) * self._ms_per_byte
            self._audio_at = SYSTEM_CLOCK.now()
            voip.emit(VoIP.MESSAGE, Message(uuid=self._stream.call_id, data=body.data, at_ms=body.at_ms))
        elif isinstance(body, Played):
            key = (body.playback.uuid, body.playback.part)
            self._reports.pop(key, None)
            self._reports[key] = (body.playback, SYSTEM_CLOCK.now())
            if len(self._reports) > _REPORTS:
                del self._reports[next(iter(self._reports))]
            voip.receive(VoIP.PLAYBACK, body.playback)
        else:
            self._rarely(voip, body)
            if isinstance(body, KEPT):
                self._stream.acknowledge()

    def _rarely(self, voip: VoIP, body: CallBody) -> None:
        match body:
            case Started(started):
                voip.receive(VoIP.STREAMING_STARTED, started)
            case Stopped(stopped):
                voip.receive(VoIP.STREAMING_STOPPED, stopped)
            case Ended(end):
                self.end(end)
            case Progressed(progress):
                voip.receive(VoIP.PROGRESS, progress)
            case Answered(answered_by):
                voip.receive(VoIP.ANSWERED_BY, answered_by)
            case SayWanted(request):
                voip.receive(VoIP.SAY, request)
            case Whispered(whisper):
                voip.receive(VoIP.WHISPER, whisper)
            case DigitCame(digit):
                voip.receive(VoIP.DTMF, digit)
            case Transcribed(status):
                voip.receive(VoIP.TRANSCRIPT, status)
            case Recorded(url):
                voip.receive(VoIP.RECORDING_URL, url)
            case Troubled(fault):
                voip.fail(error_of(fault))
            case Outcome(number, fault, result):
                self._outcome(number, None if fault is None else error_of(fault), result)
            case Piece(number, data):
                pieces = self._downloads.get(number)
                if pieces is not None and not pieces.full():
                    pieces.put_nowait(data)
            case _:
                voip.fail(StateError(f"call {self._stream.call_id}: a host sent {type(body).__name__}"))

    def end(self, end: CallEnd) -> None:
        """The call has ended, or its host is gone."""
        if self._voip is not None:
            self._voip.receive(VoIP.ENDED, end)

    def _outcome(self, number: int, error: Exception | None, result: CommandResult) -> None:
        pieces = self._downloads.get(number)
        if pieces is not None and error is not None and not pieces.full():
            pieces.put_nowait(error)
        outcome = self._outcomes.get(number)
        if outcome is None or outcome.done():
            return
        if error is None:
            outcome.set_result(result)
        else:
            outcome.set_exception(error)

    def _send(self, body: CallBody, audio_ms: float = 0.0) -> int:
        if self._closed:
            return 0
        try:
            number = self._stream.post(body, audio_ms)
        except FrameTooLong as exc:
            if self._voip is not None:
                self._voip.fail(exc)
            return 0
        except LimitError as exc:
            if not self._overrun and self._voip is not None:
                self._overrun = True
                self._voip.fail(exc)
            return 0
        return number

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _no_answer(self, what: str) -> CarrierError:
        call = str(self._stream.call_id)
        return CarrierError("host", call, f"{what} was not answered within {_COMMAND_S:g} s by the process of the line")
