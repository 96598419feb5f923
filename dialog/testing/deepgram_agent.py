"""An emulator of Deepgram's Voice Agent API (``/v1/agent/converse``): hears its script, and answers as it is told.

::

    async with DeepgramAgentEmulator(sentences=["a table for two"]) as deepgram:
        s2s = DeepgramAgentS2S(api_key=deepgram.api_key, base_url=deepgram.base_url)

Source: Deepgram's documentation of the Voice Agent API (November 2026), and its SDK 7.17.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.message import AudioFormat
from dialog.testing.hosted_session import HostedSession, Refusal
from dialog.testing.model import TOOL_NAME
from dialog.testing.realtime_session import TalkItem
from dialog.testing.s2s import S2SEmulator
from dialog.testing.server import EmulatorSocket

__all__ = ["DeepgramAgentEmulator"]

_ENCODINGS: dict[str, Literal["mulaw", "alaw", "s16le"]] = {"mulaw": "mulaw", "alaw": "alaw", "linear16": "s16le"}
_SETTINGS = frozenset({"type", "tags", "experimental", "flags", "mip_opt_out", "audio", "agent"})
_AGENT = frozenset({"language", "context", "listen", "think", "think_live", "speak", "greeting"})
_BEHAVIORS = ("default", "queue", "interrupt")


class _Session(HostedSession):
    def __init__(self, emulator: DeepgramAgentEmulator, socket: EmulatorSocket) -> None:
        super().__init__(emulator, socket)
        self.deepgram = emulator
        self.settings: dict[str, Any] = {}

    # What the client says.

    async def receive(self, data: bytes | str) -> None:
        """Take in one message.

        Raises:
            Refusal: The service does not take it.
        """
        if isinstance(data, bytes):
            if not self.settings:
                raise Refusal(1008, "BINARY_MESSAGE_BEFORE_SETTINGS")
            await self.hear(data)
            return
        try:
            given = msgspec.json.decode(data, type=dict[str, Any])
            await (self._take(given) if self.settings else self._set_up(given))
        except (msgspec.DecodeError, KeyError, TypeError) as exc:
            raise Refusal(1008, "UNPARSABLE_CLIENT_MESSAGE") from exc
        except ValueError as exc:
            raise Refusal(1008, "INVALID_SETTINGS") from exc

    async def _set_up(self, given: dict[str, Any]) -> None:
        if given["type"] != "Settings" or given.keys() - _SETTINGS or given["agent"].keys() - _AGENT:
            raise ValueError(f"no settings: {given['type']}")
        agent = given["agent"]
        self.listen(_format(given["audio"]["input"]))
        self.output_format = _format(given["audio"]["output"])
        if given["audio"]["output"].get("container", "wav") != "none":
            raise ValueError("telephone audio in a container")
        if not all(
            agent[part]["provider"]["type"] and agent[part]["provider"]["model"] for part in ("listen", "speak")
        ):
            raise ValueError("no model")
        self._think(agent["think"])
        self.items = [item for message in agent.get("context", {}).get("messages", ()) for item in _items(message)]
        self.settings = given
        await self._send({"type": "SettingsApplied"})
        if agent.get("greeting"):
            self.respond(agent["greeting"])

    def _think(self, think: dict[str, Any]) -> None:
        _check_model(think)
        self.instructions = think.get("prompt", "")
        self.tools = think.get("functions", [])
        for tool in self.tools:
            if not TOOL_NAME.fullmatch(tool["name"]) or not isinstance(tool["parameters"], dict):
                raise ValueError("a function without a name or parameters")

    async def _take(self, given: dict[str, Any]) -> None:
        match given["type"]:
            case "KeepAlive":
                self.deepgram.kept_alive += 1
            case "InjectUserMessage":
                await self._send({"type": "ConversationText", "role": "user", "content": given["content"]})
                self.told(given["content"])
            case "InjectAgentMessage":
                await self._inject(given["message"], given.get("behavior", "default"))
            case "FunctionCallResponse":
                self.answered(given["id"], given["content"], given["name"])
            case "UpdatePrompt":
                self.instructions += f"\n\n{given['prompt']}"
                await self._send({"type": "PromptUpdated"})
            case "UpdateThink":
                self._think(given["think"])
                await self._send({"type": "ThinkUpdated"})
            case kind:
                raise TypeError(f"an unknown message: {kind}")

    async def _inject(self, message: str, behavior: str) -> None:
        if behavior not in _BEHAVIORS:
            raise TypeError(f"an unknown behavior: {behavior}")
        if behavior == "default" and (self.busy or self._told_start):
            await self._send({"type": "InjectionRefused", "message": "Injection was refused mid-turn."})
            return
        if behavior == "interrupt":
            await self.interrupt()
        self.deepgram.injected.append(message)
        self.respond(message)

    # What the service says.

    async def tell_start(self) -> None:
        await self._send({"type": "UserStartedSpeaking"})

    async def tell_interruption(self, item: TalkItem, said: str) -> None:
        """Clients know: the caller has started to speak."""

    async def tell_words(self, text: str) -> None:
        await self._send({"type": "ConversationText", "role": "user", "content": text})
        await self._send({"type": "AgentThinking", "content": "The caller wants an answer."})

    async def tell_reply(self, text: str) -> None:
        latency = {"total_latency": 0.9, "tts_latency": 0.3, "ttt_latency": 0.6}
        await self._send({"type": "AgentStartedSpeaking", **latency})
        for sentence in re.split(r"(?<=[.!?]) ", text):
            about = {"role": "assistant", "conversational_behavior": "default"}
            await self._send({"type": "ConversationText", "content": sentence, **about})

    async def tell_audio(self, data: bytes) -> None:
        await self._send(data)

    async def tell_end(self) -> None:
        await self._send({"type": "LatencyReport", "stt_latency": 0.1, "total_latency": 0.9})
        await self._send({"type": "AgentAudioDone"})

    async def tell_tools(self, calls: Sequence[dict[str, str]]) -> None:
        functions = [{**call, "client_side": True} for call in calls]
        await self._send({"type": "FunctionCallRequest", "functions": functions})

    async def tell_unwanted(self, calls: Sequence[TalkItem]) -> None:
        functions = [{"id": call.call["call_id"], "name": call.call["name"]} for call in calls]
        await self._send({"type": "FunctionCallCancelled", "functions": functions})

    async def tell_failure(self, code: str) -> None:
        await self._send({"type": "Error", "description": "failed on purpose", "code": code})


class DeepgramAgentEmulator(S2SEmulator[_Session]):
    """Deepgram's Voice Agent on loopback; see :class:`~dialog.testing.s2s.S2SEmulator`.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        idle_s: A client that sends nothing for so long is left.
        settings: As the base class has them.
    """

    def __init__(self, *, api_key: str = "deepgram-test-key", idle_s: float = 12.0, **settings: Any) -> None:
        super().__init__(api_key=api_key, **settings)
        self.idle_s = idle_s
        self.kept_alive: int = 0
        """So many messages that keep the connection came."""
        self.injected: list[str] = []
        """Sentences that the agent had to say word for word."""

    @property
    def base_url(self) -> str:
        """Its address, as clients want it."""
        return self.url

    @property
    def conversation(self) -> list[tuple[str, str]]:
        """What the newest session remembers: role, or kind, and text; at last what was added to its prompt."""
        notes = self.sessions[-1].instructions.split("\n\n")[1:]
        return [*super().conversation, *(("system", note) for note in notes)]

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v1/agent/converse``."""
        return [web.get("/v1/agent/converse", self._talk)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        names = {401: "INVALID_AUTH", 429: "TOO_MANY_REQUESTS"}
        error = {"err_code": names.get(status, "ERROR"), "err_msg": f"Refused with {status}.", "request_id": "r1"}
        return web.json_response(error, status=status)

    async def warn(self, code: str) -> None:
        """Send this warning on every connection."""
        for socket in tuple(self.sockets):
            await socket.send({"type": "Warning", "code": code, "description": f"{code} happened"})

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") not in (f"Token {self.api_key}", f"token {self.api_key}"):
            return self.refusal(401, request)
        async with self.websocket(request) as socket:
            session = _Session(self, socket)
            self.sessions.append(session)
            try:
                await self._converse(session, socket)
            except Refusal as refusal:
                self.violations.append(refusal.reason)
                await self._leave(socket, refusal.code, refusal.reason)
        return socket.response

    async def _converse(self, session: _Session, socket: EmulatorSocket) -> None:
        await socket.send({"type": "Welcome", "request_id": str(uuid4())})
        while True:
            try:
                data = await socket.receive(self.idle_s)
            except TimeoutError:
                await self._leave(socket, 1005, "CLIENT_MESSAGE_TIMEOUT")
                return
            if data is None:
                return
            await session.receive(data)
            self.changed()
            await asyncio.sleep(0)

    async def _leave(self, socket: EmulatorSocket, code: int, reason: str) -> None:
        await socket.send({"type": "Error", "description": "The session is over.", "code": reason})
        await socket.close(code if code != 1005 else 1000, reason)


def _check_model(part: dict[str, Any]) -> None:
    if not (part["provider"]["type"] and part["provider"]["model"]):
        raise ValueError("no model")


def _format(given: dict[str, Any]) -> AudioFormat:
    encoding = _ENCODINGS.get(given["encoding"])
    if encoding is None or (encoding != "s16le" and given["sample_rate"] != 8000):
        raise ValueError(f"the format {given}")
    return AudioFormat(encoding, given["sample_rate"])


def _items(message: dict[str, Any]) -> Iterable[TalkItem]:
    """What a message of the history stands for."""
    if message["type"] != "History":
        raise ValueError("a history of other messages")
    if "function_calls" not in message:
        if message["role"] not in ("user", "assistant"):
            raise ValueError(f"the role {message['role']}")
        yield TalkItem("message", message["role"], message["content"])
        return
    for call in cast("list[dict[str, Any]]", message["function_calls"]):
        about = {"name": call["name"], "call_id": call["id"], "arguments": call["arguments"]}
        yield TalkItem("function_call", **about)
        yield TalkItem("function_call_output", text=call["response"], call_id=call["id"])
