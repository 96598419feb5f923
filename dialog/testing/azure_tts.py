"""An emulator of Azure's speech synthesis, over REST and over the WebSocket of its SDK: every text is a tone.

::

    async with AzureTTSEmulator(ms_per_char=20) as azure:
        tts = AzureTTS(api_key=azure.api_key, base_url=azure.url)

Source: Microsoft's reference of the text-to-speech REST API and of SSML, seen November 2026; the WebSocket as
its Speech SDK 1.53 speaks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import uuid4
from xml.etree import ElementTree as ET

import msgspec
from aiohttp import web

from dialog.message import ALAW_8K, MULAW_8K, PCM_8K, PCM_16K, PCM_24K, AudioFormat
from dialog.net.azure import TICKS_PER_MS, USPMessage, parse_usp, usp_head, usp_text
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults
from dialog.testing.tone import tone

__all__ = ["AzureTTSEmulator"]

_FORMATS = {
    "raw-8khz-8bit-mono-mulaw": MULAW_8K,
    "raw-8khz-8bit-mono-alaw": ALAW_8K,
    "raw-8khz-16bit-mono-pcm": PCM_8K,
    "raw-16khz-16bit-mono-pcm": PCM_16K,
    "raw-24khz-16bit-mono-pcm": PCM_24K,
}
_SSML = "{http://www.w3.org/2001/10/synthesis}"
_REFUSALS = {
    400: "Bad Request",
    401: "Access denied due to invalid subscription key or wrong API endpoint.",
    415: "Unsupported Media Type",
    429: "Too many requests.",
}


class _Script(NamedTuple):
    """What an SSML document says."""

    text: str
    voice: str
    language: str


class AzureTTSEmulator(EmulatorServer):
    """Azure's voices on loopback: ``POST …/cognitiveservices/v1``, and the WebSocket that the SDK uses.

    Args:
        api_key: The key that is accepted; every other one is refused with 401.
        ms_per_char: Milliseconds of audio for each character of text, blanks included.
        speed: How many times faster than real time audio is sent.
        chunk_ms: Audio in one piece of an answer.
        first_audio_s: Wait before the answer.
        voices: Voices that there are; empty: every one.
        refusal_text: Instead of the usual words of a refusal, for instance ``Quota exceeded``.
        faults: What goes wrong; messages are pieces of bodies, or those of the WebSocket.
    """

    def __init__(
        self,
        *,
        api_key: str = "azure-test-key",
        ms_per_char: float = 60.0,
        speed: float = 50.0,
        chunk_ms: float = 100.0,
        first_audio_s: float = 0.0,
        voices: Iterable[str] = (),
        refusal_text: str | None = None,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.api_key = api_key
        self.ms_per_char = ms_per_char
        self.speed = speed
        self.chunk_ms = chunk_ms
        self.first_audio_s = first_audio_s
        self.voices = frozenset(voices)
        self.refusal_text = refusal_text
        self.texts: list[str] = []
        """What was asked for, oldest first …"""
        self.documents: list[str] = []
        """… and the SSML that it came in."""
        self.disconnected: int = 0
        """How many answers nobody wanted to hear to their end."""

    def routes(self) -> Iterable[web.RouteDef]:
        """At the host of a region, and at a resource's own endpoint."""
        for prefix in ("", "/tts"):
            yield web.post(f"{prefix}/cognitiveservices/v1", self._answer)
            yield web.get(f"{prefix}/cognitiveservices/websocket/v1", self._converse)

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service says little to its status."""
        text = self.refusal_text if self.refusal_text is not None else _REFUSALS.get(status, "")
        return web.Response(status=status, text=text)

    def audio(self, text: str, *, number: int = 0, audio_format: AudioFormat) -> bytes:
        """The audio of request ``number``."""
        return tone(text, audio_format, ms_per_char=self.ms_per_char, number=number)

    def read(self, ssml: str | bytes) -> _Script:
        """What the document says.

        Raises:
            ValueError: It is none that the service takes.
        """
        try:
            root = ET.fromstring(ssml)  # noqa: S314  # what a test has sent
        except ET.ParseError as exc:
            raise ValueError(f"malformed SSML: {exc}") from exc
        language = root.get("{http://www.w3.org/XML/1998/namespace}lang", "")
        voices = root.findall(f"{_SSML}voice")
        if root.tag != f"{_SSML}speak" or root.get("version") != "1.0" or not language or len(voices) != 1:
            raise ValueError("SSML needs speak with version, xml:lang and a voice")
        voice = voices[0].get("name", "")
        if not voice or (self.voices and voice not in self.voices):
            raise ValueError(f"Unsupported voice {voice}.")
        return _Script("".join(voices[0].itertext()), voice, language)

    def _said(self, script: _Script, ssml: str | bytes) -> int:
        self.texts.append(script.text)
        self.documents.append(ssml.decode() if isinstance(ssml, bytes) else ssml)
        self.changed()
        return len(self.texts) - 1

    # REST.

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Ocp-Apim-Subscription-Key") != self.api_key:
            return self.refusal(401, request)
        if request.content_type != "application/ssml+xml":
            return self.refusal(415, request)
        audio_format = _FORMATS.get(request.headers.get("X-Microsoft-OutputFormat", ""))
        ssml = await request.read()
        try:
            script = self.read(ssml)
        except ValueError as exc:
            return web.Response(status=400, text=str(exc))
        if audio_format is None or not 0 < len(request.headers.get("User-Agent", "")) < 255:
            return self.refusal(400, request)
        number = self._said(script, ssml)
        if self.first_audio_s:
            await asyncio.sleep(self.first_audio_s)
        audio = self.audio(script.text, number=number, audio_format=audio_format)
        size = audio_format.size(self.chunk_ms)
        async with self.stream(request, headers={"Content-Type": "audio/basic"}) as body:
            try:
                for at in range(0, len(audio), size):
                    await body.write(audio[at : at + size])
                    await asyncio.sleep(self.chunk_ms / 1000 / self.speed)
            except asyncio.CancelledError:
                self.disconnected += 1
                self.changed()
                raise
        return body.response

    # The WebSocket.

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Ocp-Apim-Subscription-Key") != self.api_key:
            return self.refusal(401, request)
        async with self.websocket(request, protocols=("USP",)) as socket:
            context: dict[str, Any] = {}
            async for data in socket:
                message = parse_usp(data)
                if message.path == "synthesis.context":
                    context = msgspec.json.decode(message.body)["synthesis"]["audio"]
                elif message.path == "ssml" and not await self._speak(socket, message, context):
                    break
        return socket.response

    async def _speak(self, socket: EmulatorSocket, message: USPMessage, context: dict[str, Any]) -> bool:
        """Answer one request; ``False``: the connection was closed instead."""
        try:
            script = self.read(message.body)
            audio_format = _FORMATS[context["outputFormat"]]
        except (ValueError, KeyError) as exc:
            await socket.close(1007, str(exc))
            return False
        number = self._said(script, message.body)
        request_id, stream_id = message.request_id, uuid4().hex.upper()

        async def tell(path: str, body: Any) -> None:
            await socket.send(usp_text(path, msgspec.json.encode(body).decode(), request_id=request_id))

        service = {"serviceTag": uuid4().hex}
        await tell("turn.start", {"context": service})
        await tell("response", {"context": service, "audio": {"type": "inline", "streamId": stream_id}})
        if context["metadataOptions"].get("wordBoundaryEnabled") in (True, "true"):
            for boundary in self._boundaries(script.text):
                await tell("audio.metadata", {"Metadata": [boundary]})
        head = usp_head("audio", request_id=request_id, stream_id=stream_id, content_type="audio/basic")
        audio = self.audio(script.text, number=number, audio_format=audio_format)
        size = audio_format.size(self.chunk_ms)
        for at in range(0, len(audio), size):
            await socket.send(head + audio[at : at + size])
            await asyncio.sleep(self.chunk_ms / 1000 / self.speed)
        await socket.send(head)
        await tell("turn.end", {})
        return True

    def _boundaries(self, text: str) -> Iterable[dict[str, Any]]:
        at = 0
        for word in text.split():
            at = text.index(word, at)
            yield {
                "Type": "WordBoundary",
                "Data": {
                    "Offset": round(at * self.ms_per_char * TICKS_PER_MS),
                    "Duration": round(len(word) * self.ms_per_char * TICKS_PER_MS),
                    "text": {"Text": word, "Length": len(word), "BoundaryType": "WordBoundary"},
                },
            }
            at += len(word)
