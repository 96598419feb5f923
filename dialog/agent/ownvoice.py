"""What the caller hears of the agent, word by word, for whoever may take its echo for the caller."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from dialog.agent.speech import Part
from dialog.agent.turn import Turn
from dialog.message import Playback
from dialog.stt.echo import OwnSpeech
from dialog.voip.voip import VoIP

__all__ = ["OwnVoice"]

_NEXT_MS = 250.0
"""The line reports so often: what is heard by the next report may be back as an echo before it."""
_KEPT = 240
"""A minute of reports."""

_Key = tuple[UUID, int]


class OwnVoice:
    """Follows the line's reports and tells which words were heard, never before they are on their way.

    Whether the agent is heard is told at once. Which words it was is found out when somebody asks, or when a part
    has ended: for all reports of a part together that is a fraction of what it is for each.

    Args:
        voip: The call. In a text call there is no echo.
        find: Finds the part that a report is about, as long as its turn runs.
        position_ms: Where the caller's newest audio ends on the call's audio clock.
        speech: Where it is told.
    """

    __slots__ = ("_find", "_position_ms", "_reports", "_sounding", "_speech", "_told", "_voip")

    def __init__(
        self,
        voip: VoIP,
        find: Callable[[UUID, int], tuple[Turn, Part] | None],
        position_ms: Callable[[], float],
        speech: OwnSpeech,
    ) -> None:
        self._voip = voip
        self._find = find
        self._position_ms = position_ms
        self._speech = speech
        self._sounding: _Key | None = None
        self._reports: list[tuple[float, Playback]] = []
        """Those whose words were not told yet, and when they came."""
        self._told: dict[_Key, int] = {}
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
        sounding = self._sounding
        if playback.state == "playing":
            if sounding is None or sounding[1] != playback.part or sounding[0] != playback.uuid:
                sounding = (playback.uuid, playback.part)
        elif sounding == (playback.uuid, playback.part):
            sounding = None
        elif not playback.final:
            return  # paused before it sounded
        at_ms = self._position_ms()
        self._reports.append((at_ms, playback))
        if sounding is not self._sounding:
            self._sounding = sounding  # what ends may be followed already by what sounds now
            self._speech.sounds(sounding is not None, at_ms)
        if playback.final or len(self._reports) >= _KEPT:
            self._look()

    def _look(self) -> None:
        """Tell the words of all reports that came since the last time."""
        reports, self._reports = self._reports, []
        first = 0
        for index, (_, playback) in enumerate(reports, 1):
            following = reports[index][1] if index < len(reports) else None
            if following is None or following.part != playback.part or following.uuid != playback.uuid:
                self._tell(reports[first:index])
                first = index

    def _tell(self, reports: list[tuple[float, Playback]]) -> None:
        """Tell the words of some reports of one part."""
        last = reports[-1][1]
        key = (last.uuid, last.part)
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
        if not last.final:
            self._told[key] = told
