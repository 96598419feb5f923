"""Grok voice has no SDK that could prove its emulator: its documented messages, kept in a file, do.

A conversation as xAI's documentation has it, field by field; lines with ``await`` name what the client sends before the
next ones come. The client understands it over a socket, and the emulator tells nothing that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from s2s_providers import PROVIDERS, Talker, silence

from dialog import GrokS2S
from dialog.testing.grok import GrokEmulator
from dialog.testing.model import ToolUse
from dialog.testing.s2s import RealtimeReply
from dialog.testing.server import EmulatorServer

GROK = next(provider for provider in PROVIDERS if provider.name == "grok")
LINES: list[dict[str, Any]] = [
    msgspec.json.decode(line) for line in (Path(__file__).parent / "messages" / "grok.jsonl").read_text().splitlines()
]
DOCUMENTED = [line for line in LINES if "type" in line]


class Replay(EmulatorServer):
    """Says what is documented, each message when its time has come."""

    api_key = "xai-test-key"

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def routes(self) -> Iterable[web.RouteDef]:
        return [web.get("/v1/realtime", self._talk)]

    def refusal(self, status: int, request: web.Request) -> web.Response:
        return web.Response(status=status)

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        async with self.websocket(request) as socket:
            for line in LINES:
                if "type" in line:
                    await socket.send(line)
                    continue
                async for data in socket:
                    self.heard.append(msgspec.json.decode(data))
                    if self.heard[-1]["type"] == line["await"]:
                        break
            async for _ in socket:
                pass
        return socket.response


async def test_a_documented_conversation_is_understood():
    async with Replay() as service:
        talker = Talker(GROK, service)
        talker.s2s.open(talker.spec)
        await talker.ready()
        talker.say(silence(2000))
        await talker.until(lambda: talker.told("utterance"))
        [uuid] = talker.told("turn")
        assert [(said.uuid, said.data) for said in talker.told("utterance")] == [(uuid, "A table for two.")]
        assert [said.data for said in talker.told("interim")] == ["A table", "A table", "A table for two."]
        assert [edge.state for edge in talker.told("vad")] == ["started", "stopped"]
        talker.s2s.respond(uuid)
        await talker.replied(uuid)
        [asked] = talker.told("tool_call")
        assert (asked.uuid, asked.call.name, asked.call.arguments) == (uuid, "book_table", '{"people": 2}')
        talker.s2s.answer(asked.call.id, "booked")
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        assert [end.state for end in talker.ends(uuid)] == ["completed", "completed"]
        assert talker.words(uuid) == "Let me see.It is booked."
        assert talker.audio_ms(uuid) == 400
        used = talker.told("usage")[0].usage
        assert (used.input_tokens, used.input_audio_tokens, used.output_tokens) == (60, 40, 30)
        assert (used.output_audio_s, used.session_s) == (0.2, 2.0)
        assert talker.failures == []
        output = next(said["item"] for said in service.heard if said["type"] == "conversation.item.create")
        assert output == {"type": "function_call_output", "call_id": "call_1", "output": "booked"}
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()


def shapes(messages: Iterable[dict[str, Any]]) -> dict[str, set[str]]:
    """By type: all fields, those inside of others with their path."""
    found: dict[str, set[str]] = {}
    for message in messages:
        found.setdefault(message["type"], set()).update(fields(message))
    return found


def fields(value: Any, path: str = "") -> set[str]:
    if isinstance(value, list):
        return {name for each in value for name in fields(each, f"{path}[]")}
    if not isinstance(value, dict) or path.endswith("parameters"):
        return {path} - {""}
    return {f"{path}.{name}" for name in value} | {
        inner for name, each in value.items() for inner in fields(each, f"{path}.{name}")
    }


async def test_the_emulator_tells_what_is_documented_and_nothing_else():
    told: list[dict[str, Any]] = []

    class Listening(GrokS2S):
        def _receive(self, data: str | bytes) -> None:
            told.append(msgspec.json.decode(data))
            super()._receive(data)

    def books(items: Any) -> RealtimeReply:
        done = any(item.kind == "function_call_output" for item in items)
        tools = () if done else (ToolUse("book_table", {"people": 2}),)
        return RealtimeReply(text="It is booked." if done else "Let me see.", tools=tools)

    async with GrokEmulator(sentences=["a table for two"], replies=books) as emulator:
        talker = Talker(replace(GROK, factory=Listening), emulator)
        talker.s2s.open(talker.spec)
        await talker.ready()
        uuid = await talker.answer()
        talker.s2s.answer(talker.told("tool_call")[0].call.id, "booked")
        talker.s2s.respond(uuid)
        await talker.replied(uuid, count=2)
        talker.s2s.dispose()
        await talker.s2s.wait_disposed()
    documented, emulated = shapes(DOCUMENTED), shapes(told)
    assert set(documented) <= set(emulated)
    unknown = {kind: sorted(emulated[kind] - documented[kind]) for kind in documented}
    assert {kind: names for kind, names in unknown.items() if names} == {}
    for kind, names in documented.items():
        assert {name for name in names if name.count(".") == 1} == {
            name for name in emulated[kind] if name.count(".") == 1
        }, kind
