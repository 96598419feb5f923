"""An emulator of OpenAI's realtime models (``/v1/realtime``): hears its script, and answers as it is told.

::

    async with OpenAIRealtimeEmulator(sentences=["a table for two"]) as openai:
        s2s = OpenAIRealtimeS2S(api_key=openai.api_key, base_url=openai.base_url)

Speech is told from silence by its energy, in audio time. Replies come much faster than they are heard, as
the service sends them: what was heard of one, only the client knows.

Source: OpenAI's API reference of the realtime API (general availability), and its SDK 3.57.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from aiohttp import web
from msgspec import Struct

from dialog.testing.hearing import Script
from dialog.testing.model import ToolUse
from dialog.testing.realtime_session import RealtimeSession, TalkItem, failure
from dialog.testing.server import EmulatorServer, Faults

__all__ = ["OpenAIRealtimeEmulator", "RealtimeEmulator", "RealtimeReply"]

_SAY = "in these words and nothing else: "
_BETA = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."


class RealtimeReply(Struct, frozen=True, kw_only=True):
    """What an emulated model answers."""

    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    fails: str = ""
    """The reply fails with this code."""


class RealtimeEmulator(Script, EmulatorServer):
    """A service that speaks OpenAI's realtime protocol, on loopback.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        replies: What is answered to a conversation; unless given, what the caller said is repeated.
        api_key: The key that is accepted; every other one is refused with 401.
        session_s: When sessions end, as they tell it.
        ms_per_char: How long the audio of a reply is.
        chunk_ms: How much audio one message has.
        chunk_s: Seconds between two of them.
        transcribe_s: Seconds until the caller's words are told.
        unintelligible: So many utterances cannot be written down.
        tells_twice: What was said is told twice.
        stalling: So many replies begin and never go on.
        faults: What goes wrong.
    """

    session: ClassVar[type[RealtimeSession]] = RealtimeSession
    models: ClassVar[frozenset[str]] = frozenset()
    """That there are; empty: any."""

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        replies: Callable[[Sequence[TalkItem]], RealtimeReply] | None = None,
        api_key: str = "openai-test-key",
        session_s: float = 3600.0,
        ms_per_char: float = 40.0,
        chunk_ms: float = 200.0,
        chunk_s: float = 0.0,
        transcribe_s: float = 0.0,
        unintelligible: int = 0,
        tells_twice: bool = False,
        stalling: int = 0,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.replies = replies
        self.api_key = api_key
        self.session_s = session_s
        self.ms_per_char = ms_per_char
        self.chunk_ms = chunk_ms
        self.chunk_s = chunk_s
        self.transcribe_s = transcribe_s
        self.unintelligible = unintelligible
        self.tells_twice = tells_twice
        self.stalling = stalling
        self.sessions: list[RealtimeSession] = []
        """All of them, the newest last."""
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    @property
    def base_url(self) -> str:
        """Its address with the version, as clients want it."""
        return f"{self.url}/v1"

    @property
    def conversation(self) -> list[tuple[str, str]]:
        """What the newest session remembers: role, or kind, and text."""
        return [(item.role or item.kind, item.text) for item in self.sessions[-1].items]

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v1/realtime``."""
        return [web.get("/v1/realtime", self._talk)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        code = {400: "invalid_request", 401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, "server_error")
        error = {"message": f"{code} ({status})", "type": "invalid_request_error", "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

    def reply_to(self, session: RealtimeSession, instructions: str) -> RealtimeReply:
        """What is answered now."""
        if instructions:
            return RealtimeReply(text=instructions.partition(_SAY)[2] or instructions)
        if self.replies is not None:
            return self.replies(session.items)
        said = [item.text for item in session.items if item.role == "user"]
        return RealtimeReply(text=f"You said: {said[-1]}" if said else "Hello.")

    async def tell(self, code: str, *, kind: str = "invalid_request_error", close: int = 0) -> None:
        """Send this error on every connection, and close it with the code ``close`` if there is one."""
        for socket in tuple(self.sockets):
            await socket.send(failure(code, code, kind=kind))
            if close:
                await socket.close(close, f"{kind}.{code}")

    async def expire(self, code: int = 1001) -> None:
        """End every session as one that has reached its longest duration."""
        for socket in tuple(self.sockets):
            await socket.close(code, "Your session hit the maximum duration of 60 minutes.")

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.refusal(401, request)
        model = request.query.get("model", "")
        if not model:
            self.violations.append("no model")
            return self.refusal(400, request)
        async with self.websocket(request) as socket:
            if request.headers.get("OpenAI-Beta"):
                await socket.send(failure("beta_api_shape_disabled", _BETA))
                await socket.close(4000, "invalid_request_error.beta_api_shape_disabled")
            elif self.models and model not in self.models:
                await socket.send(failure("invalid_model", f"The model {model} does not exist."))
                await socket.close(4000, "invalid_request_error.invalid_model")
            session = self.session(self, socket.send, model)
            self.sessions.append(session)
            try:
                await session.greet()
                async for data in socket:
                    await session.receive(data)
                    self.changed()
            finally:
                await session.close()
        return socket.response


class OpenAIRealtimeEmulator(RealtimeEmulator):
    """OpenAI's realtime models on loopback; see :class:`RealtimeEmulator`."""

    models: ClassVar[frozenset[str]] = frozenset(
        f"gpt-realtime{version}" for version in ("", "-1.5", "-2", "-2.1", "-2.1-mini", "-mini")
    )
