"""An agent in realtime mode on a line in memory, in virtual time: one model hears, thinks and speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from dialog import Agent, AgentSettings, BargeIn, Message, Rule, RuleLLM, Silence, TurnSettings, end_call_tool, tool
from dialog.agent.realtime import Realtime
from dialog.calls.events import (
    AgentSaid,
    CallEnded,
    CallerSaid,
    HandedOff,
    Interrupted,
    ReplyDropped,
    ResumedAfterPause,
    ToolEnded,
    UsageReported,
)
from dialog.errors import ConfigurationError, NotSupportedError, UserCodeError
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.message import MULAW_8K
from dialog.participant import Participant
from dialog.s2s.cascade import CascadeS2S
from dialog.s2s.s2s import S2SCapabilities
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.session import TextSession
from dialog.testing.virtual import run_virtual
from dialog.voip.memory import memory_call
from dialog.voip.voip import VoIP

RULES = (
    Rule(pattern="book", reply="Let me see.", tool="book_table", result="It is {result}."),
    Rule(pattern="slowly", tool="slow_lookup", result="I found {result}."),
    Rule(pattern="bye", reply="Goodbye then.", tool="end_call"),
    Rule(pattern="finished", reply="By the way, I have news."),
    Rule(pattern="story", reply="Once upon a time there was a table. It stood in a house by the sea. That is all."),
    Rule(pattern="", reply="You said something."),
)


class Host(Agent):
    end_call = end_call_tool()
    clock_s = 0.4

    @tool
    async def book_table(self) -> str:
        """Book a table."""
        await self.voip.clock.sleep(self.clock_s)
        return "booked"

    @tool
    async def slow_lookup(self) -> str:
        """Look something up."""
        await self.voip.clock.sleep(6)
        return "a table"


class Talk:
    """A realtime call whose ears and voice the test holds."""

    def __init__(self, clock, kind: type[Agent] = Host, *, rules=RULES, make=CascadeS2S, llm=True, **options) -> None:
        self.clock = clock
        self.stt, self.voice = ToldSTT(), HummingTTS()
        self.s2s = make(
            stt=self.stt, tts=self.voice, llm=RuleLLM(rules, clock=clock, first_token_s=0.2) if llm else None
        )
        self.errors: list = []

        def on_voip(voip: VoIP) -> None:
            self.agent = kind(voip=voip, s2s=self.s2s, system="Be brief.", **options)
            self.agent.on(Participant.ERROR, self.errors.append)
            self.agent.activate()

        self.call, self.line = memory_call(on_voip, clock=clock, join=False)

    def __call__(self, kind):
        return [event for event in self.agent.events if isinstance(event, kind)]

    async def quiet(self) -> None:
        await self.clock.sleep(0.05)
        while self.agent._conversation and not self.agent._conversation.engine.quiet:
            await self.clock.sleep(0.05)

    def spoken(self) -> list[tuple[str, str, str]]:
        return spoken(self.agent.history.items())

    def known(self) -> list[tuple[str, str, str]]:
        """What the model itself remembers."""
        return spoken(self.s2s.conversation)

    async def over(self) -> None:
        self.line.hang_up()
        await self.call.wait_closed()
        await self.line.wait_closed()


def spoken(items):
    return [
        (i.role, i.text, "interrupted" if i.interrupted else "")
        for i in items
        if isinstance(i, Entry) and i.role != "system"
    ]


def on_a_call(scenario, kind=Host, **options):
    async def run(clock):
        talk = Talk(clock, kind, **options)
        talk.line.join(talk.call)
        await scenario(talk)
        await talk.over()
        assert len(talk(CallEnded)) == 1
        return talk

    return run_virtual(run)


def test_an_utterance_is_answered_and_remembered_by_both_sides():
    async def scenario(talk):
        assert isinstance(talk.agent._conversation.engine, Realtime)
        talk.stt.heard("hello there")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello there", ""), ("assistant", "You said something.", "")]
        assert talk.known() == talk.spoken()
        assert MULAW_8K.ms(len(talk.line.heard_audio)) == len("You said something.") * 50
        assert [said.text for said in talk(CallerSaid) if said.final] == ["hello there"]
        assert talk(UsageReported)[0].usage.output_tokens == 3
        assert (talk.agent.metrics.caller_turns, talk.agent.metrics.agent_turns) == (1, 1)
        assert not talk.errors

    on_a_call(scenario)


def test_the_greeting_is_said_word_for_word():
    async def scenario(talk):
        await talk.quiet()
        assert talk.spoken() == [("assistant", "Good evening, this is Luigi's.", "")]
        assert talk.known() == talk.spoken()

    on_a_call(scenario, greeting="Good evening, this is Luigi's.")


def test_words_over_a_reply_cut_it_and_the_model_is_told_what_was_heard():
    async def scenario(talk):
        talk.stt.heard("a story please")
        await talk.clock.sleep(1.0)
        talk.stt.speech_starts()
        heard = talk.line.heard_audio
        talk.stt.hears("stop")
        talk.stt.speech_stops()
        talk.stt.heard("stop it")
        await talk.quiet()
        cut = "Once upon a time"
        assert talk.spoken()[:2] == [("user", "a story please", ""), ("assistant", cut, "interrupted")]
        assert talk.spoken()[2:] == [("user", "stop it", ""), ("assistant", "You said something.", "")]
        assert talk.known() == talk.spoken()
        assert talk.line.heard_audio.startswith(heard)
        assert len(talk(Interrupted)) == 1

    on_a_call(scenario)


def test_a_cough_pauses_and_the_reply_goes_on_without_losing_a_byte():
    async def scenario(talk):
        talk.stt.heard("a story please")
        await talk.clock.sleep(1.0)
        talk.stt.speech_starts()
        await talk.clock.sleep(0.2)
        talk.stt.speech_stops()
        await talk.quiet()
        assert len(talk(ResumedAfterPause)) == 1
        assert len(talk.line.heard_audio) == len(RULES[4].reply) * 400
        assert talk.known()[1] == ("assistant", RULES[4].reply, "")

    on_a_call(scenario)


def test_words_before_anything_was_heard_are_answered_together():
    async def scenario(talk):
        first = talk.stt.heard("a story please")
        await talk.clock.sleep(0.1)
        talk.stt.speech_starts()
        talk.stt.hears("no")
        talk.stt.speech_stops()
        second = talk.stt.heard("no book a table")
        await talk.quiet()
        assert len(talk(ReplyDropped)) == 1
        assert talk.spoken()[0] == ("user", "a story please no book a table", "")
        assert {said.turn for said in talk(AgentSaid)} == {second}
        assert first != second
        assert talk.known()[:2] == [("user", "a story please", ""), ("user", "no book a table", "")]

    on_a_call(scenario)


def test_a_tool_is_run_and_its_result_is_spoken():
    async def scenario(talk):
        talk.stt.heard("book it")
        await talk.quiet()
        items = talk.agent.history.items()[1:]
        assert [type(item).__name__ for item in items] == ["Entry", "Entry", "ToolCall", "ToolResult", "Entry"]
        assert talk.spoken()[1:] == [("assistant", "Let me see.", ""), ("assistant", "It is booked.", "")]
        assert next(item for item in talk.s2s.conversation if isinstance(item, ToolResult)).content == "booked"
        assert [said.part for said in talk(AgentSaid)] == [0, 1]

    on_a_call(scenario)


def test_a_tool_that_outlives_its_turn_is_told_of_when_there_is_room():
    async def scenario(talk):
        talk.stt.heard("look slowly")
        await talk.clock.sleep(1.0)
        talk.stt.speech_starts()
        talk.stt.hears("hello")
        talk.stt.speech_stops()
        talk.stt.heard("hello")
        await talk.clock.sleep(12)
        await talk.quiet()
        assert talk(ToolEnded)[0].late
        assert talk.spoken()[-1] == ("assistant", "By the way, I have news.", "")
        assert any(
            isinstance(item, Entry) and item.role == "system" and "slow_lookup" in item.text
            for item in talk.s2s.conversation
        )
        asked = [item for item in talk.s2s.conversation if isinstance(item, ToolCall)]
        assert len(asked) == 1

    on_a_call(scenario)


def test_a_goodbye_is_heard_before_the_call_ends():
    async def scenario(talk):
        talk.stt.heard("bye")
        await talk.call.wait_closed()
        assert talk.spoken()[-1] == ("assistant", "Goodbye then.", "")
        assert talk(CallEnded)[0].reason == "agent_hangup"

    on_a_call(scenario)


def test_keys_are_told_to_the_model_that_does_not_hear_them():
    async def scenario(talk):
        talk.line.press("1")
        talk.line.press("2")
        await talk.clock.sleep(3)
        await talk.quiet()
        assert talk.known() == [("user", "(pressed 1 2)", ""), ("assistant", "You said something.", "")]
        assert talk.spoken() == talk.known()

    on_a_call(scenario)


def test_nothing_of_a_cancelled_reply_is_heard():
    async def scenario(talk):
        talk.voice.hold = True
        talk.stt.heard("a story please")
        await talk.clock.sleep(1.0)
        talk.agent.abort()
        talk.voice.release()
        await talk.clock.sleep(2)
        assert talk.line.heard_audio == b""
        assert talk.known() == [("user", "a story please", "")]

    on_a_call(scenario)


class Echo(Agent):
    async def inference(self, message: Message[str]) -> AsyncIterator[str]:
        yield "You said: "
        yield message.data


def test_an_inference_of_the_agents_own_is_spoken():
    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken() == [("user", "hello", ""), ("assistant", "You said: hello", "")]
        assert talk.known() == talk.spoken()

    on_a_call(scenario, Echo, llm=False)


def test_idle_prompts_and_the_idle_goodbye_are_said():
    async def scenario(talk):
        await talk.call.wait_closed()
        texts = [text for _, text, _ in talk.spoken()]
        assert texts == ["Are you still there?", "I can't hear you any more, so I will hang up. Goodbye."]

    settings = AgentSettings(turns=TurnSettings(silence=Silence(idle_s=3, idle_count=1)))
    on_a_call(scenario, settings=settings)


def test_another_agent_takes_over_with_its_own_tools_and_instructions():
    class Billing(Agent):
        @tool
        async def book_table(self) -> str:
            """Pay."""
            return "paid"

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        other = Billing(voip=talk.agent.voip, s2s=talk.agent.s2s, system="You are the cashier.")
        talk.agent.hand_off(other)
        talk.agent = other
        talk.stt.heard("book it")
        await talk.quiet()
        assert talk.s2s._spec.system == "You are the cashier."
        assert talk.spoken()[-1] == ("assistant", "It is paid.", "")

    on_a_call(scenario)


def test_an_agent_without_this_calls_model_does_not_get_it():
    async def scenario(talk):
        given = ({"stt": ToldSTT(), "tts": HummingTTS()}, {"s2s": CascadeS2S(stt=ToldSTT(), tts=HummingTTS())})
        for providers in given:
            other = Agent(voip=talk.agent.voip, llm=RuleLLM(RULES), **providers)
            with pytest.raises(ConfigurationError, match=r"with s2s=self\.s2s"):
                talk.agent.hand_off(other)
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "You said something.", "")

    talk = on_a_call(scenario)
    assert talk(HandedOff) == []


def test_the_agent_that_a_tool_returns_takes_over():
    class Cashier(Agent):
        @tool
        async def book_table(self) -> str:
            """Pay."""
            return "paid"

    class Desk(Agent):
        @tool
        async def to_cashier(self) -> Agent:
            """Hand the caller over to the cashier."""
            talk.agent = Cashier(
                voip=self.voip, s2s=self.s2s, system="You are the cashier.", greeting="The cashier, hello."
            )
            return talk.agent

    async def run(clock):
        nonlocal talk
        talk = Talk(clock, Desk, rules=(Rule(pattern="pay", tool="to_cashier", result="{result}."), *RULES))
        talk.line.join(talk.call)
        talk.stt.heard("i want to pay")
        await talk.quiet()
        assert talk.s2s._spec.system == "You are the cashier."
        assert [tool.name for tool in talk.s2s._spec.tools] == ["book_table"]
        assert [event.to for event in talk(HandedOff)] == ["Cashier"]
        assert "The cashier, hello." in [text for _, text, _ in talk.spoken()]
        talk.stt.heard("book it")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "It is paid.", "")
        await talk.over()

    talk = None
    run_virtual(run)


class Mumbling(CascadeS2S):
    """Says nothing word for word."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.capabilities = S2SCapabilities(truncate=True, speech_events=True, interruption="theirs")


