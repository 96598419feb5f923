"""What two agents said to each other, put together from the events of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from dialog.calls import events as ev
from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.message import CallEnd, Playback
from dialog.testing.heard import Ear, Stretch
from dialog.testing.media import Fragment
from dialog.testing.reply import UsedTool, used_tools
from dialog.voip.voip import VoIP

__all__ = ["AgentTalk", "Side", "TalkLimits", "TalkLine", "TalkRecorder", "turn_times"]

_OTHER_HUNG_UP = "caller_hangup"
"""How a call ends for the side that did not end it."""
_PAUSE_MS = 2000.0
"""A caller who goes on within so much has made a pause."""
Side: TypeAlias = Literal["agent", "caller"]
"""Who answers the call, and who has placed it."""


class TalkLimits(Struct, frozen=True, kw_only=True):
    """When a call between two agents is ended for them.

    Raises:
        ConfigurationError: A value is not positive.
    """

    max_duration_s: float = 300.0
    max_turns: int = 40
    """Of the caller."""
    max_silence_s: float = 30.0
    """Neither side has said or done anything for so long."""

    def __post_init__(self) -> None:
        for name in ("max_duration_s", "max_turns", "max_silence_s"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be positive, got {getattr(self, name)}")


class TalkLine(Struct, frozen=True, kw_only=True):
    """Something that was said, or done by the agent."""

    who: Literal["agent", "caller", "tool", "note"]
    """``note``: what else happened at the agent, such as a hand-off or an error."""
    text: str
    """Words as the other side heard them."""
    at_s: float
    """When it began, in seconds of the call."""
    unheard: str = ""
    """What was still to be said when it was cut."""
    tool: UsedTool | None = None

    def __str__(self) -> str:
        tail = f" [cut: {self.unheard}]" if self.unheard else ""
        return f"{self.at_s:7.1f}  {self.who:<7}{self.text}{tail}"


class AgentTalk(Struct, frozen=True, kw_only=True):
    """A call between two agents that is over."""

    lines: tuple[TalkLine, ...]
    ended_by: Literal["agent", "caller", "limit"]
    reason: str
    """Why it ended: the reason that was given for the hang-up, or which limit it was."""
    duration_s: float
    agent_events: tuple[ev.CallEvent, ...] = ()
    """What happened at the agent; empty if it runs in another process."""
    caller_events: tuple[ev.CallEvent, ...] = ()
    latencies_ms: tuple[float, ...] = ()
    """End of the caller's words to the agent's next sound, as the caller heard it; empty for a talk by text."""
    dead_air_s: float = 0.0
    """Longest wait for the agent that the caller had after speaking."""
    wav: bytes = b""
    """The call as a WAV file, the caller on the left, the agent on the right; empty for a talk by text."""

    @property
    def transcript(self) -> str:
        """All of it as text, line by line, with the seconds of the call."""
        return "\n".join(map(str, self.lines))

    def said_by(self, who: Side) -> str:
        """Everything that the other side heard of ``who``."""
        return " ".join(line.text for line in self.lines if line.who == who)

    @property
    def tools(self) -> tuple[UsedTool, ...]:
        """The tools that the agent used, in their order."""
        return tuple(line.tool for line in self.lines if line.tool is not None)

    @property
    def caller_turns(self) -> int:
        """How often the caller said something before the agent did."""
        spoke = [line.who for line in self.lines if line.who in ("agent", "caller")]
        return sum(who == "caller" and before != "caller" for who, before in zip(spoke, ["", *spoke], strict=False))

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed at the caller: then the talk tells little about the agent."""
        return tuple(
            f"{event.source}: {event.text}" for event in self.caller_events if isinstance(event, ev.ErrorRaised)
        )


