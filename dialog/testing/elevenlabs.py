"""An emulator of ElevenLabs' multi-context synthesis: every text is a tone of the right length.

::

    async with ElevenLabsEmulator(ms_per_char=20) as elevenlabs:
        tts = ElevenLabsTTS(api_key=elevenlabs.api_key, base_url=elevenlabs.url)

Source: ElevenLabs' API reference of the multi-context WebSocket, seen November 2026.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import msgspec
from aiohttp import web

from dialog.message import AudioFormat
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults
from dialog.testing.tone import tone

__all__ = ["ElevenLabsEmulator"]

_ENCODINGS: dict[str, Literal["mulaw", "alaw", "s16le"]] = {"ulaw": "mulaw", "alaw": "alaw", "pcm": "s16le"}
_FIRST_ONLY = ("voice_settings", "generation_config", "pronunciation_dictionary_locators")
_SCHEDULE = 120
"""Characters that are gathered before anything is spoken, without ``auto_mode``."""
_POLICY = 1008


@dataclass(slots=True)
class _Context:
    id: str
    number: int
    queue: asyncio.Queue[tuple[str, bool, bool]] = field(
        default_factory=lambda: asyncio.Queue[tuple[str, bool, bool]](1000)
    )
    """Text, whether it is flushed, whether it is the last."""
    first: dict[str, Any] = field(default_factory=dict[str, Any])
    buffer: str = ""
    spoken: str = ""
    samples: int = 0
    closed: bool = False


class ElevenLabsEmulator(EmulatorServer):
    """ElevenLabs on loopback.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        ms_per_char: Milliseconds of audio for each character of text, blanks included.
        speed: How many times faster than real time audio is sent.
        chunk_ms: Audio in one message.
        first_audio_s: Wait before the first message of each context.
        inactivity_s: Without a message for so long the connection is closed, unless the query says otherwise.
        max_contexts: How many contexts may be open; one more costs the connection.
        quota: Characters that the account has left; the text beyond costs the connection.
        voices: Voices that there are; empty: every one.
        alignment: Send when each character is spoken.
        snake_case: Spell names the other way, as the service does at times.
        faults: What goes wrong with connections and messages.
    """

    def __init__(
        self,
        *,
        api_key: str = "elevenlabs-test-key",
        ms_per_char: float = 60.0,
        speed: float = 50.0,
        chunk_ms: float = 100.0,
        first_audio_s: float = 0.0,
        inactivity_s: float = 20.0,
        max_contexts: int = 5,
        quota: int = 1_000_000,
        voices: Iterable[str] = (),
        alignment: bool = True,
        snake_case: bool = False,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.ms_per_char = ms_per_char
        self.speed = speed
        self.chunk_ms = chunk_ms
        self.first_audio_s = first_audio_s
        self.inactivity_s = inactivity_s
        self.max_contexts = max_contexts
        self.quota = quota
        self.voices = frozenset(voices)
        self.alignment = alignment
        self.snake_case = snake_case
        self.context_count = 0
        """How many contexts were opened so far."""
        self.texts: dict[str, str] = {}
        """What each context was given to speak."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The WebSocket."""
        return [web.get("/v1/text-to-speech/{voice}/multi-stream-input", self._speak)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """A refusal in ElevenLabs' shape."""
        names = {401: "invalid_api_key", 429: "too_many_concurrent_requests"}
        detail = {"status": names.get(status, "error"), "message": f"Refused with {status}."}
        return web.json_response({"detail": detail}, status=status)

    def audio(self, text: str, *, number: int = 0, audio_format: AudioFormat) -> bytes:
        """The audio that context ``number`` gets for ``text``."""
        return tone(text, audio_format, ms_per_char=self.ms_per_char, number=number)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        bearer = request.query.get("authorization", "").removeprefix("Bearer ")
        if (request.headers.get("xi-api-key") or bearer) != self.api_key:
            return self.refusal(401, request)
        codec, _, rate = request.query.get("output_format", "").partition("_")
        if codec not in _ENCODINGS or not rate.isdigit():
            return self.refusal(400, request)
        async with self.websocket(request) as socket:
            connection = _Connection(self, socket, AudioFormat(_ENCODINGS[codec], int(rate)))
            await connection.run(request)
        return socket.response


class _Connection:
    """One WebSocket with its contexts, each spoken by a task of its own."""

    def __init__(self, emulator: ElevenLabsEmulator, socket: EmulatorSocket, audio_format: AudioFormat) -> None:
        self._emulator = emulator
        self._socket = socket
        self._format = audio_format
        self._contexts: dict[str, _Context] = {}
        self._auto = False

    async def run(self, request: web.Request) -> None:
        self._auto = request.query.get("auto_mode") == "true"
        patience = float(request.query.get("inactivity_timeout", self._emulator.inactivity_s))
        voice = request.match_info["voice"]
        if request.query.get("model_id") == "eleven_v3":
            await self._reject("model_not_supported", "This model is not supported by this endpoint.")
            return
        if self._emulator.voices and voice not in self._emulator.voices:
            await self._reject("voice_id_does_not_exist", f"A voice for the voice_id {voice} does not exist.")
            return
        while True:
            try:
                data = await self._socket.receive(patience)
            except TimeoutError:
                await self._reject("input_timeout_exceeded", f"No input for {patience:g} s.")
                return
            if data is None or not await self._receive(data):
                return

    async def _reject(self, error: str, message: str) -> bool:
        await self._socket.send({"message": message, "error": error, "code": _POLICY})
        await self._socket.close(_POLICY, message[:100])
        return False

    async def _receive(self, data: bytes | str) -> bool:
        """Whether the connection goes on."""
        try:
            message = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            return await self._reject("invalid_message", "The message is not JSON.")
        if message.get("close_socket"):
            for left in self._contexts.values():
                if not left.closed:
                    left.closed = True
                    left.queue.put_nowait(("", True, True))
            await self._socket.finish()
            await self._socket.close()
            return False
        name = message.get("context_id")
        text = message.get("text")
        if not isinstance(name, str):
            return True  # a keep-alive
        context = self._contexts.get(name)
        if context is None:
            if message.get("close_context"):
                return True
            if len(self._contexts) >= self._emulator.max_contexts:
                told = (
                    f"Maximum simultaneous contexts per WebSocket connection exceeded ({self._emulator.max_contexts})."
                )
                return await self._reject("max_active_conversations", told)
            context = self._open(name, message)
        elif any(key in message and message[key] != context.first.get(key) for key in _FIRST_ONLY):
            told = "voice_settings field must be provided in the first message of a context."
            return await self._reject("invalid_message", told)
        if isinstance(text, str) and text.strip():
            self._emulator.quota -= len(text)
            if self._emulator.quota < 0:
                return await self._reject("quota_exceeded", "This request exceeds your quota.")
            self._emulator.texts[name] = self._emulator.texts.get(name, "") + text
        said = text if isinstance(text, str) and text != " " else ""
        if not context.closed:
            context.closed = bool(message.get("close_context"))
            context.queue.put_nowait((said, bool(message.get("flush")), context.closed))
        return True

    def _open(self, name: str, message: dict[str, Any]) -> _Context:
        first = {key: message[key] for key in _FIRST_ONLY if key in message}
        context = _Context(name, self._emulator.context_count, first=first)
        self._emulator.context_count += 1
        self._contexts[name] = context
        self._socket.start(self._run(context), f"context {name}")
        return context

    async def _run(self, context: _Context) -> None:
        if self._emulator.first_audio_s:
            await asyncio.sleep(self._emulator.first_audio_s)
        last = False
        while not last:
            text, flush, last = await context.queue.get()
            context.buffer += text
            if self._auto or flush or last or len(context.buffer) >= _SCHEDULE:
                await self._piece(context)
        final: dict[str, Any] = {"isFinal": True, "contextId": context.id}
        self._contexts.pop(context.id)
        await self._socket.send(self._spelled(final))

    async def _piece(self, context: _Context) -> None:
        emulator = self._emulator
        text, context.buffer = context.buffer, ""
        width = self._format.sample_bytes
        before = len(context.spoken)
        context.spoken += text
        audio = emulator.audio(context.spoken, number=context.number, audio_format=self._format)
        audio = audio[context.samples * width :]
        step = max(1, int(self._format.sample_rate * emulator.chunk_ms / 1000)) * width
        timed = before
        for at in range(0, len(audio), step):
            chunk = audio[at : at + step]
            start_ms = context.samples * 1000 / self._format.sample_rate
            context.samples += len(chunk) // width
            end = len(context.spoken)
            if at + step < len(audio):
                end = int(context.samples * 1000 / self._format.sample_rate / emulator.ms_per_char)
            await self._socket.send(self._spelled(self._message(context, chunk, timed, end, start_ms)))
            timed = end
            await asyncio.sleep(emulator.chunk_ms / 1000 / emulator.speed)

    def _message(self, context: _Context, chunk: bytes, begin: int, end: int, start_ms: float) -> dict[str, Any]:
        """Audio with the characters that begin in it, timed from its beginning."""
        each = self._emulator.ms_per_char
        alignment = {
            "chars": list(context.spoken[begin:end]),
            "charStartTimesMs": [round(at * each - start_ms) for at in range(begin, end)],
            "charDurationsMs": [round(each)] * (end - begin),
        }
        given = alignment if self._emulator.alignment and end > begin else None
        return {
            "audio": b64encode(chunk).decode(),
            "contextId": context.id,
            "isFinal": None,
            "alignment": given,
            # What is spoken, not what was written: nobody may take it for the text.
            "normalizedAlignment": given and {**given, "chars": ["x"] * (end - begin)},
        }

    def _spelled(self, message: dict[str, Any]) -> dict[str, Any]:
        if not self._emulator.snake_case:
            return message
        other = {"contextId": "context_id", "isFinal": "is_final", "charDurationsMs": "charsDurationsMs"}
        respelled: dict[str, Any] = {}
        for name, value in message.items():
            inner = self._spelled(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
            respelled[other.get(name, name)] = inner
        return respelled
