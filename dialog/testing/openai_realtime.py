"""An emulator of OpenAI's realtime models (``/v1/realtime``): hears its script, and answers as it is told.

::

    async with OpenAIRealtimeEmulator(sentences=["a table for two"]) as openai:
        s2s = OpenAIRealtimeS2S(api_key=openai.api_key, base_url=openai.base_url)

Speech is told from silence by its energy, in audio time. Replies come much faster than they are heard, as
the service sends them: what was heard of one, only the client knows.

Source: OpenAI's API reference of the realtime API (general availability), and its SDK 3.57.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from aiohttp import web

from dialog.testing.realtime_session import RealtimeSession, failure
from dialog.testing.s2s import S2SEmulator

__all__ = ["OpenAIRealtimeEmulator", "RealtimeEmulator"]

_BETA = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."


class RealtimeEmulator(S2SEmulator[RealtimeSession]):
    """A service that speaks OpenAI's realtime protocol, on loopback.

    Args:
        tells_twice: What was said is told twice.
        api_key: The key that is accepted; every other one is refused with 401.
        settings: As the base class has them.
    """

    session: ClassVar[type[RealtimeSession]] = RealtimeSession
    models: ClassVar[frozenset[str]] = frozenset()
    """That there are; empty: any."""

    def __init__(self, *, tells_twice: bool = False, api_key: str = "openai-test-key", **settings: Any) -> None:
        super().__init__(api_key=api_key, **settings)
        self.tells_twice = tells_twice

    @property
    def base_url(self) -> str:
        """Its address with the version, as clients want it."""
        return f"{self.url}/v1"

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v1/realtime``."""
        return [web.get("/v1/realtime", self._talk)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        code = {400: "invalid_request", 401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, "server_error")
        error = {"message": f"{code} ({status})", "type": "invalid_request_error", "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

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
            session = self.session(self, socket, model)
            self.sessions.append(session)
            await session.greet()
            async for data in socket:
                await session.receive(data)
                self.changed()
        return socket.response


class OpenAIRealtimeEmulator(RealtimeEmulator):
    """OpenAI's realtime models on loopback; see :class:`RealtimeEmulator`."""

    models: ClassVar[frozenset[str]] = frozenset(
        f"gpt-realtime{version}" for version in ("", "-1.5", "-2", "-2.1", "-2.1-mini", "-mini")
    )
