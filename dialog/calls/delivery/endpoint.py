"""Where webhooks go, in which shape, and what of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct, field

from dialog.calls.delivery import plain, vapi
from dialog.calls.delivery.signature import sign_webhook
from dialog.calls.events import CALL_EVENTS
from dialog.calls.publish import Notice
from dialog.calls.report import SessionReport
from dialog.checks import check_several
from dialog.errors import ConfigurationError

__all__ = ["WebhookEndpoint"]

_Render = Callable[[Notice, SessionReport | None], Iterator[tuple[str, str, bytes]]]
_RENDER: Final[dict[str, _Render]] = {"plain": plain.plain_messages, "vapi": vapi.vapi_messages}
_TYPES: Final[dict[str, frozenset[str]]] = {
    "plain": frozenset({plain.TAKEN, *(str(cls.__struct_config__.tag) for cls in CALL_EVENTS)}),
    "vapi": vapi.TYPES,
}
_DEFAULTS: Final = {"plain": plain.DEFAULTS, "vapi": vapi.DEFAULTS}


class WebhookEndpoint(Struct, frozen=True, kw_only=True):
    """A receiver of webhooks.

    Raises:
        ConfigurationError: Something is missing, malformed, or unknown.
    """

    name: str
    """Its own among all, and the same tomorrow: what waits for it is kept under this name."""
    url: str
    secrets: tuple[str, ...] = ()
    """Messages are signed with each of them: two while one is being changed. ``whsec_`` + base64, or any text."""
    dialect: Literal["plain", "vapi"] = "plain"
    events: tuple[str, ...] = ()
    """Types of messages; ``*``: all of the dialect. Empty: the start, the end and the recording of a call, or as Vapi
    has it ``status-update`` and ``end-of-call-report``."""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """Sent with each message: ``{"X-Vapi-Secret": "…"}``, or a bearer token."""
    concurrency: int = 8
    """So many calls are told of at the same time."""
    timeout_s: float = 10.0
    """How long an answer may take."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"webhook {self.name!r}: url must be like https://hooks.example/calls")
        if not self.name or len(self.name) > 64:
            raise ConfigurationError("a webhook endpoint needs a name of 1 to 64 characters")
        check_several(f"webhook {self.name!r}: secrets", self.secrets)  # each letter would sign, and be guessed
        check_several(f"webhook {self.name!r}: events", self.events)
        given: Mapping[Any, Any] = self.headers
        for header, value in given.items():
            if not (isinstance(header, str) and isinstance(value, str) and header and (header + value).isprintable()):
                raise ConfigurationError(
                    f"webhook {self.name!r}: header {header!r} must be one line of text: strip what comes from a file"
                )
        if self.concurrency < 1 or self.timeout_s <= 0:
            raise ConfigurationError(f"webhook {self.name!r}: need concurrency >= 1 and timeout_s > 0")
        if self.dialect not in _RENDER:
            raise ConfigurationError(f"webhook {self.name!r}: no dialect {self.dialect!r}: there are plain and vapi")
        known = _TYPES[self.dialect] | {"*"}
        unknown = [each for each in self.events if each not in known]
        if unknown:
            raise ConfigurationError(
                f"webhook {self.name!r}: no message {unknown[0]!r}: there are {', '.join(sorted(known))}"
            )
        sign_webhook(self.secrets, "", 0, b"")

    def __repr__(self) -> str:
        return f"<WebhookEndpoint {self.name} {self.dialect}>"

    def render(self, notice: Notice, report: SessionReport | None) -> Iterator[tuple[str, str, bytes]]:
        """The messages of an event that this one wants: their ids, types and bodies."""
        wanted = self.events or _DEFAULTS[self.dialect]
        for message_id, kind, body in _RENDER[self.dialect](notice, report):
            if "*" in wanted or kind in wanted:
                yield message_id, kind, body
