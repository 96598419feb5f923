"""Which web pages may use the API: none unless they are named."""

from __future__ import annotations

from dialog.server.config import ApiSettings

__all__ = ["allowed_origin", "cors_headers", "preflight"]

Headers = tuple[tuple[str, str], ...]


def allowed_origin(settings: ApiSettings, origin: str) -> str:
    """The origin of a page that may; empty: it may not, or there is none."""
    return origin if origin and origin in settings.cors_origins else ""


def cors_headers(origin: str) -> Headers:
    """What every answer to such a page has."""
    if not origin:
        return ()
    return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))


def preflight(origin: str) -> Headers:
    """What the question before a request is answered with."""
    return (
        *cors_headers(origin),
        ("Access-Control-Allow-Methods", "GET, POST"),
        ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
        ("Access-Control-Max-Age", "600"),
    )
