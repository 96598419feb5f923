"""What the caller hears of the agent, word by word, for whoever may take its echo for the caller."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from uuid import UUID

from dialog.agent.ears import Ears
from dialog.agent.speech import Part
from dialog.agent.turn import Turn
from dialog.message import Playback
from dialog.voip.part import Key
from dialog.voip.voip import VoIP

__all__ = ["OwnVoice"]

_NEXT_MS = 250.0
"""The line reports so often: what is heard by the next report may be back as an echo before it."""
_KEPT = 240
"""A minute of reports."""


class OwnVoice:
    """Follows the line's reports and tells which words were heard, never before they are on their way.

    Whether the agent is heard is told at once. Which words it was is found out when somebody asks, or when a part
    has ended: for all reports of a part together that is a fraction of what it is for each.

    Args:
        voip: The call. In a text call there is no echo.
        find: Finds the part that a report is about, as long as its turn runs.
        ears: Know where the call's audio clock stands, and keep what is told.
    """

    __slots__ = ("_ears", "_find", "_reports", "_sounding", "_speech", "_told", "_voip")

    def __init__(self, voip: VoIP, find: Callable[[UUID, int], tuple[Turn, Part] | None], ears: Ears) -> None:
        self._voip = voip
        self._find = find
        self._ears = ears
        self._speech = ears.own_speech
        self._sounding: Key | None = None
        self._reports: list[tuple[float, Playback]] = []
        """Those whose words were not told yet, and when they came."""
        self._told: dict[Key, int] = {}
        """Characters of what a part speaks that were told, for parts that have begun to sound."""

    def start(self) -> None:
        """Listen to the line."""
        if self._voip.medium == "audio":
            self._speech.look = self._look
            self._voip.on(VoIP.PLAYBACK, self._on_playback)

    def stop(self) -> None:
        """Listen no more."""
        self._voip.off(VoIP.PLAYBACK, self._on_playback)
        if self._speech.look == self._look:  # another agent may follow the line already
            self._speech.look = None
        self._reports.clear()
        self._told.clear()

    def _on_playback(self, playback: Playback) -> None:
        key = (playback.uuid, playback.part)
        if playback.state == "playing":
            self._sounding = key
        elif self._sounding == key:
            self._sounding = None
        elif not playback.final:
            return  # paused before it sounded
        at_ms = self._ears.position_ms or 0.0
        self._reports.append((at_ms, playback))
        self._speech.sounds(self._sounding is not None, at_ms)  # what ends may be followed already by what sounds now
        if playback.final or len(self._reports) >= _KEPT:
            self._look()

    def _look(self) -> None:
        """Tell the words of all reports that came since the last time."""
        reports, self._reports = self._reports, []
        for key, of_part in groupby(reports, lambda report: (report[1].uuid, report[1].part)):
            self._tell(key, list(of_part))

    def _tell(self, key: Key, reports: list[tuple[float, Playback]]) -> None:
        """Tell the words of some reports of one part."""
        told = self._told.pop(key, 0)
        found = self._find(*key)
        if found is None:
            return
        part = found[1]
        points = [
            playback.heard_ms + (min(_NEXT_MS, playback.queued_ms) if playback.state == "playing" else 0.0)
            for _, playback in reports
        ]
        texts = part.heard_map.spoken(points, part.audio_ms if part.audio_done else None)
        for (at_ms, playback), spoken in zip(reports, texts, strict=True):
            if len(spoken) > told and (playback.heard_ms or not playback.final):
                self._speech.heard(spoken[told:], at_ms)
            # After a pause it goes on with a word that was cut, or taken for heard.
            told = len(spoken) if playback.state == "playing" else max(told, len(spoken))
        if not reports[-1][1].final:
            self._told[key] = told