def refused(match, make=Mumbling, kind=Host, **options):
    async def run(clock):
        with pytest.raises(UserCodeError, match=match) as raised:
            Talk(clock, kind, make=make, **options)
        assert isinstance(raised.value.__cause__, ConfigurationError)

    return run_virtual(run)


def test_what_a_model_cannot_do_is_refused_when_the_agent_is_made():
    refused("word for word", greeting="Hello!")
    refused("does not run", kind=Echo)
    refused("stops by itself", settings=AgentSettings(turns=TurnSettings(barge_in=BargeIn(mode="after_sentence"))))
    refused("leave out the stt", stt=ToldSTT())


def test_what_is_to_be_said_word_for_word_needs_a_voice():
    async def scenario(talk):
        with pytest.raises(ConfigurationError, match="word for word"):
            talk.agent.dispatch_message("This call is recorded.")
        talk.agent.set_tts(HummingTTS())
        heard = await talk.agent.dispatch_message("This call is recorded.")
        assert heard.complete
        assert talk.known() == [("assistant", "This call is recorded.", "")]
        with pytest.raises(NotSupportedError, match="no STT"):
            talk.agent.set_stt(ToldSTT())

    on_a_call(scenario, make=Mumbling)


def test_in_a_text_call_the_same_agent_answers_with_its_llm():
    def unwanted():
        raise AssertionError("a text call needs no model that speaks")

    def take(voip):
        Host(voip=voip, s2s=unwanted, llm=RuleLLM(RULES)).activate()

    async def run(clock):
        async with TextSession(take) as session:
            reply = await session.run("book it")
            reply.says("booked").calls("book_table")

    run_virtual(run)


