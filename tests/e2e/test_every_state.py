"""A caller may leave, and a provider fail, in every state of a call: it ends once, and nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from house import FrontDesk, House, voice

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.events import CallEnded, CallerSaid, PausedForCaller, ToolStarted
from dialog.message import Message
from dialog.testing.caller import CallEnded as CallOver
from dialog.testing.caller import NothingHeard
from dialog.testing.openai import ChatReply, ToolUse
from dialog.testing.server import Faults

STORY = "I could tell you a very long story about our restaurant and all of its guests over the years. " * 2


class Desk(FrontDesk):
    """Has a tool that never ends, and a notice that is heard out."""

    @tool
    async def look_up(self) -> str:
        """Look something up."""
        await asyncio.Event().wait()
        return "never"

    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "read me the notice":
            await self.dispatch_message(STORY, allow_interrupt=False)
            return
        async for text in super().inference(message):
            yield text


def reply(fields):
    last = fields["messages"][-1]["content"]
    if "think" in last:
        return ChatReply(text="Well.", first_token_s=30.0)
    if "slowly" in last:
        return ChatReply(text=STORY, token_s=0.5)
    if "look" in last:
        return ChatReply(tools=[ToolUse("look_up")])
    return STORY * 2  # it must not be over before the caller speaks up, on a busy machine


async def happens(house, event) -> None:
    async with asyncio.timeout(10):
        while not any(isinstance(one, event) for one in house.agents[0].events):
            await asyncio.sleep(0.005)


async def while_greeted(house, caller):
    await caller.wait_for_speech()


async def while_nobody_speaks(house, caller):
    await caller.listen()


async def while_the_caller_speaks(house, caller):
    await caller.listen()
    await caller.say(voice(5000), wait=False)
    await happens(house, CallerSaid)


async def while_the_model_thinks(house, caller):
    await caller.listen()
    await caller.say(voice(600))
    await house.openai.until(lambda: house.openai.exchanges)


async def while_a_tool_runs(house, caller):
    await caller.listen()
    await caller.say(voice(600))
    await happens(house, ToolStarted)


async def while_the_agent_answers(house, caller):
    await caller.listen()
    await caller.say(voice(600))
    await caller.wait_for_speech()


async def while_the_agent_is_paused(house, caller):
    await while_the_agent_answers(house, caller)
    await caller.clock.sleep(0.5)
    await caller.say(voice(3000), wait=False)
    await happens(house, PausedForCaller)


STATES = {
    while_greeted: "hello",
    while_nobody_speaks: "hello",
    while_the_caller_speaks: "hello",
    while_the_model_thinks: "think about it",
    while_a_tool_runs: "look it up",
    while_the_agent_answers: "tell me slowly",
    while_the_agent_is_paused: "tell me a story",
}
NOTICE = {"a notice is read": (while_the_agent_answers, "read me the notice")}
LEAVING = {state.__name__: (state, sentence) for state, sentence in STATES.items()} | NOTICE


async def nothing_is_left(house: House) -> Agent:
    await house.all_over()
    [agent] = house.agents
    assert sum(isinstance(event, CallEnded) for event in agent.events) == 1
    assert isinstance(agent.events[-1], CallEnded), "nothing happens after the end"
    assert agent.disposed
    assert agent.stt.disposed
    assert agent.tts.disposed
    assert house.gateway.calls == ()
    for emulator in (house.deepgram, house.cartesia):
        await emulator.until(lambda emulator=emulator: not emulator.sockets)
    await house.openai.until(lambda: all(one.state != "streaming" for one in house.openai.exchanges))
    return agent


@pytest.mark.parametrize("how", ["hangs up", "is cut off"])
@pytest.mark.parametrize(("state", "sentence"), LEAVING.values(), ids=[name.replace("_", " ") for name in LEAVING])
async def test_a_caller_may_leave(state, sentence, how):
    house = House(sentences=[sentence], replies=reply, greeting="Good evening to you.", kind=Desk, scale=5.0)
    async with house.open():
        async with house.dial() as caller:
            await state(house, caller)
            if how == "hangs up":
                await caller.hang_up()
            else:
                await caller.drop(hang_up=True)
        agent = await nothing_is_left(house)
        assert agent.voip.end.reason == ("caller_hangup" if how == "hangs up" else "lost")


BROKEN = {
    "refuses": {"refuse": 401},
    "drops": {"drop_after": 0},
    "stalls": {"stall_after": 0},
    "talks garbage": {"garbage_after": 0},
}


def break_down(emulator, fault: str) -> None:
    """From now on, also on the connections that are open; who refuses has cut them."""
    for name, value in BROKEN[fault].items():
        setattr(emulator.faults, name, value)
    if fault == "refuses":
        for socket in tuple(emulator.sockets):
            socket.drop()


async def one_call(state, sentence, provider, fault) -> None:
    house = House(
        sentences=[sentence],
        replies=reply,
        greeting="Good evening to you.",
        kind=Desk,
        scale=5.0,
        settings=AgentSettings(reply_timeout_s=5.0),
        faults={name: Faults() for name in ("deepgram", "openai", "cartesia")},
    )
    async with house.open():
        with suppress(CallOver, NothingHeard):
            async with house.dial() as caller:
                await state(house, caller)
                break_down(getattr(house, provider), fault)
                await caller.say(voice(600))
                await caller.listen(timeout_s=15)
                await caller.hang_up()
        await nothing_is_left(house)


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("provider", ["deepgram", "openai", "cartesia"])
async def test_a_provider_may_fail(provider, fault):
    await asyncio.gather(*(one_call(state, said, provider, fault) for state, said in STATES.items()))
