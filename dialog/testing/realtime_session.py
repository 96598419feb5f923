"""One session of OpenAI's realtime protocol, as its emulators keep it: the caller, the conversation, the replies."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import msgspec

from dialog.message import AudioFormat
from dialog.testing.hearing import Ear
from dialog.testing.server import EmulatorSocket
from dialog.testing.tone import tone

if TYPE_CHECKING:
    from dialog.testing.openai_realtime import RealtimeEmulator
    from dialog.testing.s2s import RealtimeReply

__all__ = ["RealtimeSession", "TalkItem", "event", "failure"]

_LEAST_MS = 100
_PATIENCE_S = {"high": 0.3, "medium": 0.5, "auto": 0.5, "low": 0.8}
_DETECTORS: dict[str, set[str]] = {
    "server_vad": {"threshold", "prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms"},
    "semantic_vad": {"eagerness"},
}


def event(kind: str, **fields: Any) -> dict[str, Any]:
    """An event of the server's."""
    return {"type": kind, "event_id": f"event_{uuid4().hex[:12]}", **fields}


def failure(
    code: str, message: str, *, kind: str = "invalid_request_error", about: str | None = None
) -> dict[str, Any]:
    """An error event; ``about``: the client's event that is at fault."""
    return event("error", error={"type": kind, "code": code, "message": message, "param": None, "event_id": about})


