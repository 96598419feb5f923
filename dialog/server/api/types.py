"""What goes over the REST API: its OpenAPI document is made of these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct, field

from dialog.calls.metrics import SessionMetrics
from dialog.server.live import Spoken
from dialog.sessions.spec import SessionSpec
from dialog.voip.web.tokens import LONGEST_LIFE_S

__all__ = [
    "CallDetail",
    "CallList",
    "CallQuery",
    "CallStart",
    "CallStarted",
    "CallView",
    "ClientToken",
    "ClientTokenStart",
    "Customer",
    "MachineDetectionStart",
    "MessageStart",
    "ProblemBody",
    "Recording",
    "RecordingList",
    "SayStart",
    "SentMessage",
    "Status",
    "Transcript",
    "TransferStart",
    "WhisperStart",
]

E164: TypeAlias = Annotated[str, Meta(pattern=r"^\+[1-9][0-9]{6,14}$", examples=["+15551230001"])]
Words: TypeAlias = Annotated[str, Meta(pattern=r"\S", max_length=4000)]
Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]


class Customer(Struct, frozen=True, kw_only=True):
    """Who is called."""

    number: E164


class MachineDetectionStart(Struct, frozen=True, kw_only=True, rename="camel"):
    """What to do if a machine answers."""

    when_machine: Literal["go_on", "hang_up", "leave_message"] = "hang_up"
    message: Annotated[str, Meta(max_length=4000)] = ""
    """What is said to a machine after the beep; goes with ``leave_message``."""
    verdict_s: Annotated[float, Meta(gt=0, le=59)] | None = None
    """How long the verdict is waited for, from the answer: 6 s, or 45 s where a message is left."""
    assume: Literal["human", "machine"] = "human"
    """What is taken for true if there is no verdict by then."""


class CallStart(Struct, frozen=True, kw_only=True, rename="camel"):
    """A call that is to be placed. Further members are ignored."""

    assistant_id: Id
    """Which agent: its id in the configuration, or one that the session resolver knows."""
    phone_number_id: Id
    """Which number it comes from, likewise."""
    customer: Customer
    context: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the agent is to know."""
    machine_detection: MachineDetectionStart | None = None
    """Let the carrier find out whether a machine answers."""


class CallStarted(Struct, frozen=True, kw_only=True):
    """A call that the carrier has taken; it rings, or will."""

    status: Literal["initiated"]
    call_id: UUID


class CallView(Struct, frozen=True, kw_only=True):
    """A call."""

    call_id: UUID
    state: Literal["offered", "live", "moving", "lost", "ended"]
    """``offered``: not connected yet; ``moving``: to somebody else, perhaps back; ``lost``: it may come back."""
    tenant: str
    """Whose it is; empty: nobody's in particular."""
    carrier: str
    carrier_call_id: str
    from_: str = field(name="from")
    to: str
    direction: str
    agent: str
    started_at: str
    """ISO 8601 with zone."""
    duration_s: float
    """So far, if it has not ended."""
    end_reason: str = ""
    end_detail: str = ""


class CallList(Struct, frozen=True, kw_only=True):
    """Calls, newest first."""

    calls: list[CallView]
    complete: bool = True
    """False: another process of the service did not answer in time; its calls are missing."""


class CallQuery(Struct, frozen=True, kw_only=True):
    """Which calls."""

    state: Literal["live", "ended"] = "live"
    """``ended``: from the call log, if there is one, else the last ones."""
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    before: UUID | None = None
    """Those older than this one, of which there is a next page."""


class CallDetail(CallView, frozen=True, kw_only=True):
    """A call and its numbers at this moment."""

    metrics: SessionMetrics | None
    recordings: int
    """So many can be fetched."""


class Transcript(Struct, frozen=True, kw_only=True):
    """What was said until now."""

    call_id: UUID
    lines: list[Spoken]


class Recording(Struct, frozen=True, kw_only=True):
    """A recording of the carrier's."""

    index: int
    """The last part of its path: ``…/recordings/0``."""
    url: str
    """At the carrier, which wants its own credentials."""


class RecordingList(Struct, frozen=True, kw_only=True):
    """The recordings of a call, as soon as they are ready."""

    call_id: UUID
    recordings: list[Recording]


class TransferStart(Struct, frozen=True, kw_only=True):
    """Connect the caller to somebody else now."""

    to: E164
    back_within_s: Annotated[float, Meta(ge=1, le=600)] | None = None
    """They come back to the agent if nobody answers by then."""


class SayStart(Struct, frozen=True, kw_only=True):
    """Let the agent say something when the floor is free."""

    text: Words
    allow_interrupt: bool = True


class WhisperStart(Struct, frozen=True, kw_only=True):
    """Tell the agent something that the caller does not hear."""

    text: Words


class ClientTokenStart(Struct, frozen=True, kw_only=True):
    """A session that a browser or an app is to have."""

    session: SessionSpec = SessionSpec()
    """What it is to be like. The session resolver is asked when it begins."""
    user: Annotated[str, Meta(max_length=200)] = ""
    """Who will talk."""
    tenant: Annotated[str, Meta(max_length=200)] = ""
    """Whose session it is; not needed if there is only one that it can be."""
    life_s: Annotated[float, Meta(ge=1, le=LONGEST_LIFE_S)] = 60.0
    """How long the session may take to start."""


class ClientToken(Struct, frozen=True, kw_only=True):
    """What a client needs for one session."""

    token: str
    """For ``session.start`` of the client protocol. It can be read by whoever has it."""
    call_id: UUID
    """Of the call that it starts."""
    path: str
    """Of the WebSocket."""
    life_s: float


class MessageStart(Struct, frozen=True, kw_only=True):
    """A text message."""

    to: E164
    text: Annotated[str, Meta(pattern=r"\S", max_length=1600)]
    phone_number_id: Annotated[str, Meta(max_length=200)] = ""
    """The number it comes from; empty: the messaging service of the only tenant, or its only number."""


class SentMessage(Struct, frozen=True, kw_only=True):
    """A text message that the carrier has taken."""

    message_sid: str
    status: str
    to: str


class Status(Struct, frozen=True, kw_only=True):
    """How the service is."""

    status: Literal["ok", "ready", "not ready", "leaving"]


class ProblemBody(Struct, frozen=True, kw_only=True):
    """What is wrong (RFC 9457, ``application/problem+json``)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
