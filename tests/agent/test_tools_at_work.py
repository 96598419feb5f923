"""Tools at work on a call: what they may do, who waits for them, and what the caller hears meanwhile."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from test_agent_on_a_line import heard_ms, on_a_call

from dialog.agent.agent import Agent
from dialog.agent.filler import Bridge, Rotation
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.events import AgentSaid, ReplyDropped, SpeculationEnded, ToolEnded, ToolStarted, TurnMeasured
from dialog.clock import Clock
from dialog.errors import ConfigurationError, LimitError, StateError
from dialog.llm.llm import LLM, Entry, Finish, LLMRequest, TextDelta, ToolCall, ToolResult
from dialog.testing.doubles import HummingTTS
from dialog.testing.virtual import run_virtual
from dialog.voip.memory import MemoryLine


class Model(LLM):
    """Answers with the scripted steps, one a request; a number is a pause in seconds."""

    def __init__(self, *steps) -> None:
        self.steps = list(steps)
        self.requests: list[LLMRequest] = []

    async def stream(self, request: LLMRequest):
        self.requests.append(request)
        for event in self.steps.pop(0):
            if isinstance(event, int | float):
                await asyncio.sleep(event)
            elif isinstance(event, str):
                yield TextDelta(event)
            else:
                yield event
        yield Finish("stop")


def call(name: str, arguments: str = "{}", call_id: str = "c1") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments=arguments)


def told(request: LLMRequest) -> list[str]:
    """What a request says of tools: results, and what was reported later."""
    return [item.content for item in request.items if isinstance(item, ToolResult)] + [
        item.text for item in request.items if isinstance(item, Entry) and item.role == "system"
    ]


class Desk(Agent):
    """Tools that take their time; ``acts`` is what they did."""

    takes_s: ClassVar[float] = 2.0

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.acts: list[str] = []
        self.clock: Clock = self.voip.clock

    async def work(self, what: str) -> str:
        self.acts.append(f"{what} begun")
        await self.clock.sleep(self.takes_s)
        self.acts.append(f"{what} done")
        return f"{what} done"

    @tool(timeout_s=30)
    async def book(self) -> str:
        """Book."""
        return await self.work("book")

    @tool(timeout_s=30, on_interrupt="cancel")
    async def search(self) -> str:
        """Search."""
        return await self.work("search")

    @tool(background=True)
    async def mail(self) -> str:
        """Mail."""
        return await self.work("mail")

    @tool(timeout_s=30, filler="Let me check that.")
    async def look_up(self) -> str:
        """Look up."""
        return await self.work("look up")

    @tool(safe=True)
    async def hours(self) -> str:
        """Opening hours."""
        self.acts.append("hours")
        return "ten to six"


class SlowDesk(Desk):
    takes_s = 8.0


def fillers(talk) -> list[str]:
    return [event.text for event in talk(AgentSaid) if event.filler]


# The caller speaks while a tool runs.


def test_the_next_reply_waits_for_a_tool_and_holds_its_result():
    llm = Model([call("book")], ["Booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(1.0)
        assert len(llm.requests) == 1, "it waits"
        await talk.quiet()
        assert told(llm.requests[1]) == ["book done (finished after the caller spoke again)"]
        assert len(llm.requests) == 2, "nothing is told twice"
        assert talk.agent.acts == ["book begun", "book done"]

    talk = on_a_call(scenario, Desk, llm=llm)
    [ended] = talk(ToolEnded)
    assert (ended.state, ended.late) == ("done", False)


def test_a_result_that_was_waited_for_in_vain_is_told_when_there_is_room():
    llm = Model([call("book")], ["Still at it."], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(3.1)
        assert told(llm.requests[1]) == ["still running; the result will follow"], "three seconds of patience"
        await talk.quiet()
        await talk.clock.sleep(6)
        await talk.quiet()
        assert told(llm.requests[2])[-1] == "The tool book (c1) has finished (done): book done"
        assert talk.spoken() == [
            ("user", "a table", ""),
            ("user", "please", ""),
            ("assistant", "Still at it.", ""),
            ("system", "The tool book (c1) has finished (done): book done", ""),
            ("assistant", "It is booked.", ""),
        ]

    talk = on_a_call(scenario, SlowDesk, llm=llm)
    [ended] = talk(ToolEnded)
    assert (ended.state, ended.late) == ("done", True)


def test_a_late_result_does_not_speak_over_a_reply():
    llm = Model([call("book")], ["a" * 200], ["It is booked."])

    async def scenario(talk):
        turn = talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        turn = talk.stt.heard("please")
        await talk.clock.sleep(8)
        assert talk(ToolEnded), "while the reply of ten seconds sounds"
        assert len(llm.requests) == 2, "the model is asked when there is room, not before"
        await talk.quiet()
        assert talk(AgentSaid)[-2].turn == turn
        assert talk(AgentSaid)[-1].heard == "It is booked."
        audio = talk.line.heard_audio
        assert len(audio) == (200 + len("It is booked.")) * 50 * 8, "one after the other"

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_result_that_comes_while_the_caller_speaks_is_used_in_the_next_request_and_told_once():
    llm = Model([call("book")], ["Still at it."], ["It is booked, and yes."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(6)
        talk.stt.speech_starts()
        talk.stt.hears("do you")
        await talk.clock.sleep(3)
        assert talk(ToolEnded)
        assert len(llm.requests) == 2, "the caller is speaking"
        talk.stt.heard("do you have parking")
        talk.stt.speech_stops()
        await talk.quiet()
        await talk.clock.sleep(5)
        assert len(llm.requests) == 3, "the answer told it, nobody has to tell it again"
        assert told(llm.requests[2])[-1] == "The tool book (c1) has finished (done): book done"
        assert not talk(ReplyDropped)[1:], "the turn that had nothing to tell any more leaves no event"

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_result_that_was_read_only_by_a_reply_that_was_dropped_is_read_again():
    llm = Model([call("book")], ["Still at it."], [5.0, "lost"], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(6)
        talk.stt.speech_starts()
        talk.stt.hears("do")
        await talk.clock.sleep(3)
        talk.stt.heard("do you")
        await talk.clock.sleep(1)
        talk.stt.heard("have parking")
        talk.stt.speech_stops()
        await talk.quiet()
        await talk.clock.sleep(5)
        assert [any("has finished" in text for text in told(request)) for request in llm.requests] == [
            False,
            False,
            True,
            True,
        ]

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_tool_whose_turn_was_cut_is_told_even_if_the_caller_says_nothing_more():
    llm = Model(["Let me book that for you right now. ", call("book")], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(1.0)
        talk.agent.abort()
        await talk.clock.sleep(10)
        await talk.quiet()
        assert talk.agent.acts == ["book begun", "book done"]
        assert talk.spoken()[-1] == ("assistant", "It is booked.", "")

    on_a_call(scenario, Desk, llm=llm)


def test_a_late_result_survives_a_lost_stream():
    llm = Model([call("book")], ["Still at it."], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(5)
        talk.line.drop()
        await talk.clock.sleep(4)
        assert talk(ToolEnded)
        talk.line = MemoryLine(clock=talk.clock)
        talk.line.join(talk.call)
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "It is booked.", "")

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_late_result_that_waited_for_the_floor_survives_a_lost_stream():
    llm = Model([call("book")], ["a" * 200], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(8)
        assert talk(ToolEnded), "while the reply of ten seconds sounds"
        talk.line.drop()
        await talk.clock.sleep(1)
        talk.line = MemoryLine(clock=talk.clock)
        talk.line.join(talk.call)
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "It is booked.", "")

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_tool_is_waited_for_only_once():
    llm = Model([call("book")], ["Still at it."], ["Still."], ["It is booked."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(0.5)
        talk.stt.heard("please")
        await talk.clock.sleep(4)
        talk.stt.heard("and?")
        await talk.clock.sleep(0.1)
        assert len(llm.requests) == 3
        await talk.quiet()
        await talk.clock.sleep(6)
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "It is booked.", "")

    on_a_call(scenario, SlowDesk, llm=llm)


def test_what_waited_for_the_floor_stands_in_history_where_it_was_spoken():
    llm = Model(["Yes."])

    async def scenario(talk):
        talk.stt.speech_starts()
        talk.stt.hears("are you")
        talk.agent.dispatch_message("By the way.")
        talk.stt.heard("are you open")
        talk.stt.speech_stops()
        await talk.quiet()
        assert [words for _, words, _ in talk.spoken()] == ["are you open", "Yes.", "By the way."]

    on_a_call(scenario, Desk, llm=llm)


def test_a_tool_that_is_declared_to_stop_stops_when_the_caller_speaks():
    llm = Model([call("search")], ["Something else then."])

    async def scenario(talk):
        talk.stt.heard("find it")
        await talk.clock.sleep(0.5)
        talk.stt.heard("never mind")
        await talk.clock.sleep(0.1)
        assert len(llm.requests) == 2, "nobody waits for it"
        await talk.quiet()
        await talk.clock.sleep(5)
        assert talk.agent.acts == ["search begun"]
        assert told(llm.requests[1])[0].startswith("cancelled: the caller interrupted")
        assert len(llm.requests) == 2, "that it was cancelled is no news"

    on_a_call(scenario, Desk, llm=llm)


@pytest.mark.parametrize("name", ["book", "search"])
def test_a_tool_of_a_reply_that_is_given_up_in_the_same_moment_never_acts(name):
    llm = Model([call(name)], ["Yes?"])

    async def scenario(talk):
        turn = talk.stt.heard("a table")
        task = talk.agent._conversation.engine._turns[turn].task
        while not talk.agent._conversation._tools[0].running:
            await asyncio.sleep(0)
        assert not task.done()
        talk.stt.heard("no, nothing")  # before the tool's first step
        await talk.quiet()
        assert talk.agent.acts == []
        assert not talk(ToolStarted)
        assert talk.spoken()[0] == ("user", "a table no, nothing", ""), "it was answered together, without a trace"
        assert told(llm.requests[1]) == []

    on_a_call(scenario, Desk, llm=llm)


def test_a_result_that_the_model_could_not_tell_is_told_with_the_next_answer():
    class Fails(Model):
        async def stream(self, request):
            if len(self.requests) == 2:
                self.requests.append(request)
                raise ValueError("boom")
            async for event in super().stream(request):
                yield event

    llm = Fails([call("mail")], ["I am sending it."], ["It was sent, and yes."])

    async def scenario(talk):
        talk.stt.heard("mail me")
        await talk.clock.sleep(6)
        await talk.quiet()
        assert len(talk.errors) == 1
        assert talk.spoken()[-1][0] == "system", "nobody had asked: there is nothing to apologise for"
        talk.stt.heard("and?")
        await talk.quiet()
        assert "has finished" in told(llm.requests[3])[-1]
        assert talk.spoken()[-1] == ("assistant", "It was sent, and yes.", "")

    on_a_call(scenario, Desk, llm=llm)


# In the background.


def test_a_background_tool_lets_the_reply_go_on_and_reports_later():
    llm = Model([call("mail")], ["I am sending it."], ["It was sent."])

    async def scenario(talk):
        talk.stt.heard("mail me")
        await talk.clock.sleep(0.1)
        assert told(llm.requests[1]) == ["started in the background; the result will follow"]
        await talk.quiet()
        await talk.clock.sleep(3)
        await talk.quiet()
        assert [words for role, words, _ in talk.spoken() if role == "assistant"] == [
            "I am sending it.",
            "It was sent.",
        ]

    talk = on_a_call(scenario, Desk, llm=llm)
    assert [event.late for event in talk(ToolEnded)] == [True]


def test_no_reply_waits_for_a_background_tool():
    llm = Model([call("mail")], ["I am sending it."], ["Yes."], ["It was sent."])

    async def scenario(talk):
        talk.stt.heard("mail me")
        await talk.quiet()
        talk.stt.heard("and?")
        await talk.clock.sleep(0.1)
        assert len(llm.requests) == 3
        await talk.clock.sleep(10)
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "It was sent.", "")

    on_a_call(scenario, SlowDesk, llm=llm)


def test_several_late_results_are_told_in_one_go():
    llm = Model([call("mail"), call("mail", call_id="c2")], ["I am sending them."], ["Both were sent."])

    async def scenario(talk):
        talk.stt.heard("mail me")
        await talk.clock.sleep(20)
        await talk.quiet()
        assert len(llm.requests) == 3
        assert sum("has finished" in text for text in told(llm.requests[2])) == 2

    on_a_call(scenario, Desk, llm=llm)


# Speculation.


def test_tools_wait_until_the_turn_is_confirmed_unless_they_are_safe():
    llm = Model([call("hours")], [call("book", call_id="c2")], ["Booked."])

    async def scenario(talk):
        talk.stt.expects("I want a table")
        await talk.clock.sleep(1)
        assert talk.agent.acts == ["hours"]
        assert len(llm.requests) == 2, "the safe one has answered, the other waits"
        talk.stt.heard("I want a table")
        await talk.quiet()
        assert talk.agent.acts == ["hours", "book begun", "book done"]
        assert talk.spoken() == [("user", "I want a table", ""), ("assistant", "Booked.", "")]

    talk = on_a_call(scenario, Desk, llm=llm)
    assert [event.outcome for event in talk(SpeculationEnded)] == ["saved"]


def test_a_speculation_that_is_thrown_away_has_never_been():
    llm = Model([call("hours")], [call("book", call_id="c2")], ["For which day?"])

    async def scenario(talk):
        talk.stt.expects("I want a table")
        await talk.clock.sleep(1)
        talk.stt.goes_on()
        talk.stt.heard("I want no table")
        await talk.quiet()
        assert talk.agent.acts == ["hours"], "the other one never acts"
        assert [type(item).__name__ for item in llm.requests[2].items] == ["Entry"], "nor is the safe one remembered"
        assert talk.spoken() == [("user", "I want no table", ""), ("assistant", "For which day?", "")]

    on_a_call(scenario, Desk, llm=llm)


def test_a_safe_tool_of_a_speculation_that_is_thrown_away_holds_nobody_up():
    class SlowHours(Desk):
        @tool(safe=True)
        async def hours(self) -> str:
            """Opening hours."""
            return await self.work("hours")

    llm = Model([call("hours")], ["For which day?"])

    async def scenario(talk):
        talk.stt.expects("I want a table")
        await talk.clock.sleep(1)
        talk.stt.goes_on()
        talk.stt.heard("I want no table")
        await talk.clock.sleep(0.1)
        assert len(llm.requests) == 2
        await talk.quiet()
        await talk.clock.sleep(3)
        assert talk.agent.acts == ["hours begun"], "what it looks up is of no use any more"
        assert len(llm.requests) == 2, "and no news"

    on_a_call(scenario, SlowHours, llm=llm)


def test_no_filler_is_said_for_a_reply_that_may_be_thrown_away():
    llm = Model([6.0, "Yes."])

    async def scenario(talk):
        talk.stt.expects("I want a table")
        await talk.clock.sleep(2)
        assert not talk.tts.texts
        talk.stt.heard("I want a table")
        await talk.clock.sleep(1.4)
        assert not talk.tts.texts, "the caller waits only since then"
        await talk.clock.sleep(0.3)
        assert "One moment." in talk.tts.texts.values()
        await talk.quiet()

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.",)))


# Limits.


def test_a_model_that_calls_tools_even_when_it_has_none_is_stopped_and_apologised_for():
    llm = Model([call("hours")], [call("book", call_id="c2")])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.agent.acts == ["hours"], "it was not offered the second one"
        assert [type(failure.error) for failure in talk.errors] == [LimitError]
        assert talk.spoken()[-1][1] == AgentSettings().apology

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(max_steps=2))


# Fillers.


def test_a_slow_tool_has_its_filler_said_which_is_not_in_history():
    llm = Model([call("look_up")], ["Found it."])

    async def scenario(talk):
        turn = talk.stt.heard("look it up")
        await talk.clock.sleep(0.75)
        assert not talk.tts.texts
        await talk.clock.sleep(0.1)
        assert talk.tts.texts[turn, 0] == "Let me check that."
        await talk.quiet()
        assert talk.spoken() == [("user", "look it up", ""), ("assistant", "Found it.", "")]
        assert fillers(talk) == ["Let me check that."]
        assert heard_ms(talk, 0) == len("Let me check that.") * 50

    on_a_call(scenario, Desk, llm=llm)


class QuickDesk(Desk):
    takes_s = 0.7


def test_a_quick_tool_needs_no_filler():
    llm = Model([call("look_up")], ["Found it."])

    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.quiet()
        assert fillers(talk) == []

    on_a_call(scenario, QuickDesk, llm=llm, settings=AgentSettings(filler=("One moment.",)))


def test_a_filler_waits_for_the_silence_after_the_preamble():
    llm = Model(["I will look that up for you. ", call("look_up")], ["Found it."])
    preamble_s = len("I will look that up for you. ") * 0.05

    async def scenario(talk):
        turn = talk.stt.heard("look it up")
        await talk.clock.sleep(preamble_s + 0.7)
        assert (turn, 1) not in talk.tts.texts
        await talk.clock.sleep(0.4)
        assert talk.tts.texts[turn, 1] == "Let me check that."
        await talk.quiet()

    on_a_call(scenario, SlowDesk, llm=llm)


def test_a_long_wait_has_general_fillers_after_the_tools_own_and_none_twice():
    llm = Model([call("look_up")], ["Found it."])

    class Slower(Desk):
        takes_s = 25.0

    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.quiet()
        assert fillers(talk) == ["Let me check that.", "One moment.", "Still looking."]

    on_a_call(scenario, Slower, llm=llm, settings=AgentSettings(filler=("One moment.", "Still looking.")))


def test_a_slow_first_token_has_a_filler_and_the_next_one_another():
    llm = Model([2.5, "Yes."], [2.5, "No."], [1.4, "Quick."])

    async def scenario(talk):
        for words in ("one", "two", "three"):
            talk.stt.heard(words)
            await talk.quiet()
        assert fillers(talk) == ["One moment.", "Let me see."]
        assert [text for role, text, _ in talk.spoken() if role == "assistant"] == ["Yes.", "No.", "Quick."]

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.", "Let me see.")))


def test_a_filler_never_waits_behind_the_answer():
    llm = Model([1.45, "Well", 3.0, " then."])

    async def scenario(talk):
        talk.stt.heard("one")
        await talk.quiet()
        assert fillers(talk) == []

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.",)))


class Late(HummingTTS):
    """Takes half a second for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list = []

    def _speak(self, message) -> None:
        self.waiting.append(message)
        asyncio.get_running_loop().call_later(0.5, lambda: HummingTTS._speak(self, self.waiting.pop(0)))


