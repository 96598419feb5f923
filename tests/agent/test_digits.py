"""Keys that the caller presses: collected, told to the model, and what they do to what is being said."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_agent_on_a_line import Echo, heard_ms, on_a_call
from test_tools_at_work import Model, call, told

from dialog.agent.agent import Agent
from dialog.agent.digits import DigitCollector, Digits
from dialog.agent.settings import AgentSettings
from dialog.agent.tools import tool
from dialog.calls.events import CallerSaid, DigitPressed
from dialog.errors import ConfigurationError, StateError
from dialog.llm.llm import Entry

# The collector.


def test_as_many_digits_as_wanted_end_the_entry():
    collector = DigitCollector(max_digits=2)
    collector.press("1", 0.0)
    assert collector.result is None
    collector.press("2", 0.1)
    assert collector.result == Digits("12", "complete")
    collector.press("3", 0.2)
    assert collector.result == Digits("12", "complete"), "what comes after it is another entry"


def test_the_terminator_ends_the_entry_and_is_no_part_of_it():
    collector = DigitCollector()
    for key in "42#":
        collector.press(key, 0.0)
    assert collector.result == Digits("42", "terminator")


def test_without_a_terminator_the_hash_is_a_key_like_any_other():
    collector = DigitCollector(max_digits=2, terminator="")
    for key in "4#":
        collector.press(key, 0.0)
    assert collector.result == Digits("4#", "complete")


def test_the_first_key_is_waited_for_from_the_end_of_the_prompt_the_others_from_the_key_before():
    collector = DigitCollector(timeout_s=5, between_s=2)
    assert collector.deadline is None
    collector.listen(10.0)
    collector.listen(12.0)
    assert collector.deadline == 15.0
    collector.press("7", 14.0)
    assert collector.deadline == 16.0
    collector.tick(15.9)
    assert collector.result is None
    collector.tick(16.0)
    assert collector.result == Digits("7", "timeout")
    assert collector.deadline is None


def test_silence_is_an_empty_entry_and_a_hang_up_keeps_what_came():
    silent = DigitCollector()
    silent.listen(0.0)
    silent.tick(5.0)
    assert silent.result == Digits("", "timeout")
    gone = DigitCollector()
    gone.press("1", 0.0)
    gone.hang_up()
    assert gone.result == Digits("1", "hung_up")


def test_digits_read_as_text_and_show_nothing_in_logs():
    assert str(Digits("1234", "complete")) == "1234"
    assert repr(Digits("1234", "complete")) == "<Digits 4 keys, complete>"


@pytest.mark.parametrize(
    "options", [{"max_digits": 0}, {"terminator": "##"}, {"terminator": "x"}, {"timeout_s": 0}, {"between_s": -1}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(ConfigurationError):
        DigitCollector(**options)


@given(
    st.lists(st.tuples(st.sampled_from("0123456789*#ABCDx"), st.floats(0, 4))),
    st.one_of(st.none(), st.integers(1, 6)),
    st.sampled_from(["#", "*", ""]),
)
def test_an_entry_is_a_prefix_of_what_was_pressed_and_always_ends(keys, max_digits, terminator):
    collector = DigitCollector(max_digits=max_digits, terminator=terminator, timeout_s=3, between_s=2)
    now = 0.0
    collector.listen(now)
    for key, later in keys:
        now += later
        collector.tick(now)
        collector.press(key, now)
    while collector.deadline is not None:
        collector.tick(collector.deadline)
    assert collector.result is not None
    pressed = "".join(key for key, _ in keys if key != "x")
    assert pressed.startswith(collector.result.digits)
    assert terminator == "" or terminator not in collector.result.digits
    assert max_digits is None or len(collector.result.digits) <= max_digits


# On a call.

PROMPT = "Please type in your customer number."


class Asks(Agent):
    """Asks for a number in a tool, which is how a model does it."""

    options: ClassVar[dict[str, Any]] = {"max_digits": 4}

    @tool(timeout_s=60)
    async def ask_number(self) -> str:
        """Ask."""
        self.dispatch_message(PROMPT)
        got = await self.collect_digits(**self.options)
        return f"{got} ({got.why})"


def asking(options=None):
    return type("Asking", (Asks,), {"options": options or Asks.options})


def test_digits_pressed_over_the_prompt_silence_it_and_reach_the_tool():
    llm = Model([call("ask_number")], ["Thank you."])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(0.5)
        talk.line.press("1")
        await talk.clock.sleep(0.01)
        silent_from = heard_ms(talk)
        talk.line.press("234")
        await talk.quiet()
        assert silent_from == pytest.approx(500, abs=30), "the line fell silent at the first key"
        assert heard_ms(talk) == silent_from
        assert told(llm.requests[1]) == ["1234 (complete)"]
        assert talk.spoken()[1] == ("assistant", "Please type", "interrupted")
        assert talk.spoken()[-1] == ("assistant", "Thank you.", ""), "the turn went on"
        assert not any(event.text.startswith("(pressed") for event in talk(CallerSaid)), "nor is it told twice"

    talk = on_a_call(scenario, asking(), llm=llm)
    assert [event.digit for event in talk(DigitPressed)] == ["1", "2", "3", "4"]


def test_the_first_key_is_waited_for_from_the_end_of_the_prompt():
    llm = Model([call("ask_number")], ["Nothing?"])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(len(PROMPT) * 0.05 + 4.5)
        assert len(llm.requests) == 1
        await talk.clock.sleep(0.8)
        assert told(llm.requests[1]) == [" (timeout)"]
        await talk.quiet()

    on_a_call(scenario, asking(), llm=llm)


def test_the_terminator_and_the_pause_between_keys_end_an_entry():
    llm = Model([call("ask_number")], [call("ask_number", call_id="c2")], ["Fine."])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(3)
        talk.line.press("12#")
        await talk.clock.sleep(4)
        talk.line.press("3")
        await talk.clock.sleep(1.8)
        talk.line.press("4")
        await talk.clock.sleep(1.8)
        assert len(llm.requests) == 2
        await talk.quiet()
        assert told(llm.requests[2]) == ["12 (terminator)", "34 (timeout)"]

    on_a_call(scenario, asking({"timeout_s": 5, "between_s": 2}), llm=llm)


def test_digits_that_were_typed_ahead_count():
    collected: list[Digits] = []

    async def ahead(talk):
        talk.agent.dispatch_message("Hello, and welcome to us.")
        await talk.clock.sleep(0.1)
        talk.line.press("1")
        await talk.clock.sleep(0.5)
        entry = talk.agent.collect_digits(max_digits=2)
        talk.line.press("2")
        collected.append(await entry)

    on_a_call(ahead, Agent, llm=Model())
    assert collected == [Digits("12", "complete")]


def test_the_terminator_after_a_complete_entry_means_nothing():
    llm = Model([call("ask_number")], ["Thank you."], ["Yes?"])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(0.5)
        talk.line.press("1234")
        await talk.clock.sleep(0.2)
        talk.line.press("#")
        await talk.quiet()
        await talk.clock.sleep(3)
        assert talk.spoken()[-1] == ("assistant", "Thank you.", ""), "it was not interrupted"
        assert len(llm.requests) == 2
        talk.line.press("#")
        await talk.quiet()
        assert talk.spoken()[-2] == ("user", "(pressed #)", ""), "later it does"

    on_a_call(scenario, asking(), llm=llm)


def test_what_was_yielded_before_is_the_prompt():
    class Yields(Agent):
        async def inference(self, message):
            yield PROMPT
            got = await self.collect_digits(timeout_s=1)
            yield f"Got {got} by {got.why}."

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        talk.stt.heard("again")
        await talk.clock.sleep(0.3)
        talk.line.press("7#")
        await talk.quiet()
        said = [words for role, words, _ in talk.spoken() if role == "assistant"]
        assert said == [f"{PROMPT} Got  by timeout.", "Please", "Got 7 by terminator."]

    on_a_call(scenario, Yields)


def test_a_speculation_asks_for_no_digits():
    class Yields(Agent):
        async def inference(self, message):
            got = await self.collect_digits(timeout_s=1)
            yield f"Got {got} by {got.why}."

    async def scenario(talk):
        talk.stt.expects("my number is this")
        await talk.clock.sleep(3)
        assert not talk.tts.texts
        talk.stt.heard("my number is this")
        await talk.clock.sleep(0.5)
        talk.line.press("7#")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "Got 7 by terminator.", "")

    on_a_call(scenario, Yields)


def test_a_notice_that_may_not_be_interrupted_is_heard_out_also_over_keys():
    class Notice(Agent):
        async def inference(self, message):
            self.dispatch_message(PROMPT, allow_interrupt=False)
            got = await self.collect_digits(max_digits=1)
            yield f"Got {got}."

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(0.3)
        talk.line.press("7")
        await talk.quiet()
        assert talk.spoken()[1:] == [("assistant", f"{PROMPT} Got 7.", "")]

    on_a_call(scenario, Notice)


def test_a_hang_up_ends_the_entry():
    collected: list[Digits] = []

    class Outside(Echo):
        async def inference(self, message):
            collected.append(await self.collect_digits())
            yield "never said"

    async def scenario(talk):
        talk.agent.spawn(collect(talk.agent), "collecting")
        await talk.clock.sleep(0.1)
        talk.line.press("1")
        await talk.clock.sleep(0.1)
        talk.line.hang_up()
        await talk.clock.sleep(0.1)
        assert collected == [Digits("1", "hung_up")]

    async def collect(agent):
        collected.append(await agent.collect_digits())

    on_a_call(scenario, Outside)


def test_only_one_entry_at_a_time():
    async def scenario(talk):
        first = talk.agent.spawn(collect(talk.agent), "collecting")
        await talk.clock.sleep(0.1)
        with pytest.raises(StateError, match="already"):
            await talk.agent.collect_digits()
        await first
        assert (await talk.agent.collect_digits(timeout_s=1)).why == "timeout", "and then the next"

    async def collect(agent):
        assert (await agent.collect_digits(timeout_s=1)).why == "timeout"

    on_a_call(scenario)


def test_a_long_entry_is_no_reply_that_hangs():
    class Slow(Agent):
        async def inference(self, message):
            got = await self.collect_digits(timeout_s=30)
            yield f"Got {got.why}."

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.quiet()
        assert talk.spoken()[-1] == ("assistant", "Got timeout.", "")
        assert not talk.errors

    on_a_call(scenario, Slow, settings=AgentSettings(reply_timeout_s=5))


# Keys that nobody collects.


def test_the_model_is_told_of_keys_that_nobody_collects_after_a_pause():
    llm = Model(["Press one for sales, two for support, and three for the rest."], ["Sales, then."])

    async def scenario(talk):
        talk.stt.heard("hello")
        await talk.clock.sleep(1.0)
        talk.line.press("1")
        await talk.clock.sleep(0.02)
        silent_from = heard_ms(talk)
        await talk.clock.sleep(1.5)
        talk.line.press("2")
        await talk.clock.sleep(1.9)
        assert heard_ms(talk) == silent_from == pytest.approx(1000, abs=40), "a key is like a word"
        assert len(llm.requests) == 1, "more keys may come"
        await talk.quiet()
        assert talk.spoken()[0] == ("user", "hello", "")
        assert talk.spoken()[1][2] == "interrupted"
        assert talk.spoken()[2:] == [("user", "(pressed 1 2)", ""), ("assistant", "Sales, then.", "")]

    on_a_call(scenario, Agent, llm=llm)


def test_the_hash_ends_such_an_entry_at_once():
    llm = Model(["Thank you."])

    async def scenario(talk):
        talk.line.press("42#")
        await talk.clock.sleep(0.05)
        assert [item.text for item in llm.requests[0].items if isinstance(item, Entry)] == ["(pressed 4 2 #)"]
        await talk.quiet()

    on_a_call(scenario, Agent, llm=llm)


def test_keys_before_the_end_of_the_call_are_remembered():
    async def scenario(talk):
        talk.line.press("9")
        await talk.clock.sleep(0.1)

    talk = on_a_call(scenario, Agent, llm=Model())
    assert talk.spoken() == [("user", "(pressed 9)", "")]


def test_an_agent_without_a_model_hears_of_keys_only_by_events():
    async def scenario(talk):
        talk.line.press("1")
        await talk.clock.sleep(5)
        assert talk.spoken() == []
        assert [event.digit for event in talk(DigitPressed)] == ["1"]

    on_a_call(scenario)
