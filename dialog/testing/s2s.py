"""What the emulators of all models that hear and speak share: their script, their answers, what they saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Struct

from dialog.testing.hearing import Script
from dialog.testing.model import ToolUse
from dialog.testing.realtime_session import TalkItem
from dialog.testing.server import EmulatorServer, Faults

__all__ = ["RealtimeReply", "S2SEmulator"]

_SAY = "in these words and nothing else: "


class RealtimeReply(Struct, frozen=True, kw_only=True):
    """What an emulated model answers."""

    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    fails: str = ""
    """The reply fails with this code, where the protocol has such."""


class _Session(Protocol):
    items: list[TalkItem]


S = TypeVar("S", bound=_Session)


class S2SEmulator(Script, EmulatorServer, Generic[S]):
    """A service on loopback that hears its script, and answers as it is told.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        hears: What is heard, by how it begins.
        replies: What is answered to a conversation; unless given, what the caller said is repeated.
        api_key: The key that is accepted.
        session_s: When sessions end, as they tell it.
        ms_per_char: How long the audio of a reply is.
        chunk_ms: How much audio one message has.
        chunk_s: Seconds between two of them.
        transcribe_s: Seconds until the caller's words are told.
        unintelligible: So many utterances cannot be written down.
        stalling: So many replies begin and never go on.
        port: Where it listens; 0: on one that is free.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        replies: Callable[[Sequence[TalkItem]], RealtimeReply] | None = None,
        api_key: str = "",
        session_s: float = 3600.0,
        ms_per_char: float = 40.0,
        chunk_ms: float = 200.0,
        chunk_s: float = 0.0,
        transcribe_s: float = 0.0,
        unintelligible: int = 0,
        stalling: int = 0,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.replies = replies
        self.api_key: str = api_key
        self.session_s = session_s
        self.ms_per_char = ms_per_char
        self.chunk_ms = chunk_ms
        self.chunk_s = chunk_s
        self.transcribe_s = transcribe_s
        self.unintelligible = unintelligible
        self.stalling = stalling
        self.sessions: list[S] = []
        """All of them, the newest last."""
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    @property
    def conversation(self) -> list[tuple[str, str]]:
        """What the newest session remembers: role, or kind, and text."""
        return [(item.role or item.kind, item.text) for item in self.sessions[-1].items]

    def reply_to(self, session: S, instructions: str) -> RealtimeReply:
        """What is answered now; ``instructions``: what the client wants to be said, or how."""
        if instructions:
            return RealtimeReply(text=instructions.partition(_SAY)[2] or instructions)
        if self.replies is not None:
            return self.replies(session.items)
        said = [item.text for item in session.items if item.role == "user"]
        return RealtimeReply(text=f"You said: {said[-1]}" if said else "Hello.")
