"""The frozen values that cross from one participant to another.

They are :class:`msgspec.Struct` objects: immutable, ten times cheaper to build than a frozen
dataclass, and encodable as they are when a participant lives in another process. They hold nothing
that could refer back to them, so the garbage collector is spared them (``gc=False``): a call keeps
hundreds of messages, and would pay for each in every collection. Their ``repr``
never shows audio or what was said, because reprs end up in logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from dialog.errors import DialogError

__all__ = [
    "ALAW_8K",
    "MULAW_8K",
    "PCM_8K",
    "PCM_16K",
    "PCM_24K",
    "Alignment",
    "AnsweredBy",
    "AudioFormat",
    "CallEnd",
    "CallMetadata",
    "CallProgress",
    "ClientTool",
    "Clips",
    "Failure",
    "LineSnapshot",
    "Message",
    "Piece",
    "Playback",
    "Progress",
    "ReceivedSMS",
    "Run",
    "SayRequest",
    "SentSMS",
    "SpeechEdge",
    "StreamStarted",
    "StreamStopped",
    "TranscriptStatus",
    "TransferStatus",
    "Utterance",
    "Whisper",
    "Word",
]

DataT_co = TypeVar("DataT_co", bytes, str, covariant=True)


class Message(Struct, Generic[DataT_co], frozen=True, kw_only=True, gc=False):
    """A piece of a turn, handed from one participant to the next."""

    uuid: UUID
    """The turn. Caller audio carries the call's id instead: it belongs to no turn yet."""
    data: DataT_co
    """Text, or audio in the format agreed at ``open``."""
    part: int = 0
    """One stretch of speech in the turn: filler, preamble, answer …"""
    at_ms: float = 0.0
    """Caller audio: position on the call's audio clock. Agent audio: from the start of its part."""
    done: bool = False
    """The last piece of this part; its data may be empty."""
    voice: str = ""
    """Text for a voice: which one speaks the part, as its provider names it; empty: the TTS's own."""

    def __repr__(self) -> str:
        tail = ", done" if self.done else ""
        return f"<{type(self).__name__} {self.uuid}-{self.part} of {len(self.data)} at {self.at_ms:.0f} ms{tail}>"


class Word(Struct, frozen=True, kw_only=True, gc=False):
    """A word and when it is spoken: ``start_ms``/``end_ms`` on the clock of what carries it."""

    text: str
    start_ms: float
    end_ms: float
    confidence: float | None = None
    speaker: str | None = None
    """Who says it, where the recogniser tells several people on the line apart: numbers from 0, or names."""

    def __repr__(self) -> str:
        return f"<Word {len(self.text)} chars {self.start_ms:.0f}-{self.end_ms:.0f} ms>"


class Utterance(Message[str], frozen=True, kw_only=True, gc=False):
    """What the caller said, as an STT heard it. ``at_ms``/``end_ms`` are on the call's audio clock.

    Interims, the eager end and the final of one utterance share the uuid, and so will the turn
    that answers it. ``None`` means that the STT does not tell.
    """

    end_ms: float = 0.0
    words: tuple[Word, ...] = ()
    language: str | None = None
    speaker: str | None = None
    """Who said it; ``None`` also when several did, which the words then tell apart."""
    confidence: float | None = None

    @property
    def speakers(self) -> tuple[str, ...]:
        """All who said something in it, in the order in which they are heard first."""
        if self.speaker is not None:
            return (self.speaker,)
        told = dict.fromkeys([word.speaker for word in self.words if word.speaker is not None])
        return tuple(told)


_SAMPLE_BYTES = {"mulaw": 1, "alaw": 1, "s16le": 2}
_SILENCE = {"mulaw": b"\xff", "alaw": b"\xd5", "s16le": b"\x00"}


