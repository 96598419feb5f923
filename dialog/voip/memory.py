"""A phone line without a carrier: for tests, simulations, and two agents that talk to each other.

::

    call, line = memory_call(on_voip)          # the agent's side is call.voip
    line.say(audio)                            # the caller speaks
    line.heard_audio                           # what the caller has heard until now
    line.hang_up()
    await call.wait_closed()

The line plays like a carrier does (Twilio's Media Streams: one queue, echoed marks, ``clear`` which
drops the queue and echoes every pending mark), in the time of a given clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol
from uuid import UUID, uuid4

from msgspec import Struct

from dialog.audio.convert import Converter
from dialog.calls.publish import CallEvents
from dialog.clock import SYSTEM_CLOCK, Clock
from dialog.errors import CarrierError, NotSupportedError
from dialog.message import MULAW_8K, AudioFormat, CallMetadata, SentSMS
from dialog.voip.call import Call, CallSettings
from dialog.voip.line import Line
from dialog.voip.link import Command, CommandResult, Hangup, SendDigits, SendSMS, TransferTo
from dialog.voip.voip import VoIP

__all__ = ["Heard", "MemoryCarrier", "MemoryLine", "connect", "memory_call"]

_FRAME_MS = 20
_MAX_SPEECH_MS = 600_000


class Heard(Struct, frozen=True):
    """A stretch that the caller heard: when it began to sound, and its audio."""

    at_s: float
    data: bytes

    def __repr__(self) -> str:
        return f"<Heard {len(self.data)} bytes at {self.at_s:.3f} s>"


class Far(Protocol):
    """The other end of a line: a :class:`~dialog.voip.line.Line`, or whatever leads to one."""

    def receive_audio(self, data: bytes, timestamp_ms: float | None) -> None:
        """Take the caller's audio."""

    def receive_mark(self, name: str) -> None:
        """Take the echo of a mark."""

    def receive_digit(self, digit: str) -> None:
        """Take a key that the caller pressed."""


class _Sound:
    __slots__ = ("at", "data")

    def __init__(self, at: float, data: bytes) -> None:
        self.at = at
        self.data = data


