"""An emulator of Google's Gemini Live API (``BidiGenerateContent``): hears its script, and answers as it is told.

::

    async with GeminiLiveEmulator(sentences=["a table for two"]) as gemini:
        s2s = GeminiLiveS2S(api_key=gemini.api_key, base_url=gemini.base_url)

Speech is told from silence by its energy, in audio time; the model answers whenever the caller has finished. It
is strict where the service is: a message that it does not take costs the connection, with a reason that is cut at
123 bytes.

Source: Google's reference of the Live API (``v1beta``), and its SDK google-genai 3.6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from aiohttp import web

from dialog.testing.gemini_session import GeminiSession, Refusal
from dialog.testing.realtime_session import TalkItem
from dialog.testing.s2s import S2SEmulator

__all__ = ["GeminiLiveEmulator"]

_LONGEST_REASON = 123
_NO_KEY = "Method doesn't allow unregistered callers (callers without established identity)."
_WRONG_KEY = "API key not valid. Please pass a valid API key."


class GeminiLiveEmulator(S2SEmulator[GeminiSession]):
    """Gemini Live on loopback; see :class:`~dialog.testing.s2s.S2SEmulator`.

    Args:
        api_key: The key that is accepted, in the header or in the query; with any other one the connection is
            closed as soon as it is open.
        playback_s: How long the service thinks that a reply is played after it was made.
        ignores: So many utterances are heard and not answered.
        settings: As the base class has them.
    """

    models: ClassVar[frozenset[str]] = frozenset(
        {"gemini-3.8-live", "gemini-3.8-live-extended-thinking", "gemini-3.1-flash-live-preview"}
        | {f"gemini-2.5-flash-native-audio-preview-{version}" for version in ("09-2025", "12-2025")}
    )
    unknown: ClassVar[str] = '{"somethingNew":{"level":3,"items":[{"a":null}]}}'

    def __init__(
        self, *, api_key: str = "gemini-test-key", playback_s: float = 0.0, ignores: int = 0, **settings: Any
    ) -> None:
        super().__init__(api_key=api_key, **settings)
        self.playback_s = playback_s
        self.ignores = ignores
        self.snapshots: dict[str, list[TalkItem]] = {}
        """What sessions can be resumed to, by their handles."""

    @property
    def base_url(self) -> str:
        """Its address, as clients want it."""
        return self.url

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /ws/google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent``."""
        path = "/ws/google.ai.generativelanguage.{version:v1|v1beta|v1alpha}.GenerativeService.BidiGenerateContent"
        return [web.get(path, self._talk)]

    async def go_away(self, left_s: float) -> None:
        """Tell on every connection that it will be closed."""
        for socket in tuple(self.sockets):
            await socket.send(f'{{"goAway":{{"timeLeft":"{left_s:g}s"}}}}'.encode())

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("x-goog-api-key") or request.query.get("key", "")
        async with self.websocket(request) as socket:
            if key != self.api_key:
                await socket.close(1007 if key else 1008, _WRONG_KEY if key else _NO_KEY)
                return socket.response
            session = GeminiSession(self, socket)
            self.sessions.append(session)
            try:
                async for data in socket:
                    await session.receive(data)
                    self.changed()
            except Refusal as refusal:
                self.violations.append(refusal.reason)
                await socket.close(refusal.code, refusal.reason[:_LONGEST_REASON])
        return socket.response
