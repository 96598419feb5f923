"""The client protocol: what a browser, an app or a script says to an agent's server, and hears from it.

Control is JSON in text frames, each an object with its ``type``; audio is in binary frames, in the format that was
agreed at the start and nothing else. ``docs/client-protocol.json`` is the schema, made from these types.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from uuid import UUID

import msgspec
from msgspec import Meta, Struct, field

from dialog.errors import RemoteProtocolError
from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat, ClientTool
from dialog.usage import Usage

__all__ = [
    "CLOSE_CODES",
    "FORMATS",
    "LONGEST_TOKEN",
    "SUBPROTOCOL",
    "VERSION",
    "AgentState",
    "AgentStateChanged",
    "AgentTranscript",
    "CallerTranscript",
    "Clear",
    "ClientMessage",
    "Closing",
    "DigitPressed",
    "ErrorTold",
    "Interrupted",
    "Mark",
    "MarkReached",
    "Ping",
    "Pong",
    "ServerMessage",
    "SessionEnd",
    "SessionEnded",
    "SessionResume",
    "SessionStart",
    "SessionStarted",
    "ToolCall",
    "ToolCancelled",
    "ToolProgress",
    "ToolResult",
    "TurnMeasured",
    "UsageTold",
    "decode_client_message",
    "decode_server_message",
    "encode",
]

VERSION: Final = 1
"""Of this protocol. Fields and server messages are added without a new one: ignore what you do not know."""
SUBPROTOCOL: Final = "dialog-v1"
"""``Sec-WebSocket-Protocol``; a client may offer it, and must if a proxy in between asks for one."""
FORMATS: Final = (PCM_24K, PCM_16K, PCM_8K, MULAW_8K, ALAW_8K)
"""What audio may be: 16-bit little-endian PCM, or G.711; always mono."""

CLOSE_CODES: Final[dict[int, str]] = {
    1000: "The session has ended; `session.ended` came before.",
    1001: "The server goes away, or the page does.",
    1002: "The frames break WebSocket's own protocol.",
    1008: "A message breaks this protocol; an `error` said how.",
    1009: "A message is too long.",
    1011: "The server failed, or the client does not take what it is sent.",
    4400: "What was asked for cannot be had: another version, an unknown agent, no common audio format.",
    4401: "The token is missing, forged, used or has expired: get a new one.",
    4403: "The session was refused.",
    4404: "There is no such session (any more): start a new one.",
    4408: "No session was started in time.",
    4409: "The session goes on over a newer connection.",
    4429: "Too much was sent in too short a time.",
    4503: "No agent is free, or the server takes no sessions at the moment: try again later.",
}
"""What a socket is closed with."""

_MAX_TEXT: Final = 4096
LONGEST_TOKEN: Final = 16_384
"""Characters of a session's token."""
_Short = Annotated[str, Meta(max_length=256)]


class SessionStart(Struct, frozen=True, kw_only=True, tag="session.start"):
    """The first message of a new session. Audio may follow once `session.started` has come."""

    version: int
    """Of the protocol: 1."""
    token: Annotated[str, Meta(max_length=LONGEST_TOKEN)] = ""
    """Who may talk, as the host's server has signed it. It is used once."""
    agent: _Short = ""
    """Which agent, where there are several; what the token names wins."""
    audio: Annotated[tuple[AudioFormat, ...], Meta(min_length=1, max_length=8)] = (PCM_24K,)
    """Formats that the client takes and sends, best first; one is chosen for both directions."""
    parameters: Annotated[dict[_Short, Annotated[str, Meta(max_length=_MAX_TEXT)]], Meta(max_length=32)] = field(
        default_factory=dict[str, str]
    )
    """For the agent; nobody has checked them."""
    tools: Annotated[tuple[ClientTool, ...], Meta(max_length=32)] = ()
    """What the client can do for the agent. A tool whose name the agent has already is not used, and an `error` with
    the code `tool_name_taken` says so."""

    def __repr__(self) -> str:
        return f"<SessionStart of version {self.version}>"


