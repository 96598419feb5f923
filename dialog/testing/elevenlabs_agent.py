"""An emulator of ElevenLabs' agents (``/v1/convai/conversation``): hears its script, and answers as it is told.

::

    async with ElevenLabsAgentEmulator(sentences=["a table for two"]) as elevenlabs:
        s2s = ElevenLabsAgentS2S(
            api_key=elevenlabs.api_key, agent_id=elevenlabs.agent_id, base_url=elevenlabs.base_url
        )

Source: ElevenLabs' documentation of its agents' WebSocket (November 2026), and its SDK 2.78.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.message import AudioFormat
from dialog.testing.hosted_session import HostedSession, Refusal
from dialog.testing.realtime_session import TalkItem
from dialog.testing.s2s import S2SEmulator
from dialog.testing.server import EmulatorSocket

__all__ = ["ElevenLabsAgentEmulator"]

_NO_WORDS = "..."
_POLICY = 1008


class _Session(HostedSession):
    def __init__(self, emulator: ElevenLabsAgentEmulator, socket: EmulatorSocket) -> None:
        super().__init__(emulator, socket)
        self.elevenlabs = emulator
        self.initiation: dict[str, Any] = {}
        self.language = "en"
        self.voice = ""
        self.first_message = emulator.first_message
        self._events = 0
        self._begun = False

    def _numbered(self, kind: str, field: str, **fields: Any) -> dict[str, Any]:
        self._events += 1
        return {"type": kind, field: {**fields, "event_id": self._events}}

    async def begin(self, override: dict[str, Any]) -> None:
        """The conversation begins, with these settings instead of the agent's."""
        self._begun = True
        for path in _paths(override):
            if self.elevenlabs.overrides is not None and path not in self.elevenlabs.overrides:
                name = path.rpartition(".")[2]
                raise Refusal(_POLICY, f"Override for field '{name}' is not allowed by config.")
        agent = override.get("agent", {})
        self.instructions = agent.get("prompt", {}).get("prompt", self.elevenlabs.prompt)
        self.language = agent.get("language", self.language)
        self.first_message = agent.get("first_message", self.first_message)
        self.voice = override.get("tts", {}).get("voice_id", "")
        self.listen(_format(self.elevenlabs.hears_as))
        self.output_format = _format(self.elevenlabs.speaks_as)
        event = {
            "conversation_id": f"conv_{uuid4().hex[:12]}",
            "agent_output_audio_format": self.elevenlabs.speaks_as,
            "user_input_audio_format": self.elevenlabs.hears_as,
        }
        kind = "conversation_initiation_metadata"
        await self._send({"type": kind, f"{kind}_event": event})
        await self._send(self._numbered("ping", "ping_event", ping_ms=None))
        if self.first_message:
            self.respond(self.first_message)

    # What the client says.

    async def receive(self, data: bytes | str) -> None:
        """Take in one message.

        Raises:
            Refusal: The service does not take it.
        """
        try:
            given = msgspec.json.decode(data, type=dict[str, Any])
            if "user_audio_chunk" in given:
                if not self._begun:
                    await self.begin({})
                await self.hear(b64decode(given["user_audio_chunk"], validate=True))
            else:
                await self._take(given)
        except (KeyError, TypeError, ValueError) as exc:  # also what cannot be decoded
            raise Refusal(_POLICY, f"Invalid message received: {type(exc).__name__}") from exc

    async def _take(self, given: dict[str, Any]) -> None:
        kind = given["type"]
        if kind == "conversation_initiation_client_data":
            if self._begun:
                raise ValueError(kind)
            self.initiation = given
            await self.begin(given.get("conversation_config_override", {}))
            return
        if not self._begun:
            await self.begin({})
        match kind:
            case "pong":
                self.elevenlabs.pongs.append(given["event_id"])
            case "user_message":
                self.told(given["text"])
            case "contextual_update":
                self.items.append(TalkItem("message", "context", given["text"]))
            case "client_tool_result":
                if not isinstance(given["is_error"], bool):
                    raise TypeError(kind)
                self.answered(given["tool_call_id"], str(given["result"]))
            case "user_activity":
                pass
            case _:
                raise ValueError(kind)

    # What the service says.

    async def tell_start(self) -> None:
        await self._send({"type": "vad_score", "vad_score_event": {"vad_score": 0.9}})

    async def tell_interruption(self, item: TalkItem, said: str) -> None:
        await self._send(self._numbered("interruption", "interruption_event"))
        texts = {"original_agent_response": said, "corrected_agent_response": item.text}
        kind = "agent_response_correction"
        await self._send(self._numbered(kind, f"{kind}_event", **texts))

    async def tell_words(self, text: str) -> None:
        if self.emulator.unintelligible > 0:
            self.emulator.unintelligible -= 1
            text = _NO_WORDS
        await self._send(self._numbered("user_transcript", "user_transcription_event", user_transcript=text))

    async def tell_reply(self, text: str) -> None:
        await self._send(self._numbered("agent_response", "agent_response_event", agent_response=f"{text} "))

    async def tell_audio(self, data: bytes) -> None:
        audio = {"audio_base_64": b64encode(data).decode(), "alignment": None}
        await self._send(self._numbered("audio", "audio_event", **audio))

    async def tell_end(self) -> None:
        if self.elevenlabs.completes:
            await self._send(self._numbered("agent_response_complete", "agent_response_complete_event"))

    async def tell_tools(self, calls: Sequence[dict[str, str]]) -> None:
        for call in calls:
            parameters = msgspec.json.decode(call["arguments"], type=dict[str, Any])
            fields = {"tool_name": call["name"], "tool_call_id": call["id"], "parameters": parameters}
            await self._send(self._numbered("client_tool_call", "client_tool_call", **fields))

    async def tell_unwanted(self, calls: Sequence[TalkItem]) -> None:
        """Nobody tells."""

    async def tell_failure(self, code: str) -> None:
        await self._socket.close(1011, code)


