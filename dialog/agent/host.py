"""What an engine needs of the conversation that it works for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol
from uuid import UUID

from dialog.agent.history import History
from dialog.agent.reach import Reach
from dialog.agent.settings import AgentSettings
from dialog.agent.speakers import Speakers
from dialog.agent.speech import Part
from dialog.agent.turn import Turn
from dialog.agent.turns import signals as sig
from dialog.errors import DialogError
from dialog.message import Message, SpeechEdge, Utterance
from dialog.stt.stt import STT
from dialog.usage import Usage

__all__ = ["Host"]


class Host(Protocol):
    """What the engine needs of the conversation it works for."""

    settings: AgentSettings
    history: History
    speakers: Speakers
    reach: Reach

    def infer(self, message: Message[str]) -> AsyncIterator[str] | Coroutine[Any, Any, None]:
        """The agent's ``inference``."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None] | None:
        """A task that the agent owns."""
        ...

    def failed(self, error: DialogError) -> None:
        """Something went wrong that does not end the call."""
        ...

    def stt_ready(self, stt: STT) -> None:
        """``stt`` is about to be opened."""
        ...

    def caller_spoke(self, edge: SpeechEdge) -> None: ...  # noqa: D102
    def caller_said(self, utterance: Utterance, *, final: bool) -> None: ...  # noqa: D102
    def decided(self, decision: sig.Decision) -> None: ...  # noqa: D102
    def part_sounds(self, turn: Turn, part: Part) -> None: ...  # noqa: D102
    def part_ended(self, turn: Turn, part: Part, heard: str) -> None: ...  # noqa: D102
    def interrupted(self, turn: Turn, reason: str) -> None: ...  # noqa: D102
    def turn_ended(self, turn: Turn) -> None: ...  # noqa: D102

    def say_rest(self, turn: Turn) -> None:
        """The line is back that broke ``turn`` off: go on with it."""
        ...

    def speculated(self, turn: Turn, *, saved_s: float | None) -> None:
        """A reply that was begun early is used, and saved so much time; ``None``: it was thrown away."""
        ...

    def idle(self, count: int) -> None:
        """Nobody has spoken for a while, for the ``count``-th time running."""
        ...

    def used(self, turn: UUID | None, usage: Usage) -> None:
        """A provider tells what was used, by a turn or by none in particular."""
        ...

    def near_end(self) -> None:
        """The call comes near its longest duration."""
        ...

    def warned(self, code: str, text: str) -> None:
        """Something is not as it was asked for."""
        ...

    def caller_unheard(self) -> None:
        """The caller's voice was heard, and no words came of it."""
        ...

    def stays(self) -> None:
        """The caller spoke over the goodbye: the call goes on."""
        ...

    def ending(self, reason: str) -> None:
        """It is time to end the call."""
        ...