def test_an_answer_does_not_wait_for_a_filler_that_has_not_begun_to_sound():
    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(1.6)  # the filler is with the voice
        assert "Hm." in talk.tts.texts.values()
        await talk.quiet()
        said = [(event.text, event.heard) for event in talk(AgentSaid)]
        assert said == [("Hm.", ""), ("Hello!", "Hello!")]
        assert heard_ms(talk, 0) == 0

    settings = AgentSettings(filler=("Hm.",))
    on_a_call(scenario, Agent, llm=Model([1.7, "Hello!"]), tts=Late(), settings=settings)


def test_a_filler_is_no_answer_words_over_it_are_answered_together():
    llm = Model([5.0, "lost"], ["For four."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(2.2)
        talk.stt.speech_starts()
        talk.stt.heard("for four")
        talk.stt.speech_stops()
        await talk.quiet()
        assert talk.spoken() == [("user", "a table for four", ""), ("assistant", "For four.", "")]
        [said] = [event for event in talk(AgentSaid) if event.filler]
        assert said.state == "cut"

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment please, I am looking.",)))


def test_a_filler_that_was_heard_whole_is_no_answer_either():
    llm = Model([9.0, "lost"], ["For four."])

    async def scenario(talk):
        talk.stt.heard("a table")
        await talk.clock.sleep(4)
        assert fillers(talk) == ["One moment."]
        talk.stt.heard("for four")
        await talk.quiet()
        assert talk.spoken() == [("user", "a table for four", ""), ("assistant", "For four.", "")]

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.",)))


def test_between_two_fillers_there_is_a_pause_also_where_they_take_no_time():
    async def scenario(clock):
        said = []
        settings = AgentSettings(filler=("One.", "Two."))

        def fill(text):
            said.append((text, clock.now()))
            return True

        bridge = Bridge(clock, settings, Rotation(settings.filler), fill=fill, silent=lambda: True)
        bridge.wait()
        await clock.sleep(10)
        bridge.stop()
        assert [text for text, _ in said] == ["One.", "Two."]
        assert said[0][1] == pytest.approx(1.5, abs=0.01)
        assert said[1][1] - said[0][1] == pytest.approx(4.0, abs=0.15)

    run_virtual(scenario)


def test_while_a_reply_waits_for_an_earlier_tool_its_filler_sounds_once():
    llm = Model([call("look_up")], ["Found it."])

    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.clock.sleep(0.5)
        talk.stt.heard("quickly")
        await talk.quiet()
        assert fillers(talk) == ["Let me check that."]

    class Slower(Desk):
        takes_s = 3.0

    on_a_call(scenario, Slower, llm=llm)


def test_after_a_filler_a_failure_is_apologised_for():
    class Failing(Model):
        async def stream(self, request):
            await asyncio.sleep(3)
            raise ValueError("boom")
            yield

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1][1] == AgentSettings().apology
        assert fillers(talk) == ["One moment."]

    on_a_call(scenario, Desk, llm=Failing(), settings=AgentSettings(filler=("One moment.",)))


def test_a_filler_does_not_speak_over_the_caller():
    llm = Model([4.0, "Yes."])

    async def scenario(talk):
        talk.stt.heard("one")
        await talk.clock.sleep(1.0)
        talk.stt.speech_starts()
        await talk.clock.sleep(1.0)
        assert not talk.tts.texts
        talk.stt.speech_stops()
        await talk.quiet()
        assert fillers(talk) == ["One moment."], "1.5 s of silence of both"

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.",)))


def test_fillers_are_no_part_of_the_times_of_the_answer():
    llm = Model([4.0, "Yes."])

    async def scenario(talk):
        talk.stt.heard("one")
        await talk.quiet()

    talk = on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(filler=("One moment.",)))
    [measured] = talk(TurnMeasured)
    times = measured.timeline
    assert times.first_token <= times.first_text <= times.first_audio <= times.first_frame <= times.played
    assert times.first_token - times.inference == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("filler", ["One moment.", ("One moment.", " ")])
