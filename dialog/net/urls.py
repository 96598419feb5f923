"""Provider addresses: one base URL, given as http(s) or ws(s), joined with a path and a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode, urlsplit

from dialog.errors import ConfigurationError

__all__ = ["http_url", "join", "query_string", "websocket_url"]

_WEBSOCKET = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_HTTP = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

Value = str | int | float | bool | None
QueryValue = Value | Iterable[Value]


def websocket_url(base_url: str) -> str:
    """``base_url`` as ``ws://`` or ``wss://``, without a trailing slash.

    Raises:
        ConfigurationError: It is no http(s) or ws(s) URL.
    """
    return _with_scheme(base_url, _WEBSOCKET)


def http_url(base_url: str) -> str:
    """``base_url`` as ``http://`` or ``https://``, without a trailing slash.

    Raises:
        ConfigurationError: It is no http(s) or ws(s) URL.
    """
    return _with_scheme(base_url, _HTTP)


def join(base_url: str, path: str, query: Mapping[str, QueryValue] | None = None) -> str:
    """``base_url`` with ``path`` appended to its own path and ``query`` to its own query."""
    parts = urlsplit(base_url)
    joined = parts.path.rstrip("/") + "/" + path.lstrip("/")
    text = "&".join(filter(None, (parts.query, query_string(query or {}))))
    return f"{parts.scheme}://{parts.netloc}{joined}" + (f"?{text}" if text else "")


def query_string(query: Mapping[str, QueryValue]) -> str:
    """Encode a query as providers want it: booleans in lower case, a list as a repeated key, no ``None``."""
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        values = (value,) if value is None or isinstance(value, str | int | float) else value
        pairs += [(name, _text(item)) for item in values if item is not None]
    return urlencode(pairs, quote_via=quote)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_scheme(base_url: str, schemes: Mapping[str, str]) -> str:
    try:
        parts = urlsplit(base_url)
    except ValueError:  # an address in brackets that is none
        parts = urlsplit("")
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ConfigurationError(f"a base URL begins with http://, https://, ws:// or wss://, got {base_url!r}")
    return f"{scheme}://{base_url.split('://', 1)[1]}".rstrip("/")
