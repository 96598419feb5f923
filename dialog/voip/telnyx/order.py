"""Putting the caller's audio back into its order: Telnyx does not promise to keep it.

Source: Telnyx, "Stream call media over WebSocket": media frame order is not guaranteed.
"""

from __future__ import annotations

from typing import Final

from dialog.voip.carrier.stream import Audio

__all__ = ["Reorder"]

_PATIENCE: Final = 5
"""So many chunks behind a missing one are held back; then it is taken for lost."""


class Reorder:
    """Gives chunks in the order of their numbers, which count from 1; what comes too late is dropped."""

    __slots__ = ("_held", "_next")

    def __init__(self) -> None:
        self._next = 1
        self._held: dict[int, Audio] = {}

    def put(self, chunk: int, audio: Audio) -> tuple[Audio, ...]:
        """Take a chunk; returns what is in order by now. A chunk of number 0 or less has none, and is at once."""
        if chunk <= 0:
            return (audio,)
        if chunk == self._next and not self._held:  # as nearly always
            self._next = chunk + 1
            return (audio,)
        if chunk < self._next or chunk in self._held:
            return ()
        self._held[chunk] = audio
        if len(self._held) > _PATIENCE:
            self._next = min(self._held)
        return self._ready()

    def flush(self) -> tuple[Audio, ...]:
        """Nothing more comes: what is held, in order."""
        rest = tuple(self._held[chunk] for chunk in sorted(self._held))
        self._held.clear()
        return rest

    def _ready(self) -> tuple[Audio, ...]:
        ready: list[Audio] = []
        while (audio := self._held.pop(self._next, None)) is not None:
            ready.append(audio)
            self._next += 1
        return tuple(ready)