def test_fillers_that_cannot_be_said_are_refused(filler):
    with pytest.raises(ConfigurationError, match="filler"):
        AgentSettings(filler=filler)


# Speech that waits for itself.


class Selfish(Agent):
    """Dispatches its whole reply as a stream, and waits for it in a tool of that stream."""

    outcome: BaseException | str = ""

    async def inference(self, message):
        before = self.dispatch_message("Hello.")
        self.reply = self.dispatch_stream(super().inference(message))
        self.before = before
        return
        yield

    @tool
    async def wait(self) -> str:
        """Wait."""
        assert (await self.before).complete, "what was said before may be waited for"
        try:
            await self.reply
        except StateError as exc:
            self.outcome = exc
        mine = self.dispatch_message("In between.")
        with pytest.raises(StateError, match="wait for itself"):
            await mine  # it is spoken after the reply, which waits for this tool
        return "waited"


def test_a_tool_that_waits_for_its_own_reply_is_told_that_this_never_ends():
    llm = Model(["One second. ", call("wait")], ["Done."])

    async def scenario(talk):
        talk.stt.heard("go")
        await talk.quiet()
        assert "wait for itself" in str(talk.agent.outcome)
        assert told(llm.requests[1]) == ["waited"]
        assert list(talk.tts.texts.values()) == ["Hello.", "One second. Done.", "In between."]

    on_a_call(scenario, Selfish, llm=llm)


