"""What crosses between the two halves of a call that live in different processes, and its encoding.

A **node** is one end of the bridge: a *host* owns calls at the carrier, a *worker* runs their agents. Nodes
send each other packets; a packet is a row of frames, each preceded by its length in four bytes. About
one call there is one ordered, numbered stream of frames in each direction, audio and control together,
so that nothing can overtake anything. ::

    frame = [call_id, epoch, seq, body]       body = [tag, field, …]      (MessagePack)

``epoch`` counts the workers that a call has had: what a worker of a lower epoch still sends is dropped.
``seq`` counts the frames of one direction from 1; 0 is a frame outside the stream: an acknowledgement, or
one about the nodes themselves, whose ``call_id`` is nil.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Struct

from dialog.audio.sound import Sound
from dialog.calls.checkpoint import Checkpoint
from dialog.calls.journal import JournalEvent
from dialog.errors import LimitError, RemoteProtocolError
from dialog.message import (
    AnsweredBy,
    AudioFormat,
    CallEnd,
    CallMetadata,
    CallProgress,
    Clips,
    LineSnapshot,
    Playback,
    Progress,
    SayRequest,
    StreamStarted,
    StreamStopped,
    TranscriptStatus,
    Whisper,
)
from dialog.voip.bed import Layer
from dialog.voip.link import Command, CommandResult
from dialog.workers.faults import Fault
from dialog.workers.peerframes import PeerBody, RelayBody

__all__ = [
    "KEPT",
    "NOBODY",
    "VERSION",
    "Abort",
    "Acknowledged",
    "AgentAudio",
    "Answered",
    "Body",
    "CallBody",
    "CallerAudio",
    "DigitCame",
    "Downloading",
    "Ended",
    "Execute",
    "Frame",
    "FrameTooLong",
    "Goodbye",
    "Happened",
    "Heartbeat",
    "Hello",
    "More",
    "Offered",
    "Outcome",
    "Pause",
    "Piece",
    "Played",
    "Progressed",
    "Recorded",
    "Refused",
    "Released",
    "Repeat",
    "Resume",
    "Revoked",
    "SayWanted",
    "SetBed",
    "SetClips",
    "Sought",
    "Started",
    "Stopped",
    "Taken",
    "Transcribed",
    "Troubled",
    "Unknown",
    "Whispered",
    "Yielded",
    "check_length",
    "decode",
    "encode",
]

VERSION: Final = 3
"""Of this protocol: nodes of another version refuse each other at once."""
NOBODY: Final = UUID(int=0)
"""The ``call_id`` of frames about the nodes."""
MAX_FRAME: Final = 10_000_000
"""Bytes; the longest is a background sound of three minutes at 24 kHz, or the checkpoint of a long call."""
_LENGTH: Final = 4
_AROUND: Final = 200
"""What a frame adds to the data in it, at most."""


class _Wire(Struct, frozen=True, array_like=True, gc=False):
    pass


# Host to worker: what happens to the call.


class CallerAudio(_Wire, tag=1, frozen=True, array_like=True, gc=False):
    """The caller's audio at ``at_ms`` of the call's audio clock."""

    at_ms: float
    data: bytes


class Played(_Wire, tag=2, frozen=True, array_like=True, gc=False):
    """What of a part was heard."""

    playback: Playback


class Started(_Wire, tag=3, frozen=True, array_like=True, gc=False):
    """Media flows."""

    started: StreamStarted


class Stopped(_Wire, tag=4, frozen=True, array_like=True, gc=False):
    """Media has stopped."""

    stopped: StreamStopped


class DigitCame(_Wire, tag=5, frozen=True, array_like=True, gc=False):
    """The caller pressed a key."""

    digit: str


class Transcribed(_Wire, tag=6, frozen=True, array_like=True, gc=False):
    """The carrier's own transcription goes on."""

    status: TranscriptStatus


class Recorded(_Wire, tag=7, frozen=True, array_like=True, gc=False):
    """A recording is ready."""

    url: str


class Ended(_Wire, tag=8, frozen=True, array_like=True, gc=False):
    """The call has ended."""

    end: CallEnd


class Troubled(_Wire, tag=9, frozen=True, array_like=True, gc=False):
    """An error of the host's side of the call."""

    fault: Fault


class Outcome(_Wire, tag=10, frozen=True, array_like=True, gc=False):
    """What became of a command: a fault, or what it has to tell, if anything."""

    number: int
    fault: Fault | None
    result: CommandResult = None


