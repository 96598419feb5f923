"""A turn that speaks or prepares to, as turn taking sees it."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from dialog.agent.turns.settings import BargeIn, Endpointing, TurnSettings
from dialog.agent.turns.signals import PartOpened
from dialog.message import Playback, Utterance

__all__ = ["RunningTurn"]


class RunningTurn:
    """Its open parts, and what was heard of it."""

    __slots__ = ("broken", "cut", "cut_at", "ended", "endpointing", "heard", "own", "parts", "turn", "utterances")

    def __init__(self, turn: UUID, utterances: tuple[Utterance, ...] = ()) -> None:
        self.turn = turn
        self.utterances = utterances
        """What it answers; empty for a turn that the agent began."""
        self.own = not utterances
        """The agent began it."""
        self.parts: dict[int, PartOpened] = {}
        """Parts without a final playback."""
        self.endpointing: Endpointing | None = None
        """How to find the end of the answer to it, as the last part that cares wants it."""
        self.heard = False
        """The caller has heard a word of it."""
        self.ended = False
        """No further part comes."""
        self.cut: Literal["", "now", "sentence"] = ""
        self.cut_at = 0.0
        self.broken = False
        """The line went down while it spoke; nobody had cut it."""

    @property
    def over(self) -> bool:
        """It was said, and heard or lost."""
        return self.ended and not self.parts

    @property
    def protected(self) -> bool:
        """Some of it must be heard out."""
        return not all(part.allow_interrupt for part in self.parts.values())

    @property
    def current(self) -> PartOpened | None:
        """The part that is being heard: they are heard in their order."""
        return self.parts[min(self.parts)] if self.parts else None

    def barge_in(self, settings: TurnSettings) -> BargeIn:
        """What the caller's speech does to it now."""
        part = self.current
        if part is not None and part.barge_in is not None:
            return part.barge_in
        if part is not None and part.greeting and settings.greeting is not None:
            return settings.greeting
        thinking = not self.own and (part is None or not self.heard)
        return settings.thinking if thinking and settings.thinking is not None else settings.barge_in

    def shield(self) -> None:
        """Its part opens only when it speaks; until then it is protected as a whole."""
        self.parts[-1] = PartOpened(self.turn, -1, allow_interrupt=False)

    def opened(self, part: PartOpened) -> None:
        """A part begins."""
        self.parts.pop(-1, None)
        self.parts.setdefault(part.part, part)
        self.endpointing = part.endpointing or self.endpointing

    def end(self) -> None:
        """No further part comes."""
        self.ended = True
        self.parts.pop(-1, None)

    def breaks(self) -> None:
        """The line has gone down; what nobody wanted any more does not go on."""
        self.broken = self.broken or not self.cut

    def played(self, playback: Playback, *, words: bool) -> None:
        """Take note of what was heard."""
        self.heard = self.heard or words
        if playback.state == "lost":
            self.breaks()
        if playback.final:
            self.parts.pop(playback.part, None)
