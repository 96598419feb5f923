"""What Deepgram's Voice Agent says, as far as it is used, and how it is told of tools and of what was said. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from dialog.llm.llm import Entry, Item, ToolCall, ToolResult, ToolSpec
from dialog.message import AudioFormat

__all__ = ["KNOWN", "Event", "Function", "decode", "format_of", "functions_of", "messages_of", "notes_of"]

_ENCODINGS = {"mulaw": "mulaw", "alaw": "alaw", "s16le": "linear16"}
_ROLES = ("user", "assistant")


class Function(Struct):
    """A tool that is wanted, or not any more."""

    id: str = ""
    name: str = ""
    arguments: str = "{}"
    client_side: bool = True


class Event(Struct):
    """Any message of the service: the union of the fields that matter."""

    type: str = ""
    role: str = ""
    content: str = ""
    functions: list[Function] = []
    code: str = ""
    description: str = ""
    message: str = ""

    @property
    def problem(self) -> str:
        """What an error or a warning says."""
        return f"{self.code or 'an error'}: {self.description[:200]}"


KNOWN = frozenset(
    {
        "Welcome", "SettingsApplied", "ConversationText", "UserStartedSpeaking", "AgentAudioDone",
        "FunctionCallRequest", "FunctionCallCancelled", "InjectionRefused", "Error", "Warning",
    }
)  # fmt: skip
"""The types that matter."""
decode = msgspec.json.Decoder(Event).decode


def format_of(audio_format: AudioFormat) -> dict[str, Any]:
    """An audio format, as the service calls it."""
    return {"encoding": _ENCODINGS[audio_format.encoding], "sample_rate": audio_format.sample_rate}


def functions_of(specs: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools; those without an endpoint are run by the client."""
    return [
        {"name": spec.name, "description": spec.description, "parameters": msgspec.json.decode(spec.parameters)}
        for spec in specs
    ]


def notes_of(items: Sequence[Item]) -> list[str]:
    """What nobody said: it goes into the prompt."""
    return [item.text for item in items if isinstance(item, Entry) and item.role not in _ROLES]


def messages_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    """A conversation; notes have no place in it, and a tool that has not answered neither."""
    results = {item.id: item.content for item in items if isinstance(item, ToolResult)}
    messages: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, ToolCall):
            if item.id in results:
                call = {"id": item.id, "name": item.name, "client_side": True, "arguments": item.arguments}
                messages.append({"type": "History", "function_calls": [{**call, "response": results[item.id]}]})
        elif isinstance(item, Entry) and item.role in _ROLES:
            text = f"{item.text} …" if item.interrupted else item.text
            messages.append({"type": "History", "role": item.role, "content": text})
    return messages