class Patient(Agent):
    heard = None

    async def inference(self, message):
        self.reply = self.dispatch_stream(super().inference(message))
        return
        yield

    @tool(background=True)
    async def afterwards(self) -> str:
        """Afterwards."""
        self.heard = await self.reply
        return "done"


def test_a_tool_in_the_background_may_wait_for_the_reply():
    llm = Model([call("afterwards")], [0.5, "I will."], ["I have."])

    async def scenario(talk):
        talk.stt.heard("go")
        await talk.quiet()
        await talk.clock.sleep(1)
        await talk.quiet()
        assert str(talk.agent.heard) == "I will."
        assert talk.spoken()[-1] == ("assistant", "I have.", "")

    on_a_call(scenario, Patient, llm=llm)


class Polite(Desk):
    @tool
    async def tell(self) -> str:
        """Tell."""
        assert (await self.dispatch_message("I am telling them.")).complete
        return "told"


def test_a_tool_may_wait_for_what_it_says_itself():
    llm = Model(["One second. ", call("tell")], ["Done."])

    async def scenario(talk):
        talk.stt.heard("go")
        await talk.quiet()
        assert told(llm.requests[1]) == ["told"]
        audio = talk.line.heard_audio
        assert audio == bytes(sorted(audio)), "in the order of the program"

    on_a_call(scenario, Polite, llm=llm)


# Patience.


def test_a_slow_tool_is_not_taken_for_a_reply_that_hangs():
    llm = Model([call("look_up")], ["Found it."])

    class Slowest(Desk):
        takes_s = 28.0

    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "Found it.", "")
        assert not talk.errors

    on_a_call(scenario, Slowest, llm=llm, settings=AgentSettings(reply_timeout_s=5))


def test_after_a_slow_tool_the_reply_has_its_usual_time():
    llm = Model([call("look_up")], [60.0, "lost"])

    async def scenario(talk):
        talk.stt.heard("look it up")
        await talk.clock.sleep(2 + 5.5)
        assert len(talk.errors) == 1
        await talk.quiet()

    on_a_call(scenario, Desk, llm=llm, settings=AgentSettings(reply_timeout_s=5))
