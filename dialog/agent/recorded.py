"""Audio that an agent plays in the place of its voice."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from dialog.agent.speech import Part, Speech
from dialog.agent.turn import Turn

__all__ = ["Recorded"]


class Recorded:
    """A part that is audio from the start: it is written as it comes, and ended once.

    Made by an engine; ``said`` is told that all of its turn is known.
    """

    def __init__(self, turn: Turn, part: Part, said: Callable[[Turn], None]) -> None:
        self._turn = turn
        self._part = part
        self._said = said

    @property
    def speech(self) -> Speech:
        """To be waited for."""
        return self._part.speech

    @property
    def key(self) -> tuple[UUID, int]:
        """How the line calls it: turn and part."""
        return self._turn.uuid, self._part.number

    @property
    def open(self) -> bool:
        """More may be written: it was neither ended nor cut."""
        return not self._part.sealed

    @property
    def waiting(self) -> int:
        """Bytes that the line does not have yet."""
        return len(self._part.recording or b"")

    @property
    def handed_ms(self) -> float:
        """Milliseconds of it that the line has."""
        return self._part.audio_ms

    def write(self, data: bytes) -> None:
        """More audio, whole samples in the format of the line; what comes after the end is dropped."""
        if self._part.recording is not None and not self._part.sealed:
            self._part.recording += data
            self._turn.speech.pump()

    def end(self) -> None:
        """No more audio comes."""
        if not self._part.sealed:
            self._turn.speech.seal_part(self._part)
            self._said(self._turn)
