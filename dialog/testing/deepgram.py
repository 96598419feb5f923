"""An emulator of Deepgram's live transcription (``/v1/listen``) that hears what its script says.

::

    async with DeepgramEmulator(sentences=["a table for two", "goodbye"]) as deepgram:
        stt = DeepgramSTT(api_key=deepgram.api_key, base_url=deepgram.url)

It listens for energy: when speech is followed by silence, that was the next sentence of the script.
With ``spoken`` the script names the times instead; with ``transcribe`` a function (a real recogniser,
say) hears the audio. Time is audio time, as for the service: nothing here waits for a clock, except
the idle timer.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.audio.g711 import alaw_decode, mulaw_decode
from dialog.testing.hearing import Script
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults

__all__ = ["DeepgramEmulator", "Spoken"]

_WINDOW_S = 0.02
_LOUD = 400
"""Mean amplitude, of 32768, from which a window counts as speech."""
_ONSET_WINDOWS = 3
_IDLE_REASON = (
    "Deepgram did not receive audio data or a text message within the timeout window. See https://dpgr.am/net0001"
)
_MODEL_INFO = {"name": "general-nova-3", "version": "2025-07-31.0", "arch": "nova-3"}


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence at its place in the audio of a connection, in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(slots=True)
class _Speech:
    text: str
    start_s: float
    end_s: float | None = None
    told: int = 0
    """Words that were said in final segments."""


class DeepgramEmulator(Script, EmulatorServer):
    """Deepgram on loopback.

    Args:
        sentences: What is heard, one after another, over all connections; from the start again after the last.
            An empty one is a noise: speech starts, and no words come.
        spoken: What is heard at which time of a connection's audio, instead of ``sentences``.
        transcribe: Gets the audio of each stretch of speech, as it was sent, and says what was heard.
        api_key: The key that is accepted; every other one is refused with 401.
        interim_s: Audio between two interim results, which also come in silence, empty.
        segment_s: Longest segment; a longer utterance becomes final piece by piece.
        revise: Interims spell the last word otherwise than the final does.
        answer_finalize: Whether ``Finalize`` is answered; the service does not always.
        repeat_started: How often each ``SpeechStarted`` is sent.
        idle_s: Seconds without audio or KeepAlive until the connection is closed with 1011.
        faults: What goes wrong.
    """

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        spoken: Iterable[Spoken] = (),
        transcribe: Callable[[bytes], str] | None = None,
        api_key: str = "deepgram-test-key",
        interim_s: float = 1.0,
        segment_s: float | None = None,
        revise: bool = False,
        answer_finalize: bool = True,
        repeat_started: int = 1,
        idle_s: float = 10.0,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.spoken: list[Spoken] = sorted(spoken, key=lambda item: item.start_s)
        self.transcribe = transcribe
        self.api_key = api_key
        self.interim_s = interim_s
        self.segment_s = segment_s
        self.revise = revise
        self.answer_finalize = answer_finalize
        self.repeat_started = repeat_started
        self.idle_s = idle_s
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""

    def routes(self) -> Iterable[web.RouteDef]:
        """``GET /v1/listen``."""
        return [web.get("/v1/listen", self._listen)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """Deepgram's shape of a refusal: ``dg-error`` and a JSON body."""
        reason = {400: "Bad Request", 401: "Invalid credentials.", 429: "Too many requests"}.get(status, "Error")
        request_id = str(uuid4())
        return web.json_response(
            {"err_code": reason.upper().replace(" ", "_").strip("."), "err_msg": reason, "request_id": request_id},
            status=status,
            headers={"dg-error": reason, "dg-request-id": request_id},
        )

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme not in ("Token", "Bearer") or key != self.api_key:
            return self.refusal(401, request)
        try:
            recogniser = _Recogniser(self, dict(request.query))
        except ValueError as exc:
            self.violations.append(str(exc))
            return self.refusal(400, request)
        async with self.websocket(request, headers={"dg-request-id": recogniser.request_id}) as socket:
            while (data := await self._next(socket, recogniser)) is not None:
                for message in recogniser.receive(data):
                    await socket.send(message)
                if recogniser.closed:
                    await socket.close()
        return socket.response

    async def _next(self, socket: EmulatorSocket, recogniser: _Recogniser) -> bytes | str | None:
        try:
            return await socket.receive(self.idle_s)
        except TimeoutError:
            await socket.send(recogniser.metadata())
            await socket.close(1011, _IDLE_REASON)
            return None


