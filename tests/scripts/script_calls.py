"""A call that a script holds, on a line in memory and in virtual time."""

from __future__ import annotations

import asyncio

from dialog.agent.scripts.call import ScriptCall
from dialog.agent.scripts.script import Script
from dialog.calls.events import CallEnded
from dialog.participant import Participant
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.virtual import run_virtual
from dialog.voip.memory import MemoryCarrier, memory_call

__all__ = ["Stage", "play", "scripted"]

MS = 50.0
"""The voice says a character in so many milliseconds."""


class Stage:
    """The test's side of a scripted call."""

    def __init__(self, clock, kind, *, carrier=None, line=None, stt=None, tts=None, **options) -> None:
        self.clock = clock
        self.stt = stt or ToldSTT()
        self.tts = tts or HummingTTS()
        self.carrier = carrier or MemoryCarrier()
        self.errors: list = []

        def on_voip(voip) -> None:
            self.script = kind(voip=voip, stt=self.stt, tts=self.tts, **options)
            self.script.on(Participant.ERROR, self.errors.append)
            self.script.activate()
            if isinstance(self.script, Script):
                self.call = self.script.call

        self.host, self.first_line = memory_call(on_voip, clock=clock, carrier=self.carrier, join=False, line=line)

    @property
    def line(self):
        return self.carrier.lines[-1]

    @property
    def said(self) -> list[str]:
        """Everything the voice was given, in its order."""
        return [text for text in self.tts.texts.values() if text]

    async def wait(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    async def until_said(self, text: str) -> None:
        """Wait until ``text`` was heard."""
        async with asyncio.timeout(60):
            while not self.said or self.said[-1] != text:
                await self.clock.sleep(0.05)
        await self.clock.sleep(len(text) * MS / 1000 + 0.1)

    async def answer(self, prompt: str, reply: str) -> None:
        """Say ``reply`` once ``prompt`` was heard."""
        await self.until_said(prompt)
        self.stt.heard(reply)

    async def over(self) -> None:
        if self.host.state != "ended":
            self.line.hang_up()
        await self.host.wait_closed()
        for line in self.carrier.lines:
            await line.wait_closed()


def scripted(run) -> type[Script]:
    """A script that runs ``run(call)``, and keeps what comes of it in ``outcome``."""

    class Made(Script):
        outcome: object = None

        async def run(self, call: ScriptCall) -> None:
            try:
                self.outcome = await run(call)
            except Exception as exc:
                self.outcome = exc
                raise

    return Made


def play(run, caller=None, *, kind=None, stays: bool = False, **options) -> Stage:
    """Let ``run(call)`` hold a call on which ``caller(stage)`` does what the caller does."""

    async def scenario(clock):
        stage = Stage(clock, kind or scripted(run), **options)
        stage.first_line.join(stage.host)
        async with asyncio.timeout(100_000):
            if caller is not None:
                await caller(stage)
            if not stays:
                await stage.host.wait_ended()
            await stage.over()
        ended = [event for event in stage.script.events if isinstance(event, CallEnded)]
        assert len(ended) == 1
        stage.ended = ended[0]
        return stage

    return run_virtual(scenario)
