"""One agent on every vendor's model: moving it is a matter of its base class. Real sockets, a line in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dialog import AnthropicAgent, OpenAIAgent, ResponsesAgent, Rule, RuleAgent, tool
from dialog.calls import events as ev
from dialog.llm.llm import Entry, ToolCall, ToolResult
from dialog.participant import Participant
from dialog.testing.anthropic import AnthropicEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.responses import ResponsesEmulator
from dialog.testing.server import Faults
from dialog.voip.memory import memory_call


class DeskBody:
    """What a user writes: the same on every model."""

    booked: list[int]

    @tool
    async def book_table(self, people: int, note: str = "") -> str:
        """Book a table."""
        self.booked.append(people)
        return f"booked for {people}{note}"


class OpenAIDesk(DeskBody, OpenAIAgent):
    pass


class ResponsesDesk(DeskBody, ResponsesAgent):
    pass


class AnthropicDesk(DeskBody, AnthropicAgent):
    pass


class RuleDesk(DeskBody, RuleAgent):
    rules = (
        Rule(
            pattern=r"table for (?P<people>\d+)",
            reply="One moment.",
            tool="book_table",
            arguments={"people": "{people}"},
            result="It is {result}.",
        ),
        Rule(pattern="thank", reply="You are welcome."),
    )


REMOTE = [(OpenAIDesk, OpenAIEmulator), (ResponsesDesk, ResponsesEmulator), (AnthropicDesk, AnthropicEmulator)]


class Talk:
    """A call with an agent, whose caller is heard word for word."""

    def __init__(self, kind: type[Any], *, ms_per_char: float = 1, **options: Any) -> None:
        self.stt = ToldSTT()
        self.errors: list[Any] = []
        self.changed = asyncio.Event()

        def on_voip(voip: Any) -> None:
            self.agent = kind(voip=voip, stt=self.stt, tts=HummingTTS(ms_per_char=ms_per_char), **options)
            self.agent.booked = []
            self.agent.on(Participant.ERROR, self.errors.append)
            self.agent.on(type(self.agent).EVENT, lambda _: self.changed.set())
            self.agent.activate()

        self.call, self.line = memory_call(on_voip)

    def __call__(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.agent.events if isinstance(event, kind)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(8):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def say(self, words: str) -> None:
        turns = len(self(ev.TurnMeasured))
        self.stt.heard(words)
        await self.until(lambda: len(self(ev.TurnMeasured)) > turns)


@asynccontextmanager
async def talk_to(kind: type[Any], **options: Any) -> AsyncIterator[Talk]:
    talk = Talk(kind, **options)
    try:
        yield talk
    finally:
        talk.line.hang_up()
        await talk.call.wait_closed()


@asynccontextmanager
async def desk(kind: type[Any], server: type[Any] | None, *replies: Any, **options: Any) -> AsyncIterator[Any]:
    if server is None:
        async with talk_to(kind, **options) as talk:
            yield talk, None
        return
    faults = options.pop("faults", None)
    async with (
        server(replies, faults=faults) as emulator,
        talk_to(kind, api_key=emulator.api_key, base_url=emulator.base_url, **options) as talk,
    ):
        yield talk, emulator


@pytest.mark.parametrize(("kind", "server"), [*REMOTE, (RuleDesk, None)])
async def test_the_same_agent_books_a_table_whatever_its_base_class(kind: type[Any], server: type[Any] | None) -> None:
    booking = ChatReply(text="One moment.", tools=[ToolUse("book_table", {"people": 2})])
    replies = (booking, "It is booked for 2.", "You are welcome.")
    async with desk(kind, server, *replies, system="Be brief.", greeting="Good evening.") as (talk, emulator):
        await talk.until(lambda: talk(ev.TurnMeasured))
        await talk.say("a table for 2 please")
        await talk.say("thank you")
        items = talk.agent.history.items()
        assert talk.agent.booked == [2]
        assert [(item.role, item.text) for item in items if isinstance(item, Entry)] == [
            ("system", "Be brief."),
            ("assistant", "Good evening."),
            ("user", "a table for 2 please"),
            ("assistant", "One moment."),
            ("assistant", "It is booked for 2."),
            ("user", "thank you"),
            ("assistant", "You are welcome."),
        ]
        [call] = [item for item in items if isinstance(item, ToolCall)]
        [result] = [item for item in items if isinstance(item, ToolResult)]
        assert (call.id, call.name, result.content) == (result.id, "book_table", "booked for 2")
        used = talk(ev.UsageReported)
        assert len(used) == 3
        assert all(event.usage.output_tokens > 0 and event.usage.input_tokens > 0 for event in used)
        assert talk.errors == []
        if emulator is not None:
            assert [exchange.connection for exchange in emulator.exchanges] == [0, 0, 0]


@pytest.mark.parametrize(("kind", "server"), REMOTE)
async def test_a_caller_who_interrupts_stops_the_model_and_history_has_what_was_heard(
    kind: type[Any], server: type[Any]
) -> None:
    replies = (ChatReply(text="word " * 2000, token_s=0.01), "Yes?")
    async with desk(kind, server, *replies, ms_per_char=20) as (talk, emulator):
        talk.stt.heard("tell me a story")
        await emulator.until(lambda: emulator.exchanges and emulator.exchanges[0].sent > 30)
        talk.stt.speech_starts()
        talk.stt.heard("stop it please")
        await talk.until(lambda: len(talk(ev.TurnMeasured)) >= 2)
        await emulator.until(lambda: emulator.exchanges[0].state == "disconnected")
        assert emulator.exchanges[0].sent < 500
        said = [item for item in talk.agent.history.items() if isinstance(item, Entry) and item.role == "assistant"]
        assert said[0].interrupted
        assert said[0].text.startswith("word")
        assert said[-1].text == "Yes?"
        assert said[0].text in emulator.requests[-1].body.decode()


@pytest.mark.parametrize(("kind", "server"), REMOTE)
async def test_a_model_that_fails_is_apologised_for_and_the_call_goes_on(kind: type[Any], server: type[Any]) -> None:
    faults = Faults(refuse=400, times=2)  # the first is the connection that is opened ahead
    async with desk(kind, server, "Fine.", faults=faults) as (talk, emulator):
        await emulator.until(lambda: emulator.requests)
        await talk.say("how are you")
        await talk.say("and now")
        texts = [item.text for item in talk.agent.history.items() if isinstance(item, Entry)]
        assert texts[-1] == "Fine."
        assert [failure.error.code for failure in talk.errors] == ["provider"]
        assert not any(failure.fatal for failure in talk.errors)
