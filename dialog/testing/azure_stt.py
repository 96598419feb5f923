"""An emulator of Azure's continuous recognition (``/stt/speech/universal/v2``) that hears what its script says.

::

    async with AzureSTTEmulator(sentences=["a table for two"]) as azure:
        stt = AzureSTT(api_key=azure.api_key, base_url=azure.url)

Source: what Azure's Speech SDK 1.53 sends and takes, and Microsoft's description of the Speech WebSocket protocol.
"""

from __future__ import annotations

import string
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
from aiohttp import web

from dialog.net.azure import TICKS_PER_MS, USPMessage, parse_usp, usp_text
from dialog.testing.hearing import Ear, Script
from dialog.testing.server import EmulatorServer, EmulatorSocket, Faults

__all__ = ["AzureSTTEmulator"]

_ENCODINGS = {(1, 16): "s16le", (6, 8): "alaw", (7, 8): "mulaw"}
_MAX_AUDIO = 8192


class AzureSTTEmulator(Script, EmulatorServer):
    """Azure's recognition on loopback. A client that breaks the protocol is closed with 1002 or 1007.

    Args:
        sentences: What is heard; see :class:`~dialog.testing.hearing.Script`.
        api_key: The key that is accepted; every other one is refused with 401.
        update_s: Audio between two hypotheses.
        phrase_turns: A phrase ends the service's turn (``speech.endDetected``); the client begins another one.
        answer_end: Whether a turn whose audio has ended is ended.
        faults: What goes wrong.
    """

    unknown: ClassVar[str] = usp_text("speech.somethingNew", '{"Level":3,"Items":[{"A":null}]}', request_id="0" * 32)

    def __init__(
        self,
        *,
        sentences: Sequence[str] = ("hello",),
        hears: Callable[[bytes], str] | None = None,
        api_key: str = "azure-test-key",
        update_s: float = 0.3,
        phrase_turns: bool = False,
        answer_end: bool = True,
        port: int = 0,
        faults: Faults | None = None,
    ) -> None:
        super().__init__(port=port, faults=faults)
        self.sentences = list(sentences)
        self.hears = hears
        self.api_key = api_key
        self.update_s = update_s
        self.phrase_turns = phrase_turns
        self.answer_end = answer_end
        self.contexts: list[dict[str, Any]] = []
        """What the turns of clients were set to, oldest first."""
        self.telemetry: list[dict[str, Any]] = []
        """What clients told of the turns that ended."""
        self.violations: list[str] = []
        """What clients did that the service forbids or punishes."""
        self._sessions: dict[EmulatorSocket, _Session] = {}

    def routes(self) -> Iterable[web.RouteDef]:
        """The one route."""
        return [web.get("/stt/speech/universal/v2", self._listen)]

    def refusal(self, status: int, request: web.Request) -> web.Response:  # noqa: ARG002
        """The service says little to its status."""
        reason = {401: "Access denied due to invalid subscription key or wrong API endpoint."}.get(status, "")
        return web.Response(status=status, text=reason)

    async def tell(self, path: str, **body: Any) -> None:
        """Send a message of this kind in the turn of every connection."""
        for socket, session in tuple(self._sessions.items()):
            await socket.send(session.message(path, **body))

    async def report(self, status: str) -> None:
        """Report this ``RecognitionStatus``, of an error for instance, on every connection."""
        await self.tell("speech.phrase", Id=uuid4().hex, RecognitionStatus=status, Offset=0, Duration=0)

    async def end_turns(self) -> None:
        """End the turn of every connection in the middle, which the service may do at any time."""
        for socket, session in tuple(self._sessions.items()):
            await socket.send(session.end_turn())

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Ocp-Apim-Subscription-Key") != self.api_key:
            return self.refusal(401, request)
        connection_id = request.headers.get("X-ConnectionId", "")
        if not _is_id(connection_id):
            self.violations.append(f"X-ConnectionId {connection_id!r}")
            return self.refusal(400, request)
        async with self.websocket(request, protocols=("USP",)) as socket:
            session = self._sessions[socket] = _Session(self)
            try:
                async for data in socket:
                    try:
                        for message in session.receive(data):
                            await socket.send(message)
                    except _ProtocolViolationError as exc:
                        self.violations.append(exc.reason)
                        await socket.close(exc.code, exc.reason)
                    self.changed()
            finally:
                del self._sessions[socket]
        return socket.response


