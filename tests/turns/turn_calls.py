"""A call that turn taking is told about."""

from __future__ import annotations

from uuid import UUID, uuid4

from dialog.agent.turns import TurnSettings, TurnTaking
from dialog.agent.turns.signals import Final, Infer, PartOpened, Played, ReplyEnded, SayRequested, Speak, Tick
from dialog.message import Playback, Utterance


def utterance(text: str, uuid: UUID | None = None, language: str | None = None) -> Utterance:
    return Utterance(uuid=uuid or uuid4(), data=text, language=language)


def played(turn: UUID, ms: float, state: str = "playing", part: int = 0) -> Played:
    return Played(Playback(uuid=turn, part=part, state=state, heard_ms=ms), words=ms >= 250)


class Call:
    """Feeds signals at a moving time and remembers what was decided."""

    def __init__(self, **options) -> None:
        self.taking = TurnTaking(TurnSettings(**options))
        self.now = 100.0
        self.decisions: list = []

    def feed(self, signal, after: float = 0.0) -> list:
        self.now += after
        new = list(self.taking.feed(signal, self.now))
        self.decisions += new
        return new

    def tick(self) -> list:
        """Let time pass up to the next deadline."""
        assert self.taking.deadline is not None
        self.now = max(self.now, self.taking.deadline)
        return self.feed(Tick())

    def wait(self, seconds: float) -> list:
        """Let so much time pass; what was decided meanwhile."""
        until = self.now + seconds
        new = []
        while self.taking.deadline is not None and self.taking.deadline <= until:
            new += self.tick()
        self.now = until
        return new

    def decided(self, kind: type) -> list:
        return [decision for decision in self.decisions if isinstance(decision, kind)]

    def reply_heard_to(self, ms: float, *, allow_interrupt: bool = True, text: str = "when do you open") -> Utterance:
        """A caller asked something and hears the reply up to ``ms``."""
        said = utterance(text)
        assert self.feed(Final(said)) == [Infer(said.uuid, (said,))]
        self.feed(PartOpened(said.uuid, 0, allow_interrupt))
        if ms:
            self.feed(played(said.uuid, ms))
        return said

    def says(self, ms: float = 900, **part) -> UUID:
        """The agent speaks by itself, and was heard up to ``ms``."""
        turn = uuid4()
        assert self.feed(SayRequested(turn)) == [Speak(turn)]
        self.feed(PartOpened(turn, 0, **part))
        self.feed(ReplyEnded(turn))
        if ms:
            self.feed(played(turn, ms))
        return turn