class TalkRecorder:
    """Listens to both sides of a call, and notices when it goes on for too long.

    Args:
        clock: The call's.
        on_line: Told each line when it is complete.
        one_sided: Only the caller is watched: what the agent says is what the caller hears.
    """

    def __init__(
        self, clock: Clock, on_line: Callable[[TalkLine], object] | None = None, *, one_sided: bool = False
    ) -> None:
        self.lines: list[TalkLine] = []
        self.events: dict[Side, list[ev.CallEvent]] = {"agent": [], "caller": []}
        self.ends: list[tuple[Side, CallEnd]] = []
        """How the call ended for each side, in that order."""
        self._clock = clock
        self._on_line = on_line
        self._one_sided = one_sided
        self._began_s = clock.now()
        self._active_s = self._began_s
        self._started: dict[tuple[UUID, int], float] = {}
        self._tools: dict[str, ev.ToolStarted] = {}
        self._changed = asyncio.Event()
        self.over: bool = False
        """Somebody has hung up."""
        self.ended_s: float = 0.0
        """When, or when a limit was reached; seconds since the call began."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return self._clock.now() - self._began_s

    @property
    def silent_s(self) -> float:
        """Seconds since anything was said or done."""
        return self._clock.now() - self._active_s

    def watch(self, voip: VoIP, side: Side) -> None:
        """``voip`` is how ``side`` holds the call."""
        voip.on(VoIP.EVENT, lambda event: self.happened(event, side))
        voip.on(VoIP.PLAYBACK, self._played)
        voip.on(VoIP.ENDED, lambda end: self.ended(side, end))

    def ended(self, side: Side, end: CallEnd) -> None:
        """The call is over for one side, which tells the other."""
        self.ends.append((side, end))
        if not self.over:
            self.over = True
            self.ended_s = self.elapsed_s
        self._changed.set()

    def active(self) -> None:
        """Something is being said or done."""
        self._active_s = self._clock.now()
        self._changed.set()

    async def changed(self, timeout_s: float) -> None:
        """Wait until something has happened, at most so many seconds of the clock."""
        self._changed.clear()
        try:
            async with asyncio.timeout(self._clock.real(max(0.0, timeout_s))):
                await self._changed.wait()
        except TimeoutError:
            return

    def exceeded(self, limits: TalkLimits) -> str:
        """Which limit the call has reached; empty: none."""
        turns = sum(line.who == "caller" for line in self.lines)
        if self.elapsed_s >= limits.max_duration_s - 1e-6:
            return f"the call went on for {limits.max_duration_s:g} s"
        if turns > limits.max_turns:
            return f"the caller had to speak more than {limits.max_turns} times"
        if self.silent_s >= limits.max_silence_s - 1e-6:
            return f"nobody said anything for {limits.max_silence_s:g} s"
        return ""

    async def wait_over(self, limits: TalkLimits) -> str:
        """Wait until somebody has hung up, or a limit is reached, and tell which; empty: somebody has hung up."""
        while not self.over:
            if exceeded := self.exceeded(limits):
                return exceeded
            await self.changed(min(limits.max_duration_s - self.elapsed_s, limits.max_silence_s - self.silent_s))
        return ""

    def ended_by(self, exceeded: str) -> tuple[Literal["agent", "caller", "limit"], str]:
        """Who has ended the call, and why; ``exceeded`` is what :meth:`wait_over` returned."""
        if exceeded or not self.ends:
            return "limit", exceeded
        for side, end in self.ends:
            if end.reason != _OTHER_HUNG_UP:
                return side, end.reason
        return "caller" if self.ends[0][0] == "agent" else "agent", _OTHER_HUNG_UP

    def happened(self, event: ev.CallEvent, side: Side) -> None:
        """Take an event of one side."""
        self.events[side].append(event)
        if isinstance(event, ev.AgentSaid):
            self._said(event, side)
        elif self._one_sided and isinstance(event, ev.CallerSaid) and event.final:
            self._add(TalkLine(who="agent", text=" ".join(event.text.split()), at_s=event.start_ms / 1000.0))
        elif side == "agent" and isinstance(event, ev.ToolStarted):
            self._tools[event.call_id] = event
            self.active()
        elif side == "agent" and isinstance(event, ev.ToolEnded):
            started = self._tools.pop(event.call_id, None)
            for use in used_tools((started, event)) if started is not None else ():
                self._add(TalkLine(who="tool", text=f"{use} → {use.result}", at_s=self.elapsed_s, tool=use))
        elif side == "agent" and isinstance(event, ev.HandedOff):
            self._note(f"{event.from_} hands over to {event.to}")
        elif side == "agent" and isinstance(event, ev.DigitPressed):
            self._note(f"the caller presses {event.digit}")
        elif side == "agent" and isinstance(event, ev.ErrorRaised):
            self._note(f"error: {event.source}: {event.text}")
        self._changed.set()

    def _note(self, text: str) -> None:
        self._add(TalkLine(who="note", text=text, at_s=self.elapsed_s))

    def _played(self, playback: Playback) -> None:
        if playback.state == "playing":
            self._started.setdefault(
                (playback.uuid, playback.part), self._clock.now() - playback.heard_ms / 1000.0 - self._began_s
            )
            self.active()

    def _said(self, event: ev.AgentSaid, side: Side) -> None:
        text, heard = " ".join(event.text.split()), " ".join(event.heard.split())
        at_s = self._started.pop((event.turn, event.part), self.elapsed_s)
        if heard:
            unheard = text[len(heard) :].strip() if text.startswith(heard) else ""
            self._add(TalkLine(who=side, text=heard, at_s=at_s, unheard=unheard))

    def _add(self, line: TalkLine) -> None:
        # Lines come when they are over; what began earlier stands first.
        at = len(self.lines)
        while at and self.lines[at - 1].at_s > line.at_s:
            at -= 1
        self.lines.insert(at, line)
        if self._on_line is not None:
            self._on_line(line)
        self.active()


def turn_times(caller: bytes, agent: bytes) -> tuple[tuple[float, ...], float]:
    """How long the caller waited for the agent after speaking: each time in milliseconds, and the longest in seconds.

    Who asks again after a while has waited all that time.

    Args:
        caller: The caller's side of the call, mu-law from its first millisecond on.
        agent: What the caller heard, likewise.
    """
    answers = _stretches(agent)
    waits: list[float] = []
    since_ms: float | None = None
    asked_ms = 0.0
    """When the caller has said something last."""
    spoke = [(one, True) for one in answers] + [(one, False) for one in _stretches(caller)]
    for one, is_agent in sorted(spoke, key=lambda each: each[0].started_ms):
        if is_agent:
            if since_ms is not None and one.started_ms >= since_ms:
                waits.append(one.started_ms - since_ms)
            since_ms = None
        elif not any(answer.started_ms < one.ended_ms < answer.ended_ms for answer in answers):
            if since_ms is None or one.started_ms - asked_ms < _PAUSE_MS:
                since_ms = one.ended_ms
            asked_ms = one.ended_ms
    unanswered_ms = len(caller) / 8 - since_ms if since_ms is not None else 0.0
    longest_ms = max([*waits, unanswered_ms])
    return tuple(round(wait, 1) for wait in waits), round(longest_ms / 1000.0, 3)


def _stretches(track: bytes) -> Sequence[Stretch]:
    ear = Ear()
    ear.hear(Fragment(0.0, track))
    return ear.stretches