class AudioFormat(Struct, frozen=True):
    """Mono audio: its encoding and its sample rate in Hz. ``s16le`` is 16-bit little-endian PCM."""

    encoding: Literal["mulaw", "alaw", "s16le"]
    sample_rate: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return _SAMPLE_BYTES[self.encoding]

    def ms(self, size: int) -> float:
        """Milliseconds that ``size`` bytes last."""
        return size * 1000.0 / (self.sample_rate * _SAMPLE_BYTES[self.encoding])

    def size(self, ms: float) -> int:
        """Bytes of ``ms`` milliseconds, rounded down to whole samples."""
        return int(self.sample_rate * ms / 1000.0 + 1e-6) * _SAMPLE_BYTES[self.encoding]

    def silence(self, ms: float) -> bytes:
        """``ms`` milliseconds of digital silence."""
        return _SILENCE[self.encoding] * (self.size(ms) // len(_SILENCE[self.encoding]))


MULAW_8K = AudioFormat("mulaw", 8000)
"""What the phone network speaks: 160 bytes are 20 ms."""
ALAW_8K = AudioFormat("alaw", 8000)
PCM_8K = AudioFormat("s16le", 8000)
PCM_16K = AudioFormat("s16le", 16000)
PCM_24K = AudioFormat("s16le", 24000)


class SpeechEdge(Struct, frozen=True, kw_only=True, gc=False):
    """The caller started or stopped speaking, ``at_ms`` on the call's audio clock."""

    state: Literal["started", "stopped"]
    at_ms: float


class Alignment(Struct, frozen=True, kw_only=True, gc=False):
    """When the words of a part are spoken, in milliseconds from the start of the part's audio."""

    uuid: UUID
    part: int
    words: tuple[Word, ...]


class Run(Struct, frozen=True, gc=False):
    """``size`` characters of what is spoken, which stand for ``start:end`` of the reply's text."""

    size: int
    start: int
    end: int
    rewritten: bool
    """Spoken otherwise than written: heard as a whole or not at all."""


class Piece(Struct, frozen=True, gc=False):
    """Text for the voice, and the span ``start:end`` of the reply's text that it speaks.

    The pieces of a reply follow each other without a gap; what is not spoken (markup, an emoji)
    belongs to the span of the next piece.
    """

    spoken: str
    start: int
    end: int
    ends_sentence: bool
    runs: tuple[Run, ...] = ()
    """Its stretches in order; empty for one only, rewritten if the lengths differ."""

    def __repr__(self) -> str:
        return f"<Piece {self.start}:{self.end}>"


class Playback(Struct, frozen=True, kw_only=True, gc=False):
    """The truth about one part on its way to the caller's ear.

    ``playing`` and ``paused`` may repeat; exactly one of ``played`` (heard to its end), ``cut``
    (aborted) and ``lost`` (the stream went away) ends every part.
    """

    uuid: UUID
    part: int
    state: Literal["playing", "paused", "played", "cut", "lost"]
    heard_ms: float
    """Milliseconds of the part that the caller has heard."""
    queued_ms: float = 0.0
    """Milliseconds of the part that were handed over and are not heard yet."""
    confirmed: bool = False
    """The carrier confirmed it by a mark; else it is the clock's estimate."""

    @property
    def final(self) -> bool:
        """No further report for this part follows."""
        return self.state in ("played", "cut", "lost")


class LineSnapshot(Struct, frozen=True, kw_only=True, gc=False):
    """What a line knows that goes on while the agent's side of its call is replaced."""

    playbacks: tuple[Playback, ...] = ()
    """The final report of the parts that it was handed; what still waited to be heard was cut. Those whose
    final report the agent's side has had before may be left out."""
    at_ms: float = 0.0
    """Where the call's audio clock stands: what the caller said before is not news."""


class Clips(Struct, frozen=True, kw_only=True):
    """What a line says by itself while there is no agent, in the call's audio format."""

    apology: bytes
    """The agent is gone and will be back."""
    goodbye: bytes
    """It will not."""

    def __repr__(self) -> str:
        return f"<Clips of {len(self.apology)} and {len(self.goodbye)} bytes>"


class _Context(Struct):
    context: dict[str, Any] = {}


class ClientTool(Struct, frozen=True, kw_only=True):
    """A tool that runs at the caller's client, which has declared it: an app that shows a map, a page that scrolls."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, Meta(min_length=1, max_length=1024)]
    """Tells the model what it does and when to use it."""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    """JSON Schema of its arguments, an object; the client checks them by itself."""
    timeout_s: Annotated[float, Meta(gt=0, le=50)] = 10.0
    """How long the model waits for its result, in seconds."""

    def __repr__(self) -> str:
        return f"<ClientTool {self.name}>"


class CallMetadata(Struct, frozen=True, kw_only=True):
    """Who calls whom, over what. Known from the start and constant for the call."""

    call_id: UUID
    """Dialog's own id of the call, the same wherever it is handled."""
    carrier: str = ""
    """``twilio``, ``telnyx``, ``memory`` …"""
    carrier_call_id: str = ""
    """The carrier's id: the CallSid of Twilio. Of a call that is being placed it is known a little later."""
    account_id: str = ""
    """The carrier's account: the AccountSid of Twilio. Of a client's session, what its token names."""
    from_: str = ""
    to: str = ""
    direction: Literal["inbound", "outbound"] = "inbound"
    parameters: tuple[tuple[str, str], ...] = ()
    """Everything else that the webhook carried, in its order; of a call that was placed, what it was given."""
    session: str = ""
    """What was decided for the call when it was accepted, in JSON: a
    :class:`~dialog.sessions.spec.SessionSpec`. Empty: nothing was."""
    client_tools: tuple[ClientTool, ...] = ()
    """What the caller's client can do for the agent, beside the agent's own tools."""

    @property
    def context(self) -> Mapping[str, Any]:
        """What the host wants the call's agent to know: an object that is opaque to Dialog."""
        return msgspec.json.decode(self.session, type=_Context).context if self.session else {}

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a webhook parameter."""
        return next((value for key, value in self.parameters if key == name), default)

    def __repr__(self) -> str:
        return f"<CallMetadata {self.call_id} {self.carrier} {self.direction}>"


Progress = Literal["dialling", "ringing", "answered"]
"""How far a call that was placed has come; one that came in is answered."""


class CallProgress(Struct, frozen=True, kw_only=True, gc=False):
    """A call that was placed has come further."""

    state: Progress
    carrier_call_id: str = ""
    """The carrier's id, if it is known by now."""


class AnsweredBy(Struct, frozen=True, kw_only=True, gc=False):
    """Who took a call that was placed: the verdict of the carrier, or what is assumed without one."""

    who: Literal["human", "machine", "fax", "unknown"]
    """``unknown`` if nobody was asked to find out, or they could not."""
    greeting_over: bool = False
    """A machine has finished its greeting: what is said now it records."""
    assumed: bool = False
    """No verdict came in time."""
    late: bool = False
    """The true verdict, after something else was assumed: nothing is done about it unless you do it."""
    then: Literal["go_on", "hang_up", "leave_message"] = "go_on"
    """What the call was told to do in this case."""
    message: str = ""
    """What to say to a machine then."""

    def __repr__(self) -> str:
        return f"<AnsweredBy {self.who}, {self.then}>"


class StreamStarted(Struct, frozen=True, kw_only=True, gc=False):
    """Media flows. A call may have several streams, one after another: ``generation`` counts from 1."""

    generation: int = 1
    resumed: Literal["", "transfer_failed", "digits_sent", "reconnected"] = ""
    """Why the call came back, empty for its first stream."""


class StreamStopped(Struct, frozen=True, kw_only=True, gc=False):
    """Media has stopped: the call moves on by our order, was lost, or has ended."""

    reason: Literal["moving", "lost", "ended"]


class CallEnd(Struct, frozen=True, kw_only=True):
    """The end of a call; exactly one per call."""

    reason: str
    """``caller_hangup``, ``agent_hangup``, ``transferred``, ``never_connected``, ``lost``, ``error`` …"""
    detail: str = ""


class TranscriptStatus(Struct, frozen=True, kw_only=True, gc=False):
    """Progress of the carrier's own transcription of the call."""

    state: Literal["started", "content", "stopped", "error"]
    track: Literal["", "caller", "agent"] = ""
    text: str = ""
    final: bool = False
    confidence: float | None = None
    at: str = ""
    """The carrier's timestamp, ISO 8601."""

    def __repr__(self) -> str:
        return f"<TranscriptStatus {self.state} {self.track} {len(self.text)} chars>"


class TransferStatus(Struct, frozen=True, kw_only=True, gc=False):
    """The caller is being connected to somebody else: that was ordered, or what has become of it."""

    to: str
    """In E.164."""
    state: Literal["started", "refused", "returned", "answered"]
    """``refused`` by the carrier; ``returned``: nobody answered, and the caller is back."""
    detail: str = ""

    def __repr__(self) -> str:
        return f"<TransferStatus {self.state}>"


class ReceivedSMS(Struct, frozen=True, kw_only=True, gc=False):
    """A text message that somebody has sent to a number of yours."""

    message_sid: str
    """The carrier's id of the message."""
    from_: str
    to: str
    text: str
    media: tuple[str, ...] = ()
    """Where pictures and the like can be fetched, with the carrier's credentials."""
    parameters: tuple[tuple[str, str], ...] = ()
    """Everything that the webhook carried, in its order."""

    def __repr__(self) -> str:
        return f"<ReceivedSMS {self.message_sid} of {len(self.text)} chars>"


class SayRequest(Struct, frozen=True, kw_only=True, gc=False):
    """Words that somebody outside the call wants its agent to say, when the floor is free."""

    text: str
    allow_interrupt: bool = True
    """The caller may cut them short."""

    def __repr__(self) -> str:
        return f"<SayRequest of {len(self.text)} chars>"


class Whisper(Struct, frozen=True, gc=False):
    """A note of somebody outside the call: the agent's model knows it from then on, and the caller hears nothing."""

    text: str

    def __repr__(self) -> str:
        return f"<Whisper of {len(self.text)} chars>"


class SentSMS(Struct, frozen=True, kw_only=True, gc=False):
    """A text message that the carrier has taken; it is not delivered yet."""

    message_sid: str
    """The carrier's id of the message."""
    status: str
    """In the carrier's words: ``queued``, ``accepted`` (a messaging service chooses the sender), ``sent`` …"""
    to: str
    """In E.164."""

    def __repr__(self) -> str:
        return f"<SentSMS {self.message_sid} {self.status}>"


class Failure(Struct, frozen=True, kw_only=True):
    """What an ``error`` event carries."""

    source: str
    """Name of the participant that failed."""
    error: DialogError
    fatal: bool = False
    """The participant has given up and will do nothing more."""
    retryable: bool = False
