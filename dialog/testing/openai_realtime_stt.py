"""An emulator of OpenAI's realtime transcription (``/v1/realtime?intent=transcription``) that hears its script.

::

    async with OpenAIRealtimeSTTEmulator(sentences=["a table for two"]) as openai:
        stt = OpenAIRealtimeSTT(api_key=openai.api_key, base_url=openai.base_url)

Models with turn detection tell words when an utterance is over; ``gpt-live-transcribe`` and
``gpt-realtime-whisper`` tell them while they are said, and wait for a commit.

Source: OpenAI's API reference of realtime transcription sessions (general availability), and its SDK 3.52.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.testing.hearing import Ear, Script
from dialog.testing.server import EmulatorServer, Faults

__all__ = ["OpenAIRealtimeSTTEmulator"]

_FORMATS = {"audio/pcmu": ("mulaw", 8000), "audio/pcma": ("alaw", 8000), "audio/pcm": ("s16le", 24_000)}
_STREAMING = ("gpt-live-transcribe", "gpt-realtime-whisper")
_MODELS = (
    *_STREAMING,
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-transcribe-diarize",
    "whisper-1",
)
_PATIENCE_S = {"high": 0.3, "medium": 0.5, "auto": 0.5, "low": 0.8}
_LEAST_MS = 100
_BETA = "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API."


class OpenAIRealtimeSTTEmulator(Script, EmulatorServer):
    """OpenAI's realtime transcription on loopback.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        api_key: The key that is accepted; every other one is refused with 401.
        session_s: When sessions end, as ``session.created`` tells it.
        answer_commit: Whether a commit of the client's is answered.
        failing: So many utterances cannot be transcribed.
        out_of_order: Every second utterance is finished before the one ahead of it.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        api_key: str = "openai-test-key",
        session_s: float = 3600.0,
        answer_commit: bool = True,
        failing: int = 0,
        out_of_order: bool = False,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.api_key = api_key
        self.session_s = session_s
        self.answer_commit = answer_commit
        self.failing = failing
        self.out_of_order = out_of_order
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    @property
    def base_url(self) -> str:
        """Its address with the version, as clients want it."""
        return f"{self.url}/v1"

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v1/realtime``."""
        return [web.get("/v1/realtime", self._listen)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service's shape of a refusal."""
        code = {400: "invalid_request", 401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status, "server_error")
        error = {"message": f"{code} ({status})", "type": "invalid_request_error", "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

    async def tell(self, code: str, *, kind: str = "invalid_request_error", close: int = 0) -> None:
        """Send this error on every connection, and close it with the code ``close`` if there is one."""
        for socket in tuple(self.sockets):
            await socket.send(_error(code, code, kind=kind))
            if close:
                await socket.close(close, f"{kind}.{code}")

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.refusal(401, request)
        if request.query.get("intent") != "transcription":
            self.violations.append("no intent=transcription")
            return self.refusal(400, request)
        session = _Session(self)
        async with self.websocket(request) as socket:
            if request.headers.get("OpenAI-Beta"):
                await socket.send(_error("beta_api_shape_disabled", _BETA))
                await socket.close(4000, "invalid_request_error.beta_api_shape_disabled")
            elif "model" in request.query:
                await socket.send(_error("invalid_model", "You must not provide a model parameter."))
                await socket.close(4000, "invalid_request_error.invalid_model")
            else:
                await socket.send(session.created())
            async for data in socket:
                for message in session.receive(data):
                    await socket.send(message)
                self.changed()
        return socket.response


def _event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": f"event_{uuid4().hex[:12]}", **fields}


def _error(
    code: str, message: str, *, kind: str = "invalid_request_error", event_id: str | None = None
) -> dict[str, Any]:
    return _event("error", error={"type": kind, "code": code, "message": message, "param": None, "event_id": event_id})


class _Session:
    """One connection: events in, events out; no I/O."""

    def __init__(self, emulator: OpenAIRealtimeSTTEmulator) -> None:
        self._emulator = emulator
        self._id = f"sess_{uuid4().hex[:12]}"
        self._format: dict[str, Any] = {"type": "audio/pcm", "rate": 24_000}
        self._transcription: dict[str, Any] | None = None
        self._detection: dict[str, Any] | None = {"type": "server_vad"}
        self._ear = Ear(emulator, "s16le", 24_000)
        self._item = ""
        """The utterance that is being said, once the client knows of it."""
        self._previous: str | None = None
        self._told = ""
        self._committed_s = 0.0
        self._late: list[dict[str, Any]] = []

    def created(self) -> dict[str, Any]:
        """The first event."""
        return _event("session.created", session=self._session())

    def _session(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": int(time.time() + self._emulator.session_s),
            "audio": {
                "input": {
                    "format": self._format,
                    "transcription": self._transcription,
                    "noise_reduction": None,
                    "turn_detection": self._detection,
                }
            },
            "include": None,
        }

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        event: dict[str, Any] = {}
        try:
            event = msgspec.json.decode(data, type=dict[str, Any])
            return self._take(event if isinstance(data, str) else {"type": "binary"})
        except ValueError as exc:  # also what cannot be decoded
            self._emulator.violations.append(str(exc))
            return [_error("invalid_event", str(exc), event_id=event.get("event_id"))]

    def _take(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        kind = event.get("type")
        if kind == "input_audio_buffer.append":
            if self._transcription is None:
                raise ValueError("audio before the session was set up")
            audio = b64decode(event["audio"], validate=True)
            return [message for _ in self._ear.feed(audio) for message in self._hear()]
        if kind == "input_audio_buffer.commit":
            if (self._ear.now_s - self._committed_s) * 1000 < _LEAST_MS:
                code = "input_audio_buffer_commit_empty"
                return [
                    _error(code, "buffer too small. Expected at least 100ms of audio", event_id=event.get("event_id"))
                ]
            return self._commit() if self._emulator.answer_commit else []
        if kind == "session.update":
            return self._configure(event)
        if kind == "input_audio_buffer.clear":
            self._ear.end_turn()
            return [_event("input_audio_buffer.cleared")]
        raise ValueError(f"an event of the type {kind!r}")

    def _configure(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        session = event["session"]
        if session.get("type") != "transcription":
            raise ValueError("a session that is no transcription")
        given = session.get("audio", {}).get("input", {})
        audio_format = given.get("format", self._format)
        transcription: dict[str, Any] = given.get("transcription", self._transcription) or {}
        detection = given.get("turn_detection", self._detection)
        if audio_format.get("type") not in _FORMATS or audio_format.get("rate", 24_000) != 24_000:
            raise ValueError(f"the format {audio_format}")
        model = transcription.get("model")
        if model not in _MODELS:
            message = f"Invalid value: {model!r}"
            return [_error("invalid_value", message, event_id=event.get("event_id"))]
        if model in _STREAMING and detection is not None:
            raise ValueError(f"turn detection with {model}")
        if "language" in transcription and "languages" in transcription:
            raise ValueError("language and languages")
        if detection is not None:
            _check(detection)
        if audio_format != self._format:
            self._ear = Ear(self._emulator, *_FORMATS[audio_format["type"]])
        self._format, self._transcription, self._detection = audio_format, transcription, detection
        return [_event("session.updated", session=self._session())]

    @property
    def _streams(self) -> bool:
        return self._transcription is not None and self._transcription["model"] in _STREAMING

    def _hear(self) -> list[dict[str, Any]]:
        ear, detection = self._ear, self._detection
        if not ear.in_turn:
            return []
        if detection is None:
            return self._delta(ear.text()) if self._streams else []
        if not self._item:
            self._item = _item_id()
            start_ms = max(0, round(ear.start_s * 1000) - detection.get("prefix_padding_ms", 300))
            return [_event("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=self._item)]
        if detection["type"] == "server_vad":
            wait_s = detection.get("silence_duration_ms", 500) / 1000
        else:
            wait_s = _PATIENCE_S[detection.get("eagerness", "auto")]
        if ear.speaking or ear.quiet_s < wait_s:
            return []
        end_ms = round(ear.now_s * 1000)
        stopped = _event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=self._item)
        return [stopped, *self._commit()]

    def _delta(self, text: str) -> list[dict[str, Any]]:
        if len(text) <= len(self._told):
            return []
        delta, self._told = text[len(self._told) :], text
        self._item = self._item or _item_id()
        return [self._transcribed("delta", self._item, delta=delta, logprobs=None)]

    def _transcribed(self, kind: str, item: str, **fields: Any) -> dict[str, Any]:
        kind = f"conversation.item.input_audio_transcription.{kind}"
        return _event(kind, item_id=item, content_index=0, **fields)

    def _commit(self) -> list[dict[str, Any]]:
        item = self._item = self._item or _item_id()
        ear = self._ear
        ear.cut_short()
        words = ear.words()
        content = [{"type": "input_audio", "transcript": None}]
        added = {"id": item, "object": "realtime.item", "type": "message", "status": "completed", "role": "user"}
        events = [_event("input_audio_buffer.committed", previous_item_id=self._previous, item_id=item)]
        for kind in ("added", "done"):
            about = {"previous_item_id": self._previous, "item": {**added, "content": content}}
            events.append(_event(f"conversation.item.{kind}", **about))
        for index in range(len(words)):
            events += self._delta(" ".join(word.text for word in words[: index + 1]))
        if self._transcription and self._transcription["model"].endswith("-diarize"):
            for word in words:
                about = {"id": f"seg_{uuid4().hex[:8]}", "speaker": chr(65 + self._emulator.who(word.text))}
                times = {"start": word.start_s - ear.start_s, "end": word.end_s - ear.start_s}
                events.append(self._transcribed("segment", item, text=word.text, **about, **times))
        end = self._end(item, ear.text())
        ear.end_turn()
        self._previous, self._item, self._told = item, "", ""
        self._committed_s = ear.now_s
        if self._emulator.out_of_order and not self._late:
            self._late = [end]
            return events
        late, self._late = self._late, []
        return [*events, end, *late]

    def _end(self, item: str, text: str) -> dict[str, Any]:
        if self._emulator.failing > 0:
            self._emulator.failing -= 1
            error = {"type": "server_error", "code": "audio_unintelligible", "message": "no transcript", "param": None}
            return self._transcribed("failed", item, error=error)
        usage = {"type": "duration", "seconds": round(self._ear.now_s - self._committed_s, 1)}
        return self._transcribed("completed", item, transcript=text, usage=usage)


def _item_id() -> str:
    return f"item_{uuid4().hex[:12]}"


def _check(detection: dict[str, Any]) -> None:
    kind = detection.get("type")
    known = {"server_vad": {"threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"}}
    allowed = known.get(cast("str", kind), {"eagerness"})
    if kind not in ("server_vad", "semantic_vad") or detection.keys() - {"type", *allowed}:
        raise ValueError(f"the turn detection {detection}")
    if not 0.0 <= detection.get("threshold", 0.5) <= 1.0 or detection.get("eagerness", "auto") not in _PATIENCE_S:
        raise ValueError(f"the turn detection {detection}")
