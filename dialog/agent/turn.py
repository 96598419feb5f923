"""One turn of the agent: what it answers, what it says, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, Literal
from uuid import UUID

from dialog.agent.draft import Draft
from dialog.agent.patience import Patience
from dialog.agent.speech import Part, SpeechQueue
from dialog.calls.timeline import TurnTimeline
from dialog.message import Message, Utterance

__all__ = ["Turn", "current_turn"]

current_turn: ContextVar[Turn | None] = ContextVar("dialog_turn", default=None)
"""The turn that the running task works for; tools and hooks inherit it."""


class Turn:
    """A reply to the caller, or something that the agent says by itself."""

    __slots__ = (
        "__weakref__",
        "_confirmed",
        "alive_until",
        "based_on",
        "broken",
        "cut",
        "draft",
        "dropped",
        "ended",
        "engine",
        "failed",
        "feeders",
        "greeting",
        "heard",
        "held",
        "left",
        "patience",
        "reply",
        "settled",
        "slow_s",
        "speech",
        "speech_source",
        "task",
        "times",
        "utterances",
        "uuid",
        "wish",
        "written",
    )

    def __init__(
        self,
        uuid: UUID,
        speech: SpeechQueue,
        draft: Draft,
        utterances: tuple[Utterance, ...] = (),
        *,
        engine: object = None,
    ) -> None:
        self.uuid: UUID = uuid
        self.engine: object = engine
        """Whose turn it is: an agent that takes over inside another's turn does not speak for it."""
        self.speech: SpeechQueue = speech
        self.draft: Draft = draft
        self.utterances: tuple[Utterance, ...] = utterances
        self.task: asyncio.Task[None] | None = None
        """Drives ``inference``."""
        self.reply: Callable[[], AsyncIterator[str] | None] | None = None
        """Of a turn of the agent's own that is thought of only once it has the floor: asked then what to
        say; ``None``: that there is nothing to say any more."""
        self.feeders: dict[asyncio.Task[Any], Part] = {}
        """Read the streams that were dispatched, each into its part."""
        self.patience: list[Patience] = []
        """Bound how long inference, and each stream, may say nothing."""
        self.alive_until: float = 0.0
        """No sign of life before this needs to be noted, on the call's clock."""
        self.slow_s: float = 0.0
        """So much longer may it say nothing, for it waits for something that is known to take its time."""
        self.ended: bool = False
        """No further part comes."""
        self.written: bool = False
        """All its text is known."""
        self.heard: bool = False
        """The caller has heard a word of it."""
        self.cut: bool = False
        self.broken: bool = False
        """The line went down while it spoke: it is not settled until that is back, for it is to go on then."""
        self.dropped: bool = False
        self.failed: bool = False
        self.settled: bool = False
        """History has it."""
        self.times: dict[str, float] = {}
        self.greeting: bool = False
        """It opens the call."""
        self.speech_source: Literal["", "stt_words", "vad", "provider_event"] = ""
        """Who told when the caller stopped speaking."""
        self.based_on: int = 0
        """Of a speculative turn: the version of the history that it was made of."""
        self.held: list[Message[bytes]] = []
        """Of a speculative turn: audio that may not sound yet."""
        self.left: asyncio.Event | None = None
        """While it waits for tools: set when one of them goes on by itself, and the turn is to end without it."""
        self.wish: Callable[[], None] | None = None
        """Of a speculative turn: how it wants the call to end, once it is certain."""
        self._confirmed: asyncio.Event | None = None
        """Only a turn that began before it was certain has something to wait for."""

    @property
    def speculative(self) -> bool:
        """It was begun before the caller's turn had ended, and may still be thrown away."""
        return self._confirmed is not None and not self._confirmed.is_set()

    def speculate(self, based_on: int) -> None:
        """It begins before it is certain that it is wanted, on this version of the history."""
        self._confirmed = asyncio.Event()
        self.based_on = based_on

    def confirm(self) -> None:
        """It is wanted: what may only happen once may happen."""
        if self._confirmed is not None:
            self._confirmed.set()

    async def confirmed(self) -> None:
        """Wait until it is certain that the turn is wanted; one that is given up never comes back from here."""
        if self._confirmed is not None:
            await self._confirmed.wait()

    def leave_tools(self) -> None:
        """End without the tools that are at work: what they answer is told in another turn."""
        self.draft.leave()
        if self.left is not None:
            self.left.set()

    @property
    def over(self) -> bool:
        """Everything was said and heard, cut or lost."""
        return self.ended and all(part.final for part in self.speech.parts)

    def let_go(self) -> None:
        """Nothing is asked of it any more: its task, whose context knows the turn, is not to be kept by it."""
        task = self.task
        if task is not None and not task.done():
            task.add_done_callback(lambda _: self.let_go())
        else:
            self.task = None

    def stamp(self, stage: str, now: float) -> None:
        """Note when a stage was reached for the first time."""
        self.times.setdefault(stage, now)

    def timeline(self, since: float) -> TurnTimeline:
        """The times of its stages, counted from ``since``."""
        return TurnTimeline(
            turn=self.uuid,
            speech_source=self.speech_source,
            interrupted=self.cut,
            **{stage: at - since for stage, at in self.times.items()},
        )
