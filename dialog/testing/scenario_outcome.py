"""What came of a scenario, measured on the caller's side of the line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from msgspec import Struct, field

from dialog.agent.agent import Agent
from dialog.calls.events import AgentSaid, CallEnded, CallEvent, ErrorRaised, ToolStarted
from dialog.llm.llm import Entry, Item, ToolCall
from dialog.testing.heard import Stretch
from dialog.testing.scenario import Scenario
from dialog.testing.scenario_sound import CELL_MS, Cell, Letters

if TYPE_CHECKING:
    from dialog.testing.caller import Caller

__all__ = ["Outcome", "PartPlayed", "Sound", "measure", "tag_of"]

_HEARD_SHARE = 0.5
"""A word counts as heard when so much of it was played (decision F4)."""
_REPEATED_SHARE = 1.5
_SEGMENT_GAP_MS = 200.0
_BLANK_MS = 150.0
"""Between two words an agent is still speaking."""


class Sound(Struct, kw_only=True):
    """Something that the caller let be heard; milliseconds of the call."""

    text: str
    """Empty: a noise."""
    started_ms: float
    ended_ms: float
    over_reply: bool
    """Aimed at the middle of a reply."""


class PartPlayed(Struct, frozen=True, kw_only=True):
    """What the line played of one part, and what the agent believes of it."""

    turn: UUID
    part: int
    played: tuple[str, ...]
    """Words of which at least half was played."""
    believed: tuple[str, ...]
    """Words that the agent counts as heard."""
    repeated: int
    """Words that were played twice."""
    missed: int
    """Words in the middle that were not played."""

    @property
    def word_diff(self) -> int:
        """By how many words the two differ."""
        same = 0
        for one, other in zip(self.played, self.believed, strict=False):
            if one != other:
                break
            same += 1
        return max(len(self.played), len(self.believed)) - same


class Outcome(Struct, kw_only=True):
    """Everything that was measured in one scenario; milliseconds of the call where not told otherwise."""

    scenario: str
    seed: int
    duration_ms: float
    end_reason: str
    transcript: str
    """What the caller heard, as words; empty without a voice that spells."""
    history: list[str]
    tools: list[str]
    errors: list[str]
    events: list[CallEvent] = field(default_factory=list[CallEvent])
    sounds: list[Sound] = field(default_factory=list[Sound])
    stretches: list[Stretch] = field(default_factory=list[Stretch])
    parts: list[PartPlayed] = field(default_factory=list[PartPlayed])
    answered: int = 0
    """Listen steps that heard something …"""
    asked: int = 0
    """… of so many."""
    latencies_ms: list[float] = field(default_factory=list[float])
    """End of the caller's words to the agent's next sound."""
    dead_air_ms: list[float] = field(default_factory=list[float])
    """Silences while it was the agent's turn."""
    interruptions: list[tuple[Sound, float]] = field(default_factory=list[tuple[Sound, float]])
    """Sounds over a reply, and how long after their beginning the agent fell silent."""
    overlaps_ms: list[float] = field(default_factory=list[float])
    """How long the agent went on when it began in the middle of the caller's words."""
    resumes_ms: list[float] = field(default_factory=list[float])
    """From the end of a noise over a reply to the agent's next sound."""
    stall_ms: float = 0.0
    """Longest time on the scenario's clock for which the machine stood still: times are no better than that."""
    problems: list[str] = field(default_factory=list[str])
    """What did not come as the scenario wants it; empty: it passed."""

    @property
    def stops_ms(self) -> list[float]:
        """How long the agent went on speaking over each sound that was aimed at its reply."""
        return [stop for _, stop in self.interruptions]

    def count(self, tag: str) -> int:
        """How many events have this tag."""
        return sum(tag_of(event) == tag for event in self.events)


class _Lanes(Protocol):
    def text_of(self, lane: int) -> str: ...
    def part_of(self, lane: int) -> tuple[UUID, int] | None: ...


class _Played(Protocol):
    agent: Agent | None
    events: list[CallEvent]
    sounds: list[Sound]
    listens: list[bool]
    problems: list[str]


def tag_of(event: CallEvent) -> str:
    """The event's tag, as in its JSON."""
    return str(event.__struct_config__.tag)


def measure(
    scenario: Scenario, caller: Caller, played: _Played, lanes: _Lanes, *, seed: int, ended_ms: float
) -> Outcome:
    """Fold a call that is over into its outcome. Nothing is judged here."""
    cells = Letters().read(caller._ear_track.data, 0.0)
    stretches = list(caller._ear.stretches)
    words = [sound for sound in played.sounds if sound.text]
    outcome = Outcome(
        scenario=scenario.name,
        seed=seed,
        duration_ms=ended_ms,
        end_reason=next((event.reason for event in played.events if isinstance(event, CallEnded)), ""),
        transcript=_transcript(cells, lanes),
        history=[_line(item) for item in played.agent.history.items()] if played.agent is not None else [],
        tools=[event.name for event in played.events if isinstance(event, ToolStarted)],
        errors=sorted({event.code for event in played.events if isinstance(event, ErrorRaised)}),
        events=list(played.events),
        sounds=list(played.sounds),
        stretches=stretches,
        parts=_parts(cells, lanes, played.events),
        answered=sum(played.listens),
        asked=len(played.listens),
        problems=list(played.problems),
    )
    for number, sound in enumerate(words):
        until_ms = words[number + 1].started_ms if number + 1 < len(words) else ended_ms
        _respond(outcome, sound, until_ms)
    for sound in played.sounds:
        if sound.over_reply:
            _interrupt(outcome, sound, ended_ms)
    outcome.dead_air_ms += _inner_silences(cells, lanes, played.sounds)
    return outcome