def test_in_a_text_call_a_model_that_only_hears_is_refused():
    async def run(clock):
        with pytest.raises(ConfigurationError, match="give it an llm"):
            async with TextSession(lambda voip: Host(voip=voip, s2s=CascadeS2S).activate()):
                pass

    run_virtual(run)


@pytest.mark.parametrize("mode", ["text", "realtime"])
def test_one_class_runs_in_either_mode_by_its_arguments(mode):
    async def run(clock):
        stt, voice, llm = ToldSTT(), HummingTTS(), RuleLLM(RULES, clock=clock, first_token_s=0.2)
        parts = {"stt": stt, "tts": voice, "llm": llm}
        arguments = parts if mode == "text" else {"s2s": CascadeS2S(**parts)}
        agents: list[Host] = []

        def on_voip(voip: VoIP) -> None:
            agents.append(Host(voip=voip, system="Be brief.", greeting="Good evening.", **arguments))
            agents[0].activate()

        call, line = memory_call(on_voip, clock=clock)
        [agent] = agents
        await clock.sleep(3)
        for words in ("please book a table", "what is there", "bye now"):
            stt.heard(words)
            await clock.sleep(6)
        await call.wait_closed()
        await line.wait_closed()
        entries = [item for item in agent.history.items() if isinstance(item, Entry) and item.role != "system"]
        assert [(entry.role, entry.text) for entry in entries] == [
            ("assistant", "Good evening."),
            ("user", "please book a table"),
            ("assistant", "Let me see."),
            ("assistant", "It is booked."),
            ("user", "what is there"),
            ("assistant", "You said something."),
            ("user", "bye now"),
            ("assistant", "Goodbye then."),
        ]
        [ended] = [event for event in agent.events if isinstance(event, CallEnded)]
        assert ended.reason == "agent_hangup"
        assert (agent.metrics.caller_turns, agent.metrics.tools) == (3, 2)

    run_virtual(run)
