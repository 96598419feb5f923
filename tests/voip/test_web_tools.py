"""Tools that a client declares: called over the protocol, beside the agent's own, in both modes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from web_server import serving, until

from dialog.agent.agent import Agent
from dialog.agent.tools import tool
from dialog.llm.llm import ToolResult as ModelResult
from dialog.message import PCM_16K, ClientTool, Message
from dialog.s2s.cascade import CascadeS2S
from dialog.testing.doubles import HummingTTS, ToldSTT
from dialog.testing.model import ToolUse
from dialog.testing.scripted import ScriptedLLM
from dialog.testing.web import WebCaller, WebRefused
from dialog.voip.voip import VoIP
from dialog.voip.web import messages as ms
from dialog.voip.web.gateway import WebGateway
from dialog.workers.hosted import HostingSettings
from dialog.workers.pool import WorkerPool

SHOW = ClientTool(
    name="show_map",
    description="Shows a place on the map.",
    parameters={"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    timeout_s=5.0,
)


class Guide(Agent):
    @tool
    async def opening_hours(self, day: str) -> str:
        """When it is open."""
        return f"On {day} from nine to five."


def results(model: ScriptedLLM) -> list[ModelResult]:
    return [each for each in model.requests[-1].items if isinstance(each, ModelResult)]


@asynccontextmanager
async def a_call(script, *, tools=(SHOW,), make=None):
    model = ScriptedLLM(script)

    def take(voip):
        (make or in_text)(voip, model)

    gateway = WebGateway()
    gateway.on("voip", take)
    async with serving(gateway) as url:
        async with WebCaller.connect(url, token=gateway.token(), tools=tools, audio=[PCM_16K]) as caller:
            yield caller, model, gateway


def in_text(voip, model):
    agent = Guide(voip=voip, tts=HummingTTS(ms_per_char=5), llm=model)
    agent.activate()
    agent.post(Message(uuid=uuid4(), data="where are you"))


async def test_the_clients_tool_and_the_agents_own_work_in_one_call():
    uses = [ToolUse("opening_hours", {"day": "Friday"}), ToolUse("show_map", {"place": "12 Harbour Street"})]
    async with a_call([uses, "There we are."]) as (caller, model, _):
        call = await caller.wait_for(ms.ToolCall)
        assert (call.name, call.arguments, call.timeout_s) == ("show_map", {"place": "12 Harbour Street"}, 5.0)
        caller.send(ms.ToolResult(id=call.id, result={"shown": True}))
        await caller.wait_for(ms.AgentTranscript, lambda said: said.text == "There we are.")
        assert [(each.name, each.content) for each in results(model)] == [
            ("opening_hours", "On Friday from nine to five."),
            ("show_map", '{"shown":true}'),
        ]
        names = [each.name for each in model.requests[0].tools]
        assert names == ["opening_hours", "show_map"]
        told = [(each.name, each.state) for each in caller.messages if isinstance(each, ms.ToolProgress)]
        assert ("opening_hours", "done") in told
        assert ("show_map", "done") in told


async def test_a_model_that_speaks_by_itself_uses_them_too():
    def realtime(voip, model):
        stt = ToldSTT()
        Guide(voip=voip, s2s=CascadeS2S(stt=stt, llm=model, tts=HummingTTS(ms_per_char=5))).activate()
        voip.on(VoIP.STREAMING_STARTED, lambda _: stt.heard("where are you"))

    script = [ToolUse("show_map", {"place": "here"}), "There we are."]
    async with a_call(script, make=realtime) as (caller, model, _):
        call = await caller.wait_for(ms.ToolCall)
        caller.send(ms.ToolResult(id=call.id, result="shown"))
        await caller.wait_for(ms.AgentTranscript, lambda said: "There we are." in said.text)
        assert [each.content for each in results(model)] == ["shown"]


async def test_a_tool_that_fails_or_is_not_answered_is_told_to_the_model():
    quick = ClientTool(name="blink", description="Blinks.", timeout_s=0.1)
    script = [ToolUse("show_map", {"place": "x"}), ToolUse("blink", {}), "Sorry."]
    async with a_call(script, tools=[SHOW, quick]) as (caller, model, _):
        call = await caller.wait_for(ms.ToolCall)
        caller.send(ms.ToolResult(id=call.id, error="there is no map"))
        blink = await caller.wait_for(ms.ToolCall, lambda each: each.name == "blink")
        await caller.wait_for(ms.ToolCancelled, lambda each: each.id == blink.id)
        caller.send(ms.ToolResult(id=blink.id, result="too late"))
        await caller.wait_for(ms.AgentTranscript, lambda said: said.text == "Sorry.")
        failed, late = results(model)
        assert (failed.state, failed.content) == ("failed", "failed: show_map: there is no map")
        assert late.state in ("failed", "timed_out")
        assert "0.1 s" in late.content


async def test_the_agents_own_tool_wins_and_the_client_is_told():
    own = ClientTool(name="opening_hours", description="Something else.")
    script = [ToolUse("opening_hours", {"day": "Monday"}), "From nine to five."]
    async with a_call(script, tools=[own, SHOW]) as (caller, model, _):
        error = await caller.wait_for(ms.ErrorTold)
        assert (error.code, error.fatal) == ("tool_name_taken", False)
        assert "opening_hours" in error.message
        await caller.wait_for(ms.AgentTranscript, lambda said: said.text == "From nine to five.")
        assert [each.content for each in results(model)] == ["On Monday from nine to five."]
        assert [each.name for each in model.requests[0].tools] == ["opening_hours", "show_map"]
        assert not [each for each in caller.messages if isinstance(each, ms.ToolCall)]


async def test_a_client_that_was_away_gets_the_call_when_it_is_back():
    async with a_call([ToolUse("show_map", {"place": "x"}), "Here."]) as (caller, model, gateway):
        await caller.wait_for(ms.ToolCall)
        await caller.drop()
        await until(lambda: gateway.calls[0].state == "lost")
        await caller.resume()
        (call,) = [each for each in caller.messages if isinstance(each, ms.ToolCall)]
        caller.send(ms.ToolResult(id=call.id, result=["a", 1]))
        await until(lambda: len(model.requests) == 2)
        (result,) = results(model)
        assert result.content.startswith('["a",1]')


async def test_who_hangs_up_in_the_middle_of_a_tool_leaves_nothing_behind():
    async with a_call([ToolUse("show_map", {"place": "x"})]) as (caller, _, gateway):
        await caller.wait_for(ms.ToolCall)
        await caller.hang_up()
        await until(lambda: not gateway.calls)


@pytest.mark.parametrize(
    "tools",
    [
        [SHOW, SHOW],
        [ClientTool(name="x", description="y", parameters={"type": "string"})],
    ],
)
async def test_tools_that_cannot_be_called_refuse_the_session(tools):
    with pytest.raises(WebRefused) as refused:
        async with a_call([], tools=tools):
            pass
    assert (refused.value.close_code, refused.value.error.code) == (4400, "tools")


@pytest.mark.parametrize(
    "declared",
    [
        {"name": "a b", "description": "c"},
        {"name": "a"},
        {"name": "a", "description": "c", "timeout_s": 1000},
        {"name": "a", "description": "c" * 2000},
    ],
)
async def test_a_declaration_that_is_malformed_breaks_the_protocol(declared):
    gateway = WebGateway(allow_anybody=True)
    async with serving(gateway) as url, ClientSession() as http, http.ws_connect(url) as socket:
        await socket.send_str(json.dumps({"type": "session.start", "version": 1, "tools": [declared]}))
        assert json.loads((await socket.receive()).data)["code"] == "protocol"
        await socket.receive()
        assert socket.close_code == 1008


async def test_an_agent_in_a_worker_process_reaches_them():
    app = Path(__file__).parent / "web_app.py"
    workers = WorkerPool(f"{app}:on_voip", processes=1, hosting=HostingSettings(admit_s=20, answer_s=10))
    gateway = WebGateway(workers=workers)
    taken = ClientTool(name="opening_hours", description="Something else.")
    async with serving(gateway) as url:
        async with WebCaller.connect(url, token=gateway.token(), tools=[SHOW, taken]) as caller:
            call = await caller.wait_for(ms.ToolCall)
            caller.send(ms.ToolResult(id=call.id, error="no map"))
            again = await caller.wait_for(ms.ToolCall, lambda each: each.id != call.id)
            caller.send(ms.ToolResult(id=again.id, result="shown"))
            said = await caller.wait_for(ms.AgentTranscript, lambda said: said.part == 0)
            assert said.text == "failed: show_map: no map, then shown"
            assert (await caller.wait_for(ms.ErrorTold)).code == "tool_name_taken"
