"""The host's side of a call: what a gateway holds while the agent holds the VoIP."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from dialog.calls.feed import CallFeed
from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import CarrierError, StateError, UserCodeError
from dialog.message import (
    MULAW_8K,
    AudioFormat,
    CallEnd,
    CallMetadata,
    CallProgress,
    StreamStarted,
    StreamStopped,
)
from dialog.scope import CallScope
from dialog.voip.belongings import Belongings
from dialog.voip.consults import CONSULT_OF
from dialog.voip.direct import DirectLink
from dialog.voip.lifecycle import (
    Accepted,
    CallSettings,
    Closed,
    End,
    HangingUp,
    Happening,
    Joined,
    Lifecycle,
    MoveKind,
    Ordered,
    Outcome,
    Requested,
    Resumed,
    Returned,
    Stopped,
    Tick,
    Withdrawn,
)
from dialog.voip.line import Line, Tap, Wire
from dialog.voip.link import (
    Command,
    CommandResult,
    Consult,
    Hangup,
    SendDigits,
    SendSMS,
    StartRecording,
    StartTranscription,
    TransferTo,
)
from dialog.voip.voip import CallState, VoIP

__all__ = ["Call", "CallSettings", "CarrierCommands"]

logger = logging.getLogger(__name__)

_DEFAULTS = CallSettings()

_LISTENING_S = 3.0
"""So long after its first stream somebody has to listen to a call: an agent may come after a look-up."""


class CarrierCommands(Protocol):
    """What a gateway does for its calls at the carrier."""

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """Carry out ``command``; when a redirect was accepted call :meth:`Call.moving`.

        Hanging up is at most asked for here: that the call ends is up to :class:`Call`.

        Raises:
            CarrierError: The carrier refused or could not be reached.
            NotSupportedError: This carrier cannot do that.
        """

    def download(self, url: str) -> AsyncIterator[bytes]:
        """The bytes of a recording, fetched with the carrier's credentials."""
        ...


