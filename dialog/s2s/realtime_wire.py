"""What OpenAI's realtime protocol (general availability) says, as far as it is used. Others speak it, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from dialog.llm.llm import Item, ToolCall, ToolResult, ToolSpec
from dialog.stt.openai_wire import TRANSCRIPTION, Error
from dialog.usage import Usage

__all__ = ["KNOWN", "Event", "OutputItem", "Response", "Session", "WireUsage", "decode", "item_of", "tools_of"]


class Session(Struct):
    """The session, which ends at ``expires_at`` (seconds since 1970)."""

    expires_at: float | None = None
    model: str | None = None


class OutputItem(Struct):
    """A message of the model, or a tool that it wants."""

    id: str = ""
    type: str = ""
    status: str | None = None
    name: str = ""
    call_id: str = ""
    arguments: str | None = None


class _CachedDetails(Struct):
    audio_tokens: int | None = None


class _Details(Struct):
    audio_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: _CachedDetails | None = None


class WireUsage(Struct):
    """Of a response, or of a transcription."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_token_details: _Details | None = None
    output_token_details: _Details | None = None
    seconds: float | None = None
    output_audio_seconds: float | None = None
    billable_audio_seconds: float | None = None

    def usage(self, model: str) -> Usage:
        """In the units of all providers."""
        into, out = self.input_token_details or _Details(), self.output_token_details or _Details()
        return Usage(
            model=model,
            input_tokens=self.input_tokens or 0,
            cached_tokens=into.cached_tokens or 0,
            output_tokens=self.output_tokens or 0,
            input_audio_tokens=into.audio_tokens or 0,
            cached_audio_tokens=(into.cached_tokens_details or _CachedDetails()).audio_tokens or 0,
            output_audio_tokens=out.audio_tokens or 0,
            input_audio_s=self.seconds or 0.0,
            output_audio_s=self.output_audio_seconds or 0.0,
            session_s=self.billable_audio_seconds or 0.0,
        )


class _StatusDetails(Struct):
    type: str | None = None
    reason: str | None = None
    error: Error | None = None


class Response(Struct):
    """A reply."""

    id: str = ""
    status: str | None = None
    status_details: Any = None
    output: list[OutputItem] = []
    metadata: dict[str, Any] | None = None
    usage: WireUsage | None = None

    @property
    def failure(self) -> str:
        """Why it failed, as far as it says."""
        try:
            details = msgspec.convert(self.status_details, _StatusDetails)
        except msgspec.ValidationError:
            return str(self.status_details)[:200]  # not everybody gives an object
        return str(details.error or details.reason or "no reason given")


class Event(Struct):
    """Any message of the service: the union of the fields that matter, decoded in one pass."""

    type: str = ""
    event_id: str = ""
    item_id: str = ""
    response_id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str | None = None
    audio_start_ms: float = 0.0
    audio_end_ms: float = 0.0
    delta: str | None = None
    transcript: str | None = None
    status: str | None = None
    error: Error | None = None
    session: Session | None = None
    item: OutputItem | None = None
    response: Response | None = None
    usage: WireUsage | None = None


KNOWN = frozenset(
    {
        *(f"input_audio_buffer.{kind}" for kind in ("speech_started", "speech_stopped", "committed")),
        *(TRANSCRIPTION + kind for kind in ("delta", "updated", "completed", "failed")),
        *(f"response.{kind}" for kind in ("created", "output_item.added", "output_item.done", "done")),
        *(f"response.output_audio.{kind}" for kind in ("delta", "done")),
        "response.output_audio_transcript.delta", "response.function_call_arguments.done",
        "session.created", "session.updated", "error",
    }
)  # fmt: skip
"""The types that matter."""
decode = msgspec.json.Decoder(Event).decode


def item_of(item: Item) -> dict[str, Any]:
    """An item of a conversation, as the protocol has it; what a model said can only be told as text."""
    if isinstance(item, ToolCall):
        return {"type": "function_call", "call_id": item.id, "name": item.name, "arguments": item.arguments}
    if isinstance(item, ToolResult):
        return {"type": "function_call_output", "call_id": item.id, "output": item.content}
    role: Literal["user", "assistant", "system"] = "system" if item.role == "developer" else item.role
    text = item.text
    if item.interrupted:
        text = f"{text} …"  # it was cut short, and knows it from nowhere else
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def tools_of(specs: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools, as the protocol has them: flat."""
    return [
        {
            "type": "function",
            "name": spec.name,
            "description": spec.description,
            "parameters": msgspec.json.decode(spec.parameters),
        }
        for spec in specs
    ]
