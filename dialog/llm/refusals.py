"""What a refusal of a model's server means, in the shapes that OpenAI, Anthropic and those like them use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from dialog.errors import AuthenticationError, ProviderError
from dialog.net.retryafter import retry_after_s

__all__ = ["asked_wait_s", "error_from_response", "error_of", "fields_of"]

_TEXT_LIMIT = 300
"""Characters of a vendor's message that go into an error."""
_KEY_REFUSED = frozenset(("invalid_api_key", "authentication_error", "permission_error"))
_NOT_WORTH_RETRYING = frozenset(
    (
        "invalid_request_error",
        "invalid_prompt",
        "context_length_exceeded",
        "model_not_found",
        "not_found_error",
        "request_too_large",
    )
)


def error_from_response(provider: str, status: int, body: bytes, headers: Mapping[str, str]) -> ProviderError:
    """Return the error that a refused request stands for.

    401 and 403 are an :class:`AuthenticationError`, whose text leaves the vendor's message out
    because it repeats parts of the key. 408, 409, 429 and 5xx (Anthropic's 529 among them) are worth
    another try, except 429 ``insufficient_quota``: no waiting refills an account.
    """
    try:
        error: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = None
    error = fields_of(error).get("error") or error
    request_id = next((value for name, value in headers.items() if name.lower() in ("x-request-id", "request-id")), "")
    tail = f" (request {request_id})" if request_id else ""
    if status in (401, 403):
        word = _code(error)
        word = f" {word}" if word else ""
        return AuthenticationError(provider, f"the API key was refused with HTTP {status}{word}{tail}: check api_key")
    return error_of(provider, error, prefix=f"HTTP {status} ", status=status, tail=tail)


def error_of(provider: str, error: Any, *, prefix: str, status: int = 0, tail: str = "") -> ProviderError:
    """Return what a vendor's error object stands for; ``status`` is 0 for one in the stream."""
    code = _code(error)
    message = error if isinstance(error, str) else str(fields_of(error).get("message") or "")
    words = ": ".join(word for word in (code, message[:_TEXT_LIMIT].strip()) if word)
    if code == "insufficient_quota":
        return ProviderError(provider, f"{prefix}{words}{tail}: add credit to the account", retryable=False)
    if code in _KEY_REFUSED:
        return AuthenticationError(provider, f"{prefix}the API key was refused ({code}){tail}: check api_key")
    retryable = status in (408, 409, 429) or status >= 500 if status else code not in _NOT_WORTH_RETRYING
    return ProviderError(provider, f"{prefix}{words or 'without an explanation'}{tail}", retryable=retryable)


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server asks to wait; nonsense counts as no answer."""
    wait_ms = retry_after_s(headers.get("retry-after-ms", ""))
    return retry_after_s(headers.get("retry-after", "")) if wait_ms is None else wait_ms / 1000.0


def fields_of(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _code(error: Any) -> str:
    """Return the most telling word of an error in the vendor's shape."""
    for name in ("code", "type"):
        value = fields_of(error).get(name)
        if isinstance(value, str) and value:
            return value
    return ""
