"""Agents whose model calls the tools of MCP servers: real servers, real sockets, a line in memory."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from places import http, is_running, lines, stdio, until
from ports import free_port
from rich.console import Console

from dialog import Agent, AnthropicAgent, OpenAIAgent, ResponsesAgent, Rule, RuleAgent, ToolPolicy, tool
from dialog.calls import events as ev
from dialog.cli.chat import Chat
from dialog.errors import ConfigurationError, ProviderError
from dialog.llm.rules import RuleLLM
from dialog.mcp.server import MCPServer
from dialog.participant import Participant
from dialog.s2s.cascade import CascadeS2S
from dialog.testing import ScriptedLLM, TextSession, run_virtual
from dialog.testing.anthropic import AnthropicEmulator
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ChatReply, ToolUse
from dialog.testing.openai import OpenAIEmulator
from dialog.testing.responses import ResponsesEmulator
from dialog.tts.text import TextTTS
from dialog.voip.memory import memory_call


class Desk(Agent):
    @tool
    async def stock(self) -> str:
        """What the cellar has."""
        return "twelve bottles"


class RuleDesk(RuleAgent):
    rules = (
        Rule(
            pattern=r"what is (?P<dish>\w+)",
            tool="price",
            arguments={"dish": "{dish}", "people": 2},
            result="That is {result}.",
        ),
    )


class Talk:
    """A call with an agent, whose caller is heard word for word."""

    def __init__(self, kind: type[Any], **options: Any) -> None:
        self.stt = ToldSTT()
        self.errors: list[Any] = []
        self.changed = asyncio.Event()

        def on_voip(voip: Any) -> None:
            self.agent = kind(voip=voip, stt=self.stt, tts=HummingTTS(ms_per_char=1), **options)
            self.agent.on(Participant.ERROR, lambda failure: self.errors.append(failure.error))
            self.agent.on(Agent.EVENT, lambda _: self.changed.set())
            self.agent.activate()

        self.call, self.line = memory_call(on_voip)

    def __call__(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.agent.events if isinstance(event, kind)]

    @property
    def tools(self) -> list[str]:
        """What the model is offered."""
        return [spec.name for spec in self.agent._toolbox.specs]

    @property
    def results(self) -> list[str]:
        return [event.result for event in self(ev.ToolEnded)]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
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


@pytest.mark.parametrize(
    ("kind", "server"),
    [
        (OpenAIAgent, OpenAIEmulator),
        (ResponsesAgent, ResponsesEmulator),
        (AnthropicAgent, AnthropicEmulator),
        (RuleDesk, None),
    ],
)
async def test_every_agent_has_the_tools_of_its_servers(kind, server):
    async with stdio() as kitchen:
        if server is None:
            async with talk_to(kind, mcp_servers=[kitchen]) as talk:
                await talk.say("what is pizza")
                assert talk.results == ["pizza for 2: 18 euros"]
                assert talk(ev.AgentSaid)[-1].text.strip() == "That is pizza for 2: 18 euros."
            return
        asks = ChatReply(tools=[ToolUse("price", {"dish": "pizza"})])
        async with (
            server((asks, "Nine euros.")) as emulator,
            talk_to(kind, api_key=emulator.api_key, base_url=emulator.base_url, mcp_servers=[kitchen]) as talk,
        ):
            await talk.say("what is a pizza?")
            assert talk.results == ["pizza for 1: 9 euros"]
            assert talk(ev.AgentSaid)[-1].text.strip() == "Nine euros."
            asked = [request.body.decode() for request in emulator.requests if request.body]
            assert "What a dish costs." in asked[-2]
            assert '"dish"' in asked[-2]
            assert "pizza for 1: 9 euros" in asked[-1]
            assert talk.errors == []


async def test_the_first_turn_waits_a_moment_for_a_server_that_is_being_reached():
    port = free_port()
    async with http(port):
        llm = ScriptedLLM([ToolUse("price", {"dish": "pizza"}), "Nine."])
        async with talk_to(Agent, llm=llm, mcp_servers=[MCPServer(url=f"http://127.0.0.1:{port}/mcp")]) as talk:
            await talk.say("a pizza")
            assert talk.results == ["pizza for 1: 9 euros"]
        assert "price" in [spec.name for spec in llm.requests[0].tools]


async def test_names_that_are_taken_get_the_name_of_the_server_and_keep_it():
    first, second = stdio(), stdio("kitchen", name="cellar", env={"OTHER": "1"})
    async with first, second:
        llm = ScriptedLLM(
            [
                ToolUse("stock", id="1"),
                ToolUse("kitchen_stock", id="2"),
                ToolUse("cellar_who", id="3"),
                ToolUse("menu_of_the_day", id="4"),
                "Well.",
            ]
        )
        async with talk_to(Desk, llm=llm, mcp_servers=[first, second]) as talk:
            await talk.say("what is there?")
            assert talk.tools[0] == "stock"
            assert {"kitchen_stock", "cellar_stock", "who", "cellar_who", "menu_of_the_day"} < set(talk.tools)
            assert len(set(talk.tools)) == len(talk.tools) == 21
            mine, theirs, pid, menu = talk.results
            assert (mine, json.loads(theirs), menu) == ("twelve bottles", {"pizza": 3}, "soup")
            lease = second.lease()
            assert await lease.value.call("who", {}) == pid
            await lease.release()


async def test_only_listed_tools_are_offered_and_one_that_there_is_not_is_told_once():
    async with stdio(tools=["price", "prize", "grow"]) as kitchen:
        llm = ScriptedLLM([ToolUse("who"), "No.", ToolUse("grow"), "Well."])
        async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
            await talk.say("who are you?")
            assert talk.tools == ["price", "grow"]
            assert talk.results == ["failed: there is no tool named 'who'; available: price, grow"]
            await talk.say("more")
            assert talk.tools == ["price", "grow"]
            [error] = talk.errors
            assert isinstance(error, ConfigurationError)
            assert "MCP server kitchen has no tool 'prize'; its tools: price, stock" in str(error)


async def test_arguments_are_checked_before_the_server_is_asked(tmp_path):
    notes = tmp_path / "notes"
    async with stdio(env={"NOTES": str(notes)}) as kitchen:
        llm = ScriptedLLM(
            [
                [
                    ToolUse("price", {"dish": 7, "people": "many"}, id="1"),
                    ToolUse("price", {}, id="2"),
                    ToolUse("price", {"dish": "soup", "people": None}, id="3"),
                ],
                "Well.",
            ]
        )
        async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
            await talk.say("prices")
            by_id = {event.call_id: event.result for event in talk(ev.ToolEnded)}
            assert by_id["1"] == (
                "failed: wrong arguments (dish: 7 is not of type 'string'; people: 'many' is not of type 'integer')"
            )
            assert "'dish' is a required property" in by_id["2"]
            assert by_id["3"] == "soup for 1: 9 euros", "null for what may be left out was left out"
            assert lines(notes) == ["price soup"]


async def test_what_fails_at_the_server_is_a_result_for_the_model(caplog):
    async with stdio() as kitchen:
        llm = ScriptedLLM([[ToolUse("burn", id="1"), ToolUse("crash", id="2")], "I am sorry."])
        async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
            await talk.say("burn it")
            states = {event.call_id: (event.state, event.result) for event in talk(ev.ToolEnded)}
            assert states["2"] == ("failed", "failed: kitchen broke off; what the tool did is unknown")
            assert states["1"][0] == "failed"
            assert talk(ev.AgentSaid)[-1].text.strip() == "I am sorry."
            assert talk.errors == []
    assert "Traceback" not in caplog.text


async def test_a_tool_that_hangs_is_given_up_after_its_time(tmp_path):
    notes = tmp_path / "notes"
    policies = {"hang": ToolPolicy(timeout_s=0.3)}
    async with stdio(env={"NOTES": str(notes)}, policies=policies) as kitchen:
        llm = ScriptedLLM([ToolUse("hang"), "It takes too long."])
        async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
            await talk.say("hang")
            [ended] = talk(ev.ToolEnded)
            assert ended.state == "timed_out"
            assert "no result within 0.3 s; what it did is unknown" in ended.result
            await until(lambda: "hang ended" in lines(notes))


@pytest.mark.parametrize("on_interrupt", ["finish", "cancel"])
async def test_a_caller_who_goes_on_stops_a_tool_only_if_its_policy_says_so(tmp_path, on_interrupt):
    notes = tmp_path / "notes"
    policy = ToolPolicy(timeout_s=1.0, on_interrupt=on_interrupt)
    async with stdio(env={"NOTES": str(notes)}, policy=policy) as kitchen:
        llm = ScriptedLLM(lambda _: ToolUse("hang") if len(llm.requests) == 1 else "Yes?")
        async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
            talk.stt.heard("hang")
            await until(lambda: "hang begun" in lines(notes))
            talk.stt.heard("never mind")
            await talk.until(lambda: talk(ev.ToolEnded))
            [ended] = talk(ev.ToolEnded)
            assert ended.state == ("cancelled" if on_interrupt == "cancel" else "timed_out")


async def test_a_server_that_is_down_costs_its_tools_and_one_error():
    gone = MCPServer(url=f"http://127.0.0.1:{free_port()}/mcp", name="gone")
    slow = MCPServer(command=sys.executable, args=["-c", "import time; time.sleep(60)"], name="slow")
    async with stdio() as kitchen:
        llm = ScriptedLLM(["Hello.", ToolUse("price", {"dish": "pizza"}), "Nine."])
        async with talk_to(Agent, llm=llm, mcp_servers=[gone, slow, kitchen]) as talk:
            await talk.say("hello")
            assert talk(ev.AgentSaid)[-1].text.strip() == "Hello."
            await talk.say("a pizza")
            assert talk.results == ["pizza for 1: 9 euros"]
            [error] = talk.errors
            assert isinstance(error, ProviderError)
            assert str(error).startswith("MCP server gone: ")
            [raised] = talk(ev.ErrorRaised)
            assert not raised.fatal
            connecting = [lease.value for lease in talk.agent._mcp._leases]
    # A process that does not end when it is asked to is killed, two seconds later.
    await until(lambda: all(connection._task.done() for connection in connecting))


async def test_tools_come_back_with_their_server():
    port = free_port()
    kitchen = MCPServer(url=f"http://127.0.0.1:{port}/mcp", name="kitchen")
    llm = ScriptedLLM(["Hello.", ToolUse("price", {"dish": "pizza"}), "Nine."])
    async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
        await talk.until(lambda: talk.errors)
        await talk.say("hello")
        assert talk.tools == []
        async with http(port):
            await until(lambda: "price" in talk.tools)
            await talk.say("a pizza")
            assert talk.results == ["pizza for 1: 9 euros"]
    assert len(talk.errors) == 1


async def test_the_end_of_the_last_call_ends_the_server():
    kitchen = stdio()
    llm = ScriptedLLM([ToolUse("who"), "Me."])
    async with talk_to(Agent, llm=llm, mcp_servers=[kitchen]) as talk:
        async with talk_to(Agent, llm=ScriptedLLM(["Hi."]), mcp_servers=[kitchen]) as other:
            await until(lambda: "who" in other.tools)
        await until(lambda: "who" in talk.tools)
        await talk.say("who?")
        pid = int(talk.results[0])
        assert is_running(pid)
    await talk.agent.wait_disposed()
    await until(lambda: not is_running(pid))


async def test_an_agent_that_takes_over_brings_its_servers():
    async with stdio() as kitchen:
        later = ScriptedLLM(["Kitchen here.", ToolUse("price", {"dish": "soup"}), "Nine."])

        class Reception(Agent):
            @tool
            async def fetch(self) -> str:
                """Fetch the kitchen."""
                talk.next = Agent(voip=self.voip, stt=self.stt, tts=self.tts, llm=later, mcp_servers=[kitchen])
                talk.next.on(Agent.EVENT, lambda _: talk.changed.set())
                self.hand_off(talk.next)
                return "there"

        async with talk_to(Reception, llm=ScriptedLLM([ToolUse("fetch")])) as talk:
            talk.stt.heard("the kitchen, please")
            await talk.until(lambda: talk(ev.HandedOff))
            await until(lambda: "price" in [spec.name for spec in talk.next._toolbox.specs])
            talk.agent = talk.next
            await talk.until(lambda: len(later.requests) == 1 and talk(ev.AgentSaid))
            await talk.say("a soup")
            assert talk.results[-1] == "soup for 1: 9 euros"


async def test_a_model_that_hears_and_speaks_is_told_of_the_tools_when_they_come():
    stt = ToldSTT()
    agents: list[Agent] = []

    def on_voip(voip: Any) -> None:
        s2s = CascadeS2S(stt=stt, tts=HummingTTS(ms_per_char=1), llm=RuleLLM(RuleDesk.rules))
        agents.append(Agent(voip=voip, s2s=s2s, mcp_servers=[stdio()]))
        agents[-1].activate()

    call, line = memory_call(on_voip)
    [agent] = agents
    await until(lambda: "price" in [spec.name for spec in agent._toolbox.specs])
    stt.heard("what is pizza")
    await until(lambda: any(isinstance(event, ev.ToolEnded) for event in agent.events))
    [ended] = [event for event in agent.events if isinstance(event, ev.ToolEnded)]
    assert ended.result == "pizza for 2: 18 euros"
    line.hang_up()
    await call.wait_closed()
    await agent.wait_disposed()


async def test_a_chat_in_the_terminal_has_the_tools_too():
    def make(voip: Any) -> None:
        llm = ScriptedLLM([ToolUse("price", {"dish": "pizza"}), "Nine euros."])
        Agent(voip=voip, tts=lambda: TextTTS(print), llm=llm, mcp_servers=[stdio()]).activate()

    async def typed() -> AsyncIterator[str]:
        yield "a pizza"

    out = io.StringIO()
    async with asyncio.timeout(30):
        await Chat(Console(file=out, width=200), make).run(typed())
    assert "price → pizza for 1: 9 euros" in out.getvalue()
    assert "agent Nine euros." in out.getvalue()


def test_a_text_session_waits_for_servers_in_virtual_time_and_mocks_their_tools():
    async def scenario(_clock) -> None:
        llm = ScriptedLLM([[ToolUse("price", {"dish": "pizza"}, id="1"), ToolUse("who", id="2")], "Nine."])

        def on_voip(voip: Any) -> None:
            Agent(voip=voip, tts=lambda: TextTTS(print), mcp_servers=[stdio()], llm=llm).activate()

        async with TextSession(on_voip) as session:
            session.mock_tool("who", "nobody")
            reply = await session.run("a pizza")
            assert [(use.name, use.result) for use in reply.tools] == [
                ("price", "pizza for 1: 9 euros"),
                ("who", "nobody"),
            ]

    run_virtual(scenario)