class Piece(_Wire, tag=11, frozen=True, array_like=True, gc=False):
    """A piece of a recording that was asked for; an empty one ends it."""

    number: int
    data: bytes


class Progressed(_Wire, tag=12, frozen=True, array_like=True, gc=False):
    """A call that was placed has come further."""

    progress: CallProgress


class Answered(_Wire, tag=13, frozen=True, array_like=True, gc=False):
    """Who has taken it."""

    answered_by: AnsweredBy


class SayWanted(_Wire, tag=14, frozen=True, array_like=True, gc=False):
    """Somebody outside the call wants its agent to say something."""

    request: SayRequest


class Whispered(_Wire, tag=15, frozen=True, array_like=True, gc=False):
    """Somebody outside the call tells its agent something."""

    whisper: Whisper


# Worker to host: what the agent wants.


class AgentAudio(_Wire, tag=20, frozen=True, array_like=True, gc=False):
    """Audio of a part, ``at_ms`` from the part's start."""

    uuid: UUID
    part: int
    at_ms: float
    done: bool
    data: bytes


class Abort(_Wire, tag=21, frozen=True, array_like=True, gc=False):
    """Stop a turn, or a part."""

    uuid: UUID
    part: int | None
    after_ms: float | None


class Pause(_Wire, tag=22, frozen=True, array_like=True, gc=False):
    """Silence the line."""


class Resume(_Wire, tag=23, frozen=True, array_like=True, gc=False):
    """Go on after a pause."""

    from_ms: float | None


class SetBed(_Wire, tag=24, frozen=True, array_like=True, gc=False):
    """Let a sound go round beside the voice."""

    layer: Layer
    sound: Sound | None
    gain_db: float


class Execute(_Wire, tag=25, frozen=True, array_like=True, gc=False):
    """Carry out a command; the answer is an :class:`Outcome` with its number."""

    number: int
    command: Command


class Downloading(_Wire, tag=26, frozen=True, array_like=True, gc=False):
    """Fetch a recording; :class:`Piece` frames follow, or an :class:`Outcome` with a fault."""

    number: int
    url: str


class Happened(_Wire, tag=27, frozen=True, array_like=True, gc=False):
    """An entry of the call's journal."""

    event: JournalEvent


class SetClips(_Wire, tag=28, frozen=True, array_like=True, gc=False):
    """What the line shall say while nobody is there."""

    clips: Clips


class More(_Wire, tag=30, frozen=True, array_like=True, gc=False):
    """A piece of a recording was taken: another one may come."""

    number: int


class Released(_Wire, tag=29, frozen=True, array_like=True, gc=False):
    """The agent's side is done with the call; before its end this hangs it up."""


CallBody: TypeAlias = (
    CallerAudio
    | Played
    | Started
    | Stopped
    | DigitCame
    | Transcribed
    | Recorded
    | Ended
    | Troubled
    | Outcome
    | Piece
    | Progressed
    | Answered
    | SayWanted
    | Whispered
    | AgentAudio
    | Abort
    | Pause
    | Resume
    | SetBed
    | Execute
    | Downloading
    | Happened
    | SetClips
    | More
    | Released
    | RelayBody
)
"""What is numbered."""


# Beside the streams.


class Acknowledged(_Wire, tag=40, frozen=True, array_like=True, gc=False):
    """Everything up to ``seq`` has come."""

    seq: int


class Repeat(_Wire, tag=41, frozen=True, array_like=True, gc=False):
    """Something was lost on the way: send everything from ``seq`` on again."""

    seq: int


class Offered(_Wire, tag=42, frozen=True, array_like=True, gc=False):
    """Take this call. ``checkpoint`` and ``snapshot``: what is known of it, if somebody had it before."""

    metadata: CallMetadata
    audio_format: AudioFormat
    state: Literal["offered", "live", "moving", "lost"]
    generation: int
    checkpoint: Checkpoint | None = None
    snapshot: LineSnapshot = LineSnapshot()
    progress: Progress = "answered"
    answered_by: AnsweredBy | None = None


class Taken(_Wire, tag=43, frozen=True, array_like=True, gc=False):
    """The agent is there."""


class Refused(_Wire, tag=44, frozen=True, array_like=True, gc=False):
    """No agent for this call: ``full``, ``draining``, ``error`` when ``on_voip`` raised; a host notes ``gone``."""

    reason: Literal["full", "draining", "error", "gone"]
    detail: str = ""


