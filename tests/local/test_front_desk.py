"""What the front desk says and does, without sound."""

from __future__ import annotations

import asyncio
import inspect
import re
from uuid import uuid4

import msgspec
import pytest

from dialog.agent.tools import Toolbox
from dialog.demo import front_desk
from dialog.demo.front_desk import GREETING, NOT_UNDERSTOOD, SYSTEM, FrontDesk
from dialog.demo.phrases import GRAMMAR
from dialog.demo.script import DEMO_SCRIPT, Step, parse_script
from dialog.errors import ConfigurationError
from dialog.llm.llm import Entry, LLMRequest, ToolCall, ToolSpec
from dialog.llm.rules import RuleLLM
from dialog.message import Message
from dialog.presets import OpenAIAgent, RuleAgent
from dialog.stt.pocketsphinx import UNCLEAR
from dialog.testing.openai import ChatReply, OpenAIEmulator, ToolUse
from dialog.tts.espeak import EspeakTTS
from dialog.voip.text import TextVoIP
from dialog.voip.voip import VoIP

TOOLS = tuple(
    ToolSpec(name=name, description="", parameters="{}")
    for name in ("opening_hours", "book_table", "transfer_to_person", "end_call")
)


def answer(sentence):
    llm = RuleLLM(FrontDesk.rules, fallback=FrontDesk.fallback)
    return llm.answer(LLMRequest(items=(Entry(role="user", text=sentence),), tools=TOOLS))


def test_every_sentence_of_the_grammar_is_answered():
    for sentence in GRAMMAR.sentences:
        text, calls = answer(sentence)
        assert text != NOT_UNDERSTOOD, sentence
        assert text or calls, sentence
    for nothing in (UNCLEAR, "the weather is very nice today", "two people on friday"):
        assert answer(nothing) == (NOT_UNDERSTOOD, []), nothing


def test_every_booking_is_made_as_it_was_said():
    bookings = [s for s in GRAMMAR.sentences if re.search(r"table for \w+ people", s)]
    assert len(bookings) == 2 * 7 * 7 * 5
    seen = set()
    for sentence in bookings:
        _, (call,) = answer(sentence)
        arguments = msgspec.json.decode(call.arguments)
        assert call.name == "book_table"
        assert arguments["day"] in sentence
        seen.add((sentence.startswith("can"), *arguments.values()))
    assert len(seen) == len(bookings), "no two sentences lead to the same booking"
    _, (call,) = answer("i would like to book a table for six people on monday at eight thirty")
    assert msgspec.json.decode(call.arguments) == {"people": 6, "day": "monday", "time": "20:30"}


class TextCall:
    """A call in text with a front desk."""

    def __init__(self, kind, **options):
        self.said = ""
        self._changed = asyncio.Event()
        self.voip = TextVoIP(self._text)
        self.ended = asyncio.Event()
        self.voip.on(VoIP.ENDED, lambda _: self.ended.set())
        self.desk = kind(voip=self.voip, tts=EspeakTTS(), **options)
        self.desk.activate()
        self.voip.connect()

    def _text(self, turn, part, text):
        self.said += text or "\n"
        self._changed.set()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.voip.close()
        self.desk.dispose()
        await self.desk.wait_disposed()
        self.voip.dispose()

    def say(self, sentence):
        self.desk.post(Message(uuid=uuid4(), data=sentence))

    async def until(self, words):
        async with asyncio.timeout(10):
            while words not in self.said:
                self._changed.clear()
                await self._changed.wait()


async def test_a_whole_conversation_by_rules():
    async with TextCall(FrontDesk) as call:
        await call.until("Welcome to Luigi's")
        call.say("what are your opening hours on sunday")
        await call.until("On Sunday we are open from noon until nine in the evening.")
        call.say(UNCLEAR)
        await call.until(NOT_UNDERSTOOD)
        call.say("can i have a table for two people on friday evening at nine")
        await call.until("two people on Friday at nine is booked")
        call.say("please connect me to the manager")
        await call.until("nobody is free")
        call.say("thank you very much and goodbye")
        async with asyncio.timeout(10):
            await call.ended.wait()
        assert "Thank you for calling. Goodbye!" in call.said


