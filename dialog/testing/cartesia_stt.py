"""An emulator of Cartesia's Ink, with turns (``/stt/turns/websocket``) and manual (``/stt/websocket``).

::

    async with CartesiaSTTEmulator(sentences=["a table for two"]) as cartesia:
        stt = CartesiaSTT(api_key=cartesia.api_key, base_url=cartesia.url)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.testing.hearing import Ear, Script
from dialog.testing.server import EmulatorServer, Faults

__all__ = ["CartesiaSTTEmulator"]

_ENCODINGS = {"pcm_mulaw": "mulaw", "pcm_alaw": "alaw", "pcm_s16le": "s16le"}


class CartesiaSTTEmulator(Script, EmulatorServer):
    """Cartesia's speech to text on loopback.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        api_key: The key that is accepted; every other one is refused with 401.
        update_s: Audio between two updates.
        eager_s: Silence until an early end of turn.
        end_s: Silence until the end of turn.
        answer_finalize: Whether ``finalize`` is answered.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        api_key: str = "cartesia-test-key",
        update_s: float = 0.25,
        eager_s: float = 0.2,
        end_s: float = 0.5,
        answer_finalize: bool = True,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.api_key = api_key
        self.update_s = update_s
        self.eager_s = eager_s
        self.end_s = end_s
        self.answer_finalize = answer_finalize
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    def routes(self) -> Iterable[web.RouteDef]:
        """Both protocols."""
        return [web.get("/stt/turns/websocket", self._turns), web.get("/stt/websocket", self._manual)]

    def error(self, status: int, title: str) -> dict[str, Any]:
        """An error message of the service."""
        return {
            "type": "error",
            "title": title,
            "message": f"{title} ({status})",
            "error_code": title.lower().replace(" ", "_"),
            "status_code": status,
            "request_id": str(uuid4()),
        }

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        title = {400: "Bad request", 401: "Invalid API key", 429: "Too many requests"}.get(status, "Error")
        return web.json_response(self.error(status, title), status=status)

    async def _turns(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, _Turns)

    async def _manual(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, _Manual)

    async def _serve(self, request: web.Request, protocol: Callable[..., _Protocol]) -> web.StreamResponse:
        query = request.query
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api_key not in (request.headers.get("X-API-Key"), bearer, query.get("access_token")):
            return self.refusal(401, request)
        encoding, rate = _ENCODINGS.get(query.get("encoding", "")), query.get("sample_rate", "")
        version = request.headers.get("Cartesia-Version") or query.get("cartesia_version")
        if encoding is None or not rate.isdigit() or not query.get("model", "").startswith("ink-") or not version:
            self.violations.append(f"the query {dict(query)} with version {version}")
            return self.refusal(400, request)
        connection = protocol(self, Ear(self, encoding, int(rate)), query)
        async with self.websocket(request) as socket:
            async for data in socket:
                for message in connection.receive(data):
                    await socket.send(message)
                self.changed()
                if connection.closed:
                    await socket.close()
        return socket.response


class _Protocol(Protocol):
    closed: bool

    def receive(self, data: bytes | str) -> list[dict[str, Any]]: ...


class _Turns:
    """One connection that ends turns itself; no I/O."""

    def __init__(self, emulator: CartesiaSTTEmulator, ear: Ear, query: Mapping[str, str]) -> None:
        self.closed = False
        self._emulator = emulator
        self._ear = ear
        self._timeout_s = float(query.get("turn_end_timeout_ms", "5600")) / 1000
        self._request_id = str(uuid4())
        self._connected = False
        self._told: str | None = None
        self._early = ""
        self._update_at = 0.0

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        messages = [] if self._connected else [self._message("connected")]
        self._connected = True
        if isinstance(data, bytes):
            return messages + [message for _ in self._ear.feed(data) for message in self._hear()]
        try:
            kind = msgspec.json.decode(data, type=dict[str, Any]).get("type")
        except msgspec.DecodeError:
            kind = None
        if kind == "close":
            self.closed = True
            return messages + ([self._end()] if self._told is not None else [])
        if kind == "config":
            return messages
        self._emulator.violations.append("text that is no command")
        return [*messages, self._emulator.error(400, "Bad request")]

    def _message(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "request_id": self._request_id, **fields}

    def _hear(self) -> list[dict[str, Any]]:
        ear, text = self._ear, self._ear.text()
        if self._told is None:
            if not ear.in_turn:
                return []
            self._told = ""
            self._update_at = ear.now_s + self._emulator.update_s
            return [self._message("turn.start")]
        if self._early and text != self._early:
            self._early = ""
            return [self._message("turn.resume")]
        quiet_s = 0.0 if ear.speaking else ear.quiet_s
        if quiet_s >= min(self._emulator.end_s, self._timeout_s):
            return [self._end()]
        if text and not self._early and quiet_s >= self._emulator.eager_s:
            self._early = self._told = text
            return [self._message("turn.eager_end", transcript=text)]
        if text != self._told and ear.now_s >= self._update_at:
            self._update_at = ear.now_s + self._emulator.update_s
            self._told = text
            return [self._message("turn.update", transcript=text)]
        return []

    def _end(self) -> dict[str, Any]:
        message = self._message("turn.end", transcript=self._ear.text())
        self._ear.end_turn()
        self._told, self._early = None, ""
        return message


class _Manual:
    """One connection that ends what the client says is over; no I/O."""

    def __init__(self, emulator: CartesiaSTTEmulator, ear: Ear, query: Mapping[str, str]) -> None:
        self.closed = False
        self._emulator = emulator
        self._ear = ear
        self._language = query.get("language", "en")
        self._request_id = str(uuid4())
        self._told = 0
        """Words in final transcripts."""
        self._shown = 0
        self._update_at = emulator.update_s

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        if isinstance(data, bytes):
            return [message for _ in self._ear.feed(data) for message in self._hear()]
        done = {"request_id": self._request_id}
        if data == "finalize":
            if not self._emulator.answer_finalize:
                return []
            self._ear.cut_short()
            messages = self._transcript(final=True)
            self._ear.end_turn()
            self._told = self._shown = 0
            return [*messages, {"type": "flush_done", **done}]
        if data in ("close", "done"):
            self.closed = True
            return [*self._transcript(final=True), {"type": "done", **done}]
        self._emulator.violations.append("text that is no command")
        return [self._emulator.error(400, "Bad request")]

    def _hear(self) -> list[dict[str, Any]]:
        if self._ear.now_s < self._update_at:
            return []
        self._update_at = self._ear.now_s + self._emulator.update_s
        words = len(self._ear.words())
        if words == self._shown:
            return []
        self._shown = words
        # What is three words old does not change any more.
        return self._transcript(final=words - self._told > 3)

    def _transcript(self, *, final: bool) -> list[dict[str, Any]]:
        words = self._ear.words()[self._told :]
        if not words:
            return []
        text = ("" if self._told == 0 else " ") + " ".join(word.text for word in words)
        if final:
            self._told += len(words)
        return [
            {
                "type": "transcript",
                "request_id": self._request_id,
                "text": text,
                "is_final": final,
                "duration": round(self._ear.now_s, 3),
                "language": self._language,
                "words": [{"word": word.text, "start": word.start_s, "end": word.end_s} for word in words],
            }
        ]
