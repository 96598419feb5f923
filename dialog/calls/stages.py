"""The stages of a turn's latency, named for people."""

from __future__ import annotations

from statistics import median
from typing import Literal, NamedTuple

from dialog.calls.report import SessionReport
from dialog.calls.timeline import TurnTimeline

__all__ = ["STAGES", "Stage", "median_latency_ms", "stages_of"]

Kind = Literal["hearing", "dialog", "model", "voice", "line"]

STAGES: tuple[tuple[Kind, str], ...] = (
    ("hearing", "the end of the caller's speech is noticed and recognised"),
    ("dialog", "Dialog's own work between the others"),
    ("model", "the model, or the rules, and the tools they use, until the first text"),
    ("voice", "the voice makes its first audio"),
    ("line", "the first audio goes onto the line"),
)
"""Every kind of stage and what it is, in the order in which they happen."""


class Stage(NamedTuple):
    """A stretch of a turn, in seconds since the call's start."""

    kind: Kind
    begin: float
    end: float

    @property
    def ms(self) -> float:
        """How long it took."""
        return (self.end - self.begin) * 1000.0


def stages_of(timeline: TurnTimeline) -> tuple[Stage, ...]:
    """What a turn's latency consists of. Stages of which an end was not seen are left out, never guessed."""
    points: tuple[tuple[Kind, float | None, float | None], ...] = (
        ("hearing", timeline.end_of_speech, timeline.final),
        ("dialog", timeline.final, timeline.inference),
        ("model", timeline.inference, timeline.first_token),
        ("dialog", timeline.first_token, timeline.first_text),
        ("voice", timeline.first_text, timeline.first_audio),
        ("line", timeline.first_audio, timeline.first_frame),
    )
    stages: list[Stage] = []
    reached = float("-inf")
    for kind, begin, end in points:
        if begin is None or end is None:
            continue
        # A greeting that waits for the line, or a filler before the answer: stages may overlap.
        # The first frame's time is an estimate of the line; nothing before the answer comes after it.
        limit = end if timeline.first_frame is None else timeline.first_frame
        since, reached = max(begin, reached), max(min(end, limit), reached)
        if reached > since:
            stages.append(Stage(kind, since, reached))
    return tuple(stages)


def median_latency_ms(report: SessionReport) -> float | None:
    """Of the turns that answered the caller: end of speech to first sound; ``None`` if none was measured."""
    latencies = [turn.latency_ms for turn in report.turns if turn.latency_ms is not None and turn.caller]
    return median(latencies) if latencies else None
