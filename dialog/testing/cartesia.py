"""An emulator of Cartesia's synthesis (``/tts/websocket``): every text is a tone of the right length.

::

    async with CartesiaEmulator(ms_per_char=20) as cartesia:
        tts = CartesiaTTS(api_key=cartesia.api_key, base_url=cartesia.url)

The audio is a sine whose pitch tells the contexts apart and whose length is that of the text, so a
test knows to the sample what it must hear, and when each word is spoken.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.message import AudioFormat
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults
from dialog.testing.tone import tone

__all__ = ["CartesiaEmulator", "ContextFault"]

_FREE = frozenset({"transcript", "continue", "flush", "context_id"})
"""Fields that may change within a context."""
_ENCODINGS: dict[str, Literal["mulaw", "alaw", "s16le"]] = {
    "pcm_mulaw": "mulaw",
    "pcm_alaw": "alaw",
    "pcm_s16le": "s16le",
}
_RATES = frozenset({8000, 16000, 22050, 24000, 44100, 48000})
_VOICES = (
    {"id": "f786b574-daa5-4673-aa0c-cbe3e8534c02", "name": "Katie", "language": "en"},
    {"id": "a0e99841-438c-4a64-b679-ae501e7d6091", "name": "Oliver", "language": "en"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFault:
    """An error of one context, instead of its chunk ``after_chunks``."""

    status: int = 500
    message: str = "the emulator was told to fail"
    after_chunks: int = 0
    with_context: bool = True
    """The error names the context; else it looks like one of the connection."""


@dataclass(slots=True)
class _Context:
    id: str
    number: int
    fields: dict[str, Any]
    rate: int
    encoding: str
    queue: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue[dict[str, Any]](1000))
    text: str = ""
    timed: int = 0
    """Characters whose words were timed."""
    samples: int = 0
    chunks: int = 0
    flushes: int = 0
    last_audio: float | None = None
    closed: bool = False
    dead: bool = False
    cancelled: bool = False


class CartesiaEmulator(EmulatorServer):
    """Cartesia on loopback.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        ms_per_char: Milliseconds of audio for each character of text, blanks included.
        speed: How many times faster than real time audio is sent; ``inf``: at once.
        chunk_ms: Audio in one chunk.
        first_audio_s: Wait before the first chunk of each context.
        expire_s: A context dies so long after its last audio.
        max_contexts: How many contexts may be open; one more is refused with 429.
        timings: Send word timings when asked for them.
        timings_first: Send them before the audio of the words, else after it.
        context_faults: By the number of the context, counted from 0 over all connections.
        faults: What goes wrong with connections and messages.
    """

    def __init__(
        self,
        *,
        api_key: str = "cartesia-test-key",
        ms_per_char: float = 60.0,
        speed: float = 50.0,
        chunk_ms: float = 100.0,
        first_audio_s: float = 0.0,
        expire_s: float = 1.0,
        max_contexts: int = 100,
        timings: bool = True,
        timings_first: bool = False,
        context_faults: dict[int, ContextFault] | None = None,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.ms_per_char = ms_per_char
        self.speed = speed
        self.chunk_ms = chunk_ms
        self.first_audio_s = first_audio_s
        self.expire_s = expire_s
        self.max_contexts = max_contexts
        self.timings = timings
        self.timings_first = timings_first
        self.context_faults: dict[int, ContextFault] = dict(context_faults or {})
        self.context_count = 0
        """How many contexts were opened so far."""
        self.texts: dict[str, str] = {}
        """What each context was given to speak."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The WebSocket, and the voices."""
        return [
            web.get("/tts/websocket", self._speak),
            web.get("/voices", self._voices),
            web.get("/voices/{id}", self._voice),
        ]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """Cartesia's shape of a refusal."""
        title = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
        return web.json_response(_error(status, title.get(status, "Error")), status=status)

    def audio(self, text: str, *, number: int = 0, encoding: str = "pcm_mulaw", rate: int = 8000) -> bytes:
        """The audio that context ``number`` gets for ``text``."""
        return tone(text, AudioFormat(_ENCODINGS[encoding], rate), ms_per_char=self.ms_per_char, number=number)

    def _allowed(self, request: web.Request) -> int:
        """0, or the status to refuse with."""
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.headers.get("X-API-Key") or bearer or request.query.get("access_token", "")
        if given != self.api_key:
            return 401
        version = request.headers.get("Cartesia-Version") or request.query.get("cartesia_version")
        return 0 if version else 400

    async def _voices(self, request: web.Request) -> web.Response:
        if status := self._allowed(request):
            return self.refusal(status, request)
        ids = [voice["id"] for voice in _VOICES]
        after = request.query.get("starting_after", "")
        begin = ids.index(after) + 1 if after in ids else 0
        page = _VOICES[begin : begin + int(request.query.get("limit", "10"))]
        more = begin + len(page) < len(_VOICES)
        return web.json_response({"data": [{**voice, **_VOICE_REST} for voice in page], "has_more": more})

    async def _voice(self, request: web.Request) -> web.Response:
        if status := self._allowed(request):
            return self.refusal(status, request)
        voice = next((voice for voice in _VOICES if voice["id"] == request.match_info["id"]), None)
        return web.json_response({**voice, **_VOICE_REST}) if voice else self.refusal(404, request)

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        if status := self._allowed(request):
            return self.refusal(status, request)
        async with self.websocket(request) as socket:
            connection = _Connection(self, socket)
            async for data in socket:
                await connection.receive(data)
        return socket.response