class _ProtocolViolationError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Session:
    """One connection: messages in, messages out; no I/O."""

    def __init__(self, emulator: AzureSTTEmulator) -> None:
        self._emulator = emulator
        self._configured = False
        self._used: set[str] = set()
        self._turn: _Turn | None = None
        self._last_id = "0" * 32

    def message(self, path: str, **body: Any) -> str:
        """A message of the turn, or of the last one."""
        return usp_text(
            path,
            msgspec.json.encode(body).decode(),
            request_id=self._turn.request_id if self._turn is not None else self._last_id,
            content_type="application/json; charset=utf-8",
        )

    def receive(self, data: bytes | str) -> Iterator[str]:
        try:
            message = parse_usp(data)
        except ValueError as exc:
            raise _ProtocolViolationError(1007, str(exc)) from exc
        if message.path == "speech.config":
            self._configured = "context" in _json(message)
        elif not self._configured:
            raise _ProtocolViolationError(1002, f"{message.path} before speech.config")
        elif not _is_id(message.request_id):
            raise _ProtocolViolationError(1002, f"X-RequestId {message.request_id!r}")
        elif message.path == "speech.context":
            yield from self._begin(message)
        elif message.path == "audio":
            yield from self._audio(message)
        elif message.path == "telemetry":
            self._emulator.telemetry.append(_json(message))

    def end_turn(self) -> str:
        """The message that ends the turn; what the client still sends for it is ignored."""
        message = self.message("turn.end")
        if self._turn is not None:
            self._last_id = self._turn.request_id
        self._turn = None
        return message

    def _begin(self, message: USPMessage) -> Iterator[str]:
        if message.request_id in self._used or self._turn is not None:
            raise _ProtocolViolationError(1002, "a turn begins in another one, or again")
        self._used.add(message.request_id)
        context = _json(message)
        self._emulator.contexts.append(context)
        self._turn = _Turn(self._emulator, message.request_id, context)
        yield self.message("turn.start", context={"serviceTag": uuid4().hex})

    def _audio(self, message: USPMessage) -> Iterator[str]:
        turn = self._turn
        if turn is None or message.request_id != turn.request_id:
            if message.request_id not in self._used:
                raise _ProtocolViolationError(1002, "audio before speech.context")
            return  # the turn has ended in the meantime
        if isinstance(message.body, str) or len(message.body) > _MAX_AUDIO or "x-streamid" not in message.headers:
            raise _ProtocolViolationError(1007, "an audio message that is none, or too long")
        if message.headers.get("content-type") == "audio/x-wav":
            turn.hear_head(message.body)
            return
        for path, body in turn.hear(message.body):
            yield self.message(path, **body)
        if not message.body and self._emulator.answer_end:
            yield self.end_turn()