async def test_a_transfer_is_announced_first_and_a_refusal_of_the_carrier_told():
    class Staffed(FrontDesk):
        person = "+15550001111"

    async with TextCall(Staffed) as call:
        call.say("can i speak to a person please")
        await call.until("I could not connect you")  # a text call has nobody to transfer to
        assert call.said.index("One moment please, I connect you.") < call.said.index("I could not connect you")


async def test_unchanged_but_for_its_base_class_it_works_with_openai():
    source = inspect.getsource(FrontDesk)
    assert "class FrontDesk(RuleAgent):" in source
    names = {**vars(front_desk), "OpenAIAgent": OpenAIAgent}
    exec(compile(source.replace("(RuleAgent)", "(OpenAIAgent)"), "front_desk", "exec"), names)  # its own code

    def reply(fields):
        last = fields["messages"][-1]
        if last["role"] == "tool":
            return last["content"]
        tools = {tool["function"]["name"] for tool in fields["tools"]}
        assert tools == {"opening_hours", "book_table", "transfer_to_person", "end_call"}
        return ChatReply(tools=[ToolUse("book_table", {"people": 3, "day": "sunday", "time": "20:00"})])

    async with OpenAIEmulator(reply) as model:
        kind = names["FrontDesk"]
        assert not issubclass(kind, RuleAgent)
        async with TextCall(kind, api_key=model.api_key, base_url=f"{model.url}/v1") as call:
            call.say("can I get a table for my family of three on Sunday at eight?")
            await call.until("three people on Sunday at eight is booked")
        assert model.exchanges[0].messages[0] == {"role": "system", "content": SYSTEM}


def desk_without_voice():
    # Tools that neither speak nor transfer need no call.
    return FrontDesk.__new__(FrontDesk)


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("opening_hours", {"day": "friday"}, "from noon until eleven"),
        ("opening_hours", {"day": "monday"}, "closed"),
        ("book_table", {"people": 4, "day": "friday", "time": "19:30"}, "four people on Friday at seven thirty"),
        ("book_table", {"people": 4, "day": "monday", "time": "19:30"}, "closed"),
        ("book_table", {"people": 40, "day": "friday", "time": "19:30"}, "two to eight"),
        ("book_table", {"people": 4, "day": "friday", "time": "04:30"}, "seven to nine"),
        ("transfer_to_person", {}, "nobody is free"),
    ],
)
async def test_tools_answer_in_whole_sentences(name, arguments, answer):
    call = ToolCall(id="1", name=name, arguments=msgspec.json.encode(arguments).decode())
    result = await Toolbox(desk_without_voice()).run(call)
    assert result.state == "done"
    assert answer in result.content


async def test_a_wrong_day_is_refused_before_the_tool_runs():
    result = await Toolbox(desk_without_voice()).run(ToolCall(id="1", name="opening_hours", arguments='{"day": "x"}'))
    assert result.state == "failed"


def test_a_script_is_read_line_by_line():
    text = "# greeting\nhello and good evening\n\n!wait a moment please # over it\n! 800   stop  please\n"
    assert parse_script(text) == (
        Step(say="hello and good evening"),
        Step(say="wait a moment please", barge_in_ms=1500.0),
        Step(say="stop please", barge_in_ms=800.0),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "hello\n!\n", "hello\n! 800\n", "x" * 501, "hello\n" * 201])
def test_a_script_that_says_nothing_usable_is_refused(text):
    with pytest.raises(ConfigurationError, match="script"):
        parse_script(text)


def test_the_demo_uses_all_that_it_is_to_show():
    assert all(step.say in GRAMMAR.sentences for step in DEMO_SCRIPT)
    assert len(DEMO_SCRIPT) >= 4
    calls = {call.name for step in DEMO_SCRIPT for call in answer(step.say)[1]}
    assert calls == {"opening_hours", "book_table", "end_call"}
    assert [step.barge_in_ms is not None for step in DEMO_SCRIPT].count(True) == 1
    assert not any(DEMO_SCRIPT[0].say in line for line in (GREETING, SYSTEM))