_VOICE_REST = {
    "is_owner": False,
    "is_public": True,
    "description": "A test voice",
    "created_at": "2026-01-01T00:00:00Z",
}


class _Connection:
    """One WebSocket with its contexts, each spoken by a task of its own."""

    def __init__(self, emulator: CartesiaEmulator, socket: EmulatorSocket) -> None:
        self._emulator = emulator
        self._socket = socket
        self._contexts: dict[str, _Context] = {}

    async def receive(self, data: bytes | str) -> None:
        try:
            request = msgspec.json.decode(data, type=dict[str, Any])
        except msgspec.DecodeError:
            await self._socket.send(_error(400, "Invalid JSON"))
            return
        name = request.get("context_id")
        if not isinstance(name, str):
            await self._socket.send(_error(400, "context_id is required"))
            return
        context = self._contexts.get(name)
        if request.get("cancel"):
            if context is not None:
                context.cancelled = True
                while not context.queue.empty():
                    context.queue.get_nowait()
            return
        problem = self._problem(request, context)
        if problem is not None:
            status, message = problem
            await self._socket.send(_error(status, message, name))
            return
        if context is None:
            context = self._open(name, request)
        self._emulator.texts[name] = self._emulator.texts.get(name, "") + request.get("transcript", "")
        context.closed = not request.get("continue", False)
        context.queue.put_nowait(request)

    def _problem(self, request: dict[str, Any], context: _Context | None) -> tuple[int, str] | None:
        fields = {key: value for key, value in request.items() if key not in _FREE}
        if context is not None:
            expired = context.last_audio is not None and context.queue.empty()
            if expired and asyncio.get_running_loop().time() - (context.last_audio or 0.0) > self._emulator.expire_s:
                context.dead = True
            if context.dead or context.closed or context.cancelled:
                return 400, "The context is closed"
            changed = [
                key for key in fields.keys() | context.fields.keys() if fields.get(key) != context.fields.get(key)
            ]
            return (400, f"Fields must not change within a context: {', '.join(sorted(changed))}") if changed else None
        output = fields.get("output_format")
        if not fields.get("model_id") or not _voice_id(fields.get("voice")) or not isinstance(output, dict):
            return 400, "model_id, voice and output_format are required"
        if output.get("container") != "raw" or output.get("encoding") not in _ENCODINGS:
            return 400, "unsupported output_format"
        if output.get("sample_rate") not in _RATES:
            return 400, "unsupported sample_rate"
        if sum(1 for other in self._contexts.values() if not other.dead) >= self._emulator.max_contexts:
            return 429, "Too many concurrent contexts"
        return None

    def _open(self, name: str, request: dict[str, Any]) -> _Context:
        output = request["output_format"]
        number = self._emulator.context_count
        self._emulator.context_count += 1
        fields = {key: value for key, value in request.items() if key not in _FREE}
        context = _Context(name, number, fields, output["sample_rate"], output["encoding"])
        self._contexts[name] = context
        self._socket.start(self._run(context), f"context {name}")
        return context

    async def _run(self, context: _Context) -> None:
        if self._emulator.first_audio_s:
            await asyncio.sleep(self._emulator.first_audio_s)
        while not context.dead:
            request = await context.queue.get()
            last = not request.get("continue", False)
            await self._piece(context, request.get("transcript", ""), last=last)
            if request.get("flush"):
                context.flushes += 1
                await self._tell(context, "flush_done", flush_done=True, flush_id=context.flushes)
            if last and not context.dead:
                context.dead = True
                await self._tell(context, "done", status_code=200, done=True)

    async def _piece(self, context: _Context, text: str, *, last: bool) -> None:
        emulator = self._emulator
        spoken = text if text.strip() else ""
        audio = emulator.audio(
            context.text + spoken, number=context.number, encoding=context.encoding, rate=context.rate
        )
        width = AudioFormat(_ENCODINGS[context.encoding], context.rate).sample_bytes
        audio = audio[context.samples * width :]
        context.text += spoken
        if emulator.timings_first:
            await self._words(context, last=last)
        step = max(1, int(context.rate * emulator.chunk_ms / 1000)) * width
        fault = emulator.context_faults.get(context.number)
        for at in range(0, len(audio), step):
            if fault is not None and context.chunks >= fault.after_chunks:
                context.dead = True
                await self._socket.send(_error(fault.status, fault.message, context.id if fault.with_context else None))
                return
            chunk = audio[at : at + step]
            data = b64encode(chunk).decode()
            await self._tell(context, "chunk", data=data, step_time=1.0, flush_id=context.flushes + 1)
            context.chunks += 1
            context.samples += len(chunk) // width
            context.last_audio = asyncio.get_running_loop().time()
            await asyncio.sleep(emulator.chunk_ms / 1000 / emulator.speed)
        if not emulator.timings_first:
            await self._words(context, last=last)

    async def _words(self, context: _Context, *, last: bool) -> None:
        """Time the words that are complete: those before a blank, or all at the end."""
        text = context.text
        end = len(text) if last else max(text.rfind(" "), text.rfind("\n")) + 1
        words: list[tuple[str, int]] = []
        at = context.timed
        for word in text[at:end].split():
            at = text.index(word, at)
            words.append((word, at))
            at += len(word)
        context.timed = max(context.timed, end)
        if words and self._emulator.timings and context.fields.get("add_timestamps"):
            each = self._emulator.ms_per_char / 1000
            timings = {
                "words": [word for word, _ in words],
                "start": [round(start * each, 4) for _, start in words],
                "end": [round((start + len(word)) * each, 4) for word, start in words],
            }
            await self._tell(context, "timestamps", word_timestamps=timings)

    async def _tell(self, context: _Context, kind: str, **fields: Any) -> None:
        message = {"type": kind, "context_id": context.id, "status_code": 206, "done": False}
        await self._socket.send({**message, **fields})


def _voice_id(voice: Any) -> object:
    return cast(dict[str, object], voice).get("id") if isinstance(voice, dict) else voice


def _error(status: int, message: str, context_id: str | None = None) -> dict[str, Any]:
    named = {} if context_id is None else {"context_id": context_id}
    return {
        "type": "error",
        **named,
        "status_code": status,
        "done": True,
        "title": "Error",
        "message": message,
        "error_code": f"error_{status}",
        "doc_url": "",
        "request_id": str(uuid4()),
    }
