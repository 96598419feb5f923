"""What a model that speaks by itself says, as parts of turns: whose is whose, and what comes before its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from dialog.agent.speech import Part, PartOptions
from dialog.agent.turn import Turn
from dialog.recent import Recent

__all__ = ["ModelParts", "Origin"]

_MODEL = PartOptions(model=True)
_REMEMBERED = 64
_EARLY_TURNS = 4
_EARLY = 3000
"""Events of a reply that wait for the floor, a minute of audio at least."""

_Early: TypeAlias = list[tuple[Callable[[Any], None], Any]]


class Origin(NamedTuple):
    """Where a part comes from: the session that said it, and its number there."""

    session: int
    number: int


class ModelParts:
    """A model numbers what it says by itself, and a turn may hold parts of other voices, too."""

    def __init__(self) -> None:
        self._parts: dict[tuple[UUID, int], Part] = {}
        """What the model speaks, by its own numbers."""
        self._origins: dict[tuple[UUID, int], Origin] = {}
        """The other way round."""
        self._early: Recent[UUID, _Early] = Recent(_EARLY_TURNS)
        self._gone: Recent[UUID, None] = Recent(_REMEMBERED)

    def part(self, turn: Turn, origin: Origin) -> Part:
        """The part of this origin; it begins now, and ends those before it, if it is new."""
        part = self._parts.get((turn.uuid, origin.number))
        if part is None:
            self.seal(turn)
            turn.speech.seal()
            part = turn.speech.open_part(_MODEL)
            self._parts[turn.uuid, origin.number] = part
            self.note((turn.uuid, part.number), origin)
        return part

    @staticmethod
    def seal(turn: Turn) -> None:
        """No more words of the model come for what it has said in a turn."""
        for part in turn.speech.parts:
            if part.options.model:
                turn.speech.seal_part(part)

    def note(self, key: tuple[UUID, int], origin: Origin) -> None:
        """The model speaks this part."""
        self._origins.setdefault(key, origin)

    def origin(self, key: tuple[UUID, int]) -> Origin | None:
        """Where a part comes from; ``None``: the model has not said it."""
        return self._origins.get(key)

    def next_number(self, uuid: UUID) -> int:
        """The number that the next part of a turn has with the model."""
        return max((number for turn, number in self._parts if turn == uuid), default=-1) + 1

    # -- replies that nobody asked for

    def is_gone(self, uuid: UUID) -> bool:
        """The turn is over, or was given up: what still comes for it is dropped."""
        return uuid in self._gone

    def is_early(self, uuid: UUID) -> bool:
        """Its reply has begun before it had the floor."""
        return uuid in self._early

    def wait(self, uuid: UUID) -> None:
        """The reply of a turn that has not the floor begins: what comes of it is kept."""
        self._early[uuid] = []

    def keep(self, uuid: UUID, handle: Callable[[Any], None], event: object) -> None:
        """Something of such a reply came."""
        early = self._early.get(uuid)
        if early is not None and len(early) < _EARLY:
            early.append((handle, event))

    def begin(self, uuid: UUID) -> _Early:
        """The turn has the floor: what was kept for it."""
        self._gone.pop(uuid, None)
        return self._early.pop(uuid, [])

    def forget(self, turn: Turn) -> None:
        """A turn is over."""
        self._gone[turn.uuid] = None
        for key in [key for key in self._parts if key[0] == turn.uuid]:
            del self._parts[key]
        for key in [key for key in self._origins if key[0] == turn.uuid]:
            del self._origins[key]
