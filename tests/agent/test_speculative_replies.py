"""A reply that is begun before the caller has finished: nothing of it is heard or done before it is certain."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from test_agent_on_a_line import heard_ms, on_a_call

from dialog.agent.agent import Agent
from dialog.agent.tools import tool
from dialog.calls.events import SpeculationEnded, ToolStarted
from dialog.llm.llm import LLM, Finish, LLMRequest, TextDelta, ToolCall


class Slow(LLM):
    """Takes 300 ms to its first word."""

    def __init__(self) -> None:
        self.requests: list[LLMRequest] = []
        self.closed = 0

    async def stream(self, request: LLMRequest):
        self.requests.append(request)
        try:
            await asyncio.sleep(0.3)
            yield TextDelta("You said: ")
            yield TextDelta(request.items[-1].text + ".")
            yield Finish("stop")
        finally:
            self.closed += 1


def outcomes(talk) -> list[str]:
    return [event.outcome for event in talk(SpeculationEnded)]


def test_an_eager_end_saves_the_time_until_the_final_one():
    async def scenario(talk):
        talk.stt.expects("a table for two")
        await talk.clock.sleep(0.5)
        assert not talk.line.heard_audio, "held until it is certain"
        talk.stt.heard("A table for two.")
        await talk.clock.sleep(0.1)
        assert heard_ms(talk) > 50, "ready at once"
        await talk.quiet()
        assert talk.spoken() == [("user", "a table for two", ""), ("assistant", "You said: a table for two.", "")]
        assert len(talk.agent.llm.requests) == 1
        (ended,) = talk(SpeculationEnded)
        assert (ended.outcome, round(ended.saved_ms)) == ("saved", 500)

    on_a_call(scenario, Agent, llm=Slow())


def test_a_caller_who_goes_on_is_answered_to_all_they_said():
    async def scenario(talk):
        talk.stt.expects("a table for two")
        await talk.clock.sleep(0.5)
        talk.stt.goes_on()
        talk.stt.heard("a table for two no wait for six")
        await talk.quiet()
        assert talk.spoken() == [
            ("user", "a table for two no wait for six", ""),
            ("assistant", "You said: a table for two no wait for six.", ""),
        ]
        assert heard_ms(talk, 0) == 0
        assert outcomes(talk) == ["wasted"]
        assert talk.agent.llm.closed == 2

    on_a_call(scenario, Agent, llm=Slow())


def test_other_words_than_expected_throw_the_reply_away():
    async def scenario(talk):
        talk.stt.expects("a table for two")
        await talk.clock.sleep(0.1)
        talk.stt.heard("a table for you")
        await talk.quiet()
        assert [text for _, text, _ in talk.spoken()] == ["a table for you", "You said: a table for you."]
        assert outcomes(talk) == ["wasted"]

    on_a_call(scenario, Agent, llm=Slow())


def test_a_reply_that_is_not_ready_goes_on_where_it_was():
    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.1)
        talk.stt.heard("Hello")
        assert not talk.line.heard_audio
        await talk.quiet()
        assert len(talk.agent.llm.requests) == 1
        assert outcomes(talk) == ["saved"]

    on_a_call(scenario, Agent, llm=Slow())


def test_a_conversation_that_changed_meanwhile_is_answered_anew():
    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.1)
        talk.agent.history.system("The kitchen is closed.")
        talk.stt.heard("hello")
        await talk.quiet()
        assert len(talk.agent.llm.requests) == 2
        assert "kitchen" in talk.agent.llm.requests[-1].items[0].text
        assert outcomes(talk) == ["wasted"]

    on_a_call(scenario, Agent, llm=Slow())


class Booking(LLM):
    async def stream(self, request: LLMRequest):
        if request.items[-1].__class__.__name__ == "Entry":
            yield ToolCall(id="c1", name="book", arguments="{}")
            yield Finish("tool_calls")
        else:
            yield TextDelta("Booked.")
            yield Finish("stop")


class Desk(Agent):
    booked: ClassVar[list[float]] = []

    @tool
    async def book(self) -> str:
        """Book a table."""
        self.booked.append(self.voip.clock.now())
        return "done"


def test_no_tool_starts_before_the_caller_has_finished():
    Desk.booked.clear()

    async def scenario(talk):
        talk.stt.expects("book it")
        await talk.clock.sleep(0.5)
        assert not Desk.booked
        assert not talk(ToolStarted)
        talk.stt.heard("book it")
        await talk.quiet()
        assert len(Desk.booked) == 1
        assert talk.spoken()[-1][1] == "Booked."

    on_a_call(scenario, Desk, llm=Booking())


def test_a_tool_of_a_discarded_reply_never_acts():
    Desk.booked.clear()

    async def scenario(talk):
        talk.stt.expects("book it")
        await talk.clock.sleep(0.5)
        talk.stt.goes_on()
        await talk.clock.sleep(5)
        assert not Desk.booked
        assert outcomes(talk) == ["wasted"]
        assert not talk.spoken()

    on_a_call(scenario, Desk, llm=Booking())


def test_a_failed_speculation_is_tried_again_in_silence():
    class Broken(Slow):
        async def stream(self, request: LLMRequest):
            if not self.requests:
                self.requests.append(request)
                raise RuntimeError("no")
            async for event in super().stream(request):
                yield event

    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.1)
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1][1] == "You said: hello."
        assert len(talk.errors) == 1

    on_a_call(scenario, Agent, llm=Broken())


def test_a_call_that_ends_keeps_no_trace_of_a_speculation():
    async def scenario(talk):
        talk.stt.expects("hello")
        await talk.clock.sleep(0.4)

    talk = on_a_call(scenario, Agent, llm=Slow())
    assert not talk.spoken()
    assert not talk.agent._conversation
