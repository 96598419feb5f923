"""The agent's side of a phone call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, get_args
from uuid import UUID, uuid4

from msgspec.structs import replace

from dialog.audio.sound import Sound
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import (
    CallNotAnswered,
    CarrierError,
    ConfigurationError,
    DialogError,
    NotSupportedError,
    StateError,
)
from dialog.message import (
    MULAW_8K,
    AnsweredBy,
    AudioFormat,
    CallEnd,
    CallMetadata,
    CallProgress,
    Clips,
    LineSnapshot,
    Message,
    Playback,
    Progress,
    SayRequest,
    SentSMS,
    StreamStarted,
    StreamStopped,
    TranscriptStatus,
    TransferStatus,
    Whisper,
)
from dialog.participant import Event, Participant
from dialog.sms.sms import check_e164, check_text
from dialog.voip.bed import Layer
from dialog.voip.consults import expected
from dialog.voip.link import (
    Command,
    CommandResult,
    Consult,
    Hangup,
    JoinCalls,
    Link,
    RemoveRecording,
    SendDigits,
    SendSMS,
    StartRecording,
    StartTranscription,
    StopRecording,
    TransferTo,
)
from dialog.voip.played import PlayedPoints

if TYPE_CHECKING:  # an interface below it: what they hold is for the agent
    from dialog.calls.checkpoint import Checkpoint
    from dialog.calls.events import CallEvent
    from dialog.calls.journal import Journal
    from dialog.calls.tracer import CallTracer

__all__ = ["CallState", "VoIP"]

T = TypeVar("T")
_REMEMBERED_PARTS = 256
_STEPS: Final = get_args(Progress)


def _always() -> bool:
    return True


CallState = Literal["offered", "live", "moving", "lost", "ended"]


class VoIP(Participant):
    """One call, as an agent holds it: the caller's audio comes out, the agent's audio goes in.

    A call is not a stream: media may stop and start again (a transfer that fails, a broken socket)
    while the call goes on, and ``ended`` comes exactly once. What stands behind it, the carrier's
    socket in this process or another, is its :class:`~dialog.voip.link.Link`.
    """

    METADATA: ClassVar[Event[CallMetadata]] = Event("metadata")
    """Who calls; emitted once, before media. :attr:`metadata` is readable at any time."""
    MESSAGE: ClassVar[Event[Message[bytes]]] = Event("message")
    """The caller's audio in :attr:`audio_format`, without gaps: ``at_ms`` is its audio clock."""
    PLAYBACK: ClassVar[Event[Playback]] = Event("playback")
    """What of a part was heard: progress every 250 ms and one final state."""
    MESSAGE_DISPATCHED: ClassVar[Event[UUID]] = Event("message_dispatched")
    """All that was posted for the turn so far was heard to its end."""
    TRANSCRIPT: ClassVar[Event[TranscriptStatus]] = Event("transcript")
    RECORDING_URL: ClassVar[Event[str]] = Event("recording_url")
    DTMF: ClassVar[Event[str]] = Event("dtmf")
    """A key that the caller pressed: ``0-9 * # A-D``."""
    PROGRESS: ClassVar[Event[CallProgress]] = Event("progress")
    """A call that was placed rings, or is answered; :attr:`progress` is readable at any time."""
    ANSWERED_BY: ClassVar[Event[AnsweredBy]] = Event("answered_by")
    """Who has taken a call that was placed: once, and again if the carrier's verdict comes late."""
    STREAMING_STARTED: ClassVar[Event[StreamStarted]] = Event("streaming_started")
    STREAMING_STOPPED: ClassVar[Event[StreamStopped]] = Event("streaming_stopped")
    TRANSFER: ClassVar[Event[TransferStatus]] = Event("transfer")
    """:meth:`transfer_to` was called, or what has become of it."""
    SAY: ClassVar[Event[SayRequest]] = Event("say")
    """Somebody outside the call wants its agent to say something: :meth:`say`."""
    WHISPER: ClassVar[Event[Whisper]] = Event("whisper")
    """Somebody outside the call tells its agent something: :meth:`whisper`."""
    ENDED: ClassVar[Event[CallEnd]] = Event("ended")
    """Exactly once per call, whatever happened."""
    EVENT: ClassVar[Event[CallEvent]] = Event("event")
    """What the call's agent tells of it, wherever that runs: :data:`dialog.agent.agent.Agent.EVENT`."""

    medium: ClassVar[Literal["audio", "text"]] = "audio"
    """``text``: nothing sounds; see :class:`dialog.voip.text.TextVoIP`."""
    captions: ClassVar[bool] = False
    """Who is at the other end can read what is said while it is said: the agent tells :class:`AgentSpeaks`."""

    def __init__(
        self,
        metadata: CallMetadata,
        link: Link,
        *,
        audio_format: AudioFormat = MULAW_8K,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        self.metadata = metadata
        self.audio_format = audio_format
        self.clock = clock
        self.generation: int = 0
        """Generation of the newest stream; 0 before the first."""
        self.end: CallEnd | None = None
        """How the call ended."""
        self.progress: Progress = "answered"
        """How far a call that was placed has come; one that came in is answered."""
        self.answered_by: AnsweredBy | None = None
        """Who has taken a call that was placed, once that is known or assumed."""
        self.checkpoint: Checkpoint | None = None
        """Where the call stands, if an agent in another process had it before; ``None`` once one has taken it."""
        self.snapshot: LineSnapshot = LineSnapshot()
        """With a checkpoint: what the line knows."""
        self.journal: Journal | None = None
        """Where the call's events are kept so that it can survive this process; ``None``: it ends with it."""
        self.may_act: Callable[[], bool] = _always
        """Whether this process may still act for the call. Another may have it, if the line was not heard of."""
        self.tracer: CallTracer | None = None
        """Who traces the call: see :class:`dialog.telemetry.Tracing`."""
        self.on_clips: Callable[[Clips], object] | None = None
        """Takes what the line says while there is no agent; ``None``: nobody wants it."""
        self._link = link
        self._state: CallState = "offered"
        self._open_parts: dict[UUID, dict[int, bool]] = {}
        """Per turn: parts that are posted and not final yet; the value says whether ``done`` was posted."""
        self._unheard: set[UUID] = set()
        """Turns of which a part was cut or lost: they are never dispatched."""
        self._reports: dict[tuple[UUID, int], Playback] = {}
        """The newest report of each part that is not final."""
        self._final_parts: dict[tuple[UUID, int], Playback] = {}
        """The last parts that had their final report, and that; what still comes for them is dropped."""
        self._points = PlayedPoints(clock)
        self._awaiting_answer: set[asyncio.Event] = set()
        self._transfer = ""
        """Whom the caller is being connected to."""

    @property
    def state(self) -> CallState:
        """Where the call is in its life."""
        return self._state

    def post(self, message: Message[bytes]) -> None:
        """Queue audio of a part and return; before media flows it is kept for the first stream."""
        if self._disposed or self._state == "ended":
            return
        parts = self._open_parts.get(message.uuid)
        if parts is None or message.part not in parts:
            if (message.uuid, message.part) in self._final_parts:
                return
            parts = self._open_parts.setdefault(message.uuid, {})
        parts[message.part] = message.done
        self._link.post(message)

    def abort(self, uuid: UUID, *, part: int | None = None, after_ms: float | None = None) -> None:
        """Stop a turn, or one part, now or once ``after_ms`` of the part were heard.

        Other turns are not touched. Unknown and finished turns are ignored.
        """
        if not self._disposed:
            self._link.abort(uuid, part=part, after_ms=after_ms)

    def pause(self) -> None:
        """Silence the line at once and keep what the caller has not heard."""
        if not self._disposed:
            self._link.pause()

    def resume(self, *, from_ms: float | None = None) -> None:
        """Go on from the cut, or from ``from_ms`` of the part that was cut."""
        if not self._disposed:
            self._link.resume(from_ms=from_ms)

    async def wait_played(self, uuid: UUID, part: int = 0, *, ms: float | None = None) -> Playback:
        """Wait until ``ms`` of a part were really heard, or all of it; it may be posted later.

        Everybody waits for their own point: neither other waiters nor other parts end a wait.

        Returns:
            The report that settled it. A part that was cut or lost before its point settles it, too:
            look at ``state`` and ``heard_ms``.

        Raises:
            StateError: The call ended before such a part was posted.
        """
        last = self._final_parts.get((uuid, part)) or self._reports.get((uuid, part))
        if (last is None or not last.final) and (self._disposed or self._state == "ended"):
            raise self._never_played(uuid, part)
        return await self._points.wait(uuid, part, ms, last)

    def set_background(self, sound: Sound | None, *, gain_db: float = -20.0) -> None:
        """Let ``sound`` go round for the rest of the call, under the voice and while nobody speaks; None: end it.

        It is not interrupted by :meth:`pause` and :meth:`abort`, and is 6 dB quieter under a voice than alone.
        ``gain_db`` is relative to how the sound was recorded.

        Raises:
            MissingExtra: The sound has another sample rate than the call, and numpy is not installed.
            UnsupportedFormat: Its rate cannot be converted.
        """
        self._set_bed("background", sound, gain_db)

    def set_thinking(self, sound: Sound | None, *, gain_db: float = -6.0) -> None:
        """Let ``sound`` go round until the next audio is posted, or until None is set: somebody is at work.

        Audio that was posted before is played first; the sound is never under a voice.

        Raises:
            MissingExtra: The sound has another sample rate than the call, and numpy is not installed.
            UnsupportedFormat: Its rate cannot be converted.
        """
        self._set_bed("thinking", sound, gain_db)

    async def wait_answered(self) -> AnsweredBy:
        """Wait until somebody, or something, has taken a call that was placed, and it is known who.

        The wait ends by itself: with the answer, or with the call when it has rung for long enough.

        Raises:
            CallNotAnswered: Nobody did: busy, no answer, failed, canceled; or a machine, where it is to be hung up on.
            StateError: The VoIP was disposed of.
        """
        if self.metadata.direction == "inbound":
            return AnsweredBy(who="unknown")
        changed = asyncio.Event()
        self._awaiting_answer.add(changed)
        try:
            while True:
                if self.answered_by is not None and self.answered_by.then != "hang_up":
                    return self.answered_by
                if self.end is not None:
                    raise CallNotAnswered(str(self.metadata.call_id), self.end.reason, self.end.detail)
                if self._disposed:
                    raise StateError(f"call {self.metadata.call_id}: the VoIP was disposed of")
                changed.clear()
                await changed.wait()
        finally:
            self._awaiting_answer.discard(changed)

    def say(self, text: str, *, allow_interrupt: bool = True) -> None:
        """Let the call's agent say ``text`` when the floor is free, in a turn of its own, wherever it runs.

        Raises:
            ConfigurationError: There is nothing to say.
            StateError: The call has ended, or no agent has it yet.
        """
        self._check_told(VoIP.SAY, text)
        self.emit(VoIP.SAY, SayRequest(text=text, allow_interrupt=allow_interrupt))

    def whisper(self, text: str) -> None:
        """Tell the call's agent something that the caller does not hear: its model knows it from its next answer on.

        It stands in history as an instruction of the application, wherever the agent runs.

        Raises:
            ConfigurationError: There is nothing to tell.
            StateError: The call has ended, or no agent has it yet.
        """
        self._check_told(VoIP.WHISPER, text)
        self.emit(VoIP.WHISPER, Whisper(text))

    async def hangup(self, *, reason: str = "agent_hangup") -> None:
        """End the call now; ``reason`` is told with its end. One that has ended already is left in peace.

        Raises:
            CarrierError: The carrier could not be told (the media is closed all the same).
        """
        await self._command(Hangup(reason))

    async def transfer_to(self, tel: str, *, back_within_s: float | None = None) -> None:
        """Connect the caller to ``tel`` now; with ``back_within_s`` they come back if nobody answers.

        Raises:
            CarrierError: The carrier refused.
            NotSupportedError: This carrier cannot transfer.
        """
        before, self._transfer = self._transfer, tel
        self.emit(VoIP.TRANSFER, TransferStatus(to=tel, state="started"))
        try:
            await self._command(TransferTo(tel=tel, back_within_s=back_within_s))
        except DialogError as exc:
            done = isinstance(exc, CarrierError) and exc.in_doubt and self._state == "moving"
            if not done:  # else only the carrier's answer was lost
                self._transfer = before
                self.emit(VoIP.TRANSFER, TransferStatus(to=tel, state="refused", detail=str(exc)))
            raise

    async def consult(
        self,
        tel: str,
        *,
        from_: str = "",
        ring_s: float = 25.0,
        talk_s: float = 120.0,
        hold_url: str = "",
        parameters: Mapping[str, str] | None = None,
        on_voip: Callable[[VoIP], object] | None = None,
    ) -> VoIP:
        """Let the caller wait with music, and call somebody about them: the first half of a warm transfer.

        The caller's stream ends (``moving``): nothing is heard of the music. Talk to the other one through the VoIP
        that is returned, then :meth:`join` the two, or hang that one up. If they do not answer, refuse or leave, the
        caller comes back: the same call, with a new stream that starts with ``resumed="transfer_failed"``. If the
        caller leaves, the other call ends with ``caller_left``.

        Args:
            tel: Who is called, in E.164.
            from_: The number that they see; the one of this call unless given.
            ring_s: How long it may ring there, in seconds.
            talk_s: How long the other one may take to decide; then they are hung up on, and the caller comes back.
            hold_url: What the carrier fetches for the caller to hear; its own music unless given.
            parameters: Of the new call's metadata.
            on_voip: Builds the participants of the new call, in its own scope, before it is placed.

        Raises:
            CarrierError: The carrier refused. If it took the caller away before, they come back.
            StateError: The caller waits for somebody already.
            NotSupportedError: This carrier cannot do that.
        """
        call_id = uuid4()
        made: list[VoIP] = []

        def take(voip: VoIP) -> None:
            made.append(voip)
            if on_voip is not None:
                on_voip(voip)

        command = Consult(
            call_id=call_id,
            tel=tel,
            from_=from_,
            ring_s=ring_s,
            talk_s=talk_s,
            hold_url=hold_url,
            parameters=tuple((parameters or {}).items()),
        )
        before, self._transfer = self._transfer, tel
        self.emit(VoIP.TRANSFER, TransferStatus(to=tel, state="started"))
        try:
            with expected(call_id, take):
                await self._command(command)
        except DialogError as exc:
            if self._state == "live":
                self._transfer = before
                self.emit(VoIP.TRANSFER, TransferStatus(to=tel, state="refused", detail=str(exc)))
            raise
        if not made:
            raise NotSupportedError(f"call {self.metadata.call_id}: the call to consult did not come to this process")
        return made[0]

    async def join(self, other: VoIP) -> None:
        """Bring the one whom :meth:`consult` has called to the caller who waits; both calls end with ``transferred``.

        Raises:
            CarrierError: One of them is gone, or the carrier refused.
            NotSupportedError: This carrier cannot do that.
        """
        await self._command(JoinCalls(other.metadata.call_id))

    async def send_digits(self, digits: str) -> None:
        """Press keys towards the other side (``0-9 * # w``)."""
        await self._command(SendDigits(digits))

    async def start_recording(self, *, status_url: str = "") -> None:
        """Record both channels at the carrier; RECORDING_URL follows after the call.

        Raises:
            MissingPublicURL: No callback address is known.
            CarrierError: The carrier refused.
            NotSupportedError: This carrier cannot record.
        """
        await self._command(StartRecording(status_url))

    async def stop_recording(self) -> None:
        """Stop the carrier's recording before the call ends."""
        await self._command(StopRecording())

    async def remove_recording(self) -> None:
        """Delete the recording at the carrier."""
        await self._command(RemoveRecording())

    async def start_transcription(
        self,
        *,
        status_url: str = "",
        engine: str = "deepgram",
        language: str = "en-US",
        options: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Let the carrier transcribe both tracks; TRANSCRIPT follows."""
        await self._command(
            StartTranscription(status_url=status_url, engine=engine, language=language, options=options)
        )

    async def send_sms(self, text: str, *, to: str = "", from_: str = "") -> SentSMS:
        """Write a text message, to the other side of the call unless ``to`` says otherwise.

        Also after the call has ended, as long as late callbacks are waited for. Without a call, and for
        messages that a program sends by itself, there is :class:`~dialog.sms.sms.SMS`.

        Args:
            text: Up to 1600 characters.
            to: A number in E.164.
            from_: A number of yours; the one of the call unless given.

        Raises:
            CarrierError: A number is none, or the carrier refused; the message says what to do.
            NotSupportedError: This carrier cannot send messages.
        """
        metadata = self.metadata
        ours, theirs = metadata.to, metadata.from_
        if metadata.direction == "outbound":
            ours, theirs = theirs, ours
        try:
            command = SendSMS(to=check_e164(to or theirs), from_=from_ or ours, text=check_text(text))
        except ConfigurationError as exc:
            raise CarrierError(metadata.carrier or "carrier", str(metadata.call_id), f"send SMS: {exc}") from exc
        sent = await self._command(command)
        if not isinstance(sent, SentSMS):
            raise NotSupportedError(f"call {metadata.call_id}: this line does not tell what became of a message")
        return sent

    def download_recording(self, url: str) -> AsyncIterator[bytes]:
        """The bytes behind a RECORDING_URL, fetched with the carrier's credentials."""
        return self._link.download(url)

    async def execute(self, command: Command) -> CommandResult:
        """Let the carrier carry out ``command``: what the methods above do, for whoever forwards their commands.

        Raises:
            CarrierError: The carrier refused or could not be reached.
            NotSupportedError: This carrier cannot do that.
            StateError: The VoIP was disposed of.
        """
        if self._disposed:
            raise StateError(f"call {self.metadata.call_id}: {type(command).__name__} after dispose")
        return await self._link.command(command)

    def adopt(
        self,
        state: CallState,
        generation: int,
        *,
        progress: Progress = "answered",
        answered_by: AnsweredBy | None = None,
    ) -> None:
        """Take the call as it is, before anybody listens; called by links whose other side has it already."""
        self._state = state
        self.generation = generation
        self.progress = progress
        self.answered_by = answered_by

    def receive(self, event: Event[Any], payload: Any) -> None:
        """Take an event from the other side of the link; called by links only.

        The state changes first, then listeners hear of it.
        """
        if self._disposed:
            return
        if isinstance(payload, Playback):
            self._playback(payload)
            return
        if isinstance(payload, CallProgress):
            if not self._advance(payload):
                return
            payload = CallProgress(state=self.progress, carrier_call_id=self.metadata.carrier_call_id)
        elif isinstance(payload, AnsweredBy):
            self.answered_by = payload
        elif isinstance(payload, StreamStarted):
            # The stream may be here before the carrier has told that somebody answered.
            self.receive(VoIP.PROGRESS, CallProgress(state="answered"))
            self._state = "live"
            self.generation = payload.generation
        elif isinstance(payload, StreamStopped):
            self._state = payload.reason
        elif isinstance(payload, CallEnd):
            if self.end is not None:
                return
            self.end = payload
            self._state = "ended"
        if self._transfer:
            self._transferred(payload)
        self.emit(event, payload)
        if isinstance(payload, AnsweredBy | CallEnd):
            self._wake()
        if isinstance(payload, CallEnd):
            self._points.close(self._never_played)

    def dispose(self) -> None:
        """Let go of the call. The gateway does this; an agent ends a call with :meth:`hangup`."""
        if not self._disposed:
            super().dispose()
            self._link.close()
            self._points.close(self._never_played)
            self._reports.clear()
            self._wake()

    def _wake(self) -> None:
        for changed in self._awaiting_answer:
            changed.set()

    def _advance(self, progress: CallProgress) -> bool:
        """Note how far the call has come, and what it is called; whether any of that is news."""
        named = bool(progress.carrier_call_id) and not self.metadata.carrier_call_id
        if named:
            self.metadata = replace(self.metadata, carrier_call_id=progress.carrier_call_id)
        further = _STEPS.index(progress.state) > _STEPS.index(self.progress)
        if further:
            self.progress = progress.state
        return named or further

    def _transferred(self, payload: object) -> None:
        """What ``payload`` says of the transfer that was ordered."""
        to = self._transfer
        if isinstance(payload, StreamStarted) and payload.resumed == "transfer_failed":
            self._transfer = ""
            self.emit(VoIP.TRANSFER, TransferStatus(to=to, state="returned"))
        elif isinstance(payload, CallEnd) and payload.reason == "transferred":
            self.emit(VoIP.TRANSFER, TransferStatus(to=to, state="answered", detail=payload.detail))

    def _never_played(self, uuid: UUID, part: int) -> StateError:
        return StateError(
            f"call {self.metadata.call_id} has ended: part {part} of turn {uuid} was never posted, or its end is not "
            "known any more"
        )

    def _check_told(self, event: Event[Any], text: str) -> None:
        """Check that there is something to tell, and an agent that would listen."""
        if not text.strip():
            raise ConfigurationError("there is nothing to say")
        if self._disposed or self._state == "ended":
            raise StateError(f"call {self.metadata.call_id} has ended")
        if not self._listeners.get(event):
            raise StateError(f"call {self.metadata.call_id}: no agent has it that could be told anything")

    def _set_bed(self, layer: Layer, sound: Sound | None, gain_db: float) -> None:
        fitted = None if sound is None else sound.fitted(self.audio_format)
        if not self._disposed:
            self._link.set_bed(layer, fitted, gain_db=gain_db)

    async def _command(self, command: Command) -> CommandResult:
        try:
            return await self.execute(command)
        except CarrierError as exc:
            self.fail(exc)  # for whoever watches the call, and does not hold the command
            raise

    def _playback(self, playback: Playback) -> None:
        self.emit(VoIP.PLAYBACK, playback)
        self._points.feed(playback)
        key = (playback.uuid, playback.part)
        if not playback.final:
            self._reports[key] = playback
            return
        self._reports.pop(key, None)
        parts = self._open_parts.get(playback.uuid)
        if parts is None:
            return
        parts.pop(playback.part, None)
        self._final_parts[key] = playback
        if len(self._final_parts) > _REMEMBERED_PARTS:
            del self._final_parts[next(iter(self._final_parts))]
        if playback.state != "played":
            self._unheard.add(playback.uuid)
        if parts:
            return
        del self._open_parts[playback.uuid]
        if playback.uuid in self._unheard:
            self._unheard.discard(playback.uuid)
        else:
            self.emit(VoIP.MESSAGE_DISPATCHED, playback.uuid)