class _Recogniser:
    """One connection: audio and commands in, messages out; no I/O."""

    def __init__(self, emulator: DeepgramEmulator, query: Mapping[str, str]) -> None:
        encoding, rate = query.get("encoding", ""), query.get("sample_rate", "")
        if encoding not in ("mulaw", "alaw", "linear16") or not rate.isdigit():
            raise ValueError(f"encoding {encoding!r} with sample_rate {rate!r}")
        if "model" not in query:
            raise ValueError("no model")
        self.interims = query.get("interim_results") == "true"
        self.utterance_end_s = float(query["utterance_end_ms"]) / 1000 if "utterance_end_ms" in query else None
        if self.utterance_end_s is not None and (self.utterance_end_s < 1.0 or not self.interims):
            raise ValueError("utterance_end_ms needs interim_results and at least 1000")
        endpointing = query.get("endpointing", "10")
        self.endpointing_s = None if endpointing == "false" else float(endpointing) / 1000
        self.vad_events = query.get("vad_events") == "true"
        self.diarizes = query.get("diarize") == "true"
        self.request_id = str(uuid4())
        self.closed = False
        self._emulator = emulator
        self._decode = {"mulaw": mulaw_decode, "alaw": alaw_decode}.get(encoding)
        self._rate = int(rate) * (1 if self._decode else 2)
        self._window = int(self._rate * _WINDOW_S)
        self._pending = b""
        self._audio = bytearray()
        self._bytes = 0
        self._segment_s = 0.0
        self._interim_at = emulator.interim_s
        self._loud = 0
        self._onset = b""
        self._quiet_s = 0.0
        self._speech: _Speech | None = None
        self._ignore = False
        self._ended: tuple[float, float] | None = None
        self._script = list(emulator.spoken)

    @property
    def now_s(self) -> float:
        return self._bytes / self._rate

    def receive(self, data: bytes | str) -> list[dict[str, Any]]:
        if isinstance(data, str):
            return self._command(data)
        if not data:
            self._emulator.violations.append("an empty binary frame")
            return self._close()
        messages: list[dict[str, Any]] = []
        self._pending += data
        while len(self._pending) >= self._window:
            window, self._pending = self._pending[: self._window], self._pending[self._window :]
            self._bytes += self._window
            messages += self._hear(window)
        return messages

    def metadata(self) -> dict[str, Any]:
        heard = self._bytes > 0
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": "0" * 64 if heard else "incomplete",
            "created": "2026-01-01T00:00:00.000Z",
            "duration": self.now_s,
            "channels": 1,
            **({"models": [self.request_id], "model_info": {self.request_id: _MODEL_INFO}} if heard else {}),
        }

    def _command(self, text: str) -> list[dict[str, Any]]:
        try:
            kind = msgspec.json.decode(text, type=dict[str, Any]).get("type")
        except msgspec.DecodeError:
            kind = None
        if kind == "KeepAlive":
            return []
        if kind == "Finalize":
            if self._speech is None and not self._emulator.answer_finalize:
                return []
            return self._final(speech_final=False, from_finalize=True) if self._emulator.answer_finalize else []
        if kind == "CloseStream":
            return self._close()
        if kind == "Configure":
            return [{"type": "ConfigureSuccess", "request_id": self.request_id}]
        self._emulator.violations.append("text that is no command")
        description = "Could not deserialize last text message"
        return [{"type": "Error", "variant": "SchemaError", "description": description, "message": description}]

    def _close(self) -> list[dict[str, Any]]:
        self.closed = True
        return [*(self._final(speech_final=False) if self._speech else []), self.metadata()]

    def _hear(self, window: bytes) -> list[dict[str, Any]]:
        messages = self._scripted() if self._emulator.spoken else self._by_energy(window)
        speech = self._speech
        if speech is not None and speech.end_s is not None:
            silence = self.now_s - speech.end_s
            wait = self.endpointing_s if self.endpointing_s is not None else 0.5
            if silence >= wait:
                messages += self._final(speech_final=self.endpointing_s is not None)
        limit = self._emulator.segment_s
        if limit is not None and self._speech is not None and self.now_s - self._segment_s >= limit:
            messages += self._final(speech_final=False, whole=False)
        if self._ended is not None and self.utterance_end_s is not None and self._speech is None:
            last_word_end, _ = self._ended
            if self.now_s - last_word_end >= self.utterance_end_s:
                self._ended = None
                messages.append({"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": round(last_word_end, 3)})
        if self.now_s >= self._interim_at:
            self._interim_at = self.now_s + self._emulator.interim_s
            if self.interims:
                messages.append(self._results(self._words(self.now_s, revise=self._emulator.revise), final=False))
            if self._speech is None and self.now_s - self._segment_s >= 3.0:
                messages.append(self._results([], final=True, speech_final=self.endpointing_s is not None))
        return messages

    def _scripted(self) -> list[dict[str, Any]]:
        speech = self._speech
        if speech is None and self._script and self.now_s >= self._script[0].start_s:
            item = self._script.pop(0)
            return self._begin(_Speech(item.text, item.start_s, item.end_s))
        return []

    def _by_energy(self, window: bytes) -> list[dict[str, Any]]:
        pcm = array("h", self._decode(window) if self._decode else window)
        loud = sum(map(abs, pcm[::4])) * 4 > _LOUD * len(pcm)
        self._onset = (self._onset + pcm.tobytes())[-_ONSET_WINDOWS * 2 * len(pcm) :] if loud else b""
        self._quiet_s = 0.0 if loud else self._quiet_s + _WINDOW_S
        self._loud = self._loud + 1 if loud else 0
        speech = self._speech
        if speech is None:
            if self._ignore and self._quiet_s >= 0.1:
                self._ignore = False  # what was finalised early is over
            if self._loud < _ONSET_WINDOWS or self._ignore:
                self._audio[: max(0, len(self._audio) - 10 * self._window)] = b""
                self._audio += window
                return []
            self._audio += window
            text = "" if self._emulator.transcribe else self._emulator.sentence(self._onset)
            return self._begin(_Speech(text, self.now_s - _ONSET_WINDOWS * _WINDOW_S))
        self._audio += window
        if loud:
            speech.end_s = None
        elif speech.end_s is None and self._quiet_s >= 0.1:
            speech.end_s = self.now_s - self._quiet_s
        return []

    def _begin(self, speech: _Speech) -> list[dict[str, Any]]:
        self._speech = speech
        self._ended = None
        started = {"type": "SpeechStarted", "channel": [0, 1], "timestamp": round(speech.start_s, 3)}
        return [started] * self._emulator.repeat_started if self.vad_events else []

    def _words(self, until_s: float | None, *, revise: bool = False) -> list[dict[str, Any]]:
        """The words of the speech that are not final yet, as far as they were said."""
        speech = self._speech
        if speech is None:
            return []
        texts = speech.text.split()
        end = speech.end_s if speech.end_s is not None else max(self.now_s, speech.start_s + 0.3 * len(texts))
        each = (end - speech.start_s) / max(1, len(texts))
        words: list[dict[str, Any]] = []
        for index, text in enumerate(texts[speech.told :], speech.told):
            start = speech.start_s + index * each
            if until_s is not None and start + each > until_s + 1e-6:
                break
            words.append(
                {
                    "word": text.lower().strip(".,!?"),
                    "start": round(start, 3),
                    "end": round(start + each, 3),
                    "confidence": 0.98,
                    "punctuated_word": text,
                    **({"speaker": self._emulator.who(text)} if self.diarizes else {}),
                }
            )
        if revise and words:
            words[-1]["word"] = words[-1]["punctuated_word"] = words[-1]["word"][:-1] + "x"
        return words

    def _final(self, *, speech_final: bool, from_finalize: bool = False, whole: bool = True) -> list[dict[str, Any]]:
        speech = self._speech
        if speech is not None and whole and self._emulator.transcribe is not None:
            speech.text = self._emulator.transcribe(bytes(self._audio))
            self._audio.clear()
        if speech is not None and from_finalize and speech.end_s is None:
            speech.end_s = self.now_s
            self._ignore = True
        words = self._words(None if whole else self.now_s)
        if speech is not None:
            speech.told += len(words)
            if words:
                self._ended = (words[-1]["end"], self.now_s)
            if whole:
                self._speech = None
                self._emulator.said += 1
                self._emulator.changed()
        return [self._results(words, final=True, speech_final=speech_final, from_finalize=from_finalize)]

    def _results(
        self, words: list[dict[str, Any]], *, final: bool, speech_final: bool = False, from_finalize: bool = False
    ) -> dict[str, Any]:
        start = self._segment_s
        if final:
            self._segment_s = self.now_s
        transcript = " ".join(word["punctuated_word"] for word in words)
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(self.now_s - start, 4),
            "start": round(start, 4),
            "is_final": final,
            "speech_final": speech_final,
            "from_finalize": from_finalize,
            "channel": {
                "alternatives": [
                    {"transcript": transcript, "confidence": 0.98 if words else 0.0, "words": words},
                ]
            },
            "metadata": {"request_id": self.request_id, "model_info": _MODEL_INFO, "model_uuid": self.request_id},
        }