class ElevenLabsAgentEmulator(S2SEmulator[_Session]):
    """ElevenLabs' agents on loopback; see :class:`~dialog.testing.s2s.S2SEmulator`.

    Args:
        api_key: The key that is accepted; with every other one no conversation can be had.
        agent_id: The one agent that there is; it is private.
        hears_as: The agent's format of the caller's audio.
        speaks_as: And of its own.
        prompt: The agent's own.
        first_message: What it says first.
        overrides: What of the agent a conversation may change, as ``agent.first_message``; ``None``: everything.
        completes: It tells when all of a reply was sent, which agents may leave out.
        settings: As the base class has them.
    """

    def __init__(
        self,
        *,
        api_key: str = "elevenlabs-test-key",
        agent_id: str = "agent_test",
        hears_as: str = "ulaw_8000",
        speaks_as: str = "ulaw_8000",
        prompt: str = "",
        first_message: str = "Hi, I am the agent.",
        overrides: Collection[str] | None = None,
        completes: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(api_key=api_key, **settings)
        self.agent_id: str = agent_id
        self.hears_as = hears_as
        self.speaks_as = speaks_as
        self.prompt = prompt
        self.first_message = first_message
        self.overrides = overrides
        self.completes = completes
        self.pongs: list[int] = []
        """Pings that were answered."""
        self._signatures: set[str] = set()

    @property
    def base_url(self) -> str:
        """Its address, as clients want it."""
        return self.url

    def routes(self) -> Iterable[web.RouteDef]:
        """The WebSocket, and who gives addresses for it."""
        path = "/v1/convai/conversation"
        return [web.get(f"{path}/get-signed-url", self._sign), web.get(path, self._talk)]

    def faulty(self, request: web.Request) -> bool:
        """What concerns messages is for the WebSocket."""
        return not request.path.endswith("get-signed-url") or bool(self.faults.refuse or self.faults.hang)

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        names = {401: "invalid_api_key", 404: "document_not_found", 429: "too_many_concurrent_requests"}
        detail = {"status": names.get(status, "error"), "message": f"Refused with {status}."}
        return web.json_response({"detail": detail}, status=status)

    async def _sign(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("xi-api-key") != self.api_key:
            return self.refusal(401, request)
        if request.query.get("agent_id") != self.agent_id:
            return self.refusal(404, request)
        signature = f"cvtkn_{secrets.token_hex(8)}"
        self._signatures.add(signature)
        query = f"agent_id={self.agent_id}&conversation_signature={signature}"
        return web.json_response({"signed_url": f"{self.ws_url}/v1/convai/conversation?{query}"})

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("conversation_signature") not in self._signatures:
            self.violations.append("no signature")
            return self.refusal(403, request)
        async with self.websocket(request) as socket:
            session = _Session(self, socket)
            self.sessions.append(session)
            try:
                async for data in socket:
                    await session.receive(data)
                    self.changed()
            except Refusal as refusal:
                self.violations.append(refusal.reason)
                await socket.close(refusal.code, refusal.reason)
        return socket.response


def _format(name: str) -> AudioFormat:
    codec, _, rate = name.partition("_")
    return AudioFormat("mulaw" if codec == "ulaw" else "s16le", int(rate))


def _paths(fields: dict[str, Any], before: str = "") -> Iterable[str]:
    """Where in the settings something is given."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _paths(cast("dict[str, Any]", value), f"{before}{name}.")
        else:
            yield f"{before}{name}"
