"""Plain ``def`` tools run in threads, and call the agent's methods from there: the loop does what they ask for."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time

import pytest
from test_agent_on_a_line import on_a_call
from test_tools_at_work import Model, call, told

from dialog.agent import threads
from dialog.agent.agent import Agent
from dialog.agent.threads import Home, Leave, from_any_thread
from dialog.agent.tools import Toolbox, tool
from dialog.calls.events import AgentSaid, CallEnded, ToolEnded
from dialog.errors import StateError
from dialog.testing.virtual import run_virtual


class Other(Agent):
    """Takes over."""


class Desk(Agent):
    """``seen`` is what its tools got back, ``where`` the threads that its overrides ran in."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.seen: list[object] = []
        self.where: list[int] = []

    def happened(self, event) -> None:
        self.where.append(threading.get_ident())
        super().happened(event)

    @tool
    def goodbye(self) -> str:
        """Hang up."""
        self.hang_up("said_goodbye")
        return "say goodbye"

    @tool
    def tell(self) -> str:
        """Say something, and look."""
        self.seen += [self.dispatch_message("One moment please.").text, self.heard_last()]
        return "told"

    @tool
    def wrong(self) -> str:
        """Hand over to nobody else."""
        self.hand_off(self)
        return "never"

    @tool
    def connect(self) -> str:
        """Hand over."""
        self.hand_off(Other(voip=self.voip, stt=self.stt, tts=self.tts, llm=Model(["Other here."])))
        return "connected"


def spoken(agent: Desk) -> list[str]:
    return [event.text for event in agent.events if isinstance(event, AgentSaid)]


def states(agent: Desk) -> list[str]:
    return [event.state for event in agent.events if isinstance(event, ToolEnded)]


def talk(*steps, model: Model | None = None) -> Desk:
    async def talking(talk) -> None:
        talk.stt.heard("please")
        await talk.clock.sleep(8)

    agent = on_a_call(talking, Desk, llm=model or Model(*steps)).agent
    assert set(agent.where) == {threading.get_ident()}
    return agent


def test_a_plain_tool_hangs_up_once_the_goodbye_was_heard():
    agent = talk([call("goodbye")], ["Goodbye then."])
    assert (spoken(agent), states(agent)) == (["Goodbye then."], ["done"])
    assert [event.reason for event in agent.events if isinstance(event, CallEnded)] == ["said_goodbye"]


def test_a_plain_tool_speaks_in_its_turn_and_knows_what_the_turn_answers():
    model = Model([call("tell")], ["There you are."])
    agent = talk(model=model)
    assert agent.seen == ["One moment please.", "please"]
    assert (spoken(agent), states(agent)) == (["One moment please.", "There you are."], ["done"])


def test_a_plain_tool_gets_what_the_method_raises():
    model = Model([call("wrong")], ["I cannot."])
    agent = talk(model=model)
    assert states(agent) == ["failed"]
    assert "StateError: Desk: hand_off() needs another agent" in told(model.requests[1])[0]


def test_a_plain_tool_hands_the_call_over():
    agent = talk([call("connect")])
    assert (spoken(agent), states(agent)) == (["Other here."], ["done"])


async def test_a_plain_tool_that_was_given_up_has_nothing_to_say_any_more() -> None:
    go, refused = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    done: list[str] = []

    class Clerk:
        name = "Clerk"
        home: Home | None = Home()

        @from_any_thread
        def hang_up(self) -> None:
            done.append("hung up")

        @tool(timeout_s=0.02)
        def late(self) -> None:
            """Hang up after its time."""
            go.wait(5)
            try:
                self.hang_up()
            except StateError as exc:
                done.append(str(exc))
                loop.call_soon_threadsafe(refused.set)

    result = await Toolbox(Clerk()).run(call("late"))
    go.set()
    async with asyncio.timeout(5):
        await refused.wait()
    assert (result.state, done) == ("timed_out", ["Clerk: hang_up(): the tool that asks for it was given up"])


def test_every_plain_method_is_for_threads_too():
    hooks = {"inference", "state", "restore", "activate", "happened", "reported", "script"}
    plain = {
        name
        for name, member in vars(Agent).items()
        if inspect.isfunction(member) and not name.startswith(("_", "on_")) and not inspect.iscoroutinefunction(member)
    } - hooks
    assert {name for name in plain if not hasattr(getattr(Agent, name), "__wrapped__")} == set()


# -- the way back to the loop by itself


async def test_the_loop_does_it_in_the_context_of_the_thread() -> None:
    home, here = Home(), threading.get_ident()
    assert home.here
    assert await asyncio.to_thread(home.run, threading.get_ident, "looking") == here
    assert not await asyncio.to_thread(lambda: home.here)


async def test_what_a_stalled_loop_did_not_come_to_is_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_LOOP_S", 0.05)
    home, done, told = Home(), [], threading.Event()
    refused: list[str] = []

    def ask() -> None:
        try:
            home.run(lambda: done.append(1), "Desk: hang_up()")
        except StateError as exc:
            refused.append(str(exc))
        told.set()

    thread = threading.Thread(target=ask)
    thread.start()
    told.wait(5)  # the loop stands still meanwhile
    thread.join(5)
    await asyncio.sleep(0)
    assert (len(refused), done) == (1, [])
    assert refused[0].startswith("Desk: hang_up(): the event loop of its call is stalled")


async def test_a_time_out_of_the_work_itself_is_handed_on() -> None:
    def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await asyncio.to_thread(Home().run, work, "working")


def test_a_loop_that_has_ended_is_told() -> None:
    async def make() -> Home:
        return Home()

    home = asyncio.run(make())
    with pytest.raises(StateError, match=r"hang_up\(\): the event loop of its call has ended"):
        home.run(time.monotonic, "hang_up()")


def test_whoever_has_lost_the_leave_is_refused() -> None:
    async def scenario(clock) -> None:
        leave, home, done = Leave(), Home(), []
        await asyncio.to_thread(leave.given_to, lambda: home.run(lambda: done.append(1), "first"))
        leave.ended = True
        with pytest.raises(StateError, match="second: the tool that asks for it was given up"):
            await asyncio.to_thread(leave.given_to, lambda: home.run(lambda: done.append(2), "second"))
        assert done == [1]

    run_virtual(scenario)
