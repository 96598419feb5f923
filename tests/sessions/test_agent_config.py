"""A whole agent from one value: what it is made of, what a session may change, what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from dialog.agent.agent import Agent
from dialog.agent.schematool import schema_tool
from dialog.agent.settings import AgentSettings
from dialog.errors import ConfigurationError
from dialog.llm.llm import Entry, LLMRequest, TextDelta
from dialog.llm.openai import OpenAILLM
from dialog.message import CallMetadata
from dialog.s2s.openai import OpenAIRealtimeS2S
from dialog.sessions.config import AgentConfig, ProviderConfig
from dialog.sessions.spec import SessionSpec
from dialog.stt.deepgram import DeepgramSTT
from dialog.testing import HummingTTS, OpenAIEmulator, ScriptedLLM, TextSession, ToldSTT, ToolUse
from dialog.toolpolicy import ToolPolicy
from dialog.tts.cartesia import CartesiaTTS

ENV = {"DEEPGRAM_API_KEY": "d-key", "CARTESIA_API_KEY": "c-key", "OPENAI_API_KEY": "o-key"}


async def answered(agent: Agent, arguments: dict[str, Any]) -> str:
    return f"{arguments['people']} people, said to {agent.voip.metadata.from_ or 'nobody'}"


BOOK = schema_tool(
    "book_table",
    answered,
    description="Book a table.",
    parameters={"type": "object", "properties": {"people": {"type": "integer", "minimum": 1}}, "required": ["people"]},
)
HOURS = schema_tool("hours", lambda agent, arguments: "9 to 5", description="When we are open.")


def text(script, **more) -> AgentConfig:
    return AgentConfig(stt=ToldSTT, tts=HummingTTS, llm=lambda: ScriptedLLM(script), **more)


def a_voip() -> SimpleNamespace:
    """As much of a call as it takes to make an agent."""
    return SimpleNamespace(medium="audio", metadata=CallMetadata(call_id=uuid4()))


def taking(config: AgentConfig):
    return lambda voip: config.make(voip).activate()


async def test_an_agent_of_one_value_speaks_and_uses_its_tools() -> None:
    config = text([ToolUse("book_table", {"people": 2}), "Booked."], tools=(BOOK, HOURS), system="Be brief.")
    async with TextSession(taking(config)) as session:
        reply = await session.run("A table for two, please.")
        assert reply.text == "Booked."
        assert [(use.name, use.result) for use in reply.tools] == [("book_table", "2 people, said to caller")]


async def test_arguments_that_do_not_fit_the_schema_never_reach_the_handler() -> None:
    config = text([ToolUse("book_table", {"people": 0}), "How many?"], tools=(BOOK,))
    async with TextSession(taking(config)) as session:
        (use,) = (await session.run("A table.")).tools
        assert use.state == "failed"
        assert "people" in use.result


async def test_a_plain_handler_runs_as_well() -> None:
    config = text([ToolUse("hours"), "From nine."], tools=(HOURS,))
    async with TextSession(taking(config)) as session:
        (use,) = (await session.run("When?")).tools
        assert use.result == "9 to 5"


async def test_providers_are_made_by_name_with_keys_from_the_environment_given() -> None:
    config = AgentConfig(stt="deepgram", tts="cartesia", llm=ProviderConfig("openai", {"model": "m"}), env=ENV)
    agent = config.make(a_voip())
    assert isinstance(agent.stt, DeepgramSTT)
    assert isinstance(agent.tts, CartesiaTTS)
    assert isinstance(agent.llm, OpenAILLM)
    agent.dispose()
    await agent.wait_disposed()


async def test_an_injected_client_wins_over_provider_and_key() -> None:
    openai = pytest.importorskip("openai")
    async with OpenAIEmulator(["From the client."], api_key="of-the-client") as emulator:
        client = openai.AsyncOpenAI(api_key="of-the-client", base_url=f"{emulator.url}/v1")
        config = AgentConfig(
            stt=ToldSTT,
            tts=HummingTTS,
            llm=ProviderConfig("anthropic", {"api_key": "another", "model": "chosen"}),
            client=client,
        ).with_session(SessionSpec(provider="responses", model="of-the-session"))
        agent = config.make(a_voip())
        request = LLMRequest(items=(Entry(role="user", text="Hello?"),))
        events = [event async for event in agent.llm.stream(request)]
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "From the client."
        agent.dispose()
        await agent.wait_disposed()
        assert emulator.requests[0].json()["model"] == "of-the-session"
        assert not client.is_closed()
        await client.close()


def test_a_session_changes_what_it_names_and_nothing_else() -> None:
    config = AgentConfig(
        stt="deepgram", tts="cartesia", llm="openai", env=ENV, system="A", greeting="B", tools=(BOOK, HOURS)
    )
    changed = config.with_session(
        SessionSpec(
            model="m",
            voice="v",
            system="C",
            tools=("hours",),
            vad="local",
            interruption="after_sentence",
            max_duration_s=60.0,
        )
    )
    assert changed.llm == ProviderConfig("openai", {"model": "m"})
    assert changed.tts == ProviderConfig("cartesia", {"voice": "v"})
    assert (changed.stt, changed.system, changed.greeting, changed.tools) == ("deepgram", "C", "B", (HOURS,))
    assert changed.settings.vad == "local"
    assert changed.settings.turns.barge_in.mode == "after_sentence"
    assert changed.settings.turns.silence.max_duration_s == 60.0
    assert config.with_session(SessionSpec(context={"a": 1})) is config


def test_another_provider_does_not_inherit_the_arguments_of_the_one_before() -> None:
    config = AgentConfig(stt="deepgram", tts="cartesia", llm=ProviderConfig("openai", {"model": "gpt"}), env=ENV)
    assert config.with_session(SessionSpec(provider="rules", tts="deepgram")).llm == ProviderConfig("rules")


def test_realtime_mode_follows_from_an_s2s() -> None:
    config = AgentConfig(s2s="openai", env=ENV, settings=AgentSettings(model_opens=True))
    made = config.with_session(SessionSpec(model="m", voice="v")).s2s
    assert made == ProviderConfig("openai", {"model": "m", "voice": "v"})
    assert isinstance(config.make(a_voip()).s2s, OpenAIRealtimeS2S)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tts": HummingTTS, "llm": "rules"}, "needs an stt"),
        ({"stt": ToldSTT, "tts": HummingTTS}, "needs an llm"),
        ({"stt": ToldSTT, "tts": HummingTTS, "client": object()}, "AsyncOpenAI"),
        ({"stt": "deepgrm", "tts": HummingTTS, "llm": "rules"}, "deepgram"),
        ({"stt": ProviderConfig("deepgram", {"colour": "x"}), "tts": HummingTTS, "llm": "rules"}, "colour"),
        ({"stt": "deepgram", "tts": HummingTTS, "llm": "rules", "env": {}}, "DEEPGRAM_API_KEY"),
        ({"s2s": "openai", "stt": ToldSTT}, "leave out the stt"),
        ({"s2s": "openai", "greeting": "Hello"}, "word for word"),
        ({"stt": ToldSTT, "tts": HummingTTS, "llm": "rules", "tools": (BOOK, BOOK)}, "two tools"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_call(arguments, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AgentConfig(**arguments)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (SessionSpec(tools=("fly",)), "no tool 'fly'"),
        (SessionSpec(voice="v"), "made by a function"),
        (SessionSpec(provider="nobody"), "nobody"),
    ],
)
def test_a_session_that_cannot_be_is_refused(session, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        text([]).with_session(session)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "no name"}, "letters"),
        ({"parameters": {"type": "string"}}, "no JSON Schema"),
        ({"parameters": {"type": "object", "properties": 3}}, "no JSON Schema"),
        ({"policy": ToolPolicy(on_interrupt="cancel")}, "async def"),
        ({"description": " "}, "description"),
    ],
)
def test_a_tool_that_cannot_be_is_refused(arguments, message) -> None:
    made = {"name": "t", "handler": lambda agent, arguments: None, "description": "d", **arguments}
    with pytest.raises(ConfigurationError, match=message):
        schema_tool(made.pop("name"), made.pop("handler"), **made)


def test_keys_stay_out_of_reprs() -> None:
    config = AgentConfig(stt=ProviderConfig("deepgram", {"api_key": "d-key"}), tts="cartesia", llm="openai", env=ENV)
    assert "key" not in repr(config) + repr(config.stt)