class TalkItem:
    """An item of a session's conversation."""

    def __init__(self, kind: str, role: str = "", text: str = "", **fields: Any) -> None:
        self.id: str = fields.pop("id", "") or f"item_{uuid4().hex[:12]}"
        self.kind = kind
        """``message``, ``function_call`` or ``function_call_output``."""
        self.role = role
        self.text: str = text
        """Said, or the output of a tool; of a truncated reply what is left of it."""
        self.audio_ms: float = 0.0
        """How much audio of it was sent."""
        self.status: str = "completed"
        self.truncated_ms: float | None = None
        self.call: dict[str, Any] = fields

    def wire(self) -> dict[str, Any]:
        """As the protocol has it."""
        about: dict[str, Any] = {"id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status}
        if self.kind == "function_call_output":
            return {**about, **self.call, "output": self.text}
        if self.kind == "function_call":
            return {**about, **self.call}
        content: dict[str, Any] = {"type": "output_audio", "transcript": self.text}
        if self.role == "user":
            content = {"type": "input_audio", "transcript": None}
        begun = self.role == "user" or bool(self.text)
        return {**about, "role": self.role, "content": [content] if begun else []}


class _Response:
    def __init__(self) -> None:
        self.id = f"resp_{uuid4().hex[:12]}"
        self.output: list[TalkItem] = []
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        self.cancelled = ""


class RealtimeSession:
    """Events in, events out by the socket; the replies are made by tasks, one at a time."""

    formats: ClassVar[dict[str, AudioFormat]] = {
        "audio/pcmu": AudioFormat("mulaw", 8000),
        "audio/pcma": AudioFormat("alaw", 8000),
        "audio/pcm": AudioFormat("s16le", 24_000),
    }
    fields: ClassVar[frozenset[str]] = frozenset(
        {"type", "model", "output_modalities", "instructions", "audio", "tools", "tool_choice", "max_output_tokens"}
        | {"truncation", "tracing", "prompt", "include", "reasoning", "parallel_tool_calls"}
    )
    """Fields of a session."""

    def __init__(self, emulator: RealtimeEmulator, socket: EmulatorSocket, model: str) -> None:
        self.emulator = emulator
        self.id = f"sess_{uuid4().hex[:12]}"
        self.model = model
        self.instructions: str = ""
        self.tools: list[dict[str, Any]] = []
        self.items: list[TalkItem] = []
        self.voice = "alloy"
        self.input_format: dict[str, Any] = {"type": "audio/pcm", "rate": 24_000}
        self.output_format: dict[str, Any] = {"type": "audio/pcm", "rate": 24_000}
        self.transcription: dict[str, Any] | None = None
        self.detection: dict[str, Any] | None = self.first_detection
        self.configured = False
        self._socket = socket
        self._ear = Ear(emulator, "s16le", 24_000)
        self._item = ""
        self._committed_s = 0.0
        self._response: _Response | None = None

    # What a dialect tells differently.

    first_detection: ClassVar[dict[str, Any] | None] = {
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200,
        "create_response": True, "interrupt_response": True,
    }  # fmt: skip

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send(message)

    async def greet(self) -> None:
        """The first events."""
        await self._send(event("session.created", session=self.described()))

    def described(self) -> dict[str, Any]:
        """The session as events have it."""
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.id,
            "model": self.model,
            "output_modalities": ["audio"],
            "instructions": self.instructions,
            "tools": self.tools,
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": int(time.time() + self.emulator.session_s),
            "include": None,
            "audio": {
                "input": {
                    "format": self.input_format,
                    "transcription": self.transcription,
                    "noise_reduction": None,
                    "turn_detection": self.detection,
                },
                "output": {"format": self.output_format, "voice": self.voice, "speed": 1.0},
            },
        }

    def configure(self, session: dict[str, Any]) -> None:
        """Take in the settings."""
        if session.get("type") != "realtime":
            raise ValueError("missing_required_parameter: session.type")
        audio = session.get("audio", {})
        self._listen(audio.get("input", {}))
        output = audio.get("output", {})
        if "voice" in output and self.items and output["voice"] != self.voice:
            raise ValueError("cannot_update_voice: the voice cannot change after the first audio")
        self.voice = output.get("voice", self.voice)
        self.output_format = output.get("format", self.output_format)

    def _listen(self, given: dict[str, Any]) -> None:
        if given.get("format", self.input_format) != self.input_format:
            self.input_format = given["format"]
            heard = self.format_of(self.input_format)
            self._ear = Ear(self.emulator, heard.encoding, heard.sample_rate)
        self.transcription = given.get("transcription", self.transcription)
        self.detection = self.detector(given.get("turn_detection", self.detection))

    def detector(self, given: dict[str, Any] | None) -> dict[str, Any] | None:
        """A turn detection that is allowed; ``None``: turns are manual."""
        if given is not None:
            known = _DETECTORS.get(given["type"])
            if known is None or given.keys() - {"type", "create_response", "interrupt_response", *known}:
                raise ValueError(f"invalid_value: turn detection {given}")
        return given

    async def transcribed(self, item: TalkItem) -> None:
        """Tell what the caller said."""
        kind = "conversation.item.input_audio_transcription"
        if self.emulator.unintelligible > 0:
            self.emulator.unintelligible -= 1
            error = {
                "type": "transcription_error",
                "code": "audio_unintelligible",
                "message": "no words",
                "param": None,
            }
            await self._send(event(f"{kind}.failed", item_id=item.id, content_index=0, error=error))
            return
        for number, word in enumerate(item.text.split()):
            delta = word if not number else f" {word}"
            await self._send(event(f"{kind}.delta", item_id=item.id, content_index=0, delta=delta, obfuscation="x"))
        usage = {"type": "duration", "seconds": 2}
        done = event(f"{kind}.completed", item_id=item.id, content_index=0, transcript=item.text, usage=usage)
        await self._send(done)
        if self.emulator.tells_twice:
            await self._send(done)

    def ended(self, response: dict[str, Any], usage: dict[str, Any]) -> dict[str, Any]:
        """The event that ends a reply."""
        return event("response.done", response={**response, "usage": usage})

    # What the client says.

    async def receive(self, data: bytes | str) -> None:
        """Take in one message."""
        given: dict[str, Any] = {}
        try:
            given = msgspec.json.decode(data, type=dict[str, Any])
            await self._take(given if isinstance(data, str) else {"type": "binary"})
        except (ValueError, KeyError, TypeError) as exc:  # also what cannot be decoded
            self.emulator.violations.append(f"{given.get('type')}: {exc!r}")
            code, _, message = str(exc).partition(": ")
            await self._send(failure(code, message or code, about=given.get("event_id")))

    async def _take(self, given: dict[str, Any]) -> None:
        match given["type"]:
            case "session.update":
                session = given["session"]
                unknown = session.keys() - self.fields
                if unknown:
                    raise ValueError(f"unknown_parameter: session.{min(unknown)}")
                self.instructions = session.get("instructions", self.instructions)
                self.tools = session.get("tools", self.tools)
                if any("function" in tool or "name" not in tool for tool in self.tools):
                    raise ValueError("missing_required_parameter: tools.name")
                self.configure(session)
                self.configured = True
                await self._send(event("session.updated", session=self.described()))
            case "input_audio_buffer.append":
                if not self.configured:
                    self.emulator.violations.append("audio before the session was set up")
                for _ in self._ear.feed(b64decode(given["audio"], validate=True)):
                    await self._hear()
            case "input_audio_buffer.commit":
                if (self._ear.now_s - self._committed_s) * 1000 < _LEAST_MS:
                    message = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio"
                    await self._send(failure("input_audio_buffer_commit_empty", message, about=given.get("event_id")))
                else:
                    await self._commit()
            case "input_audio_buffer.clear":
                self._ear.end_turn()
                self._committed_s = self._ear.now_s
                await self._send(event("input_audio_buffer.cleared"))
            case "response.create":
                await self._create(given)
            case "response.cancel":
                await self._cancel(given)
            case _:
                await self.on_item(given)

    async def on_item(self, given: dict[str, Any]) -> None:
        """A message about an item of the conversation."""
        kind = given["type"]
        if kind == "conversation.item.create":
            await self._add(self._made(given["item"]))
            return
        found = next((item for item in self.items if item.id == given.get("item_id")), None)
        if kind == "conversation.item.truncate":
            await self._truncate(found, given)
        elif kind == "conversation.item.delete":
            if found is None:
                raise ValueError("item_delete_invalid_item_id: there is no such item")
            self.items.remove(found)
            await self._send(event("conversation.item.deleted", item_id=found.id))
        else:
            raise ValueError(f"invalid_value: an event of the type {kind!r}")

    def _made(self, item: dict[str, Any]) -> TalkItem:
        if item["type"] == "message":
            role, content = item["role"], item["content"]
            wanted = "output_text" if role == "assistant" else "input_text"
            if any(part["type"] != wanted for part in content):
                raise ValueError(f"invalid_value: content of {role} must be {wanted}")
            return TalkItem("message", role, "".join(part["text"] for part in content))
        if item["type"] == "function_call_output":
            if all(known.call.get("call_id") != item["call_id"] for known in self.items):
                raise ValueError("invalid_value: no function call with this id")
            return TalkItem("function_call_output", text=item["output"], call_id=item["call_id"])
        if item["type"] == "function_call":
            about = {name: item[name] for name in ("call_id", "name", "arguments")}
            return TalkItem("function_call", **about)
        raise ValueError(f"invalid_value: an item of the type {item['type']!r}")

    async def _add(self, item: TalkItem) -> None:
        previous = self.items[-1].id if self.items else None
        self.items.append(item)
        for kind in ("added", "done"):
            await self._send(event(f"conversation.item.{kind}", previous_item_id=previous, item=item.wire()))

    async def _truncate(self, item: TalkItem | None, given: dict[str, Any]) -> None:
        if item is None or item.role != "assistant":
            raise ValueError("item_truncate_invalid_item_id: there is no such item")
        end_ms = given["audio_end_ms"]
        if end_ms > item.audio_ms + 1:
            raise ValueError(
                f"invalid_value: Audio content of {item.audio_ms:.0f}ms is already shorter than {end_ms}ms"
            )
        keep = round(len(item.text) * end_ms / item.audio_ms) if item.audio_ms else 0
        item.text, item.truncated_ms = item.text[:keep], end_ms
        about = {"item_id": item.id, "content_index": 0, "audio_end_ms": end_ms}
        await self._send(event("conversation.item.truncated", **about))

    # The caller.

    async def _hear(self) -> None:
        ear, detection = self._ear, self.detection
        if not ear.in_turn or detection is None:
            return
        if not self._item:
            self._item = f"item_{uuid4().hex[:12]}"
            start_ms = max(0, round(ear.start_s * 1000) - detection.get("prefix_padding_ms", 300))
            await self.began(self._item, start_ms)
            if detection.get("interrupt_response", True):
                self._stop("turn_detected")
        semantic = detection["type"] == "semantic_vad"
        wait_s = (
            _PATIENCE_S[detection.get("eagerness", "auto")] if semantic else detection["silence_duration_ms"] / 1000
        )
        if not ear.speaking and ear.quiet_s >= wait_s:
            end_ms = round(ear.now_s * 1000)
            await self._send(event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=self._item))
            await self._commit()
            if detection.get("create_response", True):
                self._respond({})

    async def began(self, item: str, start_ms: int) -> None:
        """The caller began to speak."""
        await self._send(event("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=item))

    async def _commit(self) -> None:
        ear = self._ear
        ear.cut_short()
        item = TalkItem("message", "user", ear.text(), id=self._item)
        ear.end_turn()
        self._item, self._committed_s = "", ear.now_s
        previous = self.items[-1].id if self.items else None
        await self._send(event("input_audio_buffer.committed", previous_item_id=previous, item_id=item.id))
        await self.added_caller(item, previous)
        self._socket.start(self._transcribe(item), "transcription")

    async def added_caller(self, item: TalkItem, previous: str | None) -> None:
        """An utterance becomes an item."""
        self.items.append(item)
        for kind in ("added", "done"):
            await self._send(event(f"conversation.item.{kind}", previous_item_id=previous, item=item.wire()))

    async def _transcribe(self, item: TalkItem) -> None:
        if self.transcription is None:
            return
        await asyncio.sleep(self.emulator.transcribe_s)
        await self.transcribed(item)

    # Replies.

    async def _create(self, given: dict[str, Any]) -> None:
        if self._response is not None:
            message = "Conversation already has an active response in progress"
            code = "conversation_already_has_active_response"
            await self._send(failure(code, message, about=given.get("event_id")))
            return
        unanswered = {item.call["call_id"] for item in self.items if item.kind == "function_call"}
        unanswered -= {item.call["call_id"] for item in self.items if item.kind == "function_call_output"}
        if unanswered:
            self.emulator.violations.append(f"a response before the tools {sorted(unanswered)} were answered")
        self._respond(given.get("response", {}))

    async def _cancel(self, given: dict[str, Any]) -> None:
        response = self._response
        if response is None or given.get("response_id", response.id) != response.id:
            await self._send(self.not_active(given.get("event_id")))
            return
        self._stop("client_cancelled")

    def not_active(self, about: str | None) -> dict[str, Any]:
        """There is nothing to cancel."""
        message = "Cancellation failed: no active response found"
        return failure("response_cancel_not_active", message, about=about)

    def _stop(self, reason: str) -> None:
        response = self._response
        if response is not None and response.task is not None and not response.cancelled:
            response.cancelled = reason
            if response.begun:
                response.task.cancel()

    @staticmethod
    def _check(response: _Response) -> None:
        """Whether it was cancelled before it had begun."""
        if response.cancelled:
            raise asyncio.CancelledError

    def _respond(self, options: dict[str, Any]) -> None:
        self._response = response = _Response()
        response.task = self._socket.start(self._make(response, options), f"response {response.id}")

    async def _make(self, response: _Response, options: dict[str, Any]) -> None:
        reply = self.emulator.reply_to(self, options.get("instructions", ""))
        about: dict[str, Any] = {"object": "realtime.response", "id": response.id, "conversation_id": "conv_1"}
        about["metadata"] = options.get("metadata")
        status, details = "completed", None
        try:
            begun: dict[str, Any] = {"status": "in_progress", "status_details": None, "output": [], "usage": None}
            response.begun = True
            await self._send(event("response.created", response={**about, **begun}))
            self._check(response)
            if self.emulator.stalling > 0:
                self.emulator.stalling -= 1
                self.emulator.changed()
                await asyncio.Event().wait()
            if reply.fails:
                error = {"type": "server_error", "code": reply.fails, "message": "failed on purpose"}
                status, details = "failed", {"type": "failed", "error": error}
            else:
                await self._say(response, reply)
        except asyncio.CancelledError:
            if not response.cancelled:
                raise
            status, details = "cancelled", {"type": "cancelled", "reason": response.cancelled}
            for number, item in enumerate(response.output):
                if item.status == "in_progress":
                    item.status = "incomplete"
                    part = {"response_id": response.id, "output_index": number}
                    await self._send(event("response.output_item.done", **part, item=item.wire()))
        self._response = None
        output = [item.wire() for item in response.output]
        done = {**about, "status": status, "status_details": details, "output": output}
        await self._send(self.ended(done, self._usage(response)))

    async def _say(self, response: _Response, reply: RealtimeReply) -> None:
        about = {"response_id": response.id, "output_index": 0}
        if reply.text:
            item = TalkItem("message", "assistant")
            item.status = "in_progress"
            response.output.append(item)
            await self._send(event("response.output_item.added", **about, item=item.wire()))
            self.items.append(item)
            await self._send(event("conversation.item.added", previous_item_id=None, item=item.wire()))
            part = {**about, "item_id": item.id, "content_index": 0}
            await self._send(event("response.content_part.added", **part, part={"type": "audio", "transcript": ""}))
            await self.spoken(item, part, reply.text)
            item.status = "completed"
            done = {"type": "audio", "transcript": item.text}
            await self._send(event("response.content_part.done", **part, part=done))
            await self._send(event("conversation.item.done", previous_item_id=None, item=item.wire()))
            await self._send(event("response.output_item.done", **about, item=item.wire()))
        for number, tool in enumerate(reply.tools, bool(reply.text)):
            call_id = tool.id or f"call_{uuid4().hex[:12]}"
            item = TalkItem("function_call", name=tool.name, call_id=call_id, arguments="")
            item.status = "in_progress"
            response.output.append(item)
            about = {"response_id": response.id, "output_index": number}
            await self._send(event("response.output_item.added", **about, item=item.wire()))
            self.items.append(item)
            part = {**about, "item_id": item.id, "call_id": call_id}
            arguments = item.call["arguments"] = tool.text()
            for delta in self.pieces(arguments):
                await self._send(event("response.function_call_arguments.delta", **part, delta=delta))
            named = {"name": tool.name, "arguments": arguments}
            await self._send(event("response.function_call_arguments.done", **part, **named))
            item.status = "completed"
            await self._send(event("conversation.item.done", previous_item_id=None, item=item.wire()))
            await self._send(event("response.output_item.done", **about, item=item.wire()))

    def pieces(self, arguments: str) -> list[str]:
        """How the arguments of a tool come."""
        return [arguments[:1], arguments[1:]]

    async def spoken(self, item: TalkItem, part: dict[str, Any], text: str) -> None:
        """Send words and audio of a reply, much faster than they are heard."""
        emulator, heard = self.emulator, self.format_of(self.output_format)
        audio = tone(text, heard, ms_per_char=emulator.ms_per_char)
        step = heard.size(emulator.chunk_ms)
        words = text.split(" ")
        chunks = max(1, -(-len(audio) // step))
        said = 0
        for number in range(chunks):
            until = round(len(words) * (number + 1) / chunks)
            if until > said:
                delta = " ".join(words[said:until])
                delta = delta if not said else f" {delta}"
                item.text += delta
                said = until
                await self._send(event("response.output_audio_transcript.delta", **part, delta=delta, obfuscation="x"))
            data = audio[number * step : (number + 1) * step]
            item.audio_ms += heard.ms(len(data))
            await self._send(event("response.output_audio.delta", **part, delta=b64encode(data).decode()))
            await asyncio.sleep(emulator.chunk_s)
        await self._send(event("response.output_audio.done", **part))
        await self._send(event("response.output_audio_transcript.done", **part, transcript=text))

    def format_of(self, given: dict[str, Any]) -> AudioFormat:
        """The audio format of this name."""
        found = self.formats.get(given["type"])
        if found is None or ("rate" in given) is not (given["type"] == "audio/pcm"):
            raise ValueError(f"invalid_value: the format {given}")
        if found.encoding == "s16le" and given["rate"] != found.sample_rate:
            raise ValueError(f"invalid_value: the rate {given['rate']}")
        return found

    def _usage(self, response: _Response) -> dict[str, Any]:
        heard = sum(len(item.text.split()) for item in self.items)
        text = sum(len(item.text.split()) for item in response.output)
        audio = round(sum(item.audio_ms for item in response.output) / 50)
        into = {"text_tokens": heard, "audio_tokens": 20, "image_tokens": 0, "cached_tokens": 8}
        return {
            "total_tokens": heard + 20 + text + audio,
            "input_tokens": heard + 20,
            "output_tokens": text + audio,
            "input_token_details": {**into, "cached_tokens_details": {"text_tokens": 3, "audio_tokens": 5}},
            "output_token_details": {"text_tokens": text, "audio_tokens": audio},
        }
