"""Speech to speech: the interface that every realtime voice model implements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.llm.llm import Item, ToolCall, ToolSpec
from dialog.message import MULAW_8K, AudioFormat, Message, Playback, SpeechEdge, Utterance
from dialog.participant import Event
from dialog.renewable import Renewable
from dialog.usage import ReplyUsage

__all__ = ["NOT_RUN", "S2S", "Replied", "ReplyState", "S2SCapabilities", "SessionSpec", "ToolAsked"]

ReplyState: TypeAlias = Literal["completed", "cancelled", "incomplete", "failed"]
NOT_RUN = "not run: the caller spoke"
"""What a model is told of a tool that it waits for, in a reply that was cut before the tool was run."""


class S2SCapabilities(Struct, frozen=True, kw_only=True):
    """What a model can do, and what it keeps to itself. Whoever uses it asks this, never its name."""

    interruption: Literal["ours", "theirs"] = "ours"
    """``ours``: whether the caller interrupts a reply is decided here, and :meth:`S2S.cancel` stops it.
    ``theirs``: the model stops by itself when it hears the caller, and says so by FLUSH."""
    replies: Literal["asked", "unasked"] = "asked"
    """``asked``: it replies when :meth:`S2S.respond` is called. ``unasked``: whenever it thinks that the caller
    has finished; then :meth:`S2S.respond` is only needed after something that it did not hear."""
    truncate: bool = False
    """It can be told how much of a reply was heard; else it believes that all of it was."""
    verbatim: bool = False
    """It says a given sentence word for word."""
    manual_turns: bool = False
    """It can leave it to others to tell when the caller begins and has finished: :meth:`S2S.begin`,
    :meth:`S2S.commit`."""
    flush_signal: bool = False
    """Emits FLUSH."""
    speech_events: bool = False
    """Emits VAD: it hears when speech starts and stops."""
    speech_stops: bool = True
    """It also tells when speech stops, not only when it starts."""
    transcribes: bool = True
    """Emits UTTERANCE."""
    interim_interval_ms: int | None = None
    """How often INTERIM comes while somebody speaks; ``None``: it does not."""
    resumption: bool = False
    """A new connection can go on with the provider's own memory of the session."""
    runs_inference: bool = False
    """It speaks what the agent's own ``inference`` makes."""
    session_s: float | None = None
    """How long a session lasts, in seconds; it is replaced by a new one before, between two turns."""
    limits: str = ""
    """What the service bounds, in words; for the documentation."""


class SessionSpec(Struct, frozen=True, kw_only=True):
    """What a session is opened with."""

    input_format: AudioFormat = MULAW_8K
    """The caller's audio: one of :attr:`S2S.formats`."""
    output_format: AudioFormat = MULAW_8K
    """The model's audio: one of :attr:`S2S.output_formats`."""
    system: str = ""
    """The model's instructions."""
    tools: tuple[ToolSpec, ...] = ()
    voice: str = ""
    """Empty: the one that the provider was made with."""
    vad: Literal["provider", "local"] = "provider"
    """``local``: turns are manual."""
    history: Callable[[], Sequence[Item]] = tuple
    """Asked on every connection: the conversation so far, as far as it was heard, without its instructions."""

    def __repr__(self) -> str:
        return f"<SessionSpec {self.input_format} {self.output_format} {len(self.tools)} tools, vad={self.vad}>"


class ToolAsked(Struct, frozen=True, kw_only=True):
    """The model wants a tool, in the reply ``uuid``."""

    uuid: UUID
    call: ToolCall


class Replied(Struct, frozen=True, kw_only=True):
    """A reply is complete, or will not be; nothing of it follows.

    ``incomplete``: the provider ended it early, what was said stands (too long, a filter).
    """

    uuid: UUID
    state: ReplyState
    part: int | None = None
    """The part that was to be said; ``None``: it was an answer."""