class SessionResume(Struct, frozen=True, kw_only=True, tag="session.resume"):
    """The first message on a new connection for a session whose connection broke."""

    version: int
    session: UUID
    secret: Annotated[str, Meta(max_length=_MAX_TEXT)]
    """From the last `session.started`."""

    def __repr__(self) -> str:
        return f"<SessionResume {self.session}>"


class SessionEnd(Struct, frozen=True, tag="session.end"):
    """Hang up."""


class MarkReached(Struct, frozen=True, tag="mark"):
    """All audio that came before the server's `mark` of this name has sounded, or a `clear` has dropped it."""

    name: _Short


class DigitPressed(Struct, frozen=True, tag="dtmf"):
    """A key was pressed, as on a telephone."""

    digit: Annotated[str, Meta(pattern="^[0-9A-D#*]$")]


class ToolResult(Struct, frozen=True, kw_only=True, tag="tool.result"):
    """The answer to a `tool.call`. One that comes too late is ignored."""

    id: _Short
    result: Any = None
    """Any JSON; the model reads it."""
    error: Annotated[str, Meta(max_length=1024)] = ""
    """Why there is none; the model reads it."""

    def __repr__(self) -> str:
        return f"<ToolResult {self.id}>"


class Ping(Struct, frozen=True, tag="ping"):
    """Asks for a `pong` with the same id, to measure the way there and back."""

    id: int


ClientMessage: TypeAlias = SessionStart | SessionResume | SessionEnd | MarkReached | DigitPressed | ToolResult | Ping
"""What a client says."""


class SessionStarted(Struct, frozen=True, kw_only=True, tag="session.started"):
    """The session has begun, or goes on. From here on audio flows."""

    version: int
    session: UUID
    """Dialog's id of the call."""
    secret: str
    """For `session.resume`; it is worth as much as the token."""
    audio: AudioFormat
    """Of the binary frames in both directions."""
    resumed: bool = False
    agent: str = ""
    resume_within_s: float = 0.0
    """How long a session whose connection broke waits for its client."""

    def __repr__(self) -> str:
        return f"<SessionStarted {self.session}>"


AgentState: TypeAlias = Literal["listening", "hearing", "thinking", "working", "speaking"]


class AgentStateChanged(Struct, frozen=True, tag="agent.state"):
    """What the agent does now.

    It is `listening`, `hearing` the caller's voice, `thinking` about an answer, `working` with a tool, or `speaking`.
    """

    state: AgentState


class CallerTranscript(Struct, frozen=True, kw_only=True, tag="transcript.caller"):
    """What the caller said: all of the utterance so far."""

    turn: UUID
    text: str
    final: bool

    def __repr__(self) -> str:
        return f"<CallerTranscript of {len(self.text)} chars>"


class AgentTranscript(Struct, frozen=True, kw_only=True, tag="transcript.agent"):
    """What the agent says in one part of its answer: all of it so far."""

    turn: UUID
    part: int
    text: str
    heard: str = ""
    """How much of it has been heard, once that is known."""
    state: Literal["speaking", "played", "cut", "lost"]
    """`cut`: the caller interrupted it; `lost`: the connection broke."""

    def __repr__(self) -> str:
        return f"<AgentTranscript of {len(self.text)} chars, {self.state}>"


class Interrupted(Struct, frozen=True, kw_only=True, tag="interruption"):
    """The caller's words cut the agent's answer off."""

    turn: UUID
    reason: str


class ToolCall(Struct, frozen=True, kw_only=True, tag="tool.call"):
    """Run a tool that the client has declared, and answer with a `tool.result` of the same id."""

    id: str
    name: str
    arguments: dict[str, Any]
    """As the model wrote them: check them."""
    timeout_s: float
    """After so many seconds the model is told that there is no result."""

    def __repr__(self) -> str:
        return f"<ToolCall {self.id} {self.name}>"


class ToolCancelled(Struct, frozen=True, kw_only=True, tag="tool.cancelled"):
    """Nobody waits for the result of this `tool.call` any more."""

    id: str


