"""What a tool of a server answers, as text for a model."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["MCPToolError", "text_of"]


class MCPToolError(Exception):
    """A tool of a server failed; the text is for the model."""


def text_of(result: Any) -> str:
    """The text of a ``CallToolResult``.

    Text is given as it is. Structured content is given as JSON, unless the text says the same; media that
    a model on the phone cannot be given are named.

    Raises:
        MCPToolError: The server says that it is an error.
    """
    parts = [part for block in result.content if (part := _block(block))]
    structured = result.structured_content
    if structured is not None and not _repeats(structured, parts):
        parts.append(msgspec.json.encode(structured).decode())
    text = "\n".join(parts)
    if result.is_error:
        raise MCPToolError(text or "the tool gives no reason")
    return text


def _block(block: Any) -> str:
    match block.type:
        case "text":
            return str(block.text)
        case "resource_link":
            return f"{block.title or block.name}: {block.uri}"
        case "resource":
            text = getattr(block.resource, "text", None)
            return str(text) if text is not None else f"[a file that cannot be shown: {block.resource.uri}]"
        case kind:
            return f"[{kind} that cannot be shown]"


def _repeats(structured: Any, parts: list[str]) -> bool:
    """Whether the text says what the structured content does: its JSON, or the one value that it wraps."""
    if len(parts) != 1:
        return False
    (text,) = parts
    try:
        said: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        said = text
    wrapped: Any = structured.get("result") if isinstance(structured, dict) and len(structured) == 1 else None  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return said == structured or (wrapped is not None and wrapped in (said, text))
