"""What Azure's speech services share: the address of a resource, and the messages of their WebSockets (USP).

A message of USP is a frame with headers of its own. Text: lines of ``Name:Value``, an empty line, the body.
Binary: the length of the headers in two bytes, the headers, the payload. ``X-RequestId`` names the *turn* that a
message belongs to, ``Path`` its kind.

Source: Microsoft's description of the Speech WebSocket protocol, and what its Speech SDK 1.53 sends and takes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from msgspec import Struct

from dialog.errors import ConfigurationError

__all__ = ["DEFAULT_REGION", "TICKS_PER_MS", "USPMessage", "host", "parse_usp", "usp_head", "usp_text", "usp_time"]

DEFAULT_REGION = "westeurope"
TICKS_PER_MS = 10_000.0
"""Times are counted in units of 100 ns."""

_REGION = re.compile(r"[a-z][a-z0-9]{1,39}")
_END = "\r\n\r\n"


def host(region: str, service: str) -> str:
    """The address of a service (``stt``, ``tts``) in a region.

    Raises:
        ConfigurationError: A region's name looks different.
    """
    if not _REGION.fullmatch(region):
        raise ConfigurationError(f"an Azure region is written like westeurope or eastus2, got {region!r}")
    return f"https://{region}.{service}.speech.microsoft.com"


class USPMessage(Struct, frozen=True, kw_only=True):
    """A message that came."""

    path: str
    """Its kind, in lower case."""
    request_id: str
    headers: dict[str, str]
    """All of them, their names in lower case."""
    body: str | bytes


def parse_usp(data: str | bytes) -> USPMessage:
    """Read a frame.

    Raises:
        ValueError: It is no message of USP.
    """
    body: str | bytes
    if isinstance(data, str):
        head, found, body = data.partition(_END)
        if not found:
            raise ValueError("a text without headers")
    else:
        size = 2 + int.from_bytes(data[:2])
        if len(data) < max(size, 2):
            raise ValueError("a binary message that ends in its headers")
        head, body = data[2:size].decode(), data[size:]
    headers: dict[str, str] = {}
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    path = headers.get("path", "").lower()
    if not path:
        raise ValueError("a message without a path")
    return USPMessage(path=path, request_id=headers.get("x-requestid", "").lower(), headers=headers, body=body)


def usp_time() -> str:
    """Now, as the service wants it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def usp_text(path: str, body: str, *, request_id: str = "", content_type: str = "application/json") -> str:
    """A text message."""
    return _head(path, request_id, content_type, "") + "\r\n" + body


def usp_head(path: str, *, request_id: str, stream_id: str, content_type: str = "") -> bytes:
    """The beginning of a binary message; its payload follows."""
    head = _head(path, request_id, content_type, stream_id).encode()
    return len(head).to_bytes(2) + head


def _head(path: str, request_id: str, content_type: str, stream_id: str) -> str:
    headers = {
        "X-Timestamp": usp_time(),
        "Path": path,
        "Content-Type": content_type,
        "X-RequestId": request_id,
        "X-StreamId": stream_id,
    }
    return "".join(f"{name}:{value}\r\n" for name, value in headers.items() if value)