class Revoked(_Wire, tag=45, frozen=True, array_like=True, gc=False):
    """Somebody else has the call now: let go of it without a word."""


class Sought(_Wire, tag=50, frozen=True, array_like=True, gc=False):
    """The gateway of this call is gone: which worker has it? To all of them."""


class Yielded(_Wire, tag=51, frozen=True, array_like=True, gc=False):
    """What is known of a call whose gateway is gone, for the one that asks: it may offer the call from then on."""

    audio_ms: float
    """Where the caller's next audio is on the call's audio clock."""
    checkpoint: Checkpoint | None
    playbacks: tuple[Playback, ...]
    """All of them final: what was on the line is lost."""
    clips: Clips
    answered_by: AnsweredBy | None = None
    metadata: CallMetadata | None = None
    """The call as the lost gateway had it, with what was decided for it; ``None``: from an older worker."""


class Hello(_Wire, tag=46, frozen=True, array_like=True, gc=False):
    """What a worker is, once for every host that it meets."""

    version: int
    capacity: int
    labels: tuple[str, ...] = ()
    code: str = ""
    """Names the version of the user's code that it runs."""
    sources: tuple[str, ...] = ()
    """The files that it comes from, where the host can see them."""


class Heartbeat(_Wire, tag=47, frozen=True, array_like=True, gc=False):
    """A node lives; of a worker, how it does."""

    calls: int = 0
    draining: bool = False
    lag_ms: float = 0.0
    """How late its event loop runs at worst, lately."""
    memory_mb: float = 0.0


class Unknown(_Wire, tag=49, frozen=True, array_like=True, gc=False):
    """The receiver is not known here (any more): it may say what it is."""


class Goodbye(_Wire, tag=48, frozen=True, array_like=True, gc=False):
    """A node leaves, or was seen to be dead."""

    node: str = ""
    """Which, if not the sender."""


Body: TypeAlias = (
    CallBody
    | Acknowledged
    | Repeat
    | Offered
    | Taken
    | Refused
    | Revoked
    | Hello
    | Heartbeat
    | Unknown
    | Goodbye
    | Sought
    | Yielded
    | PeerBody
)


class Frame(Struct, frozen=True, array_like=True, gc=False):
    """One body on its way."""

    call_id: UUID
    epoch: int
    seq: int
    body: Body


KEPT: Final = (DigitCame, Transcribed, Recorded, SayWanted, Whispered)
"""What another worker is told when the one who should have been is lost. It is acknowledged as soon as it was acted
upon: what has been done must not be done again."""

_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: Final = msgspec.msgpack.Decoder(Frame)


class FrameTooLong(LimitError):
    """A frame that no node would take: it would break the connection, and with it what all other calls say over it."""

    def __init__(self, body: Body, size: int) -> None:
        what = type(body).__name__
        super().__init__(f"{what} of {size} bytes cannot cross to another process: {MAX_FRAME} are the most")


def check_length(body: CallBody) -> None:
    """Look at a body before it is numbered and kept for repetition.

    Raises:
        FrameTooLong: It does not fit into a frame.
    """
    data: Any = getattr(body, "data", None)
    size = len(data) if data is not None else len(_encoder.encode(body))
    if size > MAX_FRAME - _AROUND:
        raise FrameTooLong(body, size)


def encode(frame: Frame, into: bytearray) -> None:
    """Append a frame to a packet.

    Raises:
        FrameTooLong: It is not appended.
    """
    start = len(into)
    into += b"\0\0\0\0"
    _encoder.encode_into(frame, into, start + _LENGTH)
    size = len(into) - start - _LENGTH
    if size > MAX_FRAME:
        del into[start:]
        raise FrameTooLong(frame.body, size)
    into[start : start + _LENGTH] = size.to_bytes(_LENGTH)


def decode(packet: bytes | memoryview) -> Iterator[Frame]:
    """The frames of a packet.

    Raises:
        RemoteProtocolError: It is no packet of this protocol.
    """
    view, at, end = memoryview(packet), 0, len(packet)
    while at < end:
        size = int.from_bytes(view[at : at + _LENGTH])
        at += _LENGTH
        if at + size > end or size > MAX_FRAME:
            raise RemoteProtocolError(f"a packet ends in the middle of a frame of {size} bytes")
        yield decode_frame(view[at : at + size])
        at += size


def decode_frame(data: bytes | memoryview) -> Frame:
    """One frame, without its length.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise RemoteProtocolError(f"a node sent something that is no frame: {exc}") from exc
