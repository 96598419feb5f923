"""Messages of a provider that cannot be decoded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import msgspec

from dialog.errors import RemoteProtocolError

__all__ = ["UNDECODABLE", "malformed"]

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises: it is no JSON or no such message, not UTF-8, or nested so deeply that nobody means it."""


def malformed(
    provider: str, data: str | bytes, exc: Exception, known: Collection[str], tag: str = "type"
) -> RemoteProtocolError | None:
    """What is wrong with a message; ``None``: nothing, since types that nobody knows may look as they like.

    Args:
        provider: Its name.
        data: The message.
        exc: What the decoder said.
        known: Types of messages that we use.
        tag: The field that holds the type.
    """
    kind = ""
    if isinstance(exc, msgspec.ValidationError) and (fields := _decoded(data)) is not None:
        value = fields.get(tag) if isinstance(fields, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(value, str) or value not in known:
            return None
        kind = value
    # Where it stops to be JSON is different each time, and it is told once.
    what = f"a malformed {kind} message ({exc})" if kind else "a frame that is not JSON"
    error = RemoteProtocolError(f"{provider} sent {what}")
    error.__cause__ = exc
    return error


def _decoded(data: str | bytes) -> Any:
    """The message; ``None``: it is no JSON, which a decoder that stopped before its end has not seen."""
    try:
        return msgspec.json.decode(data)
    except UNDECODABLE:
        return None
