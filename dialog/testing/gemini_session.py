"""One session of the Gemini Live API, as its emulator keeps it: the caller, the conversation, the model's turns."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode, b64encode
from collections import deque
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import msgspec

from dialog.message import PCM_24K
from dialog.testing.hearing import Ear
from dialog.testing.model import TOOL_NAME
from dialog.testing.realtime_session import TalkItem
from dialog.testing.server import EmulatorSocket
from dialog.testing.tone import tone

if TYPE_CHECKING:
    from dialog.testing.gemini import GeminiLiveEmulator
    from dialog.testing.s2s import RealtimeReply

__all__ = ["GeminiSession", "Refusal", "camel"]

_NOTHING = "."
"""What clients send that only want an answer."""
_STANDARD = str.maketrans("-_", "+/")
"""Bytes come in the alphabet of URLs, too: the SDK writes them so."""
_ORDER = re.compile(r"^Say the following\b")
_OPAQUE = frozenset({"parameters", "parametersJsonSchema", "args", "response"})
"""Whose fields are the client's own."""
_SETUP = frozenset(
    {
        "model", "generationConfig", "systemInstruction", "tools", "realtimeInputConfig", "sessionResumption",
        "contextWindowCompression", "inputAudioTranscription", "outputAudioTranscription", "proactivity",
        "historyConfig", "safetySettings",
    }
)  # fmt: skip
_HANDLINGS = ("ACTIVITY_HANDLING_UNSPECIFIED", "START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION")


class Refusal(Exception):
    """The service closes the connection, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def camel(fields: Any) -> Any:
    """A message with its fields as the service writes them; it reads both ``camelCase`` and ``snake_case``."""
    if isinstance(fields, list):
        return [camel(each) for each in fields]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(fields, dict):
        return fields
    named: dict[str, Any] = {}
    for name, value in cast("dict[str, Any]", fields).items():
        known = re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
        named[known] = value if known in _OPAQUE else camel(value)
    return named


class _Turn:
    """A turn that the model makes."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.task: asyncio.Task[None] | None = None
        self.item: TalkItem | None = None
        self.calls: dict[str, TalkItem] = {}
        """Tools that it waits for."""
        self.answered: asyncio.Event = asyncio.Event()
        self.audio_ms: float = 0.0
        self.interrupted: bool = False