class MemoryLine:
    """The carrier's end of a stream, in memory: a :class:`~dialog.voip.line.Wire` with an ear.

    Args:
        clock: The time it plays in.
        audio_format: What it speaks.
        rtt_s: Round trip to this carrier in the clock's seconds; half of it each way.
        buffer_s: How long the carrier holds audio back before playing it.
        echo_marks: False: a carrier that loses its marks.
    """

    def __init__(
        self,
        *,
        clock: Clock = SYSTEM_CLOCK,
        audio_format: AudioFormat = MULAW_8K,
        rtt_s: float = 0.0,
        buffer_s: float = 0.0,
        echo_marks: bool = True,
    ) -> None:
        self.rtt_s: float = clock.real(rtt_s)
        self.clock = clock
        self.audio_format = audio_format
        self.buffer_s = buffer_s
        self.echo_marks = echo_marks
        self.line: Line | None = None
        self.call: Call | None = None
        self.clears: list[float] = []
        """When a clear was obeyed."""
        self.sent: list[Heard] = []
        """All audio that was sent, with the time it arrived, heard or not."""
        self.on_audio: Callable[[bytes], object] | None = None
        """Called with every 20 ms that have sounded at this end, silence included, once :meth:`pump` runs."""
        self._far: Far | None = None
        """Who gets what the caller says: the line, as a rule."""
        self._way_s = rtt_s / 2
        self._sounds: list[_Sound] = []
        self._dry_at = 0.0
        self._marks: deque[tuple[float, str]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._speech = bytearray()
        self._peer: MemoryLine | None = None
        self._convert = Converter(audio_format, audio_format)
        """To the format of the peer."""
        self._pump: asyncio.Task[None] | None = None
        self._opened_at = clock.now()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        return self._closed

    @property
    def speaking(self) -> bool:
        """Whether the caller's speech is not all said yet."""
        return bool(self._speech)

    @property
    def heard(self) -> tuple[Heard, ...]:
        """What has sounded at the caller's ear until now, in order, as stretches without gaps."""
        return self.heard_until(self.clock.now())

    @property
    def heard_audio(self) -> bytes:
        """All audio that has sounded until now, without the silences between."""
        return b"".join(piece.data for piece in self.heard)

    def heard_until(self, when: float) -> tuple[Heard, ...]:
        """What has sounded until ``when``."""
        found: list[Heard] = []
        end = -1.0
        for sound in self._sounds:
            data = sound.data[: self._bytes(when - sound.at)]
            if not data:
                continue
            if found and abs(sound.at - end) < 1e-6:
                found[-1] = Heard(found[-1].at_s, found[-1].data + data)
            else:
                found.append(Heard(sound.at, data))
            end = sound.at + self._seconds(len(data))
        return tuple(found)

    # As the call's wire.

    def send_audio(self, data: bytes, mark: str = "") -> None:
        """Play ``data`` after what is queued, and with ``mark`` echo it then."""
        if self._closed:
            return
        now = self._arrival()
        self.sent.append(Heard(now, data))
        at = self._dry_at if self._dry_at > now else now + self.buffer_s
        self._sounds.append(_Sound(at, data))
        self._dry_at = at + self._seconds(len(data))
        if mark:
            self.send_mark(mark)

    def send_mark(self, name: str) -> None:
        """Echo ``name`` once all before it was played."""
        if self._closed or not self.echo_marks:
            return
        self._marks.append((max(self._arrival(), self._dry_at) + self._way_s, name))
        self._arm()

    def send_clear(self) -> int:
        """Drop what was not played and echo every pending mark. Nothing waits here, so none is purged."""
        if self._closed:
            return 0
        now = self._arrival()
        self.clears.append(now)
        kept: list[_Sound] = []
        for sound in self._sounds:
            sound.data = sound.data[: self._bytes(now - sound.at)]
            if sound.data:
                kept.append(sound)
        self._sounds = kept
        self._dry_at = min(self._dry_at, now)
        back = now + self._way_s
        self._marks = deque((min(at, back), name) for at, name in self._marks)
        self._arm()
        return 0

    def close(self) -> None:
        """The stream is over; what is still queued is not heard."""
        if self._closed:
            return
        now = self.clock.now()
        for sound in self._sounds:
            sound.data = sound.data[: self._bytes(now - sound.at)]
        self._closed = True
        self._marks.clear()
        self._speech.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pump is not None:
            self._pump.cancel()
        if self._peer is not None:
            self._peer.hang_up()

    # As the caller.

    def join(self, call: Call, *, generation: int | None = None) -> Line:
        """Start this stream in ``call``, by default as the next after the call's last."""
        self.call = call
        self._opened_at = self.clock.now()
        self._far = self.line = line = call.join(self, call.generation + 1 if generation is None else generation)
        return line

    def attend(self, far: Far) -> None:
        """Be the ear and the mouth of somebody whose call is elsewhere, and behind ``far``."""
        self._far = far

    def send(self, data: bytes) -> None:
        """Hand the caller's audio over at once, without the pace of speech."""
        if self._far is not None and not self._closed:
            self._far.receive_audio(data, None)

    def say(self, audio: bytes) -> None:
        """Speak ``audio`` in real time, 20 ms by 20 ms, and be silent afterwards; starts :meth:`pump`.

        Raises:
            ValueError: More than ten minutes of speech wait.
        """
        if self.audio_format.ms(len(self._speech) + len(audio)) > _MAX_SPEECH_MS:
            raise ValueError("more than ten minutes of speech wait to be said")
        self._speech += audio
        self.pump()

    def press(self, digits: str) -> None:
        """Press keys."""
        for digit in digits:
            if self._far is not None and not self._closed:
                self._far.receive_digit(digit)

    def hang_up(self) -> None:
        """The caller hangs up."""
        self._over(told=True)

    def drop(self) -> None:
        """The stream breaks without a word."""
        self._over(told=False)

    def pump(self) -> None:
        """Send 20 ms of the caller's audio every 20 ms from now on, silence when there is no speech."""
        if self._pump is None and not self._closed:
            self._pump = asyncio.get_running_loop().create_task(self._run(), name="memory line")

    async def wait_closed(self) -> None:
        """Wait until the pump has ended."""
        if self._pump is not None:
            await asyncio.wait([self._pump])

    def _over(self, *, told: bool) -> None:
        line, call = self.line, self.call
        if line is None or call is None or self._closed:
            return
        if told:
            call.stream_stopped(line)
        else:
            call.stream_closed(line)
        self.close()

    async def _run(self) -> None:
        size = self.audio_format.size(_FRAME_MS)
        silence = self.audio_format.silence(_FRAME_MS)
        due = self.clock.now()
        while not self._closed:
            if self._peer is None:
                frame = bytes(self._speech[:size])
                del self._speech[:size]
                self.send(frame + silence[len(frame) :])
            if self._peer is not None or self.on_audio is not None:
                sounding = self.sounding(due - _FRAME_MS / 1000.0, size)
                if self._peer is not None:
                    self._peer.send(self._convert.process(sounding))
                if self.on_audio is not None:
                    self.on_audio(sounding)
            due += _FRAME_MS / 1000.0
            await self.clock.sleep(max(0.0, due - self.clock.now()))

    def sounding(self, at: float, size: int) -> bytes:
        """The ``size`` bytes, at most 20 ms, that have sounded at the caller's ear from ``at`` on, silence between."""
        frame = bytearray(self.audio_format.silence(_FRAME_MS))
        for sound in reversed(self._sounds):
            start = round((at - sound.at) * self._bytes(1.0))  # where the frame begins in this sound
            if start >= len(sound.data):
                break
            begin, end = max(0, start), max(0, start + size)
            data = sound.data[begin:end]
            frame[begin - start : begin - start + len(data)] = data
        return bytes(frame)

    def _arrival(self) -> float:
        return self.clock.now() + self._way_s

    def _seconds(self, size: int) -> float:
        return self.audio_format.ms(size) / 1000.0

    def _bytes(self, seconds: float) -> int:
        return self.audio_format.size(max(0.0, seconds) * 1000.0)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._marks and not self._closed:
            self._timer = self.clock.call_at(self._marks[0][0], self._echo)

    def _echo(self) -> None:
        self._timer = None
        now = self.clock.now()
        while self._marks and self._marks[0][0] <= now + 1e-4:
            _, name = self._marks.popleft()
            if self._far is not None:
                self._far.receive_mark(name)
        self._arm()


class MemoryCarrier:
    """Carries out what a VoIP asks for, in memory, and remembers it in :attr:`commands`.

    ``transfer``: what becomes of a transfer: ``answered`` ends the call, ``failed`` brings the caller
    back on a new :class:`MemoryLine`, ``refused`` raises.
    """

    def __init__(self, *, transfer: Literal["answered", "failed", "refused"] = "answered") -> None:
        self.transfer = transfer
        self.commands: list[Command] = []
        self.lines: list[MemoryLine] = []
        """Every stream of the call, oldest first."""
        self.recordings: dict[str, bytes] = {}
        """Audio that :meth:`download` finds, by URL."""

    async def execute(self, call: Call, command: Command) -> CommandResult:
        """See :class:`~dialog.voip.call.CarrierCommands`."""
        self.commands.append(command)
        match command:
            case Hangup():
                pass
            case SendSMS():
                return SentSMS(message_sid=f"memory-{len(self.commands)}", status="queued", to=command.to)
            case TransferTo(tel=tel, back_within_s=back_within_s):
                if self.transfer == "refused":
                    raise CarrierError("memory", str(call.metadata.call_id), f"no route to {len(tel)} digits")
                call.moving("transfer", (back_within_s or 30.0) + 10.0)
                self._stop(call)
                if self.transfer == "answered":
                    call.end("transferred")
                else:
                    call.returned("transfer_failed")
                    self._again(call)
            case SendDigits():
                call.moving("digits", call.settings.digits_s)
                self._stop(call)
                self._again(call)
            case _:
                if not self.recordings:
                    raise NotSupportedError(f"a memory line has no {type(command).__name__}")
        return None

    async def download(self, url: str) -> AsyncIterator[bytes]:
        """See :class:`~dialog.voip.call.CarrierCommands`."""
        if url not in self.recordings:
            raise CarrierError("memory", url, "no such recording")
        yield self.recordings[url]

    def _stop(self, call: Call) -> None:
        line = self.lines[-1]
        call.stream_stopped(line.line)
        line.close()

    def _again(self, call: Call) -> None:
        old = self.lines[-1]
        line = MemoryLine(
            clock=old.clock,
            audio_format=old.audio_format,
            rtt_s=2 * old._way_s,
            buffer_s=old.buffer_s,
            echo_marks=old.echo_marks,
        )
        self.lines.append(line)
        line.join(call)


def memory_call(
    on_voip: Callable[[VoIP], object],
    *,
    clock: Clock = SYSTEM_CLOCK,
    line: MemoryLine | None = None,
    carrier: MemoryCarrier | None = None,
    settings: CallSettings | None = None,
    voip_class: type[VoIP] = VoIP,
    call_id: UUID | None = None,
    from_: str = "caller",
    to: str = "agent",
    join: bool = True,
    events: CallEvents | None = None,
    on_closed: Callable[[Call], object] | None = None,
) -> tuple[Call, MemoryLine]:
    """Make a call in memory, offer it to ``on_voip``, and start its stream (unless ``join=False``).

    Raises:
        UserCodeError: ``on_voip`` raised.
    """
    line = MemoryLine(clock=clock) if line is None else line
    carrier = MemoryCarrier() if carrier is None else carrier
    carrier.lines.append(line)
    metadata = CallMetadata(call_id=call_id or uuid4(), carrier="memory", from_=from_, to=to)
    call = Call(
        metadata,
        carrier,
        settings=CallSettings() if settings is None else settings,
        clock=clock,
        voip_class=voip_class,
        audio_format=line.audio_format,
        events=events,
        on_closed=on_closed,
    )
    call.offer(on_voip)
    if join:
        line.join(call)
    return call, line


def connect(a: MemoryLine, b: MemoryLine) -> None:
    """Let two agents talk: what sounds at one end is said at the other, in real time, converted if need be.

    When one call ends, the other is hung up.
    """
    for here, there in ((a, b), (b, a)):
        here._peer = there
        here._convert = Converter(here.audio_format, there.audio_format)
        here.pump()
