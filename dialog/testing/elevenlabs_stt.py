"""An emulator of ElevenLabs' Scribe realtime (``/v1/speech-to-text/realtime``) that hears what its script says.

::

    async with ElevenLabsSTTEmulator(sentences=["a table for two"]) as elevenlabs:
        stt = ElevenLabsSTT(api_key=elevenlabs.api_key, base_url=elevenlabs.url)

Source: ElevenLabs' API reference of the realtime speech-to-text WebSocket, seen November 2026, and its SDK 2.78.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.testing.hearing import Ear, Script
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults

__all__ = ["ElevenLabsSTTEmulator"]

_RATES = (8000, 16_000, 22_050, 24_000, 44_100, 48_000)
_FORMATS = {"ulaw_8000": ("mulaw", 8000), **{f"pcm_{rate}": ("s16le", rate) for rate in _RATES}}


class ElevenLabsSTTEmulator(Script, EmulatorServer):
    """ElevenLabs' speech to text on loopback.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        api_key: The key that is accepted; every other one is refused with 401.
        update_s: Audio between two partial transcripts.
        idle_s: Without a message for so long the connection is closed.
        answer_commit: Whether a commit of the client's is answered.
        times: Words are told with times where that was asked for.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        api_key: str = "elevenlabs-test-key",
        update_s: float = 0.25,
        idle_s: float = 15.0,
        answer_commit: bool = True,
        times: bool = True,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.api_key = api_key
        self.update_s = update_s
        self.idle_s = idle_s
        self.answer_commit = answer_commit
        self.times = times
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    def routes(self) -> Iterable[web.RouteDef]:
        """The one route."""
        return [web.get("/v1/speech-to-text/realtime", self._listen)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        kind = {400: "invalid_request", 401: "invalid_api_key", 429: "too_many_concurrent_requests"}.get(
            status, "error"
        )
        return web.json_response({"detail": {"status": kind, "message": f"{kind} ({status})"}}, status=status)

    async def tell(self, kind: str, reason: str = "", *, close: bool = True) -> None:
        """Send an error of this kind on every connection, and close it."""
        for socket in tuple(self.sockets):
            await socket.send({"message_type": kind, "error": reason or kind})
            if close:
                await socket.close(1000)

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if self.api_key not in (request.headers.get("xi-api-key"), query.get("token")):
            return self.refusal(401, request)
        try:
            session = _Session(self, {**query, "keyterms": query.getall("keyterms", [])})
        except ValueError as exc:
            self.violations.append(str(exc))
            return self.refusal(400, request)
        async with self.websocket(request) as socket:
            await socket.send(session.started())
            while (data := await self._next(socket)) is not None:
                for message in session.receive(data):
                    await socket.send(message)
                self.changed()
                if session.closed:
                    await socket.close()
        return socket.response

    async def _next(self, socket: EmulatorSocket) -> bytes | str | None:
        try:
            return await socket.receive(self.idle_s)
        except TimeoutError:
            await socket.send({"message_type": "insufficient_audio_activity", "error": "no audio came"})
            await socket.close()
            return None


class _Session:
    """One connection: messages in, messages out; no I/O."""

    def __init__(self, emulator: ElevenLabsSTTEmulator, query: Mapping[str, Any]) -> None:
        audio_format = query.get("audio_format", "pcm_16000")
        if audio_format not in _FORMATS:
            raise ValueError(f"audio_format {audio_format!r}")
        if not str(query.get("model_id", "")).startswith("scribe_"):
            raise ValueError(f"model_id {query.get('model_id')!r}")
        self._vad = query.get("commit_strategy", "manual") == "vad"
        self._end_s = float(query.get("vad_silence_threshold_secs", "1.5"))
        if not 0.3 <= self._end_s <= 3.0:
            raise ValueError(f"vad_silence_threshold_secs {self._end_s:g}")
        if len(query["keyterms"]) > 50 or any(len(term) > 20 for term in query["keyterms"]):
            raise ValueError("too many keyterms, or one that is too long")
        encoding, self._rate = _FORMATS[audio_format]
        self._ear = Ear(emulator, encoding, self._rate)
        self._emulator = emulator
        self._query = query
        self._times = "true" in (query.get("include_timestamps"), query.get("include_language_detection"))
        self._chunks = 0
        self._told = ""
        self._update_at = emulator.update_s
        self.closed = False

    def started(self) -> dict[str, Any]:
        """The first message."""
        config = {
            "sample_rate": self._rate,
            "audio_format": self._query.get("audio_format", "pcm_16000"),
            "language_code": self._query.get("language_code"),
            "commit_strategy": "vad" if self._vad else "manual",
            "vad_silence_threshold_secs": self._end_s,
            "vad_threshold": 0.4,
            "min_speech_duration_ms": 100,
            "min_silence_duration_ms": 100,
            "model_id": self._query["model_id"],
        }
        return {"message_type": "session_started", "session_id": uuid4().hex, "config": config}

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        try:
            chunk = self._chunk(data)
            audio = b64decode(chunk.get("audio_base_64", ""), validate=True)
        except ValueError as exc:  # also what cannot be decoded
            self._emulator.violations.append(str(exc))
            self.closed = True
            return [{"message_type": "input_error", "error": str(exc)}]
        self._chunks += 1
        messages = [message for _ in self._ear.feed(audio) for message in self._hear()]
        return messages + (self._commit() if chunk.get("commit") and self._emulator.answer_commit else [])

    def _chunk(self, data: bytes | str) -> dict[str, Any]:
        chunk = msgspec.json.decode(data, type=dict[str, Any])
        if isinstance(data, bytes) or chunk.get("message_type") != "input_audio_chunk":
            raise ValueError("a message that is no input_audio_chunk")
        if chunk.get("sample_rate", self._rate) != self._rate:
            raise ValueError(f"sample_rate {chunk['sample_rate']} in a session of {self._rate}")
        if self._chunks and chunk.get("previous_text"):
            raise ValueError("previous_text behind the first chunk")
        return chunk

    def _hear(self) -> list[dict[str, Any]]:
        ear = self._ear
        if not ear.in_turn:
            return []
        if self._vad and not ear.speaking and ear.quiet_s >= self._end_s:
            return self._commit()
        if ear.now_s < self._update_at:
            return []
        self._update_at = ear.now_s + self._emulator.update_s
        text = ear.text()
        if text == self._told and text:
            return []
        self._told = text  # a partial of nothing comes too
        return [{"message_type": "partial_transcript", "text": text}]

    def _commit(self) -> list[dict[str, Any]]:
        ear = self._ear
        ear.cut_short()
        words, text = ear.words(), ear.text()
        ear.end_turn()
        self._told = ""
        messages: list[dict[str, Any]] = [{"message_type": "committed_transcript", "text": text}]
        if self._times and self._emulator.times:
            who = self._emulator.who
            told = [
                {
                    "text": word.text,
                    "start": word.start_s,
                    "end": word.end_s,
                    "type": "word",
                    "speaker_id": f"speaker_{who(word.text)}",
                }
                for word in words
            ]
            messages.append(
                {
                    "message_type": "committed_transcript_with_timestamps",
                    "text": text,
                    "language_code": self._query.get("language_code") or "en",
                    "words": told if self._query.get("include_timestamps") == "true" else None,
                }
            )
        return messages
