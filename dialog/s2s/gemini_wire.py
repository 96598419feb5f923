"""What the Gemini Live API says, as far as it is used, and how it is told of a conversation. Pure.

Every message of the service has one field that says its kind, and perhaps the usage beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dialog.llm.llm import Item, ToolCall, ToolResult, ToolSpec
from dialog.usage import Usage

__all__ = [
    "GoAway",
    "ServerContent",
    "ServerMessage",
    "SessionResumptionUpdate",
    "ToolCalls",
    "Transcription",
    "UsageMetadata",
    "contents_of",
    "decode",
    "text_turn",
    "tools_of",
]


class _Blob(Struct, rename="camel"):
    data: str = ""


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    inline_data: _Blob | None = None


class _Content(Struct, rename="camel"):
    parts: list[_Part] | None = None


class Transcription(Struct, rename="camel"):
    """The next words of somebody; which turn they belong to it does not say."""

    text: str | None = None
    finished: bool | None = None


class ServerContent(Struct, rename="camel"):
    """What the model makes of its turn, and what was heard of the caller."""

    model_turn: _Content | None = None
    input_transcription: Transcription | None = None
    output_transcription: Transcription | None = None
    generation_complete: bool | None = None
    turn_complete: bool | None = None
    interrupted: bool | None = None

    @property
    def audio(self) -> list[str]:
        """Audio, in base64. Thoughts are no part of it, and neither are texts: words are told as a transcription."""
        parts = (self.model_turn.parts if self.model_turn is not None else None) or []
        return [part.inline_data.data for part in parts if part.inline_data is not None and not part.thought]

    @property
    def words(self) -> str:
        """What the model says."""
        return (self.output_transcription.text if self.output_transcription is not None else None) or ""


class _FunctionCall(Struct, rename="camel"):
    id: str = ""
    name: str = ""
    args: dict[str, Any] | None = None

    @property
    def call(self) -> ToolCall:
        """As agents have it."""
        return ToolCall(id=self.id, name=self.name, arguments=msgspec.json.encode(self.args or {}).decode())


class ToolCalls(Struct, rename="camel"):
    """Tools that the model wants at once."""

    function_calls: list[_FunctionCall] | None = None

    @property
    def calls(self) -> list[ToolCall]:
        """As agents have them."""
        return [each.call for each in self.function_calls or ()]


class _Cancellation(Struct, rename="camel"):
    ids: list[str] | None = None


class SessionResumptionUpdate(Struct, rename="camel"):
    """How the session can be gone on with from here; there are points at which it cannot."""

    new_handle: str | None = None
    resumable: bool | None = None


class GoAway(Struct, rename="camel"):
    """The connection will be closed."""

    time_left: str | None = None

    @property
    def left_s(self) -> float:
        """In how many seconds; at once, if it does not say."""
        try:
            return max(0.0, float((self.time_left or "0s").removesuffix("s")))
        except ValueError:
            return 0.0


class _Count(Struct, rename="camel"):
    modality: str | None = None
    token_count: int | None = None


class UsageMetadata(Struct, rename="camel"):
    """Of one turn; what went in is the whole context, each time."""

    prompt_token_count: int | None = None
    cached_content_token_count: int | None = None
    response_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    thoughts_token_count: int | None = None
    prompt_tokens_details: list[_Count] | None = None
    cache_tokens_details: list[_Count] | None = None
    response_tokens_details: list[_Count] | None = None

    def usage(self, model: str) -> Usage:
        """In the units of all providers; thoughts are billed as what came out."""
        return Usage(
            model=model,
            input_tokens=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            cached_tokens=self.cached_content_token_count or 0,
            output_tokens=(self.response_token_count or 0) + (self.thoughts_token_count or 0),
            input_audio_tokens=_audio(self.prompt_tokens_details),
            cached_audio_tokens=_audio(self.cache_tokens_details),
            output_audio_tokens=_audio(self.response_tokens_details),
        )


def _audio(details: list[_Count] | None) -> int:
    return sum(each.token_count or 0 for each in details or () if each.modality == "AUDIO")


class ServerMessage(Struct, rename="camel"):
    """Any message of the service."""

    setup_complete: dict[str, Any] | None = None
    server_content: ServerContent | None = None
    tool_call: ToolCalls | None = None
    tool_call_cancellation: _Cancellation | None = None
    session_resumption_update: SessionResumptionUpdate | None = None
    go_away: GoAway | None = None
    usage_metadata: UsageMetadata | None = None


decode = msgspec.json.Decoder(ServerMessage).decode


def text_turn(text: str, role: str = "user") -> dict[str, Any]:
    """A turn of a conversation; it knows no roles but ``user`` and ``model``."""
    return {"role": role, "parts": [{"text": text}]}


def contents_of(items: Iterable[Item]) -> list[dict[str, Any]]:
    """A conversation, as the service can be told it: in texts.

    Calls of tools that it did not make in this session it does not take: what came of them is told as a note.
    """
    turns: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, ToolCall):
            continue
        if isinstance(item, ToolResult):
            turns.append(text_turn(f"({item.name} answered: {item.content})"))
        elif item.role == "assistant":
            turns.append(text_turn(f"{item.text} …" if item.interrupted else item.text, "model"))
        else:
            turns.append(text_turn(item.text))
    return turns


def tools_of(specs: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools, as the service has them. Newer models go on speaking while a tool runs unless they are told not to."""
    if not specs:
        return []
    declarations = [
        {
            "name": spec.name,
            "description": spec.description,
            "behavior": "BLOCKING",
            "parametersJsonSchema": msgspec.json.decode(spec.parameters),
        }
        for spec in specs
    ]
    return [{"functionDeclarations": declarations}]
