"""Plays a scenario: the caller does what it says, everything that happens is noted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Protocol
from uuid import UUID, uuid4

from dialog.agent.agent import Agent
from dialog.calls.events import CallEvent
from dialog.clock import Clock
from dialog.errors import ConfigurationError
from dialog.testing.call import CallEnded, CallSpec, NothingHeard
from dialog.testing.caller import Caller, Dialling
from dialog.testing.scenario import (
    At,
    Drop,
    Fault,
    HangUp,
    Listen,
    Noise,
    Press,
    Range,
    Say,
    Scenario,
    Silence,
    Step,
    WaitEnd,
)
from dialog.testing.scenario_outcome import Outcome, Sound, measure, tag_of
from dialog.testing.scenario_sound import PAUSE, Cell, Letters, noise, spell
from dialog.testing.server import Faults
from dialog.testing.voice import load

__all__ = ["Stage", "run_scenario"]

_KEY_S = 0.33
_END_S = 20.0
"""How long the agent's side may take to notice that a call is over."""


class Stage(Protocol):
    """Where a scenario is played: a gateway with its agents."""

    clock: Clock
    url: str
    auth_token: str
    account_sid: str
    public_url: str

    def agent(self, call_sid: str) -> Agent | None:
        """The agent that took the call."""
        ...

    def dialled(self, caller: Caller) -> None:
        """A caller is about to dial."""
        ...

    def text_of(self, lane: int) -> str:
        """What a context of the voice was given to speak; empty if nobody knows."""
        ...

    def part_of(self, lane: int) -> tuple[UUID, int] | None:
        """Turn and part that a context of the voice belongs to."""
        ...

    def fault(self, provider: str, faults: Faults) -> None:
        """Let a provider misbehave.

        Raises:
            ConfigurationError: It is not emulated here.
        """
        ...

    async def call_over(self, call_sid: str) -> bool:
        """Wait, within a bound, until nothing of the call is left; whether that came true."""
        ...


async def run_scenario(scenario: Scenario, stage: Stage, *, seed: int, spells: bool = True) -> Outcome:
    """Play ``scenario`` on ``stage``, its times varied by ``seed``, and measure what came of it.

    Raises:
        ConfigurationError: A step needs what this stage does not have.
        Refused: The gateway did not take the call.
    """
    random = Random(f"{seed}:{scenario.name}")
    call_sid = f"CA{uuid4().hex}"
    spec = CallSpec(
        url=stage.url,
        auth_token=stage.auth_token,
        account_sid=stage.account_sid,
        from_="+15551230001",
        to="+15551230002",
        clock=stage.clock,
        public_url=stage.public_url,
        call_sid=call_sid,
    )
    caller = Caller(spec)
    stage.dialled(caller)
    director = _Director(caller, stage, random, spells=spells)
    async with Dialling(caller):
        director.watch()
        try:
            for step in scenario.steps:
                await director.perform(step)
        except CallEnded as exc:
            director.problems.append(str(exc))
        except NothingHeard as exc:
            director.problems.append(str(exc))
        ended_ms = caller.now_ms()
        await caller.hang_up()
        over = await stage.call_over(call_sid)
    if not over:
        director.problems.append(f"something of the call is left {_END_S:g} s after its end")
    return measure(scenario, caller, director, stage, seed=seed, ended_ms=ended_ms)


