"""A model gives the call to a script for a while, and goes on afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from test_agent_on_a_line import on_a_call
from test_tools_at_work import Model, call

from dialog import answers
from dialog.agent.agent import Agent
from dialog.agent.scripts.asktool import ask_tool
from dialog.agent.scripts.script import Script
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.agent.turns.settings import TurnSettings
from dialog.calls.events import HandedOff, Interrupted, ToolEnded
from dialog.errors import CallHungUp, NotSupportedError, StateError
from dialog.llm.llm import Entry
from dialog.testing.told_s2s import ToldS2S

NUMBER = "Please say or type in the number of the card."
RIGHT = "a card ending in 4 2 4 2. Is that right?"


class Cashier(Agent):
    private = True
    card: Any = None
    failure: BaseException | None = None

    @tool(timeout_s=300)
    async def take_card(self) -> str:
        """Take a card."""
        try:
            async with self.script(private=self.private) as call:
                self.card = await call.ask(NUMBER, answers.CardNumber(), confirm=True)
        except BaseException as exc:
            self.failure = exc
            raise
        return "charged"


class Open(Cashier):
    private = False


async def until_said(talk, text):
    while text not in [said.strip() for said in talk.tts.texts.values()]:
        await talk.clock.sleep(0.05)
    await talk.clock.sleep(len(text) * 0.05 + 0.2)


async def pays(talk):
    talk.stt.heard("I want to pay")
    await until_said(talk, NUMBER)
    talk.stt.heard("four two four two four two four two four two four two four two four two")
    await until_said(talk, RIGHT)
    talk.stt.heard("yes")


def test_the_model_calls_a_script_and_learns_what_came_of_it():
    llm = Model(["Sure. ", call("take_card")], ["That is paid."], ["You are welcome."])

    async def scenario(talk):
        await pays(talk)
        await until_said(talk, "That is paid.")
        await talk.quiet()
        talk.stt.heard("thank you")
        await until_said(talk, "You are welcome.")
        await talk.quiet()
        assert len(llm.requests) == 3, "the model was not asked while the script had the call"
        history = " ".join(item.text for item in llm.requests[2].items if isinstance(item, Entry))
        assert "4 2 4 2" not in history
        assert "four two" not in history
        assert "finished (done): charged" in history
        assert [words for role, words, _ in talk.spoken() if role == "user"] == ["I want to pay", "thank you"]

    talk = on_a_call(scenario, Cashier, llm=llm)
    assert talk.agent.card == "4242" * 4
    assert [event.result for event in talk(ToolEnded)] == ["charged"]
    assert talk(Interrupted) == [], "an answer is no interruption"
    assert talk.errors == []


def test_what_is_not_private_the_model_knows():
    llm = Model([call("take_card")], ["That is paid."])

    async def scenario(talk):
        await pays(talk)
        await until_said(talk, "That is paid.")
        items = [item.text for item in llm.requests[1].items if isinstance(item, Entry)]
        assert items[-4:-1] == [
            "four two four two four two four two four two four two four two four two",
            RIGHT,
            "yes",
        ]
        assert items[-1].endswith("has finished (done): charged")

    on_a_call(scenario, Open, llm=llm)


def test_what_comes_while_the_script_has_the_call_waits():
    class Busy(Cashier):
        @tool(background=True)
        async def look_up(self) -> str:
            """Look something up."""
            await self.voip.clock.sleep(2)
            return "found"

    llm = Model([call("look_up"), call("take_card", call_id="c2")], ["All is done."])

    async def scenario(talk):
        await pays(talk)
        await until_said(talk, "All is done.")
        await talk.quiet()
        assert len(llm.requests) == 2
        texts = " ".join(item.text for item in llm.requests[1].items if isinstance(item, Entry))
        assert "found" in texts
        assert "charged" in texts

    on_a_call(scenario, Busy, llm=llm)


def test_a_ready_made_tool_asks_and_tells_the_model():
    kept = []

    class Desk(Agent):
        ask_name = ask_tool("ask_name", "What is your name?", answers.Name(), description="Ask for the name.")
        ask_card = ask_tool(
            "ask_card",
            "Now the card.",
            answers.card(),
            private=True,
            keep=lambda agent, card: kept.append((agent, card["number"])),
        )

    llm = Model([call("ask_name")], [call("ask_card", call_id="c2")], ["Thank you."])

    async def scenario(talk):
        talk.stt.heard("I want to pay")
        await until_said(talk, "What is your name?")
        talk.stt.heard("it's ada")
        await until_said(talk, "Please say or type in the number of the card.")
        for keys, then in (
            ("4242424242424242#", RIGHT),
            ("1", "Until when is it valid?"),
            ("0440", "And what is the security code?"),
            ("123#", "Thank you."),
        ):
            talk.line.press(keys)
            await until_said(talk, then)
        await talk.quiet()

    talk = on_a_call(scenario, Desk, llm=llm)
    results = [event.result for event in talk(ToolEnded)]
    assert results[0] == "answered: Ada"
    assert results[1].startswith("answered: number: a card ending in 4 2 4 2, expiry: April 2040, code: 3 digits")
    assert kept == [(talk.agent, "4242" * 4)]
    assert "4242" not in " ".join(results)
    assert llm.requests[0].tools[0].description == "Ask for the name."


def test_a_ready_made_tool_tells_that_there_was_no_answer():
    class Desk(Agent):
        ask_name = ask_tool("ask_name", "What is your name?", answers.Name())

    llm = Model([call("ask_name")], ["Never mind."])

    async def scenario(talk):
        talk.stt.heard("hello")
        await until_said(talk, "Never mind.")
        await talk.quiet()

    talk = on_a_call(scenario, Desk, llm=llm)
    assert [event.result for event in talk(ToolEnded)] == ["the caller did not give an answer that would do"]


def test_a_caller_who_hangs_up_ends_the_script():
    llm = Model([call("take_card")])

    async def scenario(talk):
        talk.stt.heard("I want to pay")
        await until_said(talk, NUMBER)

    talk = on_a_call(scenario, Cashier, llm=llm)
    assert isinstance(talk.agent.failure, CallHungUp)


def test_a_script_whose_tool_has_no_more_time_gives_the_call_back():
    class Hasty(Cashier):
        @tool(timeout_s=3)
        async def take_card(self) -> str:
            """Take a card."""
            async with self.script() as call:
                return await call.listen(60)

    llm = Model([call("take_card")], ["That did not work."], ["Yes?"])

    async def scenario(talk):
        talk.stt.heard("I want to pay")
        await until_said(talk, "That did not work.")
        await talk.quiet()
        talk.stt.heard("hello")
        await until_said(talk, "Yes?")

    on_a_call(scenario, Hasty, llm=llm)


def test_a_script_outside_of_any_turn():
    llm = Model(["Yes?"])
    heard = []

    async def scenario(talk):
        async def interview():
            async with talk.agent.script() as call:
                heard.append(await call.ask("How are you?", answers.Text()))
                with pytest.raises(StateError):
                    async with talk.agent.script():
                        pass
            with pytest.raises(StateError, match="does not have the call"):
                await call.say("Hello?")

        task = talk.agent.spawn(interview(), "interview")
        await until_said(talk, "How are you?")
        talk.stt.heard("fine")
        await task
        talk.stt.heard("hello")
        await until_said(talk, "Yes?")
        assert talk.spoken() == [
            ("assistant", "How are you?", ""),
            ("user", "fine", ""),
            ("user", "hello", ""),
            ("assistant", "Yes?", ""),
        ]

    on_a_call(scenario, Agent, llm=llm)
    assert heard == ["fine"]


def test_a_model_hands_the_call_to_a_script_which_hands_it_back():
    class Consent(Script):
        async def run(self, call):
            self.agreed = await call.ask("Do you agree?", answers.YesNo())
            self.back.history.system(f"the caller agrees: {self.agreed}")
            self.hand_off(self.back)

    class Desk(Agent):
        @tool
        async def ask_consent(self) -> str:
            """Ask for consent."""
            self.consent = Consent(voip=self.voip, stt=self.stt, tts=self.tts)
            self.consent.back = self
            self.hand_off(self.consent)
            return "asked"

    llm = Model([call("ask_consent")], ["Thank you for that."], ["Yes?"])

    async def scenario(talk):
        talk.stt.heard("I want to buy it")
        await until_said(talk, "Do you agree?")
        talk.stt.heard("yes I do")
        await until_said(talk, "Thank you for that.")
        await talk.quiet()
        talk.stt.heard("hello")
        await until_said(talk, "Yes?")

    talk = on_a_call(scenario, Desk, llm=llm)
    assert talk.agent.consent.agreed is True
    assert [event.to for event in talk(HandedOff)] == ["Consent", "Desk"]
    assert "the caller agrees: True" in [item.text for item in llm.requests[1].items if isinstance(item, Entry)]
    assert talk.errors == []


def test_inference_itself_cannot_be_left_for_a_script():
    class Inside(Agent):
        async def inference(self, message):
            async with self.script() as call:
                yield await call.listen()

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert "would wait for itself" in str(talk.errors[0].error)

    on_a_call(scenario, Inside)


def test_a_speculation_starts_no_script():
    llm = Model([call("take_card")], [call("take_card")], ["That is paid."])

    async def scenario(talk):
        talk.stt.expects("I want to pay")
        await talk.clock.sleep(2)
        assert not talk.tts.texts
        talk.stt.heard("I want to pay")
        await until_said(talk, NUMBER)

    on_a_call(scenario, Cashier, llm=llm, settings=AgentSettings(turns=TurnSettings()))


def test_where_one_model_hears_and_speaks_there_is_no_script():
    async def scenario(talk):
        with pytest.raises(NotSupportedError, match="s2s"):
            async with talk.agent.script():
                pass

    class Speaking(Agent):
        def __init__(self, *, stt, tts, **options):
            del stt, tts
            super().__init__(s2s=ToldS2S(), **options)

    on_a_call(scenario, Speaking)
