"""A reply that a realtime model makes, as its adapter follows it."""

from __future__ import annotations

from uuid import UUID

__all__ = ["Reply"]


class Reply:
    """One reply of a turn: asked for, being made, or cancelled."""

    __slots__ = (
        "audio_ms",
        "cancelled",
        "done",
        "id",
        "name",
        "part",
        "parts",
        "refused",
        "text",
        "tries",
        "uuid",
        "verbatim",
    )

    def __init__(
        self, uuid: UUID, *, text: str = "", part: int | None = None, verbatim: bool = False, cancelled: bool = False
    ) -> None:
        self.uuid: UUID = uuid
        """The turn."""
        self.text: str = text
        """What is to be said; empty: an answer."""
        self.part: int | None = part
        """Of something that is to be said: the number of its part."""
        self.verbatim: bool = verbatim
        self.cancelled: bool = cancelled
        """Whatever still comes of it is dropped."""
        self.id: str = ""
        """What the provider calls it, once it is known."""
        self.name: str = ""
        """What it was asked for as."""
        self.parts: dict[str, int] = {}
        """Numbers of its parts, by what the provider calls them."""
        self.audio_ms: dict[int, float] = {}
        """How much audio of each part came."""
        self.done: set[int] = set()
        """Parts that are complete."""
        self.refused: int = 0
        """So often it was not made because another one was."""
        self.tries: int = 0
        """So often the session was lost before anything of it came."""

    @property
    def order(self) -> str:
        """How a model that says nothing word for word is asked to say :attr:`text`."""
        return f"Say the following to the caller, in these words and nothing else: {self.text}"