class Call:
    """One call, from its first sign to the last late callback; owned by its gateway.

    It holds the call's scope and VoIP, connects each stream in turn, and ends the call exactly once.
    It belongs to the event loop that it was made on.
    """

    def __init__(
        self,
        metadata: CallMetadata,
        carrier: CarrierCommands,
        *,
        settings: CallSettings = _DEFAULTS,
        clock: Clock = SYSTEM_CLOCK,
        voip_class: type[VoIP] = VoIP,
        audio_format: AudioFormat = MULAW_8K,
        events: CallEvents | None = None,
        on_closed: Callable[[Call], object] | None = None,
        generation: int = 0,
        dialling: bool = False,
    ) -> None:
        """Create the call's scope and VoIP, and wait for its first stream from now on.

        ``events`` are told what happens in it. ``on_closed`` is called once, when nothing of the call is left: forget
        it then. With ``generation`` the call has had so many streams at another gateway, and has lost the last one.
        ``dialling``: it is being placed, and nobody has answered.
        """
        self.settings = settings
        self.clock = clock
        self.scope: CallScope = CallScope(str(metadata.call_id))
        self._carrier = carrier
        self._life = Lifecycle(settings, clock.now(), generation)
        self._taps: list[Tap] = []
        self._link = DirectLink(
            audio_format,
            self.scope,
            clock=clock,
            lead_ms=settings.lead_ms,
            limit_ms=settings.limit_ms,
            command=self._command,
            download=carrier.download,
            on_close=self._voip_disposed,
        )
        with self.scope.entered():
            self.voip: VoIP = voip_class(metadata, self._link, audio_format=audio_format, clock=clock)
        if generation:
            self.voip.adopt(self.state, generation)
        if dialling:
            self.voip.adopt("offered", 0, progress="dialling")
        self._link.attach(self.voip)
        self._events = None if events is None else CallFeed(self.voip, events)
        self._on_closed = on_closed
        self._belongings = Belongings(self.voip, self.scope, settings, self._closed)
        self._outcomes: deque[Outcome] = deque()
        self._delivering = False
        self._wire: Wire | None = None
        self._joined: Line | None = None
        self._audio_from: float | None = None
        self._audio_ms = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._listening: asyncio.TimerHandle | None = None
        self._arm()

    def __repr__(self) -> str:
        return f"<Call {self.metadata.call_id} {self.state}>"

    @property
    def metadata(self) -> CallMetadata:
        """Who calls whom, over what."""
        return self.voip.metadata

    @property
    def state(self) -> CallState:
        """Where the call is in its life."""
        return self._life.state

    @property
    def generation(self) -> int:
        """Generation of the newest stream; 0 before the first."""
        return self._life.generation

    @property
    def line(self) -> Line | None:
        """The live stream."""
        return self._link.line

    @property
    def audio_ms(self) -> float:
        """The time on the call's audio clock, in milliseconds; 0 before the first media."""
        return 0.0 if self._audio_from is None else (self.clock.now() - self._audio_from) * 1000.0

    @property
    def queued_ms(self) -> float:
        """The agent's audio that waits to be sent, in milliseconds."""
        return self._link.queued_ms

    @property
    def closed(self) -> bool:
        """Whether nothing of the call is left."""
        return self._belongings.closed

    def offer(self, on_voip: Callable[[VoIP], object]) -> None:
        """Run ``on_voip`` inside the call's scope, then emit METADATA.

        Raises:
            UserCodeError: It raised; the call has ended with ``error`` and is being disposed of.
        """
        try:
            self._belongings.offer(on_voip)
        except UserCodeError:
            self.end("error", "on_voip raised")
            raise

    def join(self, wire: Wire, generation: int) -> Line:
        """A stream has started: connect its socket. A higher generation replaces a live stream.

        Raises:
            StateError: The call has ended, or had a stream of this or a higher generation.
        """
        refusal = self._life.refusal(generation)
        if refusal:
            raise StateError(f"call {self.metadata.call_id}: {refusal}")
        if self._delivering:
            raise StateError(f"call {self.metadata.call_id}: a stream cannot join from inside a listener of its call")
        self._wire = wire
        self._feed(Joined(generation))
        assert self._joined is not None
        return self._joined

    def stream_stopped(self, line: Line | None = None) -> None:
        """The carrier said that the stream is over. Name the ``line``: one that was replaced is ignored."""
        self._stream_over(Stopped(), line)

    def stream_closed(self, line: Line | None = None) -> None:
        """The socket closed, after or without a stop. Name the ``line``: one that was replaced is ignored."""
        self._stream_over(Closed(), line)

    def progressed(self, progress: CallProgress) -> None:
        """The call was placed, and has come further; what is no news is ignored."""
        if self.state != "ended":
            with self.scope.entered():
                self.voip.receive(VoIP.PROGRESS, progress)

    def moving(self, kind: MoveKind, within_s: float) -> None:
        """The carrier accepted our redirect: the stream goes, and a new one or the end comes ``within_s``."""
        self._feed(Accepted(kind, within_s))

    def stayed(self, kind: MoveKind) -> None:
        """The carrier has carried out our redirect on the stream that is there: nothing has to follow."""
        self._feed(Withdrawn(kind))

    def wants_stream(self) -> bool:
        """Whether ``<Connect action>`` answers a stream of ``generation + 1``; ``False``: hang up."""
        self._feed(Requested())
        return self.state != "ended"

    def returned(self, resumed: Resumed) -> None:
        """The caller comes back (a failed transfer …): the next stream starts with ``resumed``."""
        self._feed(Returned(resumed))

    def end(self, reason: str, detail: str = "") -> None:
        """End the call; later calls are ignored. VoIP.ENDED is emitted, then everything is disposed of."""
        self._feed(End(reason, detail))

    async def wait_ended(self) -> None:
        """Wait until the call has ended and only what waits for late callbacks is left of it."""
        await self._belongings.wait_settled()

    async def wait_told(self) -> None:
        """Wait until the end of the call was told of: its agent has had its say, and has made its report."""
        if self._events is not None:
            await self._events.wait_over()

    async def wait_closed(self) -> None:
        """Wait until the call has ended and nothing of it is left."""
        await self._belongings.wait_closed()

    def on_ended(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` once when the call has ended, at once if it has."""
        if self.state == "ended":
            listener()
        else:
            self.voip.on(VoIP.ENDED, lambda _: listener())

    def add_tap(self, tap: Tap) -> None:
        """Let ``tap`` hear both sides of the call from now on, on every stream."""
        self._taps.append(tap)

    def remove_tap(self, tap: Tap) -> None:
        """Stop ``tap``; one that does not listen is ignored."""
        if tap in self._taps:
            self._taps.remove(tap)

    # What happens to the call.

    def _stream_over(self, happening: Happening, line: Line | None) -> None:
        if line is not None and line is not self._joined:
            return
        self._feed(happening)

    def _feed(self, happening: Happening) -> None:
        outcomes = self._life.feed(happening, self.clock.now())
        self._arm()
        self._outcomes.extend(outcomes)
        if self._delivering:
            return  # a listener of ours did something: it is told after what it listens to
        self._delivering = True
        try:
            with self.scope.entered():
                while self._outcomes:
                    self._deliver(self._outcomes.popleft())
        finally:
            self._delivering = False

    def _deliver(self, outcome: Outcome) -> None:
        if isinstance(outcome, StreamStarted):
            self._connect(outcome)
        elif isinstance(outcome, StreamStopped):
            self._leave()
            self.voip.receive(VoIP.STREAMING_STOPPED, outcome)
        else:
            self._ended(outcome)

    def _connect(self, started: StreamStarted) -> None:
        assert self._wire is not None
        now = self.clock.now()
        if self._audio_from is None:
            self._audio_from = now
            self._listening = self.clock.call_at(now + _LISTENING_S, self._check_listening)
        offset_ms = max(self._audio_ms, (now - self._audio_from) * 1000.0)
        line = self._link.join(self._wire, offset_ms=offset_ms, taps=self._taps)
        self._joined = line
        self._wire = None
        self.voip.receive(VoIP.STREAMING_STARTED, started)
        line.start()

    def _check_listening(self) -> None:
        briefed = self.metadata.parameter(CONSULT_OF)  # who is asked about a caller is spoken to, and presses keys
        if self.state == "live" and not briefed and not self.voip.listened_to(VoIP.MESSAGE):
            logger.warning(
                "call %s: nobody listens to the caller: on_voip has to make an agent, and to activate() it",
                self.metadata.call_id,
            )

    def _leave(self) -> None:
        line = self._link.line
        if line is not None:
            self._audio_ms = line.at_ms
            line.close()

    def _ended(self, end: CallEnd) -> None:
        self._leave()
        if self._listening is not None:
            self._listening.cancel()
        self._link.finish()
        detail = f" ({end.detail})" if end.detail else ""
        logger.info("call %s ended: %s%s", self.metadata.call_id, end.reason, detail)
        self.voip.receive(VoIP.ENDED, end)
        self._belongings.end()

    def _closed(self) -> None:
        self._link.let_go()
        if self._events is not None:
            self._events.close()
        if self._on_closed is not None:
            self._on_closed(self)

    def _voip_disposed(self) -> None:
        if self.state != "ended":
            self.end("agent_hangup", "the VoIP was disposed of")

    # Deadlines.

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._life.deadline is not None:
            self._timer = self.clock.call_at(self._life.deadline, self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._feed(Tick())

    # Commands.

    async def _command(self, command: Command) -> CommandResult:
        match command:
            case Hangup():
                await self._hang_up(command)
            case TransferTo(tel=tel, back_within_s=back_within_s):
                self._check_destination(tel)
                ring_s = self.settings.transfer_s if back_within_s is None else back_within_s + 10.0
                await self._redirect(command, "transfer", ring_s)
            case SendDigits():
                await self._redirect(command, "digits", self.settings.digits_s + command.lasts_s)
            case Consult(tel=tel, within_s=within_s):
                self._check_destination(tel)
                if self._life.consulting:
                    raise StateError(f"call {self.metadata.call_id}: the caller waits for somebody already")
                await self._redirect(command, "consult", within_s)
            case StartRecording() | StartTranscription():
                self._check_alive(command)
                await self._carrier.execute(self, command)
                self._belongings.expect(command)
            case SendSMS(to=to):
                self._check_destination(to)
                return await self._carrier.execute(self, command)
            case _:
                return await self._carrier.execute(self, command)
        return None

    async def _hang_up(self, command: Hangup) -> None:
        if self.state == "ended":
            return
        self._feed(HangingUp(command.reason))
        try:
            await self._carrier.execute(self, command)
        finally:
            self.end(command.reason)

    async def _redirect(self, command: Command, kind: MoveKind, within_s: float) -> None:
        self._check_alive(command)
        with self.going(kind, within_s):
            await self._carrier.execute(self, command)

    @contextmanager
    def going(self, kind: MoveKind, within_s: float) -> Generator[None]:
        """Ask the carrier for a redirect in this block: its stream may stop before that is answered."""
        self._feed(Ordered(kind, within_s))
        try:
            yield
        except BaseException as exc:
            self._feed(Withdrawn(kind, in_doubt=_in_doubt(exc)))
            raise

    def _check_destination(self, to: str) -> None:
        # Here, where the carrier's credentials are: whoever runs the agent cannot get round it.
        self.settings.destinations.check(to, f"call {self.metadata.call_id}")

    def _check_alive(self, command: Command) -> None:
        if self.state == "ended":
            raise StateError(f"call {self.metadata.call_id}: {type(command).__name__} after the call has ended")


def _in_doubt(exc: BaseException) -> bool:
    """Whether a command may have been carried out that failed like this."""
    return exc.in_doubt if isinstance(exc, CarrierError) else isinstance(exc, asyncio.CancelledError)