class ToolProgress(Struct, frozen=True, kw_only=True, tag="tool.state"):
    """A tool of the agent runs, or has ended. What it was given and what it answered stays at the server."""

    id: str
    name: str
    state: str
    """`started`, then `done`, `failed`, `timed_out` or `cancelled`."""


class TurnMeasured(Struct, frozen=True, kw_only=True, tag="turn.measured"):
    """A turn is over: how long its stages took, in milliseconds; what was not seen is `null`."""

    turn: UUID
    latency_ms: float | None
    """From the end of what the caller said to the first sound of the answer on its way."""
    stages: dict[str, float]
    """Parts of it: `hearing` (the end of speech is noticed and recognised), `model`, `voice` (its first audio), `line`
    and `dialog` (what lies between the others)."""


class UsageTold(Struct, frozen=True, kw_only=True, tag="usage"):
    """What one request to a model, one reply, or a stretch of speech used."""

    turn: UUID | None
    usage: Usage


class Mark(Struct, frozen=True, omit_defaults=True, tag="mark"):
    """Answer it with a `mark` of the same name once all audio before it has sounded."""

    name: str
    rtp: int | None = None
    """Over WebRTC: the RTP timestamp of the first audio behind it."""


class Clear(Struct, frozen=True, omit_defaults=True, tag="clear"):
    """Fall silent: drop all audio that has not sounded, and answer every open `mark` at once."""

    rtp: int | None = None
    """Over WebRTC: the RTP timestamp of the first audio that is to sound again."""


class Pong(Struct, frozen=True, tag="pong"):
    """The answer to a `ping`."""

    id: int


class ErrorTold(Struct, frozen=True, kw_only=True, tag="error"):
    """Something is wrong. If it is `fatal` the socket is closed next."""

    code: str
    message: str
    fatal: bool = False


class SessionEnded(Struct, frozen=True, kw_only=True, tag="session.ended"):
    """The session is over."""

    reason: str
    """Why: `agent_hangup`, `caller_hangup`, `error`, `shutdown` …"""


class Closing(Struct, frozen=True, tag="close"):
    """Over WebRTC, whose channels have no close codes: the connection is closed next."""

    code: int
    """Why, as a WebSocket would be closed with."""


ServerMessage: TypeAlias = (
    SessionStarted
    | AgentStateChanged
    | CallerTranscript
    | AgentTranscript
    | Interrupted
    | ToolCall
    | ToolCancelled
    | ToolProgress
    | TurnMeasured
    | UsageTold
    | Mark
    | Clear
    | Pong
    | ErrorTold
    | SessionEnded
    | Closing
)
"""What a server says."""

_encoder: Final = msgspec.json.Encoder()
_client: Final[msgspec.json.Decoder[ClientMessage]] = msgspec.json.Decoder(ClientMessage)
_server: Final[msgspec.json.Decoder[ServerMessage]] = msgspec.json.Decoder(ServerMessage)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """A message as the text of a frame."""
    return _encoder.encode(message)


def decode_client_message(text: str | bytes) -> ClientMessage:
    """What a client said.

    Raises:
        RemoteProtocolError: It is not JSON, of no known type, or lacks a field.
    """
    try:
        return _client.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise RemoteProtocolError(f"a message is malformed: {exc}") from exc


def decode_server_message(text: str | bytes) -> ServerMessage | None:
    """What a server said; ``None`` for a message of a type that a later version has added.

    Raises:
        RemoteProtocolError: It is not JSON, or lacks a field.
    """
    try:
        if _tagged.decode(text).type not in _TAGS:
            return None
        return _server.decode(text)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise RemoteProtocolError(f"a message is malformed: {exc}") from exc


class _Tagged(Struct, frozen=True):
    type: str


_tagged: Final = msgspec.json.Decoder(_Tagged)
_TAGS: Final = frozenset(str(cls.__struct_config__.tag) for cls in get_args(ServerMessage))