class GeminiSession:
    """Messages in, messages out by the socket; the model's turns are made by a task each, one after the other."""

    def __init__(self, emulator: GeminiLiveEmulator, socket: EmulatorSocket) -> None:
        self.emulator = emulator
        self.setup: dict[str, Any] = {}
        """The client's settings."""
        self.items: list[TalkItem] = []
        self.handle = ""
        """What this session was resumed by."""
        self._socket = socket
        self._ear = Ear(emulator, "s16le", 16_000)
        self._seeding = False
        self._active = False
        """Manual turns: the caller speaks."""
        self._told_words = 0
        self._told_start = False
        self._turn: _Turn | None = None
        self._next: deque[str] = deque()
        """Turns that wait for the one that is made; what each is ordered to say."""

    # What it was set up with.

    @property
    def instructions(self) -> str:
        """The prompt."""
        return "".join(part["text"] for part in self.setup.get("systemInstruction", {}).get("parts", ()))

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Declarations of the tools."""
        return [each for tool in self.setup.get("tools", ()) for each in tool.get("functionDeclarations", ())]

    @property
    def _detection(self) -> dict[str, Any]:
        detection: dict[str, Any] = self.setup.get("realtimeInputConfig", {}).get("automaticActivityDetection", {})
        return detection

    @property
    def manual(self) -> bool:
        """Whether the client tells when the caller speaks."""
        return bool(self._detection.get("disabled"))

    @property
    def interruptible(self) -> bool:
        """Whether the caller's voice stops the model."""
        handling: str = self.setup.get("realtimeInputConfig", {}).get("activityHandling", "")
        return handling != "NO_INTERRUPTION"

    # What the client says.

    async def receive(self, data: bytes | str) -> None:
        """Take in one message.

        Raises:
            Refusal: The service does not take it.
        """
        try:
            given = camel(msgspec.json.decode(data, type=dict[str, Any]))
            await self._take(given)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as exc:
            raise Refusal(1007, "Request contains an invalid argument.") from exc

    async def _take(self, given: dict[str, Any]) -> None:
        if len(given) != 1:
            raise Refusal(1007, "Invalid JSON payload received: one field must be set.")
        [(kind, fields)] = given.items()
        if kind == "setup":
            await self._set_up(fields)
        elif not self.setup:
            raise Refusal(1007, "setup must be the first message and only the first")
        elif kind == "realtimeInput":
            await self._hear(fields)
        elif kind == "clientContent":
            await self._told(fields)
        elif kind == "toolResponse":
            await self._answered(fields)
        else:
            raise Refusal(1007, f'Invalid JSON payload received. Unknown name "{kind}"')

    async def _set_up(self, setup: dict[str, Any]) -> None:
        if self.setup:
            raise Refusal(1007, "setup must be the first message and only the first")
        unknown = setup.keys() - _SETUP
        if unknown:
            raise Refusal(1007, f"Invalid JSON payload received. Unknown name \"{min(unknown)}\" at 'setup'")
        model = setup["model"].removeprefix("models/")
        if model not in self.emulator.models:
            reason = f"models/{model} is not found for API version v1beta, or is not supported for bidiGenerateContent"
            raise Refusal(1008, reason)
        if setup.get("generationConfig", {}).get("responseModalities") != ["AUDIO"]:
            raise Refusal(1007, "Cannot extract voices from a non-audio request.")
        if setup.get("realtimeInputConfig", {}).get("activityHandling", _HANDLINGS[0]) not in _HANDLINGS:
            raise ValueError("activityHandling")
        self.setup = setup
        if any(not TOOL_NAME.fullmatch(tool["name"]) for tool in self.tools):
            raise Refusal(1007, "Invalid function name.")
        self.handle = setup.get("sessionResumption", {}).get("handle") or ""
        if self.handle:
            if self.handle not in self.emulator.snapshots:
                raise Refusal(1007, "BidiGenerateContent session not found")
            self.items = list(self.emulator.snapshots[self.handle])
        self._seeding = bool(setup.get("historyConfig", {}).get("initialHistoryInClientContent"))
        if self._seeding and self.handle:
            self.emulator.violations.append("a history for a session that is resumed")
        await self._send({"setupComplete": {"sessionId": uuid4().hex}})

    async def _told(self, content: dict[str, Any]) -> None:
        turns = content.get("turns", [])
        order = ""
        for turn in turns:
            if turn.get("role", "user") not in ("user", "model") or any("text" not in part for part in turn["parts"]):
                raise Refusal(1007, "Please use a valid role: user, model.")
            text = "".join(part["text"] for part in turn["parts"])
            if _ORDER.match(text):
                order = text
            elif text != _NOTHING:
                self.items.append(TalkItem("message", "assistant" if turn.get("role") == "model" else "user", text))
        complete = bool(content.get("turnComplete"))
        if self._seeding:
            self._seeding = not complete  # nobody answers a history
            return
        await self._interrupt()
        if complete:
            if not turns:
                raise Refusal(1007, "Request contains an invalid argument.")
            self._respond(order)

    async def _hear(self, fields: dict[str, Any]) -> None:
        if self._seeding:
            self.emulator.violations.append("the caller is heard before the history")
        [(kind, value)] = fields.items()
        if kind == "audio":
            if value["mimeType"] != "audio/pcm;rate=16000":
                raise Refusal(1007, f"Unsupported MIME type {value['mimeType']}.")
            if self.manual and not self._active:
                self.emulator.violations.append("audio outside of an activity")
                return
            for _ in self._ear.feed(b64decode(value["data"].translate(_STANDARD), validate=True)):
                await self._listen()
        elif kind == "text":
            self.items.append(TalkItem("message", "user", value))
            await self._started()
            self._respond("")
        elif kind in ("activityStart", "activityEnd") and self.manual:
            if self._active is (kind == "activityStart"):
                self.emulator.violations.append(f"{kind} twice")
            self._active = kind == "activityStart"
            if self._active:
                await self._started()
            else:
                self._ear.cut_short()
                await self._finished()
        elif kind == "audioStreamEnd" and not self.manual:
            if self._ear.in_turn:
                await self._finished()
        else:
            raise Refusal(1007, "Explicit activity control is not supported when automatic activity detection is on.")

    async def _listen(self) -> None:
        ear = self._ear
        if not ear.in_turn:
            return
        if not self._told_start and not self.manual:
            self._told_start = True
            await self._started()
        await self._transcribe(ear.text().split())
        if not self.manual and not ear.speaking and ear.quiet_s * 1000 >= self._detection.get("silenceDurationMs", 800):
            await self._finished()

    async def _started(self) -> None:
        """The caller begins."""
        if self.interruptible:
            await self._interrupt()

    async def _finished(self) -> None:
        """The caller is done."""
        text = self._ear.text()
        self._ear.end_turn()
        self.items.append(TalkItem("message", "user", text))
        words = text.split()
        if self.emulator.transcribe_s:
            self._socket.start(self._trail(words), "transcription")
        else:
            await self._transcribe(words)
        if self.emulator.unintelligible > 0:
            self.emulator.unintelligible -= 1
        self._told_words, self._told_start = 0, False
        if self.emulator.ignores > 0:
            self.emulator.ignores -= 1
            await self._send({"serverContent": {"turnComplete": True, "waitingForInput": True}})
        else:
            self._respond("")

    async def _trail(self, words: list[str]) -> None:
        await asyncio.sleep(self.emulator.transcribe_s)
        await self._send({"serverContent": {"inputTranscription": {"text": " ".join(words), "finished": True}}})

    async def _transcribe(self, words: list[str]) -> None:
        if "inputAudioTranscription" not in self.setup or self.emulator.unintelligible or self.emulator.transcribe_s:
            return
        for number in range(self._told_words, len(words)):
            text = words[number] if not number else f" {words[number]}"
            await self._send({"serverContent": {"inputTranscription": {"text": text}}})
        self._told_words = max(self._told_words, len(words))

    # What the model makes.

    def _respond(self, order: str) -> None:
        self._next.append(order)
        self._go_on()

    def _go_on(self) -> None:
        if self._turn is None and self._next:
            self._turn = turn = _Turn(self._next.popleft())
            turn.task = self._socket.start(self._make(turn), "turn")

    async def _interrupt(self) -> None:
        """Stop what is made, and what was to be made."""
        self._next.clear()
        turn = self._turn
        if turn is None or turn.task is None:
            return
        self._turn = None
        turn.task.cancel()
        await asyncio.gather(turn.task, return_exceptions=True)
        if turn.calls:
            await self._send({"toolCallCancellation": {"ids": list(turn.calls)}})
        await self._send({"serverContent": {"interrupted": True}})
        await self._end(turn)

    async def _make(self, turn: _Turn) -> None:
        thought = {"text": "The caller wants an answer.", "thought": True}
        await self._send({"serverContent": {"modelTurn": {"parts": [thought]}}})
        if self.emulator.stalling > 0:
            self.emulator.stalling -= 1
            self.emulator.changed()
            await asyncio.Event().wait()
        while True:
            reply = self.emulator.reply_to(self, turn.order)
            await self._say(turn, reply)
            if not reply.tools:
                break
            await self._call(turn, reply)
            turn.order = ""
        await self._send({"serverContent": {"generationComplete": True}})
        await asyncio.sleep(self.emulator.playback_s)
        self._turn = None
        await self._end(turn)
        if "sessionResumption" in self.setup:
            handle = f"handle-{len(self.emulator.snapshots)}"
            self.emulator.snapshots[handle] = list(self.items)
            await self._send({"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}})
        self._go_on()

    async def _end(self, turn: _Turn) -> None:
        await self._send({"serverContent": {"turnComplete": True}, "usageMetadata": self._usage(turn)})

    async def _say(self, turn: _Turn, reply: RealtimeReply) -> None:
        if not reply.text:
            return
        emulator = self.emulator
        turn.item = item = TalkItem("message", "assistant")
        self.items.append(item)
        audio = tone(reply.text, PCM_24K, ms_per_char=emulator.ms_per_char)
        step = PCM_24K.size(emulator.chunk_ms)
        words = reply.text.split(" ")
        chunks = max(1, -(-len(audio) // step))
        said = 0
        for number in range(chunks):
            until = round(len(words) * (number + 1) / chunks)
            if until > said:
                text = " ".join(words[said:until])
                text = text if not said else f" {text}"
                item.text += text
                said = until
                if "outputAudioTranscription" in self.setup:
                    await self._send({"serverContent": {"outputTranscription": {"text": text}}})
            data = audio[number * step : (number + 1) * step]
            item.audio_ms += PCM_24K.ms(len(data))
            turn.audio_ms += PCM_24K.ms(len(data))
            blob = {"mimeType": "audio/pcm;rate=24000", "data": b64encode(data).decode()}
            await self._send({"serverContent": {"modelTurn": {"parts": [{"inlineData": blob}]}}})
            await asyncio.sleep(emulator.chunk_s)

    async def _call(self, turn: _Turn, reply: RealtimeReply) -> None:
        turn.answered.clear()
        calls: list[dict[str, Any]] = []
        for tool in reply.tools:
            call_id = tool.id or f"function-call-{uuid4().int % 10**12}"
            args = msgspec.json.decode(tool.text(), type=dict[str, Any])
            turn.calls[call_id] = TalkItem("function_call", name=tool.name, call_id=call_id)
            calls.append({"id": call_id, "name": tool.name, "args": args})
        self.items += turn.calls.values()
        await self._send({"toolCall": {"functionCalls": calls}})
        await turn.answered.wait()

    async def _answered(self, fields: dict[str, Any]) -> None:
        turn = self._turn
        for answer in fields["functionResponses"]:
            call = turn.calls.pop(answer["id"], None) if turn is not None else None
            if call is None or answer["name"] != call.call["name"]:
                self.emulator.violations.append(f"an answer of a tool that nobody waits for: {answer['name']}")
                continue
            text = str(answer["response"]["output"])
            self.items.append(TalkItem("function_call_output", text=text, call_id=answer["id"]))
        if turn is not None and not turn.calls:
            turn.answered.set()

    def _usage(self, turn: _Turn) -> dict[str, Any]:
        text = sum(len(item.text.split()) for item in self.items)
        audio = round(turn.audio_ms / 40)
        counts: dict[str, tuple[str, dict[str, int]]] = {
            "prompt": ("promptTokenCount", {"TEXT": text + 3, "AUDIO": 20}),
            "cache": ("cachedContentTokenCount", {"TEXT": 3, "AUDIO": 5}),
            "response": ("responseTokenCount", {"AUDIO": audio}),
        }
        usage: dict[str, Any] = {"thoughtsTokenCount": 7, "totalTokenCount": text + 23 + audio + 7}
        for kind, (total, by_modality) in counts.items():
            usage[total] = sum(by_modality.values())
            details = [{"modality": modality, "tokenCount": count} for modality, count in by_modality.items()]
            usage[f"{kind}TokensDetails"] = details
        return usage

    async def _send(self, message: dict[str, Any]) -> None:
        # The service sends its JSON in binary frames.
        await self._socket.send(msgspec.json.encode(message))
