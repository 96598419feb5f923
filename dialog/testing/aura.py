"""An emulator of Deepgram's synthesis, Aura (``/v1/speak``): every text is a tone of the right length.

::

    async with AuraEmulator(ms_per_char=20) as aura:
        tts = DeepgramTTS(api_key=aura.api_key, base_url=aura.url)

Source: Deepgram's API reference of the text-to-speech WebSocket, seen November 2026.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.message import AudioFormat
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults
from dialog.testing.tone import tone

__all__ = ["AuraEmulator"]

_ENCODINGS: dict[str, Literal["mulaw", "alaw", "s16le"]] = {"mulaw": "mulaw", "alaw": "alaw", "linear16": "s16le"}
_RATES = {"linear16": (8000, 16000, 24000, 32000, 48000), "mulaw": (8000, 16000), "alaw": (8000, 16000)}
_MAX_CHARS = 2000
_FLUSHES = 20
_WINDOW_S = 60.0


class AuraEmulator(EmulatorServer):
    """Deepgram's voices on loopback.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        ms_per_char: Milliseconds of audio for each character of text, blanks included.
        speed: How many times faster than real time audio is sent.
        chunk_ms: Audio in one frame.
        first_audio_s: Wait before the audio of each flush.
        late_chunks: Frames that still come after a ``Clear``, before its ``Cleared``.
        confirm_clear: Answer ``Clear`` at all.
        max_flushes: How many flushes are allowed in a minute.
        models: Models that there are; empty: every one.
        faults: What goes wrong with connections and messages; the first message is ``Metadata``.
    """

    def __init__(
        self,
        *,
        api_key: str = "deepgram-test-key",
        ms_per_char: float = 60.0,
        speed: float = 50.0,
        chunk_ms: float = 100.0,
        first_audio_s: float = 0.0,
        late_chunks: int = 2,
        confirm_clear: bool = True,
        max_flushes: int = _FLUSHES,
        models: Iterable[str] = (),
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.ms_per_char = ms_per_char
        self.speed = speed
        self.chunk_ms = chunk_ms
        self.first_audio_s = first_audio_s
        self.late_chunks = late_chunks
        self.confirm_clear = confirm_clear
        self.max_flushes = max_flushes
        self.models = frozenset(models)
        self.texts: list[str] = []
        """What was spoken, a text for each flush."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/v1/speak", self._speak)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal in Deepgram's shape."""
        codes = {401: "INVALID_AUTH", 429: "TOO_MANY_REQUESTS"}
        body = {"err_code": codes.get(status, "Bad Request"), "err_msg": f"Refused with {status}.", "request_id": "r"}
        return web.json_response(body, status=status, headers={"dg-error": body["err_msg"], "dg-request-id": "r"})

    def audio(self, text: str, *, number: int = 0, audio_format: AudioFormat) -> bytes:
        """The audio of ``text``; ``number`` counts the flushes."""
        return tone(text, audio_format, ms_per_char=self.ms_per_char, number=number)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") not in (f"Token {self.api_key}", f"Bearer {self.api_key}"):
            return self.refusal(401, request)
        encoding = request.query.get("encoding", "linear16")
        rate = int(request.query.get("sample_rate", "24000"))
        model = request.query.get("model", "aura-asteria-en")
        if rate not in _RATES.get(encoding, ()) or (self.models and model not in self.models):
            return self.refusal(400, request)
        async with self.websocket(request, headers={"dg-request-id": str(uuid4())}) as socket:
            connection = _Connection(self, socket, AudioFormat(_ENCODINGS[encoding], rate), model)
            await connection.run()
        return socket.response


class _Connection:
    """One WebSocket and its one speaker."""

    def __init__(self, emulator: AuraEmulator, socket: EmulatorSocket, audio_format: AudioFormat, model: str) -> None:
        self._emulator = emulator
        self._socket = socket
        self._format = audio_format
        self._model = model
        self._buffer = ""
        self._work: asyncio.Queue[str | None] = asyncio.Queue(1000)
        """Texts that were flushed; ``None``: a clear."""
        self._clears = 0
        self._sequence = 0
        self._flushed_at: deque[float] = deque()

    async def run(self) -> None:
        metadata = {"model_name": self._model, "model_version": "2026-01-01.0", "model_uuid": str(uuid4())}
        await self._socket.send({"type": "Metadata", "request_id": str(uuid4()), **metadata})
        self._socket.start(self._speak(), "voice")
        async for data in self._socket:
            if not await self._receive(data):
                return

    async def _receive(self, data: bytes | str) -> bool:
        try:
            message = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            await self._error("DATA-0000", "The message is not JSON.")
            return True
        kind = message.get("type")
        if kind == "Speak":
            text = message.get("text", "")
            if len(text) > _MAX_CHARS:
                await self._warn("TEXT_LENGTH_EXCEEDED", f"More than {_MAX_CHARS} characters in one Speak.")
            self._buffer += text[:_MAX_CHARS]
        elif kind == "Flush":
            await self._flush()
        elif kind == "Clear":
            self._buffer = ""
            self._clears += 1
            self._work.put_nowait(None)
        elif kind == "Close":
            await self._socket.close()
            return False
        else:
            await self._error("DATA-0000", f"Unknown type {kind!r}.")
        return True

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._flushed_at and self._flushed_at[0] <= now - _WINDOW_S:
            self._flushed_at.popleft()
        if len(self._flushed_at) >= self._emulator.max_flushes:
            await self._warn("EXCESSIVE_FLUSH", "Too many flushes.")
            return
        self._flushed_at.append(now)
        text, self._buffer = self._buffer, ""
        self._work.put_nowait(text)

    async def _speak(self) -> None:
        while True:
            text = await self._work.get()
            if text is None:
                self._clears -= 1
                if self._emulator.confirm_clear:
                    await self._tell("Cleared")
            elif not self._clears and await self._say(text):
                await self._tell("Flushed")

    async def _say(self, text: str) -> bool:
        """Whether it was said to its end."""
        emulator = self._emulator
        emulator.texts.append(text)
        if emulator.first_audio_s:
            await asyncio.sleep(emulator.first_audio_s)
        audio = emulator.audio(text, number=len(emulator.texts) - 1, audio_format=self._format)
        step = max(1, int(self._format.sample_rate * emulator.chunk_ms / 1000)) * self._format.sample_bytes
        late = 0
        for at in range(0, len(audio), step):
            if self._clears:
                if late >= emulator.late_chunks:
                    return False
                late += 1
            await self._socket.send(audio[at : at + step])
            await asyncio.sleep(emulator.chunk_ms / 1000 / emulator.speed)
        return not self._clears

    async def _tell(self, kind: str) -> None:
        await self._socket.send({"type": kind, "sequence_id": self._sequence})
        self._sequence += 1

    async def _warn(self, code: str, description: str) -> None:
        await self._socket.send({"type": "Warning", "code": code, "description": description})

    async def _error(self, code: str, description: str) -> None:
        await self._socket.send({"type": "Error", "code": code, "description": description})
