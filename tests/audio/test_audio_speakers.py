"""Calls on the speakers of this machine; the device is the one of the library that plays into nothing, in real time."""

from __future__ import annotations

import asyncio
import builtins
import logging

import pytest
from steady import steady_clock

from dialog.audio.speakers import LocalSpeakers, NoSpeakers
from dialog.errors import MissingExtra
from dialog.message import PCM_16K
from dialog.voip.listening_in import play_on_speakers
from dialog.voip.memory import MemoryLine, memory_call

FRAME = b"\x10" * 160


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_both_sides_are_played_and_the_device_is_given_back():
    speakers = LocalSpeakers(backends=("null",))
    await asyncio.to_thread(speakers.start)
    for number in range(25):
        speakers.agent(number * 20.0, FRAME)
        speakers.caller(number * 20.0, FRAME)
    speakers.agent_cleared(480.0)
    await until(lambda: speakers.played_ms >= 480.0)
    speakers.close()
    speakers.close()
    played = speakers.played_ms
    speakers.caller(500.0, FRAME)
    assert speakers.played_ms == played


def test_a_device_that_does_not_keep_up_loses_the_oldest():
    speakers = LocalSpeakers(PCM_16K)
    for number in range(500):
        speakers.caller(number * 20.0, bytes(640))
    assert PCM_16K.ms(len(speakers._waiting)) == 1000.0


def test_a_machine_without_such_a_device_is_told():
    with pytest.raises(NoSpeakers, match="cannot be opened"):
        LocalSpeakers(backends=("winmm",)).start()


def test_the_extra_is_named(monkeypatch):
    found = builtins.__import__

    def without(name, *rest):
        if name == "miniaudio":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="speakers"):
        LocalSpeakers().start()


class Gateway:
    """Holds one call in memory."""

    def __init__(self) -> None:
        clock = steady_clock(4.0)
        self.call, self.line = memory_call(lambda voip: None, clock=clock, line=MemoryLine(clock=clock))

    def add_tap(self, voip, tap) -> None:
        self.call.add_tap(tap)

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


async def test_a_call_is_heard_until_its_end():
    gateway, speakers = Gateway(), LocalSpeakers(backends=("null",))
    play_on_speakers(gateway, gateway.call.voip, speakers=speakers)
    gateway.line.say(FRAME * 50)
    await until(lambda: speakers.played_ms > 200)
    await gateway.over()
    await until(lambda: speakers._device is None)


async def test_without_speakers_the_call_goes_on_with_a_warning(caplog):
    gateway = Gateway()
    with caplog.at_level(logging.WARNING):
        play_on_speakers(gateway, gateway.call.voip, speakers=LocalSpeakers(backends=("winmm",)))
        await until(lambda: "not heard on the speakers" in caplog.text)
    assert gateway.call.state == "live"
    await gateway.over()
