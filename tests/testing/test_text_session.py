"""TextSession: a user's agent, held to account in text, on virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from dialog import Agent, AgentSettings, Message, OpenAIAgent, RuleAgent, VoIP, tool
from dialog.agent.turns.settings import Silence, TurnSettings
from dialog.calls import events as ev
from dialog.errors import ConfigurationError, StateError
from dialog.llm.llm import Entry, LLMRequest, ToolResult
from dialog.llm.rules import Rule
from dialog.message import CallMetadata
from dialog.testing import ScriptedLLM, TextSession, ToolUse, run_virtual, virtual_time
from dialog.voip.link import TransferTo

STORY = "Once upon a time there was a small harbour with nine blue boats."


def unwanted():
    raise AssertionError("a text session needs no speech provider")


class Desk(OpenAIAgent):
    """An agent as a user writes one: a real model, real tools, providers as factories."""

    booked: list[tuple[int, str]]

    @tool
    async def book_table(self, people: int, time: str = "19:00") -> str:
        """Book a table."""
        self.booked.append((people, time))
        return f"booked for {people} at {time}"

    @tool
    def look_up(self, name: str) -> str:
        """Look a guest up, in a thread."""
        time.sleep(0.05)
        return f"{name} is a regular"

    @tool
    async def slow(self) -> str:
        """Take eight seconds."""
        await asyncio.sleep(8)
        return "done at last"

    @tool
    async def goodbye(self) -> None:
        """Say goodbye and hang up."""
        await self.dispatch_message("Goodbye and thank you.", allow_interrupt=False)
        await self.voip.hangup()

    @tool
    async def transfer(self) -> None:
        """Hand the caller over."""
        await self.voip.transfer_to("+15551230009")


def desk(voip: VoIP, **options) -> None:
    agent = Desk(voip=voip, stt=unwanted, tts=unwanted, api_key="sk-never-used", greeting="Hello there!", **options)
    agent.booked = []
    agent.activate()


def session(*script, factory=desk, **options) -> TextSession:
    return TextSession(factory, llm=ScriptedLLM(script), **options)


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        if message.data == "story":
            for word in STORY.split(" "):
                yield word + " "
        elif message.data == "fail":
            raise RuntimeError("no idea")
        elif message.data != "nothing":
            yield f"You said: {message.data}."


def echo(voip: VoIP, **options) -> None:
    Echo(voip=voip, stt=unwanted, tts=unwanted, **options).activate()


# What is said and used.


async def test_the_agent_greets_and_answers():
    async with session("For how many?") as call:
        assert call.greeting.text == "Hello there!"
        reply = await call.run("a table please")
        assert reply.text == "For how many?"
        assert "HOW MANY" in reply
        reply.says("how many").never_says("nine").calls_nothing().goes_on()
        assert call.heard == [("assistant", "Hello there!"), ("user", "a table please"), ("assistant", "For how many?")]


async def test_a_tool_is_called_with_what_the_model_says_and_its_result_goes_back():
    llm = ScriptedLLM([["One moment.", ToolUse("book_table", {"people": 2})], "All done."])
    async with TextSession(desk, llm=llm) as call:
        reply = await call.run("two for tonight")
        reply.calls("book_table", people=2).returns("book_table", "booked for 2").says("one moment", "all done")
        (use,) = reply.tools
        assert (use.name, use.arguments, use.state) == ("book_table", {"people": 2}, "done")
        assert isinstance(call.agent, Desk)
        assert call.agent.booked == [(2, "19:00")]
    assert [type(item) for item in llm.requests[1].items][-1] is ToolResult
    assert llm.left == ()


async def test_the_model_can_be_a_function_of_what_it_is_asked():
    def answer(request: LLMRequest) -> str:
        last = request.items[-1]
        assert isinstance(last, Entry)
        return last.text.upper()

    async with TextSession(desk, llm=ScriptedLLM(answer)) as call:
        assert (await call.run("louder")).text == "LOUDER"


async def test_an_agent_of_rules_needs_nothing_else():
    class Hours(RuleAgent):
        rules = (Rule(pattern="open", reply="From ten to four."),)

    def factory(voip: VoIP) -> None:
        Hours(voip=voip, tts=unwanted).activate()

    async with TextSession(factory) as call:
        (await call.run("when are you open")).says("ten to four")
        (await call.run("why")).says("did not understand")


async def test_a_factory_may_be_a_coroutine_and_has_to_make_an_agent():
    async def later(voip: VoIP) -> None:
        await asyncio.sleep(3)
        echo(voip)

    async with TextSession(later) as call:
        assert (await call.run("x")).text == "You said: x."
    with pytest.raises(ConfigurationError, match="made no agent"):
        async with TextSession(lambda voip: None):
            pass


# Mocked tools.


@pytest.mark.parametrize("name", ["book_table", "look_up"])
async def test_a_tool_is_replaced_by_a_value_a_function_or_an_error(name: str):
    arguments = {"people": 3} if name == "book_table" else {"name": "Ann"}
    use = ToolUse(name, arguments)
    async with session(use, "a", use, "b", use, "c", use, "d") as call:
        call.mock_tool(name, "no table left")
        (await call.run("1")).returns(name, "no table left")
        call.mock_tool(name, lambda **given: f"got {sorted(given)}")
        (await call.run("2")).returns(name, f"got {sorted(arguments)}")

        async def later(**given: object) -> str:
            await asyncio.sleep(2)
            return "late"

        call.mock_tool(name, later)
        (await call.run("3")).returns(name, "late")
        call.mock_tool(name, ValueError("the book is closed"))
        reply = await call.run("4")
        reply.returns(name, "the book is closed")
        assert reply.tools[0].state == "failed"
        assert call.agent.booked == []


async def test_a_tool_can_be_replaced_before_the_call():
    call = session(ToolUse("book_table", {"people": 9}), "Sorry.")
    call.mock_tool("book_table", "full")
    async with call:
        (await call.run("nine")).returns("book_table", "full")


async def test_wrong_arguments_are_refused_before_the_mock():
    async with session(ToolUse("book_table", {"people": "many"}), "Sorry.") as call:
        call.mock_tool("book_table", "never")
        assert (await call.run("many")).tools[0].state == "failed"


async def test_a_tool_that_does_not_exist_cannot_be_mocked():
    async with session() as call:
        with pytest.raises(ConfigurationError, match="book_table"):
            call.mock_tool("book_tabel", "x")


# Time.


async def test_time_is_virtual_and_the_loop_has_its_own_back():
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    async with session(ToolUse("slow"), "There it is.") as call:
        before = call.now
        reply = await call.run("do the slow thing")
        assert reply.after_s == pytest.approx(8, abs=0.01)
        assert call.now - before == pytest.approx(8 + 3 * 0.4, abs=0.01)
        (await call.silence(1200)).says_nothing()
    assert time.monotonic() - began < 5
    after = loop.time()
    await asyncio.sleep(0.05)
    assert 0.04 < loop.time() - after < 2
    assert "select" not in vars(loop._selector)  # type: ignore[attr-defined]


async def test_a_plain_tool_in_a_thread_takes_no_virtual_time():
    async with session(ToolUse("look_up", {"name": "Ann"}), "Welcome back.") as call:
        reply = await call.run("it is Ann")
        reply.returns("look_up", "Ann is a regular").says("welcome back")
        assert reply.after_s == 0


async def test_work_in_the_loops_executor_takes_no_virtual_time():
    class Reader(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            await asyncio.to_thread(time.sleep, 0.05)
            yield "Read."

    def reader(voip: VoIP) -> None:
        Reader(voip=voip, tts=unwanted).activate()

    async with TextSession(reader) as call:
        reply = await call.run("read")
        assert (reply.text, reply.after_s) == ("Read.", 0)


async def test_a_thread_that_is_stuck_does_not_hold_time_up_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dialog.testing.virtual._THREAD_S", 0.05)
    released = threading.Event()

    class Blocked(OpenAIAgent):
        @tool(timeout_s=5)
        def block(self) -> str:
            """Block."""
            released.wait(10)
            return "late"

    def blocked(voip: VoIP) -> None:
        Blocked(voip=voip, tts=unwanted, api_key="sk-never-used").activate()

    try:
        async with session(ToolUse("block"), "It takes too long.", factory=blocked) as call:
            reply = await call.run("block it")
            reply.returns("block", "no result within 5 s").says("too long")
            assert reply.after_s == pytest.approx(6, abs=1.1)
    finally:
        released.set()


def test_it_runs_without_a_plugin_too():
    async def scenario(clock):
        async with session("Fine.") as call:
            (await call.run("hello")).says("fine")
            assert call.now == clock.now()
        return call.report

    report = run_virtual(scenario)
    assert report is not None
    assert report.metrics.caller_turns == 1


def test_it_is_the_same_every_time():
    async def scenario(clock):
        async with session(["Let me see.", 1.5, ToolUse("slow")], [2.0, STORY]) as call:
            call.say("a story")
            await call.interrupt("stop", after_words=4)
            await call.silence(10)
        return call.explain()

    first = run_virtual(scenario)
    assert "Let me see." in first
    assert [run_virtual(scenario) for _ in range(3)] == [first] * 3


async def test_sessions_may_be_nested_and_an_ordinary_loop_is_needed():
    async with session("One.") as outer, session("Two.") as inner:
        assert (await inner.run("x")).text == "Two."
        assert (await outer.run("x")).text == "One."
    with virtual_time() as clock:
        before = clock.now()
        await clock.sleep(100)
        assert clock.now() - before == pytest.approx(100)


async def test_a_wait_for_nothing_is_told_and_does_not_hang():
    class Stuck(Agent):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            await asyncio.Event().wait()
            yield ""

    def stuck(voip: VoIP) -> None:
        Stuck(voip=voip, tts=unwanted, settings=AgentSettings(apology="Oh dear.")).activate()

    async with TextSession(stuck) as call:
        reply = await call.run("hello?")
        assert reply.text == "Oh dear."
        assert reply.after_s == pytest.approx(20, abs=0.1)
        assert "said nothing for 20 s" in reply.happened(ev.ErrorRaised).text


# Interruption.


async def test_the_caller_interrupts_after_so_many_words_and_history_holds_those():
    async with TextSession(echo) as call:
        call.say("story")
        reply = await call.interrupt("hold on", after_words=4)
        assert reply.text == "You said: hold on."
        reply.happened(ev.Interrupted)
        cut = call.said[0]
        assert (cut.heard, cut.state, cut.text) == ("Once upon a time", "cut", STORY)
        assert call.heard[1] == ("assistant", "Once upon a time")
        assert next(e.heard for e in call.events if isinstance(e, ev.AgentSaid)) == "Once upon a time"
        assert not reply.interrupted


async def test_what_may_not_be_interrupted_is_heard_out():
    async with session("Yes?") as call:
        speech = call.agent.dispatch_message("This call is recorded for training.", allow_interrupt=False)
        reply = await call.interrupt("hello?", after_words=2)
        assert (await speech).complete
        assert reply.text == "Yes?"
        assert call.said[1].state == "played"


async def test_one_cannot_interrupt_what_is_not_said():
    async with TextSession(echo) as call:
        call.say("two words")
        with pytest.raises(AssertionError, match=r"said 4 words.*after 9(?s:.*)caller +two words"):
            await call.interrupt("stop", after_words=9)


async def test_two_utterances_at_once_are_answered_together():
    async with TextSession(echo) as call:
        call.say("two")
        reply = await call.run("no, three")
        assert reply.text == "You said: two no, three."


# Silence, keys, the end.


async def test_what_the_agent_says_by_itself_is_heard_in_the_silence():
    async with TextSession(echo) as call:
        agent = call.agent
        loop = asyncio.get_running_loop()
        loop.call_later(7, lambda: agent.dispatch_message("Are you still there?"))
        assert (await call.silence(6)).text == ""
        reply = await call.silence(2)
        assert reply.text == "Are you still there?"
        assert reply.after_s == pytest.approx(1, abs=0.01)


async def test_idle_prompts_come_in_virtual_time():
    settings = AgentSettings(turns=TurnSettings(silence=Silence(idle_s=8, idle_count=1)))
    async with TextSession(lambda voip: echo(voip, settings=settings)) as call:
        reply = await call.silence(12)
        assert reply.happened(ev.IdlePrompted).count == 1
        assert reply.after_s == pytest.approx(8, abs=0.01)
        (await call.run("yes")).says("you said: yes").goes_on()
        (await call.silence(60)).ends_call()


async def test_the_longest_call_takes_no_time():
    settings = AgentSettings(turns=TurnSettings(silence=Silence(max_duration_s=600)))
    async with TextSession(lambda voip: echo(voip, settings=settings)) as call:
        (await call.silence(599)).goes_on()
        reply = await call.silence(10)
        assert reply.text
        reply.ends_call()


async def test_keys_reach_the_agent():
    pressed: list[str] = []

    def factory(voip: VoIP) -> None:
        agent = Echo(voip=voip, tts=unwanted)
        voip.on(VoIP.DTMF, lambda key: (pressed.append(key), agent.dispatch_message(f"Key {key}."))[0])
        agent.activate()

    async with TextSession(factory) as call:
        reply = await call.press("1#")
        assert pressed == ["1", "#"]
        reply.says("key 1", "key #")
        assert reply.happened(ev.DigitPressed).digit == "1"


async def test_the_agent_hangs_up_after_its_last_word():
    async with session(ToolUse("goodbye")) as call:
        reply = await call.run("bye")
        reply.says("Goodbye and thank you.").ends_call("agent_hangup")
        with pytest.raises(AssertionError, match="the call has ended: agent_hangup"):
            reply.goes_on()
        with pytest.raises(AssertionError, match=r"has ended \(agent_hangup\): the caller cannot say 'hello'"):
            await call.run("hello")
        assert call.report is not None
        assert call.report.end_reason == "agent_hangup"


async def test_a_transfer_ends_the_call_and_is_remembered():
    async with session(ToolUse("transfer")) as call:
        (await call.run("the boss please")).calls("transfer").ends_call("transferred")
        assert call.commands == (TransferTo(tel="+15551230009"),)


async def test_the_caller_hangs_up_in_mid_sentence():
    async with TextSession(echo) as call:
        call.say("story")
        await call.silence(0.9)
        await call.hang_up()
        assert call.ended is not None
        assert call.ended.reason == "caller_hangup"
    assert call.report is not None
    assert call.events[-1] == call.report.events[-1]
    assert isinstance(call.events[-2], ev.CallMeasured)


async def test_the_metadata_of_the_call_are_the_tests():
    seen: list[str] = []

    def factory(voip: VoIP) -> None:
        seen.append(voip.metadata.from_)
        echo(voip)

    metadata = CallMetadata(call_id=UUID(int=7), from_="+15550001")
    async with TextSession(factory, metadata=metadata):
        pass
    assert seen == ["+15550001"]


async def test_a_session_is_one_call():
    call = TextSession(echo)
    with pytest.raises(StateError, match="async with"):
        call.say("x")
    async with call:
        pass
    with pytest.raises(StateError, match="another"):
        await call.__aenter__()


# What a failure tells.


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda reply: reply.says("nine"), "did not say 'nine'"),
        (lambda reply: reply.never_says("done"), "said 'done'"),
        (lambda reply: reply.says_nothing(), "to be silent"),
        (
            lambda reply: reply.calls("book_table", people=3),
            r"did not call book_table\(people=3\); it called book_table",
        ),
        (lambda reply: reply.calls("slow"), r"did not call slow\(\)"),
        (lambda reply: reply.calls_nothing(), r"called book_table\(people=2\)"),
        (lambda reply: reply.returns("book_table", "full"), "did not return 'full'"),
        (lambda reply: reply.happened(ev.Interrupted), "no Interrupted; there was CallerSaid"),
        (lambda reply: reply.never_happened(ev.ToolEnded), "was a ToolEnded"),
        (lambda reply: reply.ends_call(), "the call goes on"),
    ],
)
async def test_a_failed_assertion_shows_the_conversation(wrong, what: str):
    async with session(ToolUse("book_table", {"people": 2}), "Done.") as call:
        reply = await call.run("two for tonight")
        with pytest.raises(AssertionError, match=what) as caught:
            wrong(reply)
    text = str(caught.value)
    shown = [line.split(None, 2)[1:] for line in text.splitlines()[2:]]
    assert shown == [
        ["agent", "Hello there!"],
        ["caller", "two for tonight"],
        ["tool", "book_table(people=2) → booked for 2 at 19:00"],
        ["agent", "Done."],
    ]
    assert "two for tonight" in repr(reply)


async def test_a_script_that_is_too_short_says_so():
    async with session() as call:
        reply = await call.run("hello")
        assert "request 1 has no answer" in reply.happened(ev.ErrorRaised).text
        assert "request 1 has no answer" in call.explain()


async def test_a_model_that_fails_is_apologised_for():
    async with session(RuntimeError("melted"), "Back again.") as call:
        (await call.run("hello")).says("something went wrong").happened(ev.ErrorRaised)
        (await call.run("hello")).says("back again")


async def test_silence_of_the_agent_is_a_reply_too():
    async with TextSession(echo) as call:
        (await call.run("nothing")).says_nothing().never_happened(ev.ErrorRaised)
        (await call.run("fail")).happened(ev.ErrorRaised)
