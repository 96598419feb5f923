"""Another agent takes over in mid-call: nothing that is said is lost or doubled, and the line stays as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from test_agent_on_a_line import Echo, heard_ms, on_a_call

from dialog.agent.agent import Agent
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.events import CallEnded, CallStarted, HandedOff, ToolEnded
from dialog.calls.report import make_report
from dialog.errors import ConfigurationError, StateError, UnsupportedFormat
from dialog.llm.llm import LLM, Entry, Finish, LLMRequest, TextDelta, ToolCall
from dialog.message import AudioFormat, Message
from dialog.s2s.cascade import CascadeS2S
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.voip.memory import memory_call


class Billing(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield f"Billing heard: {message.data}"


class Model(LLM):
    """Hands over when it is asked for billing; as the second model it tells what it was told."""

    def __init__(self) -> None:
        self.requests: list[LLMRequest] = []
        self.closed = False

    async def stream(self, request: LLMRequest):
        self.requests.append(request)
        last = request.items[-1]
        if isinstance(last, Entry) and "billing" in last.text and request.tools:
            yield ToolCall(id="c1", name="to_billing", arguments="{}")
        else:
            yield TextDelta("You are with billing now.")
        yield Finish("stop")

    async def close(self) -> None:
        self.closed = True


class Front(Agent):
    other: Agent | None = None

    @tool
    async def to_billing(self) -> str:
        """Hand the caller over to billing."""
        self.other = Agent(voip=self.voip, stt=self.stt, tts=self.tts, llm=Model(), system="You do billing.")
        self.hand_off(self.other)
        return "handed over"


class Desk(Agent):
    """Its tool returns who is next."""

    other: Agent | None = None
    by_itself = False

    @tool
    async def to_billing(self) -> Agent:
        """Hand the caller over to billing."""
        self.other = Agent(voip=self.voip, stt=self.stt, tts=HummingTTS(), llm=Model(), system="You do billing.")
        if self.by_itself:
            self.hand_off(self.other)
        return self.other


class Clumsy(Agent):
    """Its tool returns somebody who cannot take the call."""

    @tool
    async def to_billing(self) -> Agent:
        """Hand the caller over to billing."""
        return self


def test_what_is_said_goes_on_and_the_next_utterance_is_the_others():
    async def scenario(talk):
        first = talk.agent
        talk.stt.heard("hello there")
        await talk.clock.sleep(0.3)
        second = Billing(voip=first.voip, stt=first.stt, tts=first.tts)
        first.hand_off(second)
        talk.agent = second
        await talk.quiet()
        talk.stt.heard("what do I owe you")
        await talk.quiet()
        assert [text for _, text, _ in talk.spoken()] == [
            "hello there",
            "You said: hello there",
            "what do I owe you",
            "Billing heard: what do I owe you",
        ]
        assert heard_ms(talk) == (len("You said: hello there ") + len("Billing heard: what do I owe you")) * 50
        assert [event.to for event in talk(HandedOff)] == ["Billing"]
        assert len(talk(CallStarted)) == 1
        with pytest.raises(StateError):
            first.dispatch_message("I am still here.")
        first.dispose()
        assert not talk.stt.disposed
        assert not talk.tts.disposed

    talk = on_a_call(scenario)
    assert talk.agent.disposed
    assert talk.stt.disposed


def test_a_tool_hands_over_and_the_others_model_speaks_next():
    async def scenario(talk):
        front = talk.agent
        talk.stt.heard("billing please")
        await talk.quiet()
        talk.agent = front.other
        await talk.quiet()
        assert len(front.llm.requests) == 1, "the first model is not asked again"
        (request,) = front.other.llm.requests
        assert [item.text for item in request.items if isinstance(item, Entry)] == ["You do billing.", "billing please"]
        assert [event.state for event in talk(ToolEnded)] == ["done"]
        assert talk.spoken()[-1][1] == "You are with billing now."
        assert heard_ms(talk) == len("You are with billing now.") * 50

    talk = on_a_call(scenario, Front, llm=Model(), system="You are at the desk.")
    assert len(talk(CallEnded)) == 1
    assert talk.agent.llm.closed


@pytest.mark.parametrize("by_itself", [False, True])
def test_the_agent_that_a_tool_returns_takes_the_call_once(by_itself):
    async def scenario(talk):
        desk = talk.agent
        desk.by_itself = by_itself
        talk.stt.heard("billing please")
        await talk.quiet()
        talk.agent = desk.other
        await talk.quiet()
        assert len(desk.llm.requests) == 1, "the first model is not asked again"
        (request,) = desk.other.llm.requests
        assert [item.text for item in request.items if isinstance(item, Entry)] == ["You do billing.", "billing please"]
        assert [(event.from_, event.to) for event in talk(HandedOff)] == [("Desk", "Agent")]
        assert [event.result for event in talk(ToolEnded)] == ["handed over to Agent"]
        assert list(desk.other.tts.texts.values()) == ["You are with billing now."], "it has a voice of its own"
        assert talk.tts.texts == {}

    talk = on_a_call(scenario, Desk, llm=Model(), system="You are at the desk.")
    assert [turn.by for turn in make_report(talk.agent.events).turns] == ["Desk", "Agent"]


def test_an_agent_that_cannot_take_the_call_is_a_result_that_the_model_reads():
    async def scenario(talk):
        talk.stt.heard("billing please")
        await talk.quiet()
        (ended,) = talk(ToolEnded)
        assert ended.state == "failed"
        assert "another agent of the same call" in ended.result
        assert talk(HandedOff) == []
        assert len(talk.agent.llm.requests) == 2, "the first agent goes on"

    on_a_call(scenario, Clumsy, llm=Model(), system="You are at the desk.")


def test_the_other_may_know_nothing_and_bring_its_own_ears_and_voice():
    async def scenario(talk):
        first = talk.agent
        talk.stt.heard("hello there")
        await talk.quiet()
        stt, tts = ToldSTT(), HummingTTS()
        second = Billing(voip=first.voip, stt=stt, tts=tts, greeting="Billing, hello.")
        first.hand_off(second, history=False)
        talk.agent = second
        await talk.quiet()
        await asyncio.sleep(1)
        assert talk.stt.disposed
        assert talk.tts.disposed
        stt.heard("good morning")
        await talk.quiet()
        assert [text for _, text, _ in talk.spoken()] == [
            "Billing, hello.",
            "good morning",
            "Billing heard: good morning",
        ]

    on_a_call(scenario)


def test_only_a_free_agent_of_the_same_call_may_take_over():
    async def scenario(talk):
        with pytest.raises(StateError):
            talk.agent.hand_off(talk.agent)

    on_a_call(scenario, Echo)


@pytest.mark.parametrize("early", [False, True])
def test_a_caller_who_speaks_before_the_others_first_words_is_answered_and_no_more_is_said(early):
    class Chatty(Front):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            yield "One moment please, I put you through."
            self.other = Agent(voip=self.voip, stt=self.stt, tts=self.tts, llm=Model())
            self.hand_off(self.other)

    async def scenario(talk):
        front = talk.agent
        talk.stt.heard("my bill")
        await talk.clock.sleep(0.5)
        talk.agent = front.other
        if early:
            talk.stt.hears("and")
            talk.stt.expects("and quickly")
            await talk.clock.sleep(0.2)
        talk.stt.heard("and quickly")
        await talk.quiet()
        await talk.clock.sleep(1)
        await talk.quiet()
        (request,) = talk.agent.llm.requests
        assert request.items[-1].text == "and quickly"

    on_a_call(scenario, Chatty)


def test_who_has_handed_over_already_says_no_first_words():
    class Passing(Echo):
        async def inference(self, message: Message[str]) -> AsyncIterator[str]:
            yield "One moment please."
            first, second = (Agent(voip=self.voip, stt=self.stt, tts=self.tts, llm=Model()) for _ in range(2))
            self.hand_off(first)
            first.hand_off(second)
            self.models = (first.llm, second.llm)
            talk.agent = second

    async def scenario(given):
        nonlocal talk
        talk = given
        front = talk.agent
        talk.stt.heard("hello")
        await talk.quiet()
        await talk.clock.sleep(1)
        await talk.quiet()
        assert [len(model.requests) for model in front.models] == [0, 1]

    talk = None
    on_a_call(scenario, Passing)


def test_a_model_without_instructions_is_not_asked_nothing():
    async def scenario(talk):
        await talk.quiet()
        (request,) = talk.agent.llm.requests
        assert [(item.role, item.text) for item in request.items] == [("user", "(call connected)")]
        assert talk.spoken() == [("assistant", "You are with billing now.", "")]

    on_a_call(scenario, Agent, llm=Model(), settings=AgentSettings(model_opens=True))


class Odd(HummingTTS):
    formats = (AudioFormat(encoding="s16le", sample_rate=1),)


def test_who_cannot_speak_or_answer_in_this_call_does_not_get_it():
    async def scenario(talk):
        first = talk.agent
        stt, elsewhere = ToldSTT(), HummingTTS()
        s2s = CascadeS2S(stt=ToldSTT(), tts=HummingTTS(), llm=Model())
        call, line = memory_call(
            lambda voip: Echo(voip=voip, stt=ToldSTT(), tts=elsewhere).activate(), clock=talk.clock
        )
        for error, says, given in (
            (UnsupportedFormat, "no format", {"stt": stt, "tts": Odd()}),
            (StateError, "another call", {"stt": stt, "tts": elsewhere}),
            (ConfigurationError, "this call has an stt and a tts", {"s2s": s2s}),
        ):
            second = Agent(voip=first.voip, greeting="Hello.", **given)
            with pytest.raises(error, match=says):
                first.hand_off(second)
        assert talk(HandedOff) == []
        talk.stt.heard("hello there")
        await talk.quiet()
        assert talk.spoken()[-1][1] == "You said: hello there", "the first one goes on, with its own ears and voice"
        line.hang_up()
        await call.wait_closed()

    on_a_call(scenario)


def test_a_call_that_comes_back_is_held_and_let_go_by_the_first():
    async def scenario(talk):
        first = talk.agent
        second = Billing(voip=first.voip, stt=ToldSTT(), tts=HummingTTS())
        first.hand_off(second)
        await asyncio.sleep(1)
        assert talk.stt.disposed
        assert talk.tts.disposed
        second.hand_off(first)  # its own ears and voice are gone: it goes on with the other's
        second.dispose()
        assert not second._stt.disposed, "they have the call"
        first.stt.heard("hello again")
        await talk.quiet()
        assert talk.spoken()[-1][1] == "You said: hello again"
        talk.second = second

    talk = on_a_call(scenario)
    assert talk.agent.disposed
    assert talk.second._stt.disposed
    assert talk.second._tts.disposed
    assert len(talk(CallEnded)) == 1
