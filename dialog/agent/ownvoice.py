"""What the caller hears of the agent, word by word, for whoever may take its echo for the caller."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from dialog.agent.speech import Part
from dialog.agent.turn import Turn
from dialog.message import Playback
from dialog.voip.voip import VoIP

__all__ = ["OwnVoice"]

_NEXT_MS = 250.0
"""The line reports so often: what is heard by the next report may be back as an echo before it."""


class OwnVoice:
    """Follows the line's reports and tells which words were heard, at once and never before they are on their way.

    Args:
        voip: The call. In a text call there is no echo.
        find: Finds the part that a report is about, as long as its turn runs.
        tell: Told whether the agent is heard now, and what of it since the last time, as it is spoken.
    """

    def __init__(
        self, voip: VoIP, find: Callable[[UUID, int], tuple[Turn, Part] | None], tell: Callable[[bool, str], None]
    ) -> None:
        self._voip = voip
        self._find = find
        self._tell = tell
        self._sounding: tuple[UUID, int] | None = None
        self._told_sounding = False
        self._told: dict[tuple[UUID, int], int] = {}
        """Characters of what a part speaks that were told, for parts that have begun to sound."""

    def start(self) -> None:
        """Listen to the line."""
        if self._voip.medium == "audio":
            self._voip.on(VoIP.PLAYBACK, self._on_playback)

    def stop(self) -> None:
        """Listen no more."""
        self._voip.off(VoIP.PLAYBACK, self._on_playback)
        self._told.clear()

    def _on_playback(self, playback: Playback) -> None:
        key = (playback.uuid, playback.part)
        sounds = playback.state == "playing"
        if sounds:
            self._sounding = key
        elif self._sounding == key:
            self._sounding = None
        elif not playback.final:
            return  # paused before it sounded
        text = self._new_words(playback, key)
        sounding = self._sounding is not None  # what ends may be followed already by what sounds now
        if text or sounding != self._told_sounding:
            self._told_sounding = sounding
            self._tell(sounding, text)

    def _new_words(self, playback: Playback, key: tuple[UUID, int]) -> str:
        told = self._told.pop(key, 0)
        found = self._find(*key)
        if found is None or (playback.final and not playback.heard_ms):
            return ""
        part = found[1]
        ahead_ms = min(_NEXT_MS, playback.queued_ms) if playback.state == "playing" else 0.0
        spoken = part.heard_map.spoken(playback.heard_ms + ahead_ms, part.audio_ms if part.audio_done else None)
        if playback.state == "playing":
            # After a pause it goes on with a word that was cut, or taken for heard.
            self._told[key] = len(spoken)
        elif not playback.final:
            self._told[key] = max(told, len(spoken))
        return spoken[told:] if len(spoken) >= told else ""
