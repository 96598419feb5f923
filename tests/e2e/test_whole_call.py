"""Whole calls over the real wires: a simulated carrier, the gateway, and each provider's protocol."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import ClientResponse
from house import House, voice

from dialog.agent.settings import AgentSettings
from dialog.calls.events import CallEnded, Interrupted, ResumedAfterPause
from dialog.net.frames import FrameReader
from dialog.net.websocket import WebSocket
from dialog.testing.caller import CallEnded as CallOver
from dialog.testing.caller import NothingHeard
from dialog.testing.openai import ChatReply, ToolUse
from dialog.testing.server import Faults
from dialog.voip.call import Call
from dialog.voip.line import Line


def descriptors_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_greeting_a_question_a_tool_and_a_goodbye():
    def reply(fields):
        last = fields["messages"][-1]
        if last["role"] == "tool":
            return f"It is {last['content']}."
        if "table" in last["content"]:
            return ChatReply(text="One moment. ", tools=[ToolUse("book_table", {"people": 4})])
        return "Goodbye!"

    house = House(sentences=["a table for four please", "thank you goodbye"], replies=reply, greeting="Good evening!")
    async with house.open(), house.dial() as caller:
        greeting = await caller.listen()
        assert greeting.started_ms < 1000
        await caller.say(voice(900))
        answer = await caller.listen()
        assert answer.latency_ms is not None
        await caller.say(voice(800))
        await caller.listen()
        await caller.hang_up()
        await house.all_over()
        assert house.agents[0].booked == [4]
        assert house.said() == [
            ("assistant", "Good evening!"),
            ("user", "a table for four please"),
            ("assistant", "One moment."),
            ("assistant", "It is booked for 4."),
            ("user", "thank you goodbye"),
            ("assistant", "Goodbye!"),
        ]
        assert not caller.underruns()
        assert house.agents[0].disposed


async def test_an_interruption_silences_the_line_and_history_keeps_what_was_heard():
    text = "I could tell you a very long story about our restaurant and all of its guests over the years."
    replies = iter([text, "All right."])
    house = House(sentences=["tell me a story", "stop please"], replies=lambda fields: next(replies))
    async with house.open(), house.dial() as caller:
        await caller.say(voice(800))
        await caller.wait_for_speech()
        await caller.clock.sleep(1.5)
        await caller.say(voice(800))
        await caller.listen()
        await caller.hang_up()
        await house.all_over()
        said = house.said()
        assert said[0] == ("user", "tell me a story")
        assert said[1][0] == "assistant"
        assert text.startswith(said[1][1])
        assert 10 < len(said[1][1]) < len(text)
        assert said[2:] == [("user", "stop please"), ("assistant", "All right.")]
        assert caller.clears
        assert any(isinstance(event, Interrupted) for event in house.agents[0].events)


async def test_a_cough_pauses_the_agent_and_it_goes_on():
    text = "I could tell you a very long story about our restaurant and all of its guests."
    house = House(sentences=["tell me a story", ""], replies=[text])
    async with house.open(), house.dial() as caller:
        await caller.say(voice(800))
        await caller.wait_for_speech()
        await caller.clock.sleep(1.0)
        await caller.say(voice(200))
        await caller.listen(silence_ms=3000, timeout_s=30)
        await caller.hang_up()
        await house.all_over()
        assert house.said()[1] == ("assistant", text)
        assert any(isinstance(event, ResumedAfterPause) for event in house.agents[0].events)


@pytest.mark.parametrize("provider", ["deepgram", "cartesia", "openai"])
@pytest.mark.parametrize("kind", ["refuse", "hang", "drop", "stall", "garbage"])
async def test_a_caller_can_always_leave_and_the_call_ends_once_whatever_fails(provider, kind):
    faults = {
        "refuse": Faults(refuse=401),
        "hang": Faults(hang=True),
        "drop": Faults(drop_after=1),
        "stall": Faults(stall_after=1),
        "garbage": Faults(garbage_after=0),
    }[kind]
    house = House(faults={provider: faults}, greeting="Hello.", settings=AgentSettings(reply_timeout_s=4.0))
    async with house.open(), house.dial() as caller:
        with suppress(NothingHeard, CallOver):
            await caller.say(voice(500))
            await caller.listen(timeout_s=8)
        await caller.hang_up()
        await house.all_over()
        assert sum(isinstance(event, CallEnded) for event in house.agents[0].events) == 1
        assert house.agents[0].disposed


async def test_a_model_that_refuses_is_apologised_for_and_the_call_goes_on():
    house = House(sentences=["hello", "hello again"], faults={"openai": Faults(refuse=500, times=4)})
    async with house.open(), house.dial() as caller:
        await caller.say(voice(500))
        await caller.listen()
        house.openai.faults = Faults()
        await caller.say(voice(500))
        await caller.listen()
        await caller.hang_up()
        # Only now: the agent learns a moment after the caller that all was heard.
        await house.all_over()
        assert house.said() == [
            ("user", "hello"),
            ("assistant", house.settings.apology),
            ("user", "hello again"),
            ("assistant", "Fine, thank you. What can I do for you?"),
        ]


async def test_ears_that_are_refused_are_explained_to_the_caller_and_end_the_call():
    house = House(faults={"deepgram": Faults(refuse=401)})
    async with house.open(), house.dial() as caller:
        await caller.listen()
        await house.all_over()
        assert house.said() == [("assistant", house.settings.failure)]
        [end] = [event for event in house.agents[0].events if isinstance(event, CallEnded)]
        assert end.reason == "agent_hangup"


async def test_a_voice_that_is_refused_ends_the_call_instead_of_staying_silent():
    house = House(faults={"cartesia": Faults(refuse=401)}, greeting="Hello.")
    async with house.open():
        with suppress(CallOver, NothingHeard):
            async with house.dial() as caller:
                await caller.listen(timeout_s=10)
        await house.all_over()
        [end] = [event for event in house.agents[0].events if isinstance(event, CallEnded)]
        assert end.reason == "agent_hangup"


async def test_a_voice_that_stays_mute_ends_the_call_after_its_second_silent_part():
    house = House(scale=2.0, faults={"cartesia": Faults(stall_after=0)}, greeting="Hello.")
    async with house.open(), house.dial() as caller:
        with suppress(CallOver, NothingHeard):
            await caller.clock.sleep(11)  # the greeting is given up after five real seconds
            await caller.say(voice(500))
            await caller.listen(timeout_s=20)
        await house.all_over()
        [end] = [event for event in house.agents[0].events if isinstance(event, CallEnded)]
        assert end.reason == "agent_hangup"


async def test_a_broken_ear_reconnects_and_no_word_is_lost():
    house = House(sentences=["one two three", "four five six"], faults={"deepgram": Faults(drop_after=3, times=1)})
    async with house.open(), house.dial() as caller:
        await caller.say(voice(1000))
        await caller.listen()
        await caller.say(voice(1000))
        await caller.listen()
        await caller.hang_up()
        await house.all_over()
        assert [text for role, text in house.said() if role == "user"] == ["one two three", "four five six"]


async def test_a_call_that_is_over_holds_no_connection_until_the_garbage_collector_comes():
    """It would come for those of many calls at once, and stop all others meanwhile."""
    kinds = (Call, Line, WebSocket, FrameReader, ClientResponse)

    def left() -> set[str]:
        return {
            type(each).__name__ for each in gc.get_objects() if id(each) not in before and issubclass(type(each), kinds)
        }

    house = House(sentences=["hello there"], replies=lambda fields: "Fine.", greeting="Hi.")
    async with house.open():
        gc.collect()
        before = {id(each) for each in gc.get_objects() if issubclass(type(each), kinds)}  # of tests that failed
        gc.disable()
        try:
            async with house.dial() as caller:
                await caller.listen()
                await caller.say(voice(600))
                await caller.listen()
                assert left() >= {"Call", "Line", "WebSocket", "FrameReader"}
                await caller.hang_up()
                await house.all_over()
            house.agents.clear()
            async with asyncio.timeout(10):
                while left():  # the goodbye to a provider goes on for a moment
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


@pytest.mark.timeout(180)
async def test_a_thousand_calls_leave_no_task_socket_or_map_entry_behind_and_memory_flat():
    house = House(scale=20.0, greeting="Hi.", replies=lambda fields: "Fine.")
    async with house.open():

        async def one(number: int) -> None:
            async with house.dial(light=True, call_sid=f"CA{number:032x}") as caller:
                while caller.first_media_ms is None:
                    await caller.clock.sleep(0.05)
                if number % 3 == 0:
                    await caller.drop()
                else:
                    await caller.hang_up()

        async def some(first: int, count: int) -> None:
            for start in range(first, first + count, 20):
                await asyncio.gather(*(one(number) for number in range(start, start + 20)))
                await house.all_over()
                for emulator in (house.deepgram, house.cartesia, house.openai):
                    emulator.frames.clear()
                    emulator.requests.clear()
                house.cartesia.texts.clear()
                house.agents.clear()

        await some(0, 200)
        gc.collect()
        tasks, descriptors, objects = len(asyncio.all_tasks()), descriptors_open(), sys.getallocatedblocks()
        await some(200, 800)
        gc.collect()
        assert house.gateway.calls == ()
        # Of 800 calls at most 20 at once: so many connections to the model may be kept alive, each with
        # a task of the emulator's and two ends in this process.
        assert len(asyncio.all_tasks()) <= tasks + 20
        assert descriptors_open() <= descriptors + 40
        grown = (sys.getallocatedblocks() - objects) / 800
        # Of the process's memory more is told by the soak: here other tests have left holes in it.
        assert grown < 10, "objects of a call at most, the simulated side included, where an agent alone has hundreds"