def _respond(outcome: Outcome, sound: Sound, until_ms: float) -> None:
    """What followed words of the caller: an answer, silence, or an agent who did not wait."""
    for one in outcome.stretches:
        if sound.started_ms < one.started_ms < sound.ended_ms - 1:
            outcome.overlaps_ms.append(min(one.ended_ms, sound.ended_ms) - one.started_ms)
    if any(one.started_ms < sound.ended_ms < one.ended_ms for one in outcome.stretches):
        return  # it went on speaking
    start = next((one.started_ms for one in outcome.stretches if one.started_ms >= sound.ended_ms), None)
    if start is not None and start < until_ms:
        outcome.latencies_ms.append(start - sound.ended_ms)
        outcome.dead_air_ms.append(start - sound.ended_ms)
    else:
        outcome.dead_air_ms.append(max(0.0, until_ms - sound.ended_ms))


def _interrupt(outcome: Outcome, sound: Sound, ended_ms: float) -> None:
    """How fast the agent fell silent under a sound, and how fast it went on if that was a noise."""
    over = next(
        (one for one in outcome.stretches if one.started_ms <= sound.started_ms < one.ended_ms + _BLANK_MS), None
    )
    if over is None:
        return
    outcome.interruptions.append((sound, max(0.0, over.ended_ms - sound.started_ms)))
    if not sound.text:
        again = next((one.started_ms for one in outcome.stretches if one.started_ms > over.ended_ms), ended_ms)
        outcome.resumes_ms.append(max(0.0, again - max(sound.ended_ms, over.ended_ms)))


def _inner_silences(cells: Sequence[Cell], lanes: _Lanes, sounds: Sequence[Sound]) -> list[float]:
    """Silences inside one turn of the agent's, such as while a tool runs, in which the caller said no words."""
    silences: list[float] = []
    for before, cell in pairwise(cells):
        begin, end = before.at_ms + CELL_MS, cell.at_ms
        if end - begin < _SEGMENT_GAP_MS:
            continue
        one, other = lanes.part_of(before.lane), lanes.part_of(cell.lane)
        spoken = any(sound.text and sound.started_ms < end and sound.ended_ms > begin for sound in sounds)
        if one is not None and other is not None and one[0] == other[0] and not spoken:
            silences.append(end - begin)
    return silences


def _line(item: Item) -> str:
    if isinstance(item, Entry):
        return f"{'agent' if item.role == 'assistant' else item.role}: {item.text}"
    if isinstance(item, ToolCall):
        return f"call {item.name}"
    return f"tool {item.name}: {item.content}"


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are."""
    spans: list[tuple[int, int]] = []
    at = 0
    for word in text.split():
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return spans


def _heard(cells: Sequence[Cell], text: str) -> tuple[list[str], int, int]:
    """The words of ``text`` that its cells are the sound of, how many came twice, and how many were left out."""
    counts = Counter(cell.index for cell in cells)
    if not counts:
        return [], 0, 0
    # What one character has at most, if it was played once: the usual figure of all of them.
    usual = sorted(counts.values())[len(counts) // 2]
    heard: list[tuple[int, str]] = []
    repeated = 0
    spans = _spans(text)
    for number, (begin, end) in enumerate(spans):
        once = sum(min(counts[index], usual) for index in range(begin, end))
        share = sum(counts[index] for index in range(begin, end)) / (usual * (end - begin))
        if once >= _HEARD_SHARE * usual * (end - begin):
            heard.append((number, text[begin:end]))
        repeated += share >= _REPEATED_SHARE
    missed = heard[-1][0] + 1 - len(heard) if heard else 0
    return [word for _, word in heard], repeated, missed


def _parts(cells: Sequence[Cell], lanes: _Lanes, events: Sequence[CallEvent]) -> list[PartPlayed]:
    believed = {(event.turn, event.part): event.heard for event in events if isinstance(event, AgentSaid)}
    played: dict[tuple[UUID, int], list[tuple[list[str], int, int]]] = {}
    for lane in dict.fromkeys(cell.lane for cell in cells):
        part = lanes.part_of(lane)
        if part is not None:
            heard = _heard([cell for cell in cells if cell.lane == lane], lanes.text_of(lane))
            played.setdefault(part, []).append(heard)
    parts: list[PartPlayed] = []
    for key, heard_words in played.items():
        parts.append(
            PartPlayed(
                turn=key[0],
                part=key[1],
                played=tuple(word for words, _, _ in heard_words for word in words),
                believed=tuple(believed.get(key, "").split()),
                repeated=sum(repeated for _, repeated, _ in heard_words),
                missed=sum(missed for _, _, missed in heard_words),
            )
        )
    return parts


def _transcript(cells: Sequence[Cell], lanes: _Lanes) -> str:
    """All words in the order in which they began to be heard, also those of which only a part was."""
    words: list[str] = []
    last: tuple[int, int] | None = None
    spans: dict[int, list[tuple[int, int]]] = {}
    for cell in cells:
        text = lanes.text_of(cell.lane)
        if cell.lane not in spans:
            spans[cell.lane] = _spans(text)
        number = next((n for n, (begin, end) in enumerate(spans[cell.lane]) if begin <= cell.index < end), -1)
        if number < 0 or (cell.lane, number) == last:
            continue
        last = cell.lane, number
        begin, end = spans[cell.lane][number]
        words.append(text[begin:end])
    return " ".join(words)