class S2S(Renewable):
    """Hears the caller and speaks.

    The constructor validates and stores; :meth:`open` connects. Caller audio that is posted while there is
    no connection is kept (the newest ten seconds).

    A turn is a uuid. The model's replies are those of turns: each is made of parts, numbered from 0 on, of
    which every one that began ends with a message that is ``done``, unless it was cancelled; then comes one
    REPLIED. When the caller has finished, TURN tells the uuid of what they said, and UTTERANCE its words,
    perhaps long after.
    """

    MESSAGE: ClassVar[Event[Message[bytes]]] = Event("message")
    """Audio of a part of a reply; ``at_ms`` counts from the start of the part, ``done`` ends it."""
    REPLY: ClassVar[Event[Message[str]]] = Event("reply")
    """The next words of a part, before or after their audio."""
    REPLIED: ClassVar[Event[Replied]] = Event("replied")
    """A reply has ended; one per reply that was asked for, or began unasked."""
    VAD: ClassVar[Event[SpeechEdge]] = Event("vad")
    """Speech started or stopped, as the provider hears it."""
    TURN: ClassVar[Event[UUID]] = Event("turn")
    """The caller has finished an utterance; its words follow as UTTERANCE with this uuid, if at all."""
    INTERIM: ClassVar[Event[Utterance]] = Event("interim")
    """All words of the utterance so far, where the provider tells."""
    UTTERANCE: ClassVar[Event[Utterance]] = Event("utterance")
    """What the caller said; it may come after the reply. Empty: those were no words."""
    FLUSH: ClassVar[Event[UUID]] = Event("flush")
    """The provider says that the caller interrupts this reply: stop playing it."""
    TOOL_CALL: ClassVar[Event[ToolAsked]] = Event("tool_call")
    """The model wants a tool; :meth:`answer` it."""
    TOOL_CANCELLED: ClassVar[Event[str]] = Event("tool_cancelled")
    """The answer to this call is not wanted any more."""
    USAGE: ClassVar[Event[ReplyUsage]] = Event("usage")

    formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    """Audio of the caller that it accepts, best first."""
    output_formats: ClassVar[tuple[AudioFormat, ...]] = (MULAW_8K,)
    """Audio that it can make, best first."""
    capabilities: ClassVar[S2SCapabilities] = S2SCapabilities()

    @property
    def session(self) -> int:
        """Counts the sessions: what was said in an earlier one, the present one knows from ``history()`` alone."""
        return 1

    @abstractmethod
    def open(self, spec: SessionSpec) -> None:
        """Start connecting and return."""

    @abstractmethod
    def update(self, *, system: str, tools: tuple[ToolSpec, ...]) -> None:
        """Go on with other instructions and tools, from the next reply on."""

    @abstractmethod
    def post(self, message: Message[bytes]) -> None:
        """Queue caller audio and return.

        Raises:
            StateError: Called before :meth:`open`.
        """

    @abstractmethod
    def begin(self, at_ms: float) -> None:
        """Manual turns: the caller began to speak at ``at_ms`` on the call's audio clock.

        What was posted from a moment before then on is heard; all the rest is not.
        """

    @abstractmethod
    def commit(self, uuid: UUID) -> None:
        """Manual turns: the caller has finished. TURN follows with this uuid."""

    @abstractmethod
    def respond(self, uuid: UUID) -> None:
        """Reply, as turn ``uuid``, to what was said, or speak first; a later call of it goes on with that turn.

        While an earlier reply is not over, it is made after it.
        """

    @abstractmethod
    def say(self, message: Message[str], *, verbatim: bool) -> None:
        """Say this text as a part of a turn: word for word, where the capabilities have it, else in its own words.

        The text may come in pieces, of which the last is ``done``. Its number is higher than those of the parts
        that the turn has had; its REPLIED has that number.
        """

    @abstractmethod
    def add(self, item: Item) -> None:
        """Tell the model what it did not hear: words that were typed, or said for it by another voice.

        It must be in ``history()`` already: without a connection nothing is kept, the next one begins with that.
        """

    @abstractmethod
    def answer(self, call_id: str, result: str) -> None:
        """Tell what a tool has answered; to be followed by :meth:`respond` when all of the reply have."""

    @abstractmethod
    def cancel(self, heard: Playback) -> None:
        """Stop the replies of a turn: REPLIED is emitted at once, and nothing after it.

        Where the capabilities have ``truncate``, the model is told that only ``heard.heard_ms`` of part
        ``heard.part`` were heard, and nothing of those after it. Unknown ones are ignored.
        """