class _Director:
    """Performs the steps of one scenario, and remembers what the caller did."""

    def __init__(self, caller: Caller, stage: Stage, random: Random, *, spells: bool) -> None:
        self.caller = caller
        self.events: list[CallEvent] = []
        self.sounds: list[Sound] = []
        """What the caller said, and other sounds, as they began."""
        self.listens: list[bool] = []
        """For each Listen step whether something was heard."""
        self.problems: list[str] = []
        self.agent: Agent | None = None
        self._stage = stage
        self._random = random
        self._spells = spells
        self._lane = 0
        self._seen = 0
        """Events that earlier steps have waited for."""
        self._letters = Letters()
        self._read_ms = 0.0
        self._cells: list[Cell] = []

    def watch(self) -> None:
        """Listen to the agent's events; it exists once the webhook is answered."""
        self.agent = self._stage.agent(self.caller.call_sid)
        if self.agent is not None:
            self.events += self.agent.events
            self.agent.on(Agent.EVENT, self.events.append)

    async def perform(self, step: Step) -> None:
        """Do one step.

        Raises:
            NothingHeard: What it waits for did not come.
            CallEnded: The call ended before.
        """
        if isinstance(step, Say):
            await self._at(step.at)
            self._lane += 1
            audio = await self._voiced(step)
            await self._sound(audio, step.text, step.at, wait=step.wait)
        elif isinstance(step, Noise):
            await self._at(step.at)
            await self._sound(noise(self._figure(step.ms), seed=self._random.getrandbits(30)), "", step.at, wait=True)
        elif isinstance(step, Press):
            await self._at(step.at)
            for digit in step.digits:
                self.caller.press(digit)
                await self.caller.clock.sleep(_KEY_S * self._about())
        elif isinstance(step, Silence):
            await self._pass(self._figure(step.seconds))
        elif isinstance(step, Listen):
            await self._listen(step)
        elif isinstance(step, Fault):
            self._fault(step)
        elif isinstance(step, Drop):
            await self._at(step.at)
            await self.caller.drop()
        elif isinstance(step, WaitEnd):
            await self.caller.wait_ended(timeout_s=step.timeout_s)
        else:
            assert isinstance(step, HangUp)
            await self._at(step.at)
            await self.caller.hang_up()

    async def _voiced(self, step: Say) -> bytes:
        if self._spells:
            return spell(step.text, lane=self._lane, ms_per_char=1000 / (step.pace * self._about()), quiet=step.quiet)
        audio = b""
        for number, piece in enumerate(PAUSE.split(step.text)):
            if number % 2:
                audio += b"\xff" * round(float(piece) * 8000)
            elif piece.strip():
                audio += await load(piece, None)
        return audio

    def _about(self) -> float:
        return self._random.uniform(0.9, 1.1)

    def _figure(self, figure: Range) -> float:
        return self._random.uniform(*figure) if isinstance(figure, tuple) else figure * self._about()

    async def _sound(self, audio: bytes, text: str, at: At, *, wait: bool) -> None:
        over_reply = at.reply_ms is not None or bool(at.word) or at.last_word
        sound = Sound(text=text, started_ms=self.caller.now_ms(), ended_ms=0.0, over_reply=over_reply)
        sound.ended_ms = sound.started_ms + len(audio) / 8
        self.sounds.append(sound)
        try:
            spoken = await self.caller.say(audio, wait=wait)
        except CallEnded:
            sound.ended_ms = self.caller.now_ms()
            raise
        if spoken is not None:
            sound.started_ms, sound.ended_ms = spoken

    async def _listen(self, step: Listen) -> None:
        if step.optional:
            with suppress(NothingHeard):
                await self.caller.listen(silence_ms=step.silence_ms, timeout_s=step.timeout_s)
            return
        self.listens.append(False)
        await self.caller.listen(silence_ms=step.silence_ms, timeout_s=step.timeout_s)
        self.listens[-1] = True

    async def _pass(self, seconds: float) -> None:
        end = self.caller.now_ms() + seconds * 1000
        await self.caller._until(
            lambda: self.caller.ended or self.caller.now_ms() >= end, seconds + 5, "time to pass", lambda: True
        )

    def _fault(self, step: Fault) -> None:
        faults = Faults(
            times=step.times,
            refuse=step.refuse,
            hang=step.hang,
            drop_after=step.drop_after,
            stall_after=step.stall_after,
        )
        self._stage.fault(step.provider, faults)

    async def _at(self, at: At) -> None:
        since = self.caller.spoken[-1].ended_ms if self.caller.spoken else 0.0
        if at.reply_ms is not None:
            wait_ms = self._figure(at.reply_ms)
            await self._until(lambda: self._speaks_since(since, wait_ms), at, "the agent to speak")
        if at.word:
            self._need_spelling("word")
            wanted = at.word.casefold()
            await self._until(lambda: wanted in self._text(since), at, f"the agent to say {at.word!r}")
        if at.last_word:
            self._need_spelling("last_word")
            await self._until(lambda: self._in_last_word(since), at, "the agent's last word")
        if at.event:
            await self._until(lambda: self._next_event(at.event), at, f"the event {at.event}")
        if at.after_s:
            await self._pass(self._figure(at.after_s))

    async def _until(self, condition: Callable[[], bool], at: At, what: str) -> None:
        await self.caller._until(condition, at.timeout_s, what)

    def _need_spelling(self, field: str) -> None:
        if not self._spells:
            raise ConfigurationError(f"'at.{field}' needs a voice whose words can be read: use emulated speech")

    def _speaks_since(self, since: float, wait_ms: float) -> bool:
        now = self.caller.now_ms()
        stretches = self.caller._ear.stretches
        if not stretches or now - stretches[-1].ended_ms > 200:
            return False
        return now >= max(stretches[-1].started_ms, since) + wait_ms

    def _read(self) -> None:
        """Read what was played since the last time."""
        now = self.caller.now_ms()
        size = len(self.caller._ear_track._data) / 8
        until = min(now, size)
        if until > self._read_ms:
            self._cells += self._letters.read(self.caller._ear_track.cut(self._read_ms, until), self._read_ms)
            self._read_ms = round(until * 8) / 8

    def _text(self, since: float) -> str:
        self._read()
        text = ""
        last: Cell | None = None
        for cell in self._cells:
            if cell.at_ms < since:
                continue
            if last is None or (cell.lane, cell.index) != (last.lane, last.index):
                gap = last is not None and (cell.lane != last.lane or cell.index != last.index + 1)
                text += (" " if gap else "") + cell.char
            last = cell
        return text.casefold()

    def _in_last_word(self, since: float) -> bool:
        self._read()
        if not self._cells or self._cells[-1].at_ms < since or self.caller.now_ms() - self._cells[-1].at_ms > 100:
            return False
        cell = self._cells[-1]
        text = self._stage.text_of(cell.lane).rstrip()
        return bool(text) and cell.index > text.rfind(" ") and cell.index < len(text)

    def _next_event(self, tag: str) -> bool:
        for number, event in enumerate(self.events[self._seen :], self._seen):
            if tag_of(event) == tag:
                self._seen = number + 1
                return True
        return False