class _Turn:
    """What is heard from one ``speech.context`` to one ``turn.end``."""

    def __init__(self, emulator: AzureSTTEmulator, request_id: str, context: dict[str, Any]) -> None:
        detection, output = context.get("phraseDetection", {}), context.get("phraseOutput", {})
        segmentation = detection.get(detection.get("mode", ""), {}).get("segmentation", {})
        silence_ms = segmentation.get("segmentationSilenceTimeoutMs", 650)
        if not 100 <= silence_ms <= 5000 or "-" not in detection.get("language", "") or "audio" not in context:
            raise _ProtocolViolationError(1007, "a speech.context that the service does not take")
        self.request_id = request_id
        self._emulator = emulator
        self._silence_s = silence_ms / 1000
        self._detailed = output.get("format") == "Detailed"
        self._timed = "WordTimings" in output.get("detailed", {}).get("options", ())
        self._ear: Ear | None = None
        self._started = False
        self._ended = False
        """The client sends no more audio."""
        self._over = False
        """The service listens no more."""
        self._told = ""
        self._update_at = emulator.update_s

    def hear_head(self, head: bytes) -> None:
        if self._ear is not None or len(head) != 44 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
            raise _ProtocolViolationError(1007, "no header of a WAV file at the beginning of the audio")
        tag, channels, rate, byte_rate, align, bits = struct.unpack("<HHIIHH", head[20:36])
        encoding = _ENCODINGS.get((tag, bits))
        if encoding is None or channels != 1 or align != bits // 8 or byte_rate != rate * align:
            raise _ProtocolViolationError(1007, f"audio of the kind {tag} with {bits} bits")
        self._ear = Ear(self._emulator, encoding, rate)

    def hear(self, audio: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._ear is None or self._ended:
            raise _ProtocolViolationError(1007, "audio behind its end, or without the header of a WAV file")
        if not audio:
            self._ended = True
            yield from self._end(self._ear)
        elif not self._over:
            for _ in self._ear.feed(audio):
                yield from self._listen(self._ear)

    def _listen(self, ear: Ear) -> Iterator[tuple[str, dict[str, Any]]]:
        if not ear.in_turn or self._over:
            return
        if not self._started:
            self._started = True  # only the first speech of a turn is told of
            yield "speech.startDetected", {"Offset": _ticks(ear.start_s)}
        if not ear.speaking and ear.quiet_s >= self._silence_s:
            yield self._phrase(ear)
            if self._emulator.phrase_turns:
                self._over = True
                yield "speech.endDetected", {"Offset": _ticks(ear.now_s)}
        elif ear.now_s >= self._update_at:
            self._update_at = ear.now_s + self._emulator.update_s
            text = _lexical(ear.text())
            if text and text != self._told:
                self._told = text
                yield "speech.hypothesis", {"Id": uuid4().hex, "Text": text, **self._span(ear), "Channel": 0}

    def _end(self, ear: Ear) -> Iterator[tuple[str, dict[str, Any]]]:
        ear.cut_short()
        if ear.in_turn:
            yield self._phrase(ear)
        body = {"Id": uuid4().hex, "RecognitionStatus": "EndOfDictation", "Offset": _ticks(ear.now_s), "Duration": 0}
        if not self._over:  # else what came behind the end was not heard
            yield "speech.phrase", body
            yield "speech.endDetected", {"Offset": _ticks(ear.now_s)}

    def _phrase(self, ear: Ear) -> tuple[str, dict[str, Any]]:
        text, words = ear.text(), ear.words()
        body: dict[str, Any] = {"Id": uuid4().hex, "RecognitionStatus": "Success" if text else "NoMatch"}
        body |= self._span(ear)
        if text:
            body["DisplayText"] = text
        if text and self._detailed:
            best: dict[str, Any] = {"Confidence": 0.97, "Lexical": _lexical(text), "Display": text}
            best |= {"ITN": _lexical(text), "MaskedITN": _lexical(text)}
            if self._timed:
                best["Words"] = [
                    {
                        "Word": _lexical(word.text),
                        "Offset": _ticks(word.start_s),
                        "Duration": _ticks(word.end_s) - _ticks(word.start_s),
                        "Confidence": 0.97,
                    }
                    for word in words
                ]
            body["NBest"] = [best]
        ear.end_turn()
        self._told = ""
        return "speech.phrase", {**body, "Channel": 0}

    def _span(self, ear: Ear) -> dict[str, int]:
        words = ear.words()
        end_s = words[-1].end_s if words else ear.now_s
        return {"Offset": _ticks(ear.start_s), "Duration": _ticks(end_s) - _ticks(ear.start_s)}


def _ticks(seconds: float) -> int:
    return round(seconds * 1000 * TICKS_PER_MS)


def _lexical(text: str) -> str:
    """Words without what only writing has."""
    return " ".join(word.strip(string.punctuation) for word in text.lower().split())


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(sign in string.hexdigits for sign in text)


def _json(message: USPMessage) -> dict[str, Any]:
    try:
        return msgspec.json.decode(message.body, type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise _ProtocolViolationError(1007, f"{message.path} is no JSON") from exc
